"""Rate limits: one behaviour, kept by one process or by all at one Redis, and what a dead Redis changes of it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from coa.cache.breaker import Breaker
from coa.cache.connection import connect
from coa.cache.rates import SharedRates, shared_limiter
from coa.errors import CacheError
from coa.llm.rates import N_SLOTS, Grant, LocalRates, RateLimit, RateLimiter, rate_limits
from coa.testing.fault_server import FaultServer
from coa.testing.redis_process import RedisProcess, redis_servers

SERVERS = redis_servers()
KINDS = ["local", *(f"redis-{version}" for version in SERVERS)]
KINDS += ["fakeredis"] if importlib.util.find_spec("fakeredis") and importlib.util.find_spec("lupa") else []
Make = Callable[..., RateLimiter]


class Clock:
    """Seconds since some moment, as the test says."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, RedisProcess]]:
    started = {version: RedisProcess(program).start() for version, program in SERVERS.items()}
    yield started
    for process in started.values():
        process.__exit__(None, None, None)


@pytest_asyncio.fixture(params=KINDS)
async def make(request: pytest.FixtureRequest, running: dict[str, RedisProcess], clock: Clock) -> AsyncIterator[Make]:
    """Limiters that share what they book, where their kind can."""
    made: list[RateLimiter] = []
    shared = LocalRates(clock=clock)
    fake: list[Any] = []

    def limiter() -> RateLimiter:
        if request.param == "local":
            return shared
        if request.param == "fakeredis":
            fakeredis: Any = importlib.import_module("fakeredis")
            fake.append(fake[0] if fake else fakeredis.FakeServer())
            client = fakeredis.FakeRedis(server=fake[0])
        else:
            client = connect(running[request.param.removeprefix("redis-")].url, timeout_s=5.0)
        if not made:
            client.flushall()
        made.append(SharedRates(client, clock=clock, timeout_s=5.0))
        return made[-1]

    yield limiter
    for each in made:
        await each.close()


CALLS = (RateLimit("a", rpm=3),)
TOKENS = (RateLimit("a", tpm=1000),)


async def test_so_many_at_once_and_the_next_when_a_minute_is_over(make: Make, clock: Clock) -> None:
    limiter = make()
    waits = [(await limiter.book(CALLS, 10)).wait_s for _ in range(7)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert all(60.0 <= wait <= 61.0 for wait in waits[3:6])
    assert 121.0 <= waits[6] <= 122.0
    clock.now += 200.0
    assert (await limiter.book(CALLS, 10)).wait_s == 0.0


async def test_tokens_are_booked_before_and_settled_after(make: Make, clock: Clock) -> None:
    limiter = make()
    first = await limiter.book(TOKENS, 900)
    assert (await limiter.book(TOKENS, 200)).wait_s > 59.0, "they would not fit"
    clock.now += 130.0
    first = await limiter.book(TOKENS, 900)
    await limiter.settle(first, 100)
    assert (await limiter.book(TOKENS, 800)).wait_s == 0.0, "it took less than was booked"
    clock.now += 130.0
    first = await limiter.book(TOKENS, 100)
    await limiter.settle(first, 950)
    assert (await limiter.book(TOKENS, 100)).wait_s > 59.0, "it took more"


async def test_a_call_that_is_not_made_gives_its_place_back(make: Make) -> None:
    limiter = make()
    grants = [await limiter.book(CALLS, 10) for _ in range(3)]
    await limiter.settle(grants[0], None)
    assert (await limiter.book(CALLS, 10)).wait_s == 0.0
    assert (await limiter.book(CALLS, 10)).wait_s > 59.0


async def test_a_call_above_the_limit_of_tokens_goes_alone_rather_than_never(make: Make, clock: Clock) -> None:
    limiter = make()
    assert (await limiter.book(TOKENS, 5000)).wait_s == 0.0
    assert 60.0 <= (await limiter.book(TOKENS, 1)).wait_s <= 61.0


async def test_the_strictest_of_several_limits_holds(make: Make) -> None:
    limiter = make()
    both = (RateLimit("one", rpm=2), RateLimit("all", rpm=3))
    other = (RateLimit("two", rpm=2), RateLimit("all", rpm=3))
    waits = [(await limiter.book(limits, 1)).wait_s for limits in (both, both, other, other)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert waits[3] > 59.0, "two has room, all together have not"


async def test_no_limits_no_wait(make: Make) -> None:
    limiter = make()
    grant = await limiter.book((), 10)
    assert grant.wait_s == 0.0
    await limiter.settle(grant, 20)


async def test_a_clock_that_was_an_hour_ahead_stops_nobody(make: Make, clock: Clock) -> None:
    limiter = make()
    clock.now += 3600.0
    for _ in range(4):
        await limiter.book(CALLS, 1)
    clock.now -= 3600.0
    assert (await limiter.book(CALLS, 1)).wait_s == 0.0


@pytest.mark.parametrize("seed", range(6))
async def test_no_minute_ever_holds_more_than_the_limits(make: Make, clock: Clock, seed: int) -> None:
    """Two limiters over one store, calls of many sizes at odd times: every window of a minute is counted."""
    chosen = random.Random(seed)
    limits = (RateLimit("a", rpm=chosen.choice([2, 7, 30]), tpm=chosen.choice([500, 3000])),)
    limiters = [make(), make()]
    calls: list[tuple[float, int]] = []
    for _ in range(120):
        clock.now += chosen.choice([0.0, 0.0, 0.3, 2.0, 15.0])
        limiter = chosen.choice(limiters)
        grant = await limiter.book(limits, chosen.choice([1, 50, 400]))
        if chosen.random() < 0.1:
            await limiter.settle(grant, None)
            continue
        calls.append((clock.now + grant.wait_s, grant.tokens))
        if grant.wait_s > 300.0:  # as long as queues get: what is booked hours ahead counts as a wrong clock's
            clock.now += 250.0
    for start, _ in calls:
        window = [(at, tokens) for at, tokens in calls if start <= at < start + 60.0]
        assert len(window) <= (limits[0].rpm or 0)
        assert sum(tokens for _, tokens in window) <= (limits[0].tpm or 0)
    assert [at for at, _ in calls] == sorted(at for at, _ in calls), "first come, first served"


async def test_what_is_kept_is_bounded(clock: Clock) -> None:
    limiter = LocalRates(clock=clock)
    for _ in range(2000):
        clock.now += 1.0
        await limiter.book((RateLimit("a", rpm=500),), 1)
    assert len(limiter._ledgers["a"].calls) <= N_SLOTS + 1


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, ()),
        ({"rpm": 10}, ((10, None),)),
        ({"tpm": "90000", "rpm": None}, ((None, 90000),)),
        ({"rpm": 10, "group_rpm": 30, "group_tpm": 5}, ((10, None), (30, 5))),
        ({"rpm": 0, "tpm": "many"}, ()),
    ],
)
def test_limits_are_read_from_an_entry_of_model_list(entry: dict[str, object], expected: tuple[Any, ...]) -> None:
    limits = rate_limits("readers", "openai/gpt\nhttps://x\nsk-secret", entry)
    assert tuple((limit.rpm, limit.tpm) for limit in limits) == expected
    assert all("secret" not in limit.key for limit in limits)


