"""One behaviour for every store of replies: in memory, in a file, in Redis."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from coa.cache.responses import RedisResponses
from coa.llm.response_file import FileResponses
from coa.llm.response_store import ENTRY_OVERHEAD, InMemoryResponses, ResponseStore
from coa.testing.redis_process import RedisProcess, redis_servers

REDIS = redis_servers()
KINDS = ["memory", "file", *(f"redis-{version}" for version in REDIS), "fakeredis"]
BUDGET = 10_000


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


Make = Callable[..., ResponseStore]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def redis(kind: str) -> object:
    if not kind.startswith("redis-"):
        yield None
        return
    with RedisProcess(REDIS[kind.removeprefix("redis-")]) as process:
        yield process


@pytest.fixture
async def make(kind: str, redis: RedisProcess | None, tmp_path: Path) -> AsyncIterator[Make]:
    """A store over the same ground each time it is called."""
    async with AsyncExitStack() as stack:
        server = None
        if kind == "fakeredis":
            if importlib.util.find_spec("fakeredis") is None or importlib.util.find_spec("lupa") is None:
                pytest.skip("fakeredis with Lua is not installed")
            import fakeredis

            server = fakeredis.FakeServer()
        memory: dict[int, InMemoryResponses] = {}

        def made(max_bytes: int = BUDGET, clock: Callable[[], float] | None = None) -> ResponseStore:
            clock = clock or Clock()
            store: ResponseStore
            if kind == "memory":
                store = memory.setdefault(0, InMemoryResponses(max_bytes, clock=clock))
            elif kind == "file":
                store = FileResponses(tmp_path / "cache" / "replies.sqlite", max_bytes, clock=clock)
            elif redis is not None:
                store = RedisResponses(redis.url, max_bytes, timeout_s=5.0, clock=clock)
            else:
                from fakeredis import FakeAsyncRedis

                store = RedisResponses(
                    "redis://fake/0", max_bytes, clock=clock, connect=lambda: FakeAsyncRedis(server=server)
                )
            stack.push_async_callback(store.close)
            return store

        yield made
        await made().prune(0)


def key(n: int) -> str:
    return f"{n:064x}"


async def test_what_was_put_is_found_and_nothing_else(make: Make) -> None:
    store = make()
    assert await store.get(key(1)) is None
    await store.put(key(1), b"\x00\xffone", model="m")
    assert await store.get(key(1)) == b"\x00\xffone"
    assert await store.get(key(2)) is None


async def test_another_store_over_the_same_ground_finds_it(make: Make, kind: str) -> None:
    first = make()
    await first.put(key(1), b"one", model="m")
    if kind != "memory":
        await first.close()
    assert await make().get(key(1)) == b"one"


async def test_a_later_reply_takes_the_place_of_the_earlier(make: Make) -> None:
    store = make()
    await store.put(key(1), b"a" * 500, model="m")
    await store.put(key(1), b"b" * 20, model="other")
    assert await store.get(key(1)) == b"b" * 20
    stats = await store.stats()
    assert stats.total.bytes == 20 + ENTRY_OVERHEAD
    assert list(stats.models) == ["other"]


async def test_statistics_count_entries_bytes_and_hits_by_model(make: Make) -> None:
    store = make()
    await store.put(key(1), b"a" * 100, model="small model")
    await store.put(key(2), b"b" * 200, model="small model")
    await store.put(key(3), b"c" * 300, model="large")
    for n in (1, 1, 3):
        assert await store.get(key(n)) is not None
    assert await store.get(key(9)) is None
    stats = await store.stats()
    assert stats.models == {
        "large": (1, 300 + ENTRY_OVERHEAD, 1),
        "small model": (2, 300 + 2 * ENTRY_OVERHEAD, 2),
    }
    assert stats.total == (3, 600 + 3 * ENTRY_OVERHEAD, 3)
    assert stats.limit_bytes == BUDGET


async def test_the_budget_holds_and_the_longest_unused_go_first(make: Make) -> None:
    store = make(max_bytes=10_000)
    for n in range(9):
        await store.put(key(n), b"x" * 800, model="m")
    assert await store.get(key(0)) is not None
    for n in range(9, 14):
        await store.put(key(n), b"x" * 800, model="m")
        assert (await store.stats()).total.bytes <= 10_000
    assert await store.get(key(0)) is not None
    assert await store.get(key(1)) is None
    assert await store.get(key(2)) is None
    assert await store.get(key(13)) is not None


async def test_a_reply_over_the_whole_budget_is_not_kept_and_removes_nothing(make: Make) -> None:
    store = make()
    await store.put(key(1), b"one", model="m")
    await store.put(key(2), b"x" * 20_000, model="m")
    assert await store.get(key(2)) is None
    assert await store.get(key(1)) == b"one"


async def test_pruning_removes_what_was_not_used_for_long_and_says_how_much(make: Make) -> None:
    clock = Clock()
    store = make(clock=clock)
    await store.put(key(1), b"one", model="m")
    await store.put(key(2), b"two", model="m")
    clock.now += 3600
    assert await store.get(key(2)) == b"two"
    assert await store.prune(BUDGET, unused_s=1800) == (1, 3 + ENTRY_OVERHEAD)
    assert await store.get(key(1)) is None
    assert await store.get(key(2)) == b"two"


async def test_pruning_to_nothing_clears(make: Make) -> None:
    store = make()
    for n in range(30):
        await store.put(key(n), b"x" * 10, model="m")
    assert await store.prune(0) == (30, 30 * (10 + ENTRY_OVERHEAD))
    assert (await store.stats()).total == (0, 0, 0)
    assert await store.prune(0) == (0, 0)
    await store.put(key(1), b"again", model="m")
    assert await store.get(key(1)) == b"again"


async def test_a_closed_store_may_be_used_again(make: Make) -> None:
    store = make()
    await store.put(key(1), b"one", model="m")
    await store.close()
    await store.close()
    assert await store.get(key(1)) == b"one"


async def test_replies_stay_whole_among_many(make: Make) -> None:
    store = make(max_bytes=1_000_000)
    for n in range(300):
        await store.put(key(n), bytes([n % 256]) * n, model=f"m{n % 3}")
    assert [await store.get(key(n)) for n in range(300)] == [bytes([n % 256]) * n for n in range(300)]
    assert (await store.stats()).total.entries == 300
