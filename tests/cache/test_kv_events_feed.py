"""An engine's events, followed over real ZMQ sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from coa.cache.blocks import prefix_blocks, root_hash
from coa.cache.index import Replica
from coa.cache.kv_blocks import EngineBlocks
from coa.cache.kv_feed import IndexSink, KvFeed, KvSource, binds, kv_source, reachable
from coa.errors import CacheError, ConfigError
from tests.cache.kv_engine import PoolEngine
from tests.cache.kv_publisher import Publisher

ROOT = root_hash("test")


class Told:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.index: set[bytes] = set()
        self.n_restarts = 0
        self.n_cleared = 0

    async def held(self, hashes: Sequence[bytes]) -> None:
        self.index |= set(hashes)

    async def dropped(self, hashes: Sequence[bytes] | None) -> None:
        self.n_cleared += hashes is None
        self.index = set() if hashes is None else self.index - set(hashes)

    async def restarted(self) -> None:
        self.n_restarts += 1


def _ours(*texts: Sequence[int]) -> set[bytes]:
    return {block.hash for text in texts for block in prefix_blocks(text, ROOT, block_tokens=4)}


def _feed(source: KvSource, told: Told, *, epoch: Callable[[], Awaitable[str]] | None = None, **more: float) -> KvFeed:
    blocks = EngineBlocks(ROOT, block_tokens=4)
    limits = {"retry_s": 0.02, "replay_timeout_s": 1.0, **more}
    return KvFeed(source, blocks, told, name="engine-a", epoch=epoch, **limits)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for knows of no event
            await asyncio.sleep(0.005)


@pytest.fixture
async def publisher(tmp_path: Path) -> AsyncIterator[Publisher]:
    async with Publisher(tmp_path) as made:
        yield made


@pytest.fixture
def engine() -> PoolEngine:
    return PoolEngine(block_size=2, n_blocks=100)


A, B, C = list(range(16)), list(range(100, 116)), list(range(200, 216))


async def _ran(engine: PoolEngine, text: list[int]) -> list[tuple[int, bytes] | None]:
    engine.run(text)
    return [engine.step()]


async def _listening(publisher: Publisher, feed: KvFeed, engine: PoolEngine) -> None:
    """Subscriptions take a moment to arrive: batches are sent until one is taken in."""
    before = feed.n_batches
    while feed.n_batches == before:
        await publisher.send(await _ran(engine, [10_000 + engine.seq, 1, 2, 3]))
        await asyncio.sleep(0.01)
    await _until(lambda: feed._next == engine.seq)


async def test_what_the_engine_held_before_and_holds_since_is_in_the_index(
    publisher: Publisher, engine: PoolEngine
) -> None:
    await publisher.send(await _ran(engine, A), lost=True)
    told = Told()
    feed = _feed(publisher.source, told)
    assert await feed.start(wait_s=5)
    assert told.index == _ours(A)
    await _listening(publisher, feed, engine)
    await publisher.send(await _ran(engine, B))
    await _until(lambda: _ours(A, B) <= told.index)
    engine.reset()
    await publisher.send([engine.step()])
    await _until(lambda: not told.index)
    await feed.close()


@pytest.mark.parametrize("topic_in_replay", [True, False], ids=["vLLM 0.32", "older releases, SGLang"])
async def test_batches_that_were_lost_are_asked_for_again(
    tmp_path: Path, engine: PoolEngine, *, topic_in_replay: bool
) -> None:
    told = Told()
    async with Publisher(tmp_path, topic_in_replay=topic_in_replay) as publisher:
        feed = _feed(publisher.source, told)
        await feed.start(wait_s=5)
        await _listening(publisher, feed, engine)
        missed = engine.seq
        await publisher.send(await _ran(engine, A), lost=True)
        engine.evict(next(iter(engine.pool)))
        await publisher.send([engine.step()], lost=True)
        await publisher.send(await _ran(engine, B))
        await _until(lambda: _ours(A, B) <= told.index)
        assert (publisher.replays, feed.n_gaps, feed.n_restarts) == ([0, missed - 1], 1, 0)
        assert told.index == feed.blocks.held
        await feed.close()


async def test_where_the_engine_has_not_kept_them_the_index_begins_anew(
    tmp_path: Path, engine: PoolEngine, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    async with Publisher(tmp_path, buffer=2) as publisher:
        feed = _feed(publisher.source, told)
        await feed.start(wait_s=5)
        await _listening(publisher, feed, engine)
        await publisher.send(await _ran(engine, A))
        await _until(lambda: _ours(A) <= told.index)
        while engine.pool:
            engine.evict(next(iter(engine.pool)))
        await publisher.send([engine.step()], lost=True)
        await publisher.send(await _ran(engine, B), lost=True)
        await publisher.send(await _ran(engine, C))
        await _until(lambda: told.index == _ours(B, C))
        assert "lost KV events" in caplog.text
        await feed.close()


async def test_without_a_replay_a_gap_leaves_nothing_that_may_be_wrong(
    publisher: Publisher, engine: PoolEngine
) -> None:
    told = Told()
    feed = _feed(KvSource(publisher.source.events, None, publisher.source.topic), told)
    assert await feed.start(wait_s=5)
    await _listening(publisher, feed, engine)
    await publisher.send(await _ran(engine, A))
    await _until(lambda: _ours(A) <= told.index)
    await publisher.send(await _ran(engine, B), lost=True)
    await publisher.send(await _ran(engine, C))
    await _until(lambda: told.index == _ours(C))
    await feed.close()


@pytest.mark.parametrize("before", [0, 1000], ids=["numbers go on with a gap", "numbers go back"])
async def test_numbers_that_do_not_fit_are_another_process(tmp_path: Path, engine: PoolEngine, before: int) -> None:
    told = Told()
    engine.seq = before
    async with Publisher(tmp_path) as publisher:
        feed = _feed(publisher.source, told)
        await feed.start(wait_s=5)
        await _listening(publisher, feed, engine)
        await publisher.send(await _ran(engine, A))
        await _until(lambda: _ours(A) <= told.index)
    async with publisher:
        seen = engine.seq - before
        engine.restart()
        await publisher.send(await _ran(engine, B), lost=True)
        for _ in range(seen + 5 if before == 0 else 0):
            await publisher.send(await _ran(engine, [50_000 + engine.seq, 1, 2, 3]), lost=True)
        await _listening(publisher, feed, engine)
        await _until(lambda: _ours(B) <= told.index)
        assert told.index == feed.blocks.held
        assert not _ours(A) & told.index
        assert (feed.n_restarts, told.n_restarts) == (1, 1)
        await feed.close()


async def test_a_process_that_goes_on_counting_is_known_by_its_epoch(tmp_path: Path, engine: PoolEngine) -> None:
    told, epochs = Told(), ["first"]

    async def epoch() -> str:
        if epochs[-1] == "none":
            raise CacheError("not now.")
        return epochs[-1]

    async with Publisher(tmp_path) as publisher:
        feed = _feed(publisher.source, told, epoch=epoch, silence_s=0.05)
        await feed.start(wait_s=5)
        await _listening(publisher, feed, engine)
        await publisher.send(await _ran(engine, A))
        await _until(lambda: _ours(A) <= told.index)
    epochs.append("none")
    async with publisher:
        seen = engine.seq
        engine.restart()
        for _ in range(seen):
            await publisher.send(await _ran(engine, [50_000 + engine.seq, 1, 2, 3]), lost=True)
        await asyncio.sleep(0.1)
        epochs.append("second")
        while not feed.n_restarts:
            await publisher.send(await _ran(engine, [60_000 + engine.seq, 1, 2, 3]))
            await asyncio.sleep(0.08)
        await publisher.send(await _ran(engine, B))
        await _until(lambda: _ours(B) <= told.index)
        assert not _ours(A) & told.index
        assert told.index == feed.blocks.held
        await feed.close()


async def test_a_batch_that_comes_twice_changes_nothing(publisher: Publisher, engine: PoolEngine) -> None:
    told = Told()
    feed = _feed(publisher.source, told)
    await feed.start(wait_s=5)
    await _listening(publisher, feed, engine)
    await publisher.send(await _ran(engine, A))
    await publisher.send(engine.sent[-3:])
    await publisher.send(await _ran(engine, B))
    await _until(lambda: _ours(A, B) <= told.index)
    assert (feed.n_restarts, feed.n_gaps, feed.n_batches) == (0, 0, engine.seq)
    await feed.close()


async def test_other_topics_of_the_address_are_not_ours(publisher: Publisher, engine: PoolEngine) -> None:
    told = Told()
    feed = _feed(publisher.source, told)
    await feed.start(wait_s=5)
    await _listening(publisher, feed, engine)
    other = PoolEngine(block_size=2, n_blocks=10, seq=engine.seq)
    other.run(C)
    number, payload = other.step() or (0, b"")
    await publisher.send_raw(b"kv@another", number.to_bytes(8, "big"), payload)
    await publisher.send_raw(b"kv@a", b"too short")
    await publisher.send(await _ran(engine, B))
    await _until(lambda: _ours(B) <= told.index)
    assert not _ours(C) & told.index
    await feed.close()


async def test_what_cannot_be_read_is_told_once_and_the_feed_goes_on(
    publisher: Publisher, engine: PoolEngine, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    feed = _feed(publisher.source, told)
    await feed.start(wait_s=5)
    await _listening(publisher, feed, engine)
    await publisher.send_raw(b"kv@a", engine.seq.to_bytes(8, "big"), b"\xc1")
    await _until(lambda: told.n_cleared >= 2)
    await publisher.send(await _ran(engine, B))
    await _until(lambda: _ours(B) <= told.index)
    assert [r.levelno for r in caplog.records].count(logging.WARNING) == 1
    await feed.close()


async def test_an_engine_that_does_not_answer_is_no_wait_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    feed = _feed(KvSource(f"ipc://{tmp_path}/nobody", f"ipc://{tmp_path}/nobody-either"), told, replay_timeout_s=0.05)
    assert not await feed.start(wait_s=0.3)
    assert not told.index
    assert caplog.text.count("not followed for now") == 1
    await feed.close()
    await feed.close()


async def test_an_address_with_a_star_is_bound(engine: PoolEngine) -> None:
    """An engine whose endpoint has none connects: two that connect to each other would hear nothing."""
    import zmq
    import zmq.asyncio

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = Told()
    feed = _feed(KvSource(f"tcp://*:{port}", None, "kv@a"), told)
    await feed.start(wait_s=5)
    pub = zmq.asyncio.Context.instance().socket(zmq.PUB)
    try:
        pub.connect(f"tcp://127.0.0.1:{port}")
        while not told.index:
            number, payload = (await _ran(engine, [engine.seq, 1, 2, 3]))[0] or (0, b"")
            await pub.send_multipart([b"kv@a", number.to_bytes(8, "big"), payload])
            await asyncio.sleep(0.01)
    finally:
        pub.close(linger=0)
        await feed.close()


async def test_an_index_is_told_for_the_replica_as_it_is_now() -> None:
    calls: list[tuple[str, str, object]] = []
    epoch = "1"

    class Index:
        async def held(self, replica: Replica, hashes: Sequence[bytes]) -> None:
            calls.append(("held", replica.epoch, list(hashes)))

        async def dropped(self, replica: Replica, hashes: Sequence[bytes] | None) -> None:
            calls.append(("dropped", replica.epoch, hashes))

    async def restart() -> None:
        nonlocal epoch
        epoch = "2"

    sink = IndexSink(Index(), lambda: Replica("a", epoch, "events", 1, 1.0, 1.0, 1.0), restart)  # type: ignore[arg-type] # two of its methods
    await sink.held([b"x"])
    await sink.restarted()
    await sink.dropped(None)
    many = [b"%d" % n for n in range(1200)]
    await sink.dropped(many)
    assert calls[:2] == [("held", "1", [b"x"]), ("dropped", "2", None)]
    sizes = [len(told) for _, _, told in calls[2:] if isinstance(told, list)]
    assert sizes == [500, 500, 200], "Redis answers calls meanwhile"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, None),
        ({"kv_replay": "tcp://host:5558"}, None),
        ({"kv_events": "tcp://host:5557"}, KvSource("tcp://host:5557")),
        (
            {"kv_events": "ipc:///a", "kv_replay": "ipc:///b", "kv_topic": "kv@a"},
            KvSource("ipc:///a", "ipc:///b", "kv@a"),
        ),
    ],
)
def test_a_deployment_says_where_its_events_are(info: dict[str, object], expected: KvSource | None) -> None:
    assert kv_source(info, "d") == expected


@pytest.mark.parametrize(
    "info",
    [{"kv_events": "host:5557"}, {"kv_events": 5557}, {"kv_events": "tcp://h:1", "kv_replay": "tcp://*:2"}],
)
def test_what_is_no_address_is_refused(info: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^d: "):
        kv_source(info, "d")


@pytest.mark.parametrize(
    ("endpoint", "bound", "from_here"),
    [
        ("tcp://*:5557", True, "tcp://gpu1:5557"),
        ("tcp://[::]:5557", True, "tcp://gpu1:5557"),
        ("tcp://10.0.0.7:5557", False, "tcp://10.0.0.7:5557"),
        ("ipc:///run/a.kv", True, "ipc:///run/a.kv"),
        ("ipc://a.kv", True, None),
        ("inproc://a", True, None),
    ],
)
def test_an_engines_endpoint_as_it_is_reached_from_here(endpoint: str, from_here: str | None, *, bound: bool) -> None:
    assert binds(endpoint) is bound
    assert reachable(endpoint, "http://gpu1:8000") == from_here