# Redis that fails


@pytest.fixture
def redis() -> Iterator[RedisProcess]:
    if not SERVERS:
        pytest.skip("no redis-server on this machine")
    with RedisProcess() as process:
        yield process


async def _timed(call: Awaitable[Grant]) -> tuple[float, Grant]:
    started = time.perf_counter()
    grant = await call
    return time.perf_counter() - started, grant


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_a_dead_or_silent_redis_costs_little_then_nothing_and_is_logged_once(
    redis: RedisProcess, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level(logging.WARNING)
    limiter = SharedRates(connect(redis.url, timeout_s=0.05), breaker=Breaker(retry_s=0.3))
    limits = (RateLimit("a", rpm=6),)
    grants = [await limiter.book(limits, 10) for _ in range(2)]
    (redis.kill if how == "killed" else redis.pause)()
    timed = [await _timed(limiter.book(limits, 10)) for _ in range(4)]
    grants += [grant for _, grant in timed]
    assert max(seconds for seconds, _ in timed) < 0.5, "50 ms, and what a busy machine adds"
    after = [await _timed(limiter.book((RateLimit("b", rpm=1000),), 10)) for _ in range(50)]
    assert sorted(seconds for seconds, _ in after)[25] < 0.01
    assert [grant.wait_s for grant in grants] == [0.0] * 6
    assert (await limiter.book(limits, 10)).wait_s > 50.0, "what it booked before the outage is not forgotten"
    assert len([r for r in caplog.records if "Redis" in r.message]) == 1
    (redis.start if how == "killed" else redis.go_on)()
    for _ in range(100):
        await asyncio.sleep(0.02)
        await limiter.book((RateLimit("c", rpm=1000),), 1)
        if any("answers again" in r.message for r in caplog.records):
            break
    assert [r.message.split(":")[0] for r in caplog.records][-1] == "Redis answers again"
    await limiter.close()
    await limiter.close()
    assert (await limiter.book((RateLimit("d", rpm=1),), 1)).wait_s == 0.0, "a closed one still books"


async def test_a_redis_that_was_never_there_is_no_error() -> None:
    limiter = shared_limiter("redis://127.0.0.1:9/0")
    assert (await limiter.book(CALLS, 10)).wait_s == 0.0
    await limiter.close()


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(CacheError, match="COA_REDIS_URL"):
        shared_limiter("no address")


def test_a_limiter_serves_several_event_loops(redis: RedisProcess) -> None:
    limiter = shared_limiter(redis.url)
    for expected in (0.0, 0.0, 0.0):
        assert asyncio.run(limiter.book(CALLS, 1)).wait_s == expected
    assert asyncio.run(limiter.book(CALLS, 1)).wait_s > 50.0
    asyncio.run(limiter.close())


@pytest.mark.slow
def test_two_processes_at_one_redis_stay_within_one_limit(redis: RedisProcess) -> None:
    """Without the shared limiter the second one's calls would all be refused."""
    script = Path(__file__).parents[1] / "tools" / "paced_calls.py"
    with FaultServer(rpm=10, window_s=5.0) as server, FaultServer() as warm:
        command = [sys.executable, str(script), server.base_url, redis.url, "--calls", "12", "--rpm", "10"]
        command += ["--window", "5.0", "--warm", warm.base_url, "--parallel", "2"]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        told = [json.loads(process.communicate(timeout=100)[0]) for process in running]
        stats = server.stats()
    assert [one["answered"] for one in told] == [12, 12]
    # A slot is 83 ms here, and a second at home: a call that a busy machine sends later than that may be refused.
    assert stats.by_outcome["ok"] == 24
    assert stats.calls <= 30
    assert stats.times[-1] - stats.times[0] > 2 * 5.0, "24 calls at 10 in 5 s"
