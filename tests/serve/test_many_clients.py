"""Fifty clients at once on one process: nobody gets another's answer, and the loop serves everybody all the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from coa.testing.fault_server import Faults, FaultServer

Serving = Callable[..., Any]
N_CLIENTS = 50
LONGEST_BLOCK_S = 0.1
QUESTION = "Who kept the lighthouse key in the blue jar?"


def _text(n: int) -> str:
    before = f"On day {n} the ferry crossed the sound with {n + 3} barrels of herring. " * 30
    return f"{before}\n\nKeeper Number{n} kept the lighthouse key in the blue jar.\n\n{before}"


class _Monitor:
    """The longest stretch of work that the loop's thread did in one go, in seconds of its own processor time.

    Other processes on the machine do not count; calls that wait (files, sockets, sleep) are blockbuster's to find.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._handle: asyncio.Handle | None = None

    def __enter__(self) -> _Monitor:
        loop = asyncio.get_running_loop()
        original = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            if asyncio.get_running_loop() is not loop:
                original(handle)
                return
            begun = time.thread_time()
            original(handle)
            self.longest_s = max(self.longest_s, time.thread_time() - begun)

        self._original = original
        asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.Handle._run = self._original  # type: ignore[method-assign]


@pytest.mark.slow
async def test_fifty_clients_get_their_own_answers_and_the_loop_is_never_blocked(
    serving: Serving, engine: FaultServer
) -> None:
    engine.faults = Faults(latency_s=0.02, jitter_s=0.03)
    async with serving(warm=True) as client:

        async def ask(n: int) -> str:
            document = (await client.post("/v1/documents", content=_text(n).encode())).json()["document"]
            reply = await client.post("/v1/runs", json={"document": document, "question": QUESTION})
            return str(reply.json()["answer"])

        await ask(0)  # imports and caches
        with _Monitor() as monitor, blockbuster_ctx("coa") as found:
            # The tracer of a test run with coverage has a lock of its own.
            found.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
            answers = await asyncio.gather(*(ask(n) for n in range(N_CLIENTS)))
    assert answers == [f"Keeper Number{n} kept the lighthouse key in the blue jar. [1]" for n in range(N_CLIENTS)]
    assert monitor.longest_s < LONGEST_BLOCK_S
