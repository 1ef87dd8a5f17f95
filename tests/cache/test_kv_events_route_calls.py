"""From an engine's events to the replica that a call is sent to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from coa.cache.blocks import root_hash
from coa.cache.engines.vllm import Vllm
from coa.cache.kv_cache import KvCache
from coa.cache.kv_feed import KvFeed
from coa.cache.kv_stats import KvStats
from coa.cache.redis_index import open_index
from coa.cache.served_engines import ServedEngine
from coa.cache.single_flight import FileFlight
from coa.cache.speeds import Speeds
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment
from coa.llm.prefixes import Measured
from coa.reading import Prompt
from tests.cache.kv_engine import PoolEngine
from tests.cache.kv_publisher import Publisher

LONG = Prompt(prefix="".join(f"[{n}] word{n}.\n" for n in range(200)), tail="Answer.")
OTHER = Prompt(prefix="".join(f"[{n}] thing{n}.\n" for n in range(200)), tail="Answer.")


def _tokens(body: Mapping[str, Any]) -> dict[str, Any]:
    text = "".join(str(message["content"]) for message in body["messages"])
    return {"tokens": [sum(ord(c) * 31**n for n, c in enumerate(word)) % 2**31 for word in text.split(" ")]}


@dataclass
class Replica:
    """A vLLM of which only the cache is real."""

    publisher: Publisher
    pool: PoolEngine
    served: ServedEngine
    started: str = "1.0"
    n_tokenized: int = 0

    async def run(self, prompt: Prompt) -> None:
        """Somebody else's call computes the prompt here."""
        self.pool.run(await self.served.adapter.prefix_tokens(prompt))
        await self.publisher.send([self.pool.step()])

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/tokenize":
            self.n_tokenized += 1
            return httpx.Response(200, json=_tokens(json.loads(request.content)))
        if request.url.path == "/metrics":
            config = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0'
            return httpx.Response(200, text=f"process_start_time_seconds {self.started}\n{config}\n")
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "reader"}]})
        if request.url.path == "/v1/completions":
            return httpx.Response(200, json={"usage": {"prompt_tokens_details": {"cached_tokens": 0}}})
        return httpx.Response(404)


async def _replica(stack: AsyncExitStack, folder: Path, name: str) -> Replica:
    publisher = await stack.enter_async_context(Publisher(folder, topic=f"kv@{name}"))
    source = publisher.source
    info = {"kv_events": source.events, "kv_replay": source.replay, "kv_topic": source.topic}
    deployment = Deployment(name, "hosted_vllm/reader", "vllm", "http://gpu:8000/v1", info=info)
    replica = Replica(publisher, PoolEngine(16, 1000), None)  # type: ignore[arg-type] # made in the next lines
    adapter = Vllm(deployment, transport=httpx.MockTransport(replica.answer))
    replica.served = ServedEngine(deployment, "readers", adapter, identity=lambda: root_hash("test"))
    return replica


def _folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[tuple[KvCache, Replica, Replica]]:
    async with AsyncExitStack() as stack:
        a, b = [await _replica(stack, _folder(tmp_path, name), name) for name in ("a", "b")]
        cache = KvCache(
            [a.served, b.served],
            index=open_index(None),
            stores={},
            flight=FileFlight(tmp_path),
            learned=Speeds(),
            stats=KvStats(tmp_path / "stats.db"),
        )
        assert await a.served.ready()
        assert await b.served.ready()
        yield cache, a, b
        await cache.close()


async def _chosen(cache: KvCache, prompt: Prompt) -> tuple[str | None, int]:
    """Where a call would go, and the hit that is expected there; nothing is booked afterwards."""
    booking = cache.reserve("readers", prompt, Decoding(max_tokens=5))
    assert booking is not None
    chosen = await booking.choose(["a", "b"])
    hit = 0 if booking._choice is None else booking._choice.hit_tokens
    await booking.done(None)
    return chosen, hit


async def _listening(feed: KvFeed, replica: Replica) -> None:
    """Subscriptions take a moment to arrive: batches are sent until one is taken in."""
    while not feed.n_batches:
        replica.pool.run([replica.pool.seq, *range(15)])
        await replica.publisher.send([replica.pool.step()])
        await asyncio.sleep(0.01)


async def _settled(feed: KvFeed, replica: Replica) -> None:
    """Waits until all that the replica sent is in the index."""
    async with asyncio.timeout(5):
        while feed._next != replica.pool.seq:  # noqa: ASYNC110 - a feed tells nobody how far it is
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)


