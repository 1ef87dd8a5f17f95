"""Follows an engine's KV events over ZMQ, so that the index says what the engine holds.

An engine publishes batches numbered from 0 of its process, and keeps the last ones (10,000 by default) to send again:

    SUB     topic, number (8 bytes, big-endian), batch
    DEALER  to its replay endpoint: "", first number wanted; back come "", [topic,] number, batch, … and -1 at the end

A gap in the numbers is asked for again; what the engine has not kept any more is forgotten here too, since a removal
may have been among it. A number that goes back with a later time is another process, and so is one whose batch of the
last known number has another time. One that was restarted while nobody listened could go on just where the old one had
stopped, so after each silence the epoch is looked at as well.

Who binds: an engine binds where its endpoint has a "*" or "::", or is ipc://, and connects elsewhere. Two that connect
to each other hear nothing and say nothing, so the same rule counts here: an address with a "*" is bound.
Source: vllm/distributed/kv_events.py, ZmqEventPublisher.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit

from coa.cache.index import PrefixIndex, Replica
from coa.cache.kv_blocks import EngineBlocks
from coa.cache.kv_events import EventBatch, decode_batch
from coa.cache.kv_replay import replayed
from coa.errors import CacheError, ConfigError

if TYPE_CHECKING:
    import zmq.asyncio

__all__ = ["IndexSink", "KvFeed", "KvSink", "KvSource", "TellsEvents", "binds", "kv_source", "reachable", "zmq_is_here"]

_log = logging.getLogger(__name__)

_REPLAY_TIMEOUT_S = 5.0
# An engine takes longer than this to start again.
_SILENCE_S = 2.0
_RETRY_S = 5.0
_MOST_AT_ONCE = 256
_HWM = 100_000
# A script that takes in more would keep Redis from answering calls meanwhile.
_HASHES_AT_ONCE = 500


class KvSink(Protocol):
    """Who is told. No method raises."""

    async def held(self, hashes: Sequence[bytes]) -> None:
        """The engine holds these now."""
        ...

    async def dropped(self, hashes: Sequence[bytes] | None) -> None:
        """It does not hold these any more; None: nothing at all."""
        ...

    async def restarted(self) -> None:
        """It is another process now: all that was said belongs to an epoch that is over."""
        ...


class IndexSink:
    """Tells a prefix index."""

    def __init__(
        self, index: PrefixIndex, replica: Callable[[], Replica], on_restart: Callable[[], Awaitable[object]]
    ) -> None:
        """`replica` as it is now; `on_restart` finds out its new epoch."""
        self._index = index
        self._replica = replica
        self._on_restart = on_restart

    async def held(self, hashes: Sequence[bytes]) -> None:
        """See `KvSink`."""
        for start in range(0, len(hashes), _HASHES_AT_ONCE):
            await self._index.held(self._replica(), hashes[start : start + _HASHES_AT_ONCE])

    async def dropped(self, hashes: Sequence[bytes] | None) -> None:
        """See `KvSink`."""
        if hashes is None:
            await self._index.dropped(self._replica(), None)
            return
        for start in range(0, len(hashes), _HASHES_AT_ONCE):
            await self._index.dropped(self._replica(), hashes[start : start + _HASHES_AT_ONCE])

    async def restarted(self) -> None:
        """See `KvSink`."""
        await self._on_restart()


@dataclass(frozen=True, slots=True)
class KvSource:
    """Where an engine's events are to be had."""

    events: str
    """A ZMQ address to connect to; one with a "*" is bound."""
    replay: str | None = None
    """A ZMQ address that sends batches again."""
    topic: str = ""
    """Of this engine, where several share an address; empty takes every topic."""


@runtime_checkable
class TellsEvents(Protocol):
    """An adapter whose engine may publish what it holds."""

    def feed(self, root: bytes, sink: KvSink) -> KvFeed | None:
        """A feed, not yet started, for chains that begin at `root`; None where there are no events. After `open`."""
        ...


