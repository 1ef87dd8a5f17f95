"""One behaviour for every store of states: files alone, and files with a Redis behind them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from coa.cache.blocks import root_hash, segment_hash
from coa.cache.embedded_redis import EmbeddedRedis
from coa.cache.kv_stats import KvStats
from coa.cache.redis_links import ScriptRunner
from coa.cache.redis_states import RedisScripts, RedisStates
from coa.cache.slot_files import SlotFiles
from coa.cache.state_folder import StateFolder
from coa.cache.states import Manifest, StateKey, StateOrigin, StateStore
from coa.testing.redis_process import RedisProcess, redis_servers

REDIS = redis_servers()
KINDS = ["files", "burner-redis", *(f"redis-{version}" for version in REDIS)]
BUDGET = 100_000
UNKNOWN = StateOrigin()
IDENTITY = root_hash("model", "runtime 1", "f16")


def key(n: int, *, identity: bytes = IDENTITY) -> StateKey:
    return StateKey(identity, segment_hash([n], identity), 128)


class Clock:
    """Real time, moved by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Stores:
    """Stores over the same ground; `clock` is that of all."""

    def __init__(self, folder: Path, runner: Callable[[], ScriptRunner] | None) -> None:
        self.folder = folder
        self.clock = Clock()
        self.stats = KvStats(folder.parent / "stats.jsonl")
        self._runner = runner
        self._made: list[SlotFiles | RedisStates] = []

    def __call__(self, max_bytes: int = BUDGET, *, min_free_bytes: int = 0) -> StateStore:
        folder = StateFolder(self.folder, clock=self.clock, min_free_bytes=min_free_bytes)
        files = SlotFiles(folder, max_bytes, clock=self.clock, stats=self.stats)
        store: SlotFiles | RedisStates = files
        if self._runner is not None:
            store = RedisStates(files, self._runner(), max_bytes, part_bytes=1000, look_s=2.0, clock=self.clock)
        self._made.append(store)
        return store

    async def settled(self) -> None:
        for store in self._made:
            if isinstance(store, RedisStates):
                await store.settled()

    async def close(self) -> None:
        for store in self._made:
            await store.close()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def redis(kind: str) -> Iterator[RedisProcess | None]:
    if not kind.startswith("redis-"):
        yield None
        return
    with RedisProcess(REDIS[kind.removeprefix("redis-")]) as process:
        yield process


@pytest.fixture
async def stores(kind: str, redis: RedisProcess | None, tmp_path: Path) -> AsyncIterator[Stores]:
    runner: Callable[[], ScriptRunner] | None = None
    if redis is not None:
        runner = lambda: RedisScripts(redis.url)  # noqa: E731
        from coa.cache.connection import connect

        connect(redis.url, timeout_s=5.0).flushall()
    elif kind == "burner-redis":
        embedded = EmbeddedRedis()
        runner = lambda: embedded  # noqa: E731
    made = Stores(tmp_path / "kv", runner)
    yield made
    await made.close()


async def saved(store: StateStore, k: StateKey, data: bytes, origin: StateOrigin = UNKNOWN) -> Manifest | None:
    """As an engine and a call do it."""
    file = await store.begin(k)
    assert store.folder is not None
    (store.folder / file).write_bytes(data)
    manifest = await store.commit(k, file, origin)
    if isinstance(store, RedisStates):
        await store.settled()
    return manifest


def content(store: StateStore, manifest: Manifest | None) -> bytes | None:
    assert store.folder is not None
    return None if manifest is None else (store.folder / manifest.file).read_bytes()


async def test_a_state_that_was_committed_is_found_whole_with_its_origin(stores: Stores) -> None:
    store = stores()
    origin = StateOrigin("smollm2", "ab" * 32, 3)
    assert await store.find(key(1)) is None
    made = await saved(store, key(1), b"one" * 1000, origin)
    found = await store.find(key(1))
    assert found == made
    assert found is not None
    assert (found.key, found.n_bytes, found.origin) == (key(1), 3000, origin)
    assert content(store, found) == b"one" * 1000


async def test_another_process_over_the_same_ground_finds_it_though_it_looked_before(stores: Stores) -> None:
    first, second = stores(), stores()
    assert await second.find(key(1)) is None
    await saved(first, key(1), b"one")
    assert content(second, await second.find(key(1))) == b"one"
    assert content(stores(), await stores().find(key(1))) == b"one"


async def test_what_was_begun_and_not_committed_is_never_found(stores: Stores) -> None:
    store = stores()
    file = await store.begin(key(1))
    assert store.folder is not None
    (store.folder / file).write_bytes(b"half")
    assert await store.find(key(1)) is None
    assert await stores().find(key(1)) is None


async def test_names_are_never_given_twice(stores: Stores) -> None:
    store = stores()
    names = {await store.begin(key(1)) for _ in range(50)}
    assert len(names) == 50
    assert all(key(1).name in name and "/" not in name for name in names)


async def test_another_identity_or_length_is_another_state(stores: Stores) -> None:
    store = stores()
    await saved(store, key(1), b"one")
    other = root_hash("model", "runtime 1", "q8_0")
    assert await store.find(StateKey(other, key(1).hash, 128)) is None
    assert await store.find(StateKey(IDENTITY, key(1).hash, 256)) is None
    assert await store.find(key(1)) is not None