async def test_a_call_goes_where_the_engine_says_that_its_prefix_is(
    replicas: tuple[KvCache, Replica, Replica],
) -> None:
    cache, *both = replicas
    aligned = len(await both[0].served.adapter.prefix_tokens(LONG)) // 64 * 64
    assert aligned >= 128
    for feed, replica in zip(cache._feeds, both, strict=True):
        await _listening(feed, replica)
        await replica.run(LONG)
        await _settled(feed, replica)
        assert await _chosen(cache, LONG) == (replica.served.id, aligned)
        assert (await _chosen(cache, OTHER))[1] == 0
        while replica.pool.pool:
            replica.pool.evict(next(iter(replica.pool.pool)))
        await replica.publisher.send([replica.pool.step()])
        await _settled(feed, replica)
        assert (await _chosen(cache, LONG))[1] == 0


async def test_one_calls_miss_does_not_overrule_the_engine(replicas: tuple[KvCache, Replica, Replica]) -> None:
    """A prefix that was on its way counted as a hit; the engine's own word on it came in meanwhile."""
    cache, a, _ = replicas
    tokens = await a.served.adapter.prefix_tokens(LONG)
    prefix = await a.served.prefix_of(LONG)
    assert prefix is not None
    await cache.index.held(a.served.replica, prefix.hashes[: len(tokens) // 64])
    for _ in range(3):
        booking = cache.reserve("readers", LONG, Decoding(max_tokens=5))
        assert booking is not None
        assert await booking.choose(["a", "b"]) == "a"
        await booking.seat("a")
        assert not (await booking.prepare("a")).body
        await booking.done(Measured(prompt_tokens=len(tokens), cached_tokens=0, completion_tokens=1))
    assert (await _chosen(cache, LONG))[1] == len(tokens) // 64 * 64


async def test_a_restart_is_another_epoch_of_the_replica(replicas: tuple[KvCache, Replica, Replica]) -> None:
    cache, a, _ = replicas
    before, feed = a.served.replica.epoch, cache._feeds[0]
    a.started = "2.0"
    feed._last_at, feed._next = 1.0, 1_000_000  # what it would have of a process that ran for long
    while a.served.replica.epoch == before:
        a.pool.run([a.pool.seq, *range(15)])
        await a.publisher.send([a.pool.step()])
        await asyncio.sleep(0.01)
    assert a.served.replica.epoch == "2.0"
    await a.run(LONG)
    await _settled(feed, a)
    chosen, hit = await _chosen(cache, LONG)
    assert (chosen, hit > 0) == ("a", True)


async def test_one_engine_of_a_group_is_asked_for_the_tokens_of_a_prompt(
    replicas: tuple[KvCache, Replica, Replica],
) -> None:
    cache, a, b = replicas
    prefix = await a.served.prefix_of(LONG)
    assert prefix is not None
    await cache.index.held(b.served.replica, prefix.hashes[:-1])
    booking = cache.reserve("readers", LONG, Decoding(max_tokens=5))
    assert booking is not None
    assert await booking.choose(["a", "b"]) == "b"
    await booking.seat("b")
    await booking.prepare("b")
    await booking.done(Measured(prompt_tokens=400, cached_tokens=384, completion_tokens=1))
    cache.upcoming("readers", [OTHER])
    async with asyncio.timeout(5):
        while cache._background:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)
    assert (a.n_tokenized > 2, b.n_tokenized) == (True, 0)


async def test_work_ahead_at_engines_without_slots_waits_for_one_that_has_nothing_to_do(
    replicas: tuple[KvCache, Replica, Replica],
) -> None:
    cache, *_ = replicas
    bookings = [cache.reserve("readers", prompt, Decoding(max_tokens=5)) for prompt in (LONG, OTHER)]
    assert cache.has_rest("readers")
    for booking, name in zip(bookings, "ab", strict=True):
        assert booking is not None
        await booking.choose([name])
        await booking.seat(name)
        await booking.prepare(name)
        assert not cache.has_rest("readers"), "no reply is being written"
    first, second = bookings
    assert first is not None
    assert second is not None
    first._writes_from -= 3600.0  # its reply is being written, as far as could be foreseen
    assert not cache.has_rest("readers"), "which would be slowed down"
    b = cache.engines.pop("b")
    assert cache.has_rest("readers"), "there is no other"
    cache.engines["b"] = b
    await second.done(None)
    assert cache.has_rest("readers"), "the other one has nothing to do"
    await first.done(None)
    assert cache.has_rest("readers")


async def test_what_was_computed_ahead_is_in_the_index_when_the_engine_says_so(
    replicas: tuple[KvCache, Replica, Replica],
) -> None:
    cache, a, _ = replicas
    assert await cache.prefill("readers", LONG) is not None
    assert (await _chosen(cache, LONG))[1] == 0
    await _listening(cache._feeds[0], a)
    await a.run(LONG)
    await _settled(cache._feeds[0], a)
    assert (await _chosen(cache, LONG))[1] > 0
