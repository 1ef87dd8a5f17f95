"""Saved states that hosts share by Redis: fetched into the folder, whole or not at all, and Redis never waited for."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from coa.cache.blocks import root_hash, segment_hash
from coa.cache.connection import connect
from coa.cache.redis_states import MAX_PART_BYTES, RedisScripts, RedisStates, SharedStates
from coa.cache.slot_files import SlotFiles
from coa.cache.state_folder import StateFolder
from coa.cache.state_scripts import PART
from coa.cache.states import Manifest, StateKey, StateOrigin
from coa.testing.redis_process import RedisProcess, redis_servers

REDIS = redis_servers()
pytestmark = pytest.mark.skipif(not REDIS, reason="no redis-server")

IDENTITY = root_hash("model", "runtime 1", "f16")
DATA = os.urandom(50_000)
PREFIX = "coa:{kvstates}:1:"


def key(n: int = 1) -> StateKey:
    return StateKey(IDENTITY, segment_hash([n], IDENTITY), 128)


class Clock:
    """Real time, moved by hand."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Hosts:
    """Each with a folder of its own, all with one Redis."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.clock = Clock()
        self._made: list[RedisStates] = []

    def __call__(self, name: str, max_bytes: int = 1_000_000, **told: Any) -> RedisStates:
        folder = StateFolder(self.folder / name, clock=self.clock, min_free_bytes=0)
        files = SlotFiles(folder, 10_000_000, clock=self.clock)
        told = {"part_bytes": 20_000, "look_s": 2.0, **told}
        redis = told.pop("redis", None) or RedisScripts(self.url)
        store = RedisStates(files, redis, max_bytes, clock=self.clock, **told)
        self._made.append(store)
        return store

    async def close(self) -> None:
        for store in self._made:
            await store.close(wait_s=0.2)


class SlowParts(RedisScripts):
    """Answers what is small at once, and is slow to hand out what is large."""

    delay_s = 5.0
    n_parts = 0

    async def run(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:
        if script == PART:
            self.n_parts += 1
            await asyncio.sleep(self.delay_s)
        return await super().run(script, keys, args)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess(list(REDIS.values())[-1]) as process:
        yield process


@pytest.fixture
async def hosts(redis: RedisProcess, tmp_path: Path) -> AsyncIterator[Hosts]:
    with connect(redis.url, timeout_s=5.0) as client:
        client.flushall()
    made = Hosts(redis.url, tmp_path)
    yield made
    await made.close()


async def saved(store: RedisStates, k: StateKey, data: bytes = DATA, origin: StateOrigin | None = None) -> Manifest:
    file = await store.begin(k)
    (store.folder / file).write_bytes(data)
    manifest = await store.commit(k, file, origin or StateOrigin())
    assert manifest is not None
    await store.settled()
    return manifest


async def test_another_host_fetches_what_one_computed(hosts: Hosts) -> None:
    one, two = hosts("one"), hosts("two")
    origin = StateOrigin("smollm2", "ab" * 32, 3)
    made = await saved(one, key(), origin=origin)
    found = await two.find(key())
    assert found is not None
    assert (two.folder / found.file).read_bytes() == DATA
    assert (found.key, found.digest, found.origin) == (key(), made.digest, origin)
    assert await two.files.find(key()) == found
    assert await two.find(key(2)) is None
    assert await two.shared() == SharedStates(1, len(DATA))


async def test_no_value_is_over_four_mebibytes(hosts: Hosts, redis: RedisProcess) -> None:
    one, two = hosts("one", 20_000_000, part_bytes=1 << 30), hosts("two", 20_000_000)
    data = os.urandom(9_000_000)
    await saved(one, key(), data)
    with connect(redis.url, timeout_s=5.0) as client:
        sizes = [client.strlen(name) for name in client.scan_iter(f"{PREFIX}p:*")]
    assert sorted(sizes) == [9_000_000 - 2 * MAX_PART_BYTES, MAX_PART_BYTES, MAX_PART_BYTES]
    found = await two.find(key())
    assert found is not None
    assert (two.folder / found.file).read_bytes() == data


@pytest.mark.parametrize("damage", ["missing", "altered", "short", "manifest", "other"])
async def test_what_is_not_whole_in_redis_is_a_miss_and_leaves_no_file(
    hosts: Hosts, redis: RedisProcess, damage: str
) -> None:
    one, two = hosts("one"), hosts("two")
    await saved(one, key())
    with connect(redis.url, timeout_s=5.0) as client:
        manifest = f"{PREFIX}m:{key().name}"
        part = sorted(client.scan_iter(f"{PREFIX}p:{key().name}:*"))[1]
        match damage:
            case "missing":
                client.delete(part)
            case "altered":
                client.setrange(part, 77, b"\x00\x01")
            case "short":
                client.set(part, client.get(part)[:-1])
            case "manifest":
                client.set(manifest, b'{"identity": "')
            case _:
                client.set(manifest, client.get(manifest).replace(key().hash.hex().encode(), b"00" * 16))
    assert await two.find(key()) is None
    assert [path.name for path in two.folder.glob("*") if path.suffix in {".kv", ".json"}] == []
    if damage in {"missing", "altered", "short"}:
        assert await two.shared() == SharedStates(0, 0)
    assert await one.find(key()) is not None


async def test_what_was_sent_in_part_is_never_found_and_makes_way(hosts: Hosts, redis: RedisProcess) -> None:
    one, two = hosts("one"), hosts("two")
    await saved(one, key())
    with connect(redis.url, timeout_s=5.0) as client:
        client.delete(f"{PREFIX}m:{key().name}")  # as a sender leaves it that is killed before its last word
    assert await two.find(key()) is None
    await saved(two, key(), DATA[::-1])
    assert await two.shared() == SharedStates(1, len(DATA))
    assert await hosts("three").find(key()) is None  # within two minutes it may be on its way still
    await two.files.prune(0)
    hosts.clock.ahead = 130
    await saved(two, key(), DATA[::-1])
    assert await hosts("three").find(key()) is not None
    assert await two.shared() == SharedStates(1, len(DATA))


async def test_redis_keeps_to_its_budget_and_the_longest_unused_go_first(hosts: Hosts) -> None:
    one = hosts("one", 160_000)
    for n in range(3):
        hosts.clock.ahead += 10
        await saved(one, key(n))
    hosts.clock.ahead += 10
    assert await one.find(key(0)) is not None
    await one.settled()
    hosts.clock.ahead += 10
    await saved(one, key(3))
    assert await one.shared() == SharedStates(3, 3 * len(DATA))
    two = hosts("two")
    assert [n for n in range(4) if await two.find(key(n)) is not None] == [0, 2, 3]
    await saved(one, key(9), bytes(170_000))
    assert await hosts("three").find(key(9)) is None
    assert await one.find(key(9)) is not None


async def test_pruning_in_redis_takes_bytes_and_days(hosts: Hosts, redis: RedisProcess) -> None:
    one = hosts("one")
    for n in range(4):
        hosts.clock.ahead += 100
        await saved(one, key(n))
    assert await one.prune_shared(unused_s=250) == (1, len(DATA))
    assert await one.prune_shared(100_000) == (1, len(DATA))
    assert await one.prune_shared(0) == (2, 2 * len(DATA))
    assert await one.shared() == SharedStates(0, 0)
    with connect(redis.url, timeout_s=5.0) as client:
        assert list(client.scan_iter(f"{PREFIX}[mp]:*")) == []


async def test_states_expire_with_their_parts_and_their_bytes_are_given_back(hosts: Hosts, redis: RedisProcess) -> None:
    one = hosts("one", lifetime_s=1000)
    await saved(one, key(1))
    with connect(redis.url, timeout_s=5.0) as client:
        assert all(0 < client.ttl(name) <= 1000 for name in client.scan_iter(f"{PREFIX}[mp]:*"))
    hosts.clock.ahead = 1001
    await saved(one, key(2))
    assert await one.shared() == SharedStates(1, len(DATA))


async def test_a_dead_redis_costs_nothing_but_its_states(
    tmp_path: Path, redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = Hosts(f"unix://{tmp_path}/nothing.sock?db=0", tmp_path)
    one = hosts("one", look_s=0.05)
    with caplog.at_level(logging.WARNING):
        for n in range(4):
            await one.find(key(n))
        started = time.perf_counter()
        for n in range(100):
            assert await one.find(key(n)) is None
        assert time.perf_counter() - started < 2, "a look is given 50 ms: 5 s"
        await saved(one, key(1))
        assert await one.find(key(1)) is not None
        await one.pin([key(1)], until=time.time() + 10)
        await one.discard(key(1), "test")
        assert await one.shared() is None
        assert await one.prune_shared(0) is None
    assert len([r for r in caplog.records if "Redis" in r.getMessage()]) == 1
    await hosts.close()


async def test_a_deaf_redis_is_waited_for_no_longer_than_a_look_takes(hosts: Hosts, redis: RedisProcess) -> None:
    one = hosts("one", look_s=0.05)
    assert await one.find(key(1)) is None
    redis.pause()
    try:
        started = time.perf_counter()
        for n in range(100):
            assert await one.find(key(n)) is None
        assert time.perf_counter() - started < 2, "three looks of 50 ms, not a hundred"
    finally:
        redis.go_on()


async def test_a_state_that_is_too_slow_to_fetch_is_tried_again_after_a_minute(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
) -> None:
    one, slow = hosts("one"), SlowParts(hosts.url)
    two = hosts("two", redis=slow, transfer_s=0.05)
    await saved(one, key())
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert await two.find(key()) is None
        assert await asyncio.gather(*(two.find(key()) for _ in range(5))) == [None] * 5
    assert slow.n_parts == 1
    assert [r.getMessage() for r in caplog.records] == [
        "a state could not be fetched from Redis (it takes too long): it is computed here."
    ]
    assert sorted(two.folder.glob("*.kv")) == []
    slow.delay_s = 0.0
    assert await two.find(key()) is None
    hosts.clock.ahead = 61.0
    assert await two.find(key()) is not None


async def test_looks_at_once_for_a_state_that_does_not_come_wait_for_one_transfer(hosts: Hosts) -> None:
    one, slow = hosts("one"), SlowParts(hosts.url)
    two = hosts("two", redis=slow, transfer_s=0.05)
    await saved(one, key())
    assert await asyncio.gather(*(two.find(key()) for _ in range(5))) == [None] * 5
    assert slow.n_parts == 1


async def test_after_two_transfers_in_vain_nothing_is_fetched_but_a_probe_a_minute(hosts: Hosts) -> None:
    one, slow = hosts("one"), SlowParts(hosts.url)
    two = hosts("two", redis=slow, transfer_s=0.05)
    for n in range(6):
        await saved(one, key(n))
    for n in range(4):
        assert await two.find(key(n)) is None
    assert slow.n_parts == 2
    hosts.clock.ahead = 61.0
    assert await two.find(key(4)) is None
    assert await two.find(key(5)) is None
    assert slow.n_parts == 3
    slow.delay_s = 0.0
    hosts.clock.ahead = 122.0
    for n in range(6):
        assert await two.find(key(n)) is not None