def kv_source(info: Mapping[str, object], where: str) -> KvSource | None:
    """As a deployment's model_info says (`kv_events`, `kv_replay`, `kv_topic`); None where it says nothing.

    Raises: ConfigError for what is no ZMQ address.
    """
    given = {key: info.get(key) for key in ("kv_events", "kv_replay", "kv_topic")}
    for key, value in given.items():
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{where}: {key} has to be a text, not {value!r}.")
    events, replay, topic = (str(value) if value else None for value in given.values())
    for address in (events, replay):
        if address is not None and not address.startswith(("tcp://", "ipc://", "inproc://")):
            raise ConfigError(f"{where}: {address!r} is no ZMQ address.", hint="It looks like tcp://host:5557.")
    if replay is not None and "*" in replay:
        raise ConfigError(f"{where}: kv_replay is an address to connect to, not {replay!r}.")
    return KvSource(events, replay, topic or "") if events is not None else None


def binds(address: str) -> bool:
    """Whether an engine with this endpoint binds it."""
    return "*" in address or "::" in address or address.startswith(("ipc://", "inproc://"))


def reachable(address: str, root_url: str) -> str | None:
    """How an endpoint that an engine at `root_url` binds is reached from here; None where it cannot be."""
    if address.startswith("tcp://"):
        port = address.rpartition(":")[2]
        host = urlsplit(root_url).hostname or ""
        bound = address.removeprefix("tcp://").rpartition(":")[0]
        if bound not in ("*", "0.0.0.0", "[::]", "::"):  # noqa: S104 - compared, not bound
            host = bound
        return f"tcp://{host}:{port}" if host and port.isdecimal() else None
    # A relative path is one of the engine's working folder.
    return address if address.startswith("ipc:///") else None


def zmq_is_here() -> bool:
    """Whether the extra `vllm` is installed."""
    try:
        import msgspec  # noqa: F401
        import zmq.asyncio  # noqa: F401
    except ImportError:
        return False
    return True


