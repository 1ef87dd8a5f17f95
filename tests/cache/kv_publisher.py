"""A publisher of KV events as vLLM's is one: PUB and ROUTER sockets, numbers from 0, a buffer of the last batches."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import zmq
import zmq.asyncio

from coa.cache.kv_feed import KvSource

_END = (-1).to_bytes(8, "big", signed=True)


class Publisher:
    """A context manager; stopped and started again it is another process at the same addresses."""

    def __init__(self, folder: Path, *, topic: str = "kv@a", buffer: int = 1000, topic_in_replay: bool = True) -> None:
        self.source = KvSource(f"ipc://{folder}/events", f"ipc://{folder}/replay", topic)
        self.replays: list[int] = []
        """First numbers that were asked for."""
        self.loses: Callable[[int, int | None], bool] = lambda first, number: False
        """What of the answer to a request gets lost; None is the mark of its end."""
        self._topic = topic.encode()
        self._topic_in_replay = topic_in_replay
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=buffer)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Publisher:
        context = zmq.asyncio.Context.instance()
        self._pub, self._router = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        self._pub.bind(self.source.events)
        self._router.bind(str(self.source.replay))
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._pub.close(linger=0)
        self._router.close(linger=0)
        self._kept.clear()

    def forget(self, number: int) -> None:
        """What the buffer has no place for any more."""
        self._kept = deque((kept for kept in self._kept if kept[0] != number), maxlen=self._kept.maxlen)

    async def send(self, messages: Iterable[tuple[int, bytes] | None], *, lost: bool = False) -> None:
        """Publishes batches; `lost` ones reach nobody, and are only kept."""
        for message in messages:
            if message is None:
                continue
            number, payload = message
            self._kept.append(message)
            if not lost:
                await self._pub.send_multipart([self._topic, number.to_bytes(8, "big"), payload])

    async def send_raw(self, *frames: bytes) -> None:
        """Publishes what is no batch of ours."""
        await self._pub.send_multipart(list(frames))

    async def _serve(self) -> None:
        while True:
            client, _, wanted = await self._router.recv_multipart()
            first = int.from_bytes(wanted, "big")
            self.replays.append(first)
            topic = [self._topic] if self._topic_in_replay else []
            for number, payload in list(self._kept):
                if number >= first and not self.loses(first, number):
                    await self._router.send_multipart([client, b"", *topic, number.to_bytes(8, "big"), payload])
            if not self.loses(first, None):
                await self._router.send_multipart([client, b"", *([b""] if topic else []), _END, b""])
