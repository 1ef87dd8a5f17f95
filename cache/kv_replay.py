"""What an engine has kept of its KV events, asked for again.

An engine answers a request with all that it has kept, in one go, through a ROUTER socket, which drops what the asker's
queue has no room for: from a thousand batches on (ZMQ's usual limit) some may be missing anywhere, the mark of the end
among them. So what is missing is asked for once more.
Source: vllm/distributed/kv_events.py, ZmqEventPublisher._service_replay; seen with vLLM 0.32.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from coa.cache.kv_events import EventBatch, decode_batch
from coa.errors import CacheError

if TYPE_CHECKING:
    import zmq.asyncio

__all__ = ["replayed"]

_END = (-1).to_bytes(8, "big", signed=True)
_PAUSE_S = 0.5
"""Without a further batch, after which the end is taken for lost."""


async def replayed(address: str, start: int, *, timeout_s: float) -> list[tuple[int, EventBatch]]:
    """Batches from `start` on with their numbers, ascending and without a gap: those after the last one that the
    engine has not kept. Raises: CacheError when it does not answer within `timeout_s`.
    """
    import zmq
    import zmq.asyncio

    socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
    found: dict[int, EventBatch] = {}
    try:
        socket.set_hwm(0)
        socket.connect(address)
        ended = await _ask(socket, start, found, timeout_s)
        first = min(found, default=start)  # where older ones are not kept any more, it is not the one asked for
        while True:
            missing = next((number for number in range(first, max(found, default=start)) if number not in found), None)
            if missing is None and ended:
                return [(number, found[number]) for number in sorted(found) if number >= first]
            ended = await _ask(socket, max(found) + 1 if missing is None else missing, found, timeout_s)
            if missing is not None and missing not in found:  # it is not kept any more either
                first = min(number for number in found if number > missing)
    except TimeoutError as error:
        raise CacheError(f"{address} does not send KV events again.") from error
    finally:
        socket.close(linger=0)


async def _ask(socket: zmq.asyncio.Socket, start: int, found: dict[int, EventBatch], timeout_s: float) -> bool:
    """Adds what comes; whether the end did. Raises: TimeoutError when nothing does."""
    await socket.send_multipart([b"", start.to_bytes(8, "big")])
    answered = False
    while True:
        try:
            async with asyncio.timeout(_PAUSE_S if answered else timeout_s):
                frames = await socket.recv_multipart()
        except TimeoutError:
            if answered:
                return False
            raise
        if len(frames) < 2 or frames[-2] == _END:
            return True
        found[int.from_bytes(frames[-2], "big")] = decode_batch(frames[-1])
        answered = True