class KvFeed:
    """One engine's events, taken in by a task of the event loop on which it was started.

    What goes wrong is told once in the log, and tried again; meanwhile the index is as it was.
    """

    def __init__(
        self,
        source: KvSource,
        blocks: EngineBlocks,
        sink: KvSink,
        *,
        name: str,
        epoch: Callable[[], Awaitable[str]] | None = None,
        silence_s: float = _SILENCE_S,
        retry_s: float = _RETRY_S,
        replay_timeout_s: float = _REPLAY_TIMEOUT_S,
    ) -> None:
        """`epoch` changes when the engine was restarted, and may raise `CacheError`."""
        self.source = source
        self.blocks = blocks
        self.n_batches = 0
        """Taken in so far."""
        self.n_gaps = 0
        self.n_restarts = 0
        self._sink = sink
        self._name = name
        self._ask_epoch = epoch
        self._silence_s = silence_s
        self._retry_s = retry_s
        self._replay_timeout_s = replay_timeout_s
        self._epoch: str | None = None
        self._next: int | None = None
        self._last_at = 0.0
        self._heard = 0.0
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    async def start(self, *, wait_s: float = 1.0) -> bool:
        """Begins to listen; True when what the engine kept has been taken in, which is waited for `wait_s` seconds."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"kv-events {self._name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._synced.wait()
        return self._synced.is_set()

    async def close(self) -> None:
        """Stops listening; may be called again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        import zmq

        while True:
            try:
                async with self._subscribed() as socket:
                    await self._begin()
                    self._failed = False
                    while True:
                        await self._follow(socket)
            except (CacheError, zmq.ZMQError) as error:
                if not self._failed:
                    _log.warning("KV events of %s are not followed for now: %s", self._name, error)
                self._failed = True
                self._synced.clear()
                await self._forget()
            await asyncio.sleep(self._retry_s)

    @contextlib.asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[zmq.asyncio.Socket]:
        import zmq
        import zmq.asyncio

        socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
        try:
            socket.set_hwm(_HWM)
            socket.setsockopt(zmq.SUBSCRIBE, self.source.topic.encode())
            if "*" in self.source.events:
                socket.bind(self.source.events)
            else:
                socket.connect(self.source.events)
            yield socket
        finally:
            socket.close(linger=0)

    async def _begin(self) -> None:
        """Takes in all that the engine has kept."""
        self._epoch = await self._known_epoch()
        self.blocks.clear()
        self.blocks.take()
        kept = await self._replayed(0)
        if kept:
            # Older batches are lost. What others said of them may well be true, so it stays.
            whole = kept[0][0] == 0
            self._apply(kept)
            change = self.blocks.take()
            if whole:
                await self._sink.dropped(None)
            if change.held:
                await self._sink.held(change.held)
        self._heard = asyncio.get_running_loop().time()
        self._synced.set()

    async def _forget(self) -> None:
        self.blocks.clear()
        self.blocks.take()
        self._next = None
        await self._sink.dropped(None)

    async def _follow(self, socket: zmq.asyncio.Socket) -> None:
        """Waits for a batch and takes it in, together with those that have come meanwhile."""
        import zmq

        frames = await socket.recv_multipart()
        for _ in range(_MOST_AT_ONCE):
            await self._receive(frames)
            try:
                frames = await socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
        else:
            await self._receive(frames)
        await self._tell()

    async def _tell(self) -> None:
        change = self.blocks.take()
        if change.cleared:
            await self._sink.dropped(None)
        elif change.dropped:
            await self._sink.dropped(change.dropped)
        if change.held:
            await self._sink.held(change.held)

    async def _receive(self, frames: Sequence[bytes]) -> None:
        if len(frames) != 3 or (self.source.topic and frames[0] != self.source.topic.encode()):
            return  # a subscription is by the topic's beginning
        number, batch = int.from_bytes(frames[1], "big"), decode_batch(frames[2])
        now = asyncio.get_running_loop().time()
        silent, self._heard = now - self._heard > self._silence_s, now
        expected = self._next
        if expected is not None and number < expected:
            if batch.at > self._last_at:
                await self._restart()
            return  # else it was among those that were sent again
        gap = expected is not None and number > expected
        if (gap or silent) and await self._is_another():
            await self._restart()
            return
        if gap and expected is not None:
            await self._fill(expected, number)
            if self._next is not None and number < self._next:
                return
        self._apply([(number, batch)])

    def _apply(self, batches: Sequence[tuple[int, EventBatch]]) -> None:
        for number, batch in batches:
            if self._next is not None and number < self._next:
                continue
            self.blocks.apply(batch.events)
            self._next, self._last_at = number + 1, batch.at
            self.n_batches += 1

    async def _fill(self, expected: int, number: int) -> None:
        """Takes in what was missed before `number`; where that is lost, all that the engine has kept."""
        self.n_gaps += 1
        # The last one that was taken in comes along: another process has another one of that number.
        missed = await self._replayed(max(0, expected - 1))
        if missed and missed[0][0] == expected - 1 and missed[0][1].at != self._last_at:
            await self._restart()
            return
        if not missed or missed[0][0] > expected:
            _log.warning("%s lost KV events %d to %d: its index begins anew.", self._name, expected, number - 1)
            self.blocks.clear()
            self._next = None
            missed = await self._replayed(0)
        self._apply(missed)

    async def _restart(self) -> None:
        _log.info("%s was restarted.", self._name)
        self.n_restarts += 1
        self.blocks.clear()
        self.blocks.take()
        self._next, self._last_at = None, 0.0
        await self._sink.restarted()
        await self._begin()

    async def _is_another(self) -> bool:
        epoch = await self._known_epoch()
        before, self._epoch = self._epoch, epoch or self._epoch
        return epoch is not None and before is not None and epoch != before

    async def _known_epoch(self) -> str | None:
        if self._ask_epoch is None:
            return None
        try:
            return await self._ask_epoch()
        except CacheError:
            return None

    async def _replayed(self, start: int) -> list[tuple[int, EventBatch]]:
        """Batches from `start` on, as far as they were kept without a gap; none where there is no replay endpoint.

        Raises: CacheError when it does not answer.
        """
        if self.source.replay is None:
            return []
        return await replayed(self.source.replay, start, timeout_s=self._replay_timeout_s)
