"""Replies in Redis when Redis is absent, deaf, killed, flushed or full of other things: no call fails or waits."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import cast

import pytest

from coa.cache.responses import RedisResponses
from coa.errors import CacheError
from coa.llm.chat import Decoding
from coa.llm.response_cache import CachedModel
from coa.llm.response_store import ENTRY_OVERHEAD
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt
from coa.testing.redis_process import RedisProcess

pytestmark = pytest.mark.slow

PROMPT = Prompt(tail="Say it.")
GREEDY = Decoding(max_tokens=50)


@pytest.fixture
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


def cached(store: RedisResponses, told: list[str], now: list[float]) -> tuple[CachedModel, ScriptedModel]:
    scripted = ScriptedModel(respond=lambda *_: "A cat.")
    return CachedModel(scripted, store, "w", on_trouble=told.append, clock=lambda: now[0]), scripted


async def timed(model: CachedModel) -> tuple[bool, float]:
    """Whether the reply was given again, and in how many seconds."""
    started = time.perf_counter()
    completion = await model.complete(PROMPT, GREEDY)
    assert completion.text == "A cat."
    return completion.usage.reused, time.perf_counter() - started


async def test_a_server_that_is_not_there_costs_nothing_and_is_told_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    told: list[str] = []
    model, scripted = cached(RedisResponses(f"redis://127.0.0.1:{port}/0", 10_000), told, [0.0])
    outcomes = [await timed(model) for _ in range(5)]
    assert [reused for reused, _ in outcomes] == [False] * 5
    assert sum(seconds for _, seconds in outcomes) < 3, "redis-py would try for 4.5 s"
    assert len(scripted.calls) == 5
    assert len(told) == 1
    assert "Redis does not answer" in told[0]


async def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told: list[str] = []
        store = RedisResponses(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", 10_000)
        now = [0.0]
        model, _ = cached(store, told, now)
        seconds = sum([(await timed(model))[1] for _ in range(50)])
        assert told == [], "once may be a busy machine"
        now[0] = 10.0
        seconds += sum([(await timed(model))[1] for _ in range(50)])
        await store.close()
    assert seconds < 2, "two look-ups of 50 ms, not a hundred"
    assert told == ["replies are not kept: Redis did not answer in time."]


async def test_a_server_that_is_killed_and_comes_back_is_used_again(redis: RedisProcess) -> None:
    told: list[str] = []
    now = [0.0]
    store = RedisResponses(redis.url, 10_000, timeout_s=1.0)
    model, scripted = cached(store, told, now)
    assert [(await timed(model))[0] for _ in range(2)] == [False, True]
    redis.kill()
    assert [(await timed(model))[0] for _ in range(2)] == [False, False]
    redis.start()
    assert (await timed(model))[0] is False, "it is left alone for a while"
    now[0] = 100.0
    assert [(await timed(model))[0] for _ in range(2)] == [False, True]
    assert (len(told), len(scripted.calls)) == (1, 5)
    await store.close()


async def test_a_server_that_goes_deaf_is_left_alone(redis: RedisProcess) -> None:
    told: list[str] = []
    store = RedisResponses(redis.url, 10_000)
    now = [0.0]
    model, _ = cached(store, told, now)
    await store.put("0" * 64, b"warm", model="m")
    redis.pause()
    try:
        seconds = sum([(await timed(model))[1] for _ in range(50)])
        now[0] = 10.0
        seconds += sum([(await timed(model))[1] for _ in range(50)])
    finally:
        redis.go_on()
    assert seconds < 2, "two look-ups of 50 ms, not a hundred"
    assert told == ["replies are not kept: Redis did not answer in time."]
    now[0] = 100.0
    assert [(await timed(model))[0] for _ in range(2)] == [False, True], "it answers again"
    await store.close()


async def test_what_was_not_used_for_its_lifetime_is_gone_and_no_longer_counted(redis: RedisProcess) -> None:
    now = [1_000_000.0]
    store = RedisResponses(redis.url, 100_000, lifetime_s=1, timeout_s=1.0, clock=lambda: now[0])
    await store.put("a" * 64, b"old", model="m")
    time.sleep(1.1)  # noqa: ASYNC251 - Redis counts this time by itself
    now[0] += 2
    assert await store.get("a" * 64) is None
    assert (await store.stats()).total.entries == 0
    await store.put("b" * 64, b"new", model="m")
    assert (await store.stats()).total == (1, 3 + ENTRY_OVERHEAD, 0)
    assert await store.prune(0) == (1, 3 + ENTRY_OVERHEAD), "the old one was forgotten when the new one came"
    await store.close()


async def test_only_its_own_keys_are_touched_and_a_flush_is_survived(redis: RedisProcess) -> None:
    from coa.cache.connection import connect

    client = connect(redis.url, timeout_s=1.0)
    client.set("theirs", "1")
    store = RedisResponses(redis.url, 10_000, timeout_s=1.0)
    for n in range(20):
        await store.put(f"{n:064x}", b"x" * 800, model="m")
    keys = cast("list[bytes]", client.keys("*"))
    assert all(key == b"theirs" or key.startswith(b"coa:{responses}:") for key in keys)
    await store.prune(0)
    assert client.keys("*") == [b"theirs"]
    await store.put("a" * 64, b"one", model="m")
    client.flushall()
    assert await store.get("a" * 64) is None
    await store.put("a" * 64, b"two", model="m")
    assert await store.get("a" * 64) == b"two"
    assert (await store.stats()).total.entries == 1
    client.close()
    await store.close()


async def test_its_bookkeeping_heals_when_redis_has_dropped_some_of_it(redis: RedisProcess) -> None:
    """As with a maxmemory policy that takes any key."""
    from coa.cache.connection import connect

    client = connect(redis.url, timeout_s=1.0)
    for lost in ("used", "held", "bytes", "hits"):
        store = RedisResponses(redis.url, 10_000, timeout_s=1.0)
        for n in range(5):
            await store.put(f"{n:064x}", b"x" * 800, model="m")
        client.delete(f"coa:{{responses}}:1:{lost}")
        for n in range(5, 40):
            await store.put(f"{n:064x}", b"x" * 800, model="m")
            assert await store.get(f"{n:064x}") is not None
        assert (await store.stats()).total.bytes <= 20_000
        await store.prune(0)
        client.flushall()
        await store.close()
    client.close()


def test_a_bad_address_is_refused_at_once() -> None:
    with pytest.raises(CacheError, match="not an address"):
        RedisResponses("localhost:6379", 10_000)


async def test_the_place_that_is_shown_has_no_login(redis: RedisProcess) -> None:
    from coa.cache.responses import shown_address

    assert (
        shown_address("rediss://me:canary@example.test:6380/2?password=canary#canary") == "rediss://example.test:6380/2"
    )
    store = RedisResponses(redis.url, 10_000, timeout_s=1.0)
    assert "?" not in (await store.stats()).place
    await store.close()