async def test_the_budget_holds_and_the_longest_unused_go_first(stores: Stores) -> None:
    store = stores(50_000)
    for n in range(4):
        stores.clock.ahead += 10
        await saved(store, key(n), bytes([n]) * 12_000)
    stores.clock.ahead += 10
    assert await store.find(key(0)) is not None
    await stores.settled()
    for n in (4, 5):
        stores.clock.ahead += 10
        assert await saved(store, key(n), bytes([n]) * 12_000) is not None
        assert used(stores.folder) <= 50_000
    assert [n for n in range(6) if await store.find(key(n)) is not None] == [0, 3, 4, 5]
    assert stores.stats.totals().total.evicted == 2


async def test_pinned_states_go_last_and_not_for_ever(stores: Stores) -> None:
    store = stores(40_000)
    await store.pin([key(0), key(7)], until=stores.clock() + 1000)
    for n in (0, 1, 2, 7):
        stores.clock.ahead += 10
        await saved(store, key(n), b"x" * 12_000)
    assert [n for n in (0, 1, 2, 7) if await store.find(key(n)) is not None] == [0, 2, 7]
    stores.clock.ahead += 2000
    for n in (2, 7):
        await store.find(key(n))
    await stores.settled()
    stores.clock.ahead += 1
    await saved(store, key(3), b"x" * 12_000)
    assert [n for n in (0, 2, 3, 7) if await store.find(key(n)) is not None] == [2, 3, 7]


async def test_pins_give_way_where_nothing_else_is_left(stores: Stores) -> None:
    store = stores(30_000)
    await store.pin([key(n) for n in range(4)], until=stores.clock() + 1000)
    for n in range(4):
        stores.clock.ahead += 10
        assert await saved(store, key(n), b"x" * 14_000) is not None
    assert [n for n in range(4) if await store.find(key(n)) is not None] == [2, 3]


async def test_a_state_over_the_whole_budget_is_not_kept_and_removes_nothing(stores: Stores) -> None:
    store = stores(20_000)
    await saved(store, key(1), b"one")
    assert await saved(store, key(2), b"x" * 20_001) is None
    assert await store.find(key(2)) is None
    assert await store.find(key(1)) is not None
    assert used(stores.folder) < 1000
    assert stores.stats.totals().top("refused") == [("larger than the budget", 1)]


async def test_a_discarded_state_is_gone_for_everybody(stores: Stores) -> None:
    first, second = stores(), stores()
    await saved(first, key(1), b"one")
    assert await second.find(key(1)) is not None
    await second.discard(key(1), "the engine does not take it")
    assert await first.find(key(1)) is None
    assert await second.find(key(1)) is None
    assert used(stores.folder) == 0
    assert stores.stats.totals().top("discarded")[0][0] == "the engine does not take it"


async def test_a_state_saved_by_two_is_kept_once(stores: Stores) -> None:
    first, second = stores(), stores()
    one, two = await first.begin(key(1)), await second.begin(key(1))
    for file in (one, two):
        (stores.folder / file).write_bytes(b"same" * 100)
    made, other = await asyncio.gather(first.commit(key(1), one), second.commit(key(1), two))
    assert made is not None
    assert other is not None
    assert content(first, await first.find(key(1))) == b"same" * 100
    assert content(second, await second.find(key(1))) == b"same" * 100


async def test_an_empty_or_missing_file_is_no_state(stores: Stores) -> None:
    store = stores()
    assert await saved(store, key(1), b"") is None
    assert await store.commit(key(2), await store.begin(key(2))) is None
    assert await store.find(key(1)) is None
    assert [why for why, _ in stores.stats.totals().top("refused")] == ["empty", "vanished"]


async def test_a_disk_that_is_nearly_full_keeps_nothing_and_leaves_nothing(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    kept = stores()
    await saved(kept, key(1), b"one")
    store = stores(min_free_bytes=1 << 60)
    with caplog.at_level(logging.WARNING):
        assert await saved(store, key(2), b"two") is None
        assert await saved(store, key(3), b"three") is None
    assert len([r for r in caplog.records if "disk full" in r.getMessage()]) == 1
    assert await kept.find(key(1)) is not None
    assert sorted(stores.folder.glob("*.kv")) == sorted(stores.folder.glob(f"{key(1).name}*.kv"))
    assert stores.stats.totals().top("refused") == [("disk full", 2)]


async def test_a_folder_that_cannot_be_used_costs_nothing_but_its_states(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    stores.folder.write_bytes(b"a file where the folder should be")
    store = stores()
    with caplog.at_level(logging.WARNING):
        assert await store.find(key(1)) is None
        file = await store.begin(key(1))
        assert await store.commit(key(1), file) is None
        await store.discard(key(1), "nothing")
        await store.pin([key(1)], until=time.time() + 10)
    assert caplog.records


async def test_many_at_once_get_what_they_asked_for(stores: Stores) -> None:
    store = stores(10_000_000)
    await asyncio.gather(*(saved(store, key(n), bytes([n]) * (100 + n)) for n in range(30)))
    found = await asyncio.gather(*(store.find(key(n)) for n in range(30)))
    assert [content(store, manifest) for manifest in found] == [bytes([n]) * (100 + n) for n in range(30)]


def used(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file() and file.name != "room.lock")
