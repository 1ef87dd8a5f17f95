"""What a dead, deaf or emptied Redis changes of the prefix index: no answer, and little time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest
import pytest_asyncio

from coa.cache.breaker import Breaker
from coa.cache.connection import connect
from coa.cache.index import Choice, Replica, Wanted
from coa.cache.redis_index import RedisIndex
from coa.cache.redis_links import RedisLink
from coa.testing.redis_process import RedisProcess, redis_servers

pytestmark = pytest.mark.skipif(not redis_servers(), reason="no redis-server on this machine")

REPLICAS = [Replica(f"r{i}", "1", "owned", 2, 1000.0, 50.0, 0.9) for i in range(3)]


@pytest.fixture
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest_asyncio.fixture
async def index(redis: RedisProcess) -> AsyncIterator[RedisIndex]:
    made = an_index(redis)
    yield made
    await made.close()


def an_index(redis: RedisProcess) -> RedisIndex:
    return RedisIndex(RedisLink(connect(redis.url), breaker=Breaker(retry_s=0.05)))


def chain(name: str, n: int) -> tuple[bytes, ...]:
    hashes: list[bytes] = []
    for i in range(n):
        before = hashes[-1] if hashes else b""
        hashes.append(blake2b(before + f"{name}{i}".encode(), digest_size=16).digest())
    return tuple(hashes)


def wanted(request: str, hashes: Sequence[bytes]) -> Wanted:
    return Wanted(request, tuple(hashes), tuple(64 * (i + 1) for i in range(len(hashes))), 64 * len(hashes) + 50, 20)


async def chosen(index: RedisIndex, request: str, hashes: Sequence[bytes]) -> Choice:
    choice = await index.reserve(wanted(request, hashes), REPLICAS)
    assert choice is not None
    return choice


async def shared_again(index: RedisIndex) -> None:
    for i in range(200):
        choice = await chosen(index, f"again{i}", chain("again", 1))
        for replica in REPLICAS:
            await index.release(f"again{i}", replica)
        if choice.shared:
            await index.flushed()
            return
        await asyncio.sleep(0.01)
    raise AssertionError("Redis is not used again")


async def timed(call: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await call
    return time.perf_counter() - started


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_an_outage_costs_little_then_nothing_and_the_mirror_is_warm(
    redis: RedisProcess, index: RedisIndex, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level(logging.WARNING)
    hashes = chain("a", 20)
    await shared_again(index)
    await index.held(REPLICAS[1], hashes)
    await index.flushed()
    (redis.kill if how == "killed" else redis.pause)()
    lost = [await timed(chosen(index, f"q{i}", hashes)) for i in range(4)]
    assert max(lost) < 0.5, "50 ms, and what a busy machine adds (exact figures: `make bench`)"
    choice = await chosen(index, "q", hashes)
    assert (choice.replica, choice.hit_tokens, choice.shared) == ("r1", 20 * 64, False)
    after = [await timed(chosen(index, f"x{i}", hashes)) for i in range(50)]
    assert statistics.median(after) < 0.02
    assert len(caplog.records) == 1, "an outage is told once"
    (redis.start if how == "killed" else redis.go_on)()
    await shared_again(index)
    assert [record.message.split(":")[0] for record in caplog.records][1:] == ["Redis answers again"]
    await shared_again(index)
    other = an_index(redis)
    assert (await other.contents(REPLICAS[1])).blocks == 20, "what it lost is told again"
    await other.close()


async def test_all_steps_of_a_call_together_wait_no_longer_than_one(redis: RedisProcess) -> None:
    index = RedisIndex(RedisLink(connect(redis.url), breaker=Breaker(failures=1000)))
    hashes = chain("a", 20)
    await shared_again(index)
    redis.pause()

    async def call() -> None:
        choice = await chosen(index, "q", hashes)
        replica = next(each for each in REPLICAS if each.id == choice.replica)
        for _ in range(10):
            assert await index.seat("q", replica, hashes[-1]) == 0
        await index.held(replica, hashes)
        await index.unseat("q", replica, 0, hashes[-1])
        await index.release("q", replica)

    assert await timed(call()) < 0.4, "50 ms in all, not at each of 13 steps"
    redis.go_on()
    await index.close()


async def test_what_was_told_during_an_outage_arrives_after_it(redis: RedisProcess, index: RedisIndex) -> None:
    a, b = chain("a", 20), chain("b", 20)
    await shared_again(index)
    await index.held(REPLICAS[0], a)
    assert (await chosen(index, "open", chain("o", 5))).shared
    await index.flushed()
    redis.pause()
    for i in range(4):
        await chosen(index, f"q{i}", a)
        for replica in REPLICAS:
            await index.release(f"q{i}", replica)
    await index.dropped(REPLICAS[0], a)
    await index.held(REPLICAS[2], b)
    redis.go_on()
    await shared_again(index)
    await index.flushed()
    other = an_index(redis)
    await shared_again(other)
    contents = [await other.contents(replica) for replica in REPLICAS]
    await other.close()
    assert [each.blocks for each in contents] == [0, 0, 20]
    assert sum(each.in_flight for each in contents) == 1, "the one that is still open, and none twice"


async def test_a_request_that_is_cancelled_while_redis_gives_it_a_slot_does_not_keep_it(redis: RedisProcess) -> None:
    one_slot = replace(REPLICAS[0], slots=1)
    index, other = (RedisIndex(RedisLink(connect(redis.url, timeout_s=5.0), budget_s=5.0)) for _ in range(2))
    await shared_again(index)
    redis.pause()
    seating = asyncio.create_task(index.seat("q", one_slot))
    await asyncio.sleep(0.05)
    seating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await seating
    redis.go_on()
    await index.flushed()
    assert await other.seat("other", one_slot) == 0
    await other.unseat("other", one_slot, 0)
    await other.flushed()
    assert await index.seat("later", one_slot) == 0
    for each in (index, other):
        await each.close()


async def test_a_slot_that_redis_gave_too_late_is_given_back_with_the_one_that_was_used(redis: RedisProcess) -> None:
    index, other = an_index(redis), an_index(redis)
    for each in (index, other):
        await shared_again(each)
    assert await other.seat("other", REPLICAS[0]) == 0
    redis.pause()
    assert await index.seat("q", REPLICAS[0]) == 0, "this process knows nothing of the other's"
    redis.go_on()
    await shared_again(index)
    assert await other.seat("other2", REPLICAS[0]) is None
    await index.unseat("q", REPLICAS[0], 0)
    await index.flushed()
    assert await other.seat("other2", REPLICAS[0]) == 1
    for each in (index, other):
        await each.close()


@pytest.mark.parametrize("by", ["this process", "another process"])
async def test_an_emptied_redis_is_told_again_what_is_held_and_in_flight(
    redis: RedisProcess, index: RedisIndex, by: str
) -> None:
    hashes = chain("a", 600)
    await shared_again(index)
    await index.held(REPLICAS[2], hashes)
    await chosen(index, "open", chain("o", 5))
    assert await index.seat("open", REPLICAS[2], hashes[-1]) == 0
    await index.flushed()
    client = connect(redis.url)
    client.flushall()
    other = an_index(redis)
    if by == "another process":
        await shared_again(other)
    choice = await chosen(index, "q", hashes)
    assert by == "another process" or choice.hit_tokens == 600 * 64, "the mirror knows"
    await index.release("q", REPLICAS[2])
    await index.flushed()
    await shared_again(index)
    found = await chosen(other, "other", hashes)
    if not found.shared:
        await shared_again(other)
        found = await chosen(other, "other2", hashes)
    assert (found.replica, found.hit_tokens, found.shared) == ("r2", 600 * 64, True)
    assert await other.seat("x", REPLICAS[2]) == 1, "slot 0 is leased"
    await other.close()
    client.close()


async def test_a_redis_that_was_never_there_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    index = RedisIndex(RedisLink(connect("redis://127.0.0.1:9/0")))
    for i in range(6):
        assert not (await chosen(index, f"q{i}", chain("a", 3))).shared
    assert await index.seat("q", REPLICAS[0]) == 0
    await index.close()
    assert await index.seat("later", REPLICAS[1]) is not None, "a closed one still answers"
    assert len(caplog.records) == 1


def test_one_index_serves_two_event_loops_at_one_redis(redis: RedisProcess) -> None:
    index, hashes = an_index(redis), chain("a", 10)

    async def first() -> None:
        await shared_again(index)
        await index.held(REPLICAS[0], hashes)

    asyncio.run(first())
    assert asyncio.run(chosen(index, "q", hashes)).hit_tokens == 640
    asyncio.run(index.close())
