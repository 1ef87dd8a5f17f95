"""What the ledger in Redis has beside the contract of every ledger: its server, its keys, its scripts."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from coa.batch.ledger import Entry, ItemState, Lease, Ledger, NewItem, Outcome, Row, Spending, SpendingLimits
from coa.batch.redis_ledger import RedisLedger, client_for, open_redis_ledger
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.errors import CacheError, ConfigError, StorageError
from coa.testing.redis_process import RedisProcess, redis_servers

pytestmark = pytest.mark.skipif(not redis_servers(), reason="no redis-server here")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    with RedisProcess() as running:
        yield running


@pytest.fixture
def plain(server: RedisProcess) -> Iterator[Redis]:
    client = Redis.from_url(server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
async def ledger(server: RedisProcess, plain: Redis) -> AsyncIterator[RedisLedger]:
    opened = await open_redis_ledger(server.url, "b1")
    yield opened
    await opened.close()


def entries(n: int, *questions: str, start: int = 0) -> list[Entry]:
    return [
        Entry(f"/d/{i}.txt", f"{i:064x}", "1", 10, tuple(NewItem(f"{i:032x}{hash_of(q)}", q) for q in questions or "q"))
        for i in range(start, start + n)
    ]


def hash_of(question: str) -> str:
    return question.encode().hex().rjust(32, "0")


async def rows_of(ledger: Ledger, states: tuple[ItemState, ...] | None = None) -> list[Row]:
    return [row async for row in ledger.rows(states)]


async def leased(ledger: Ledger) -> Lease:
    lease = await ledger.lease("me", seconds=60)
    assert lease is not None
    return lease


async def test_a_server_that_is_deaf_for_a_moment_is_waited_for(server: RedisProcess, ledger: RedisLedger) -> None:
    await ledger.add(entries(1))
    server.pause()
    asking = asyncio.create_task(ledger.status())
    await asyncio.sleep(0.2)
    assert not asking.done()
    server.go_on()
    assert (await asking).counts["pending"] == 1


async def test_a_server_that_comes_back_is_found_again() -> None:
    with RedisProcess() as server:
        ledger = await open_redis_ledger(server.url, "b1")
        await ledger.status()
        server.kill()
        asking = asyncio.create_task(ledger.add(entries(1)))
        await asyncio.sleep(0.1)
        server.start()
        assert await asking == 1
        await ledger.close()


async def test_a_server_that_stays_away_is_a_typed_error() -> None:
    client = AsyncRedis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 1))
    ledger = RedisLedger(client, "b1")
    with pytest.raises(CacheError, match="does not answer"):
        await ledger.status()
    await ledger.close()


async def test_a_server_that_would_throw_the_ledger_away_is_refused(server: RedisProcess, plain: Redis) -> None:
    plain.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ConfigError, match="allkeys-lru"):
            await open_redis_ledger(server.url, "b1")
    finally:
        plain.config_set("maxmemory-policy", "noeviction")


async def test_a_server_that_does_not_tell_of_itself_is_taken_as_it_is(server: RedisProcess, plain: Redis) -> None:
    plain.acl_setuser("guest", enabled=True, nopass=True, categories=["+@all"], commands=["-info"], keys=["*"])
    try:
        opened = await open_redis_ledger(server.url.replace("unix://", "unix://guest:x@"), "b1")
        assert await opened.add(entries(1)) == 1
        await opened.close()
    finally:
        plain.acl_deluser("guest")


async def test_a_full_server_refuses_an_operation_whole(plain: Redis, ledger: RedisLedger) -> None:
    await ledger.add(entries(3))
    lease = await leased(ledger)
    before = await ledger.status(), await rows_of(ledger)
    plain.config_set("maxmemory", "1")
    try:
        for refused in (
            ledger.add(entries(1, start=9)),
            ledger.lease("you", seconds=60),
            ledger.record(lease, [Outcome(lease.items[0].key, "done")]),
            ledger.release(lease),
            ledger.expire(everyone=True),
        ):
            with pytest.raises(StorageError, match="cannot be used"):
                await refused
        assert (await ledger.status(), await rows_of(ledger)) == before
    finally:
        plain.config_set("maxmemory", "0")
    assert await ledger.record(lease, [Outcome(lease.items[0].key, "done")])


@pytest.mark.parametrize("url", ["nonsense", "http://localhost"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="COA_REDIS_URL"):
        client_for(url)


@pytest.mark.parametrize("batch", ["", "a b", "a}b", "é"])
async def test_an_id_that_would_break_the_keys_is_refused(server: RedisProcess, batch: str) -> None:
    client = client_for(server.url)
    with pytest.raises(ConfigError, match="no id"):
        RedisLedger(client, batch)
    await client.aclose()


class _SentTwice:
    """A client whose every script is sent again, as after a reply that was lost."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def register_script(self, source: str) -> Callable[..., Any]:
        script = self._client.register_script(source)

        async def call(*, keys: list[str], args: list[Any]) -> Any:
            await script(keys=keys, args=args)
            return await script(keys=keys, args=args)

        return call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


async def test_an_outcome_whose_reply_was_lost_is_told_again_and_counts_once(
    server: RedisProcess, ledger: RedisLedger
) -> None:
    await ledger.add(entries(2))
    lease = await leased(ledger)
    twice = RedisLedger(_SentTwice(client_for(server.url)), "b1")  # type: ignore[arg-type]
    outcome = Outcome(lease.items[0].key, "failed", Spending(calls=2), "so", "DocumentError", 1.0)
    assert await twice.reserve(lease, Spending(calls=5)) == "granted"
    assert await twice.record(lease, [outcome])
    status = await ledger.status()
    assert (status.spent.calls, status.reserved.calls, status.counts["failed"]) == (2, 0, 1)
    assert dict(status.causes) == {"DocumentError": 1}
    assert not await ledger.record(lease, [outcome]), "another call is another matter"
    other = await leased(ledger)
    await twice.release(other, cause="down", kind="ModelUnavailable")
    assert [row.tries for row in await rows_of(ledger, ("pending",))] == [1]
    await twice.close()


async def test_keys_of_a_batch_lie_together_and_go_together(plain: Redis, ledger: RedisLedger) -> None:
    await ledger.add(entries(2))
    await ledger.set_limits(SpendingLimits(max_calls=3))
    lease = await leased(ledger)
    await ledger.record(lease, [Outcome(lease.items[0].key, "failed", kind="x", seconds=1.0)])
    keys = plain.keys("*")
    assert keys
    assert all(str(key).startswith("b'coa:{batch:b1}:") for key in keys)
    assert await ledger.n_bytes() > 0
    await ledger.remove()
    assert plain.keys("*") == []


async def test_batches_on_one_server_do_not_mix(server: RedisProcess, ledger: RedisLedger) -> None:
    other = await open_redis_ledger(server.url, "b2")
    await ledger.add(entries(2))
    await other.set_control("cancelled")
    assert await other.known("/d/0.txt") is None
    assert (await ledger.status()).control == "run"
    assert (await other.status()).documents == 0
    await other.close()


async def test_names_of_any_kind_come_back_as_they_were(ledger: RedisLedger) -> None:
    names = ["00ff", "0", "ABCDEF", "Straße\n", "\x00\x01", "a" * 65, ""]
    added = [Entry(f"s{n}{name}", f"d{n}{name}", name, 1, (NewItem(f"k{n}{name}", name, name),)) for n, name in
             enumerate(names)]  # fmt: skip
    assert await ledger.add(added) == len(names)
    rows = await rows_of(ledger)
    assert [(r.sources, r.digest, r.key, r.payload, r.config) for r in rows] == [
        ((e.source,), e.digest, e.items[0].key, e.items[0].payload, e.items[0].config) for e in added
    ]
    assert [await ledger.known(entry.source) for entry in added] == [(e.digest, e.stamp) for e in added]


async def test_an_operation_takes_as_many_commands_with_many_items_as_with_few(
    plain: Redis, ledger: RedisLedger
) -> None:
    async def commands_of_a_round() -> int:
        before = _n_commands(plain)
        lease = await leased(ledger)
        await ledger.heartbeat(lease, seconds=60)
        await ledger.reserve(lease, Spending(calls=1))
        await ledger.record(lease, [Outcome(lease.items[0].key, "done", Spending(calls=1), seconds=1.0)])
        await ledger.reported([lease.items[0].key])
        await ledger.status()
        return _n_commands(plain) - before

    await ledger.add(entries(10))
    few = [await commands_of_a_round() for _ in range(4)]
    await ledger.add(entries(5000, start=10))
    many = [await commands_of_a_round() for _ in range(4)]
    assert many[1:] == few[1:], "the first ones find sums that are not there yet"


def _n_commands(plain: Redis) -> int:
    stats: dict[str, dict[str, int]] = plain.info("commandstats")
    return sum(found["calls"] for name, found in stats.items() if name != "cmdstat_info")


async def test_a_document_with_a_thousand_questions_is_one_lease(ledger: RedisLedger) -> None:
    await ledger.add(entries(1, *(f"question {n}" for n in range(1000))))
    lease = await leased(ledger)
    assert [item.payload for item in lease.items] == [f"question {n}" for n in range(1000)]
    outcomes = [Outcome(item.key, "done") for item in lease.items]
    for at in range(0, 1000, 100):
        assert await ledger.record(lease, outcomes[at : at + 100])
    assert (await ledger.status()).counts["done"] == 1000


def _sorted(found: Any) -> Any:
    """With its sources in a fixed order: where one that has moved stands is nobody's business."""
    return replace(found, sources=tuple(sorted(found.sources))) if isinstance(found, Row | Lease) else found


def test_the_tool_that_measures_ledgers_counts_all_it_ends() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "tests" / "tools" / "ledger_at_scale.py")]
    options = ["--sizes", "40,80", "--rounds", "10", "--questions", "2", "--drain", "2"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| SQLite | ") == 2
    assert done.stdout.count("'done': 160, 'partial': 0") == 2
    assert done.stdout.count("$1.9680") == 2


class _Both:
    """A ledger in Redis beside one in SQLite: what one says, the other has to say."""

    def __init__(self, redis: RedisLedger, sqlite: SQLiteLedger) -> None:
        self.ledgers: tuple[Ledger, Ledger] = (redis, sqlite)

    async def told(self, call: Callable[[Ledger], Any]) -> Any:
        redis, sqlite = [_sorted(await call(ledger)) for ledger in self.ledgers]
        assert redis == sqlite
        return redis

    async def compare(self) -> None:
        one, other = [await ledger.status() for ledger in self.ledgers]
        assert replace(one, slowest=(), spent=Spending()) == replace(other, slowest=(), spent=Spending())
        assert one.spent.calls == other.spent.calls
        assert one.spent.cost_usd == pytest.approx(other.spent.cost_usd)
        rows = [[_sorted(row) for row in await rows_of(ledger)] for ledger in self.ledgers]
        assert [row for row in rows[0] if row not in rows[1]] == [row for row in rows[1] if row not in rows[0]]
        assert rows[0] == rows[1]
        reported = [sorted(row.key for row in await ledger.unreported()) for ledger in self.ledgers]
        assert reported[0] == reported[1]


@pytest.mark.parametrize("seed", range(3))
async def test_both_ledgers_say_the_same_whatever_is_done(
    server: RedisProcess, plain: Redis, tmp_path: Path, seed: int
) -> None:
    now = [1000.0]
    redis = RedisLedger(client_for(server.url), "both", clock=lambda: now[0])
    sqlite = SQLiteLedger(tmp_path / "ledger.sqlite", clock=lambda: now[0])
    both, rng, leases = _Both(redis, sqlite), random.Random(seed), list[Lease]()
    try:
        for _ in range(150):
            await _something(both, rng, leases, now)
            await both.compare()
    finally:
        await redis.close()
        await sqlite.close()


_ENDINGS: list[tuple[Literal["done", "partial", "failed"], str | None]] = [
    ("done", None),
    ("failed", "Bad"),
    ("partial", "skipped"),
]


async def _something(both: _Both, rng: random.Random, leases: list[Lease], now: list[float]) -> None:
    """One operation, drawn at random, on both."""
    now[0] += rng.choice([0, 1, 40])
    states: list[ItemState] = rng.choice([["failed"], ["partial", "failed"], ["done"], ["done", "partial", "failed"]])
    lease = rng.choice(leases) if leases else None
    match rng.randrange(12):
        case 0 | 1:
            start = rng.randrange(12)
            questions = rng.sample("abcd", rng.randint(1, 3))
            added = entries(rng.randint(1, 3), *questions, start=start)
            if rng.random() < 0.2:  # a source has changed
                added = [replace(e, source=f"/d/{rng.randrange(12)}.txt", stamp=str(rng.random())) for e in added]
            await both.told(lambda ledger: ledger.add(added))
        case 2 | 3 | 4:
            found = await both.told(lambda ledger: ledger.lease(f"w{start_of(leases)}", seconds=60))
            leases += [found] if found is not None else []
        case 5 | 6 if lease is not None:
            items = rng.sample(lease.items, rng.randint(1, len(lease.items)))
            outcomes = [
                Outcome(i.key, state, Spending(calls=2, cost_usd=0.25), cause, cause, rng.choice([0.0, 2.0]))
                for i in items
                for state, cause in [rng.choice(_ENDINGS)]
            ]
            await both.told(lambda ledger: ledger.record(lease, outcomes))
        case 7 if lease is not None:
            cause, wait = rng.choice([(None, 0.0), ("so", 0.0), ("so", 30.0)])
            await both.told(lambda ledger: ledger.release(lease, cause=cause, kind=cause, wait_s=wait))
        case 8 if lease is not None:
            progress = rng.random() < 0.5
            await both.told(lambda ledger: ledger.heartbeat(lease, seconds=60, progress=progress))
            wanted = Spending(calls=rng.randint(1, 6), prompt_tokens=rng.randint(0, 500))
            await both.told(lambda ledger: ledger.reserve(lease, wanted))
        case 9:
            everyone, owner = rng.random() < 0.2, rng.choice([None, None, "w1"])
            await both.told(lambda ledger: ledger.expire(everyone=everyone, owner=owner))
        case 10:
            kinds = rng.choice([None, {"Bad"}, {"lost", "skipped"}])
            fresh, config = rng.random() < 0.5, rng.choice([None, "c2"])
            await both.told(lambda ledger: ledger.reopen(states, kinds=kinds, fresh=fresh, config=config))
        case 11:
            limits = rng.choice([SpendingLimits(), SpendingLimits(max_calls=30), SpendingLimits(None, 900, 9.5)])
            await both.told(lambda ledger: ledger.set_limits(limits))
            keys = [row.key for row in await both.ledgers[0].unreported()][:2]
            await both.told(lambda ledger: ledger.reported(keys))


def start_of(leases: list[Lease]) -> int:
    return len(leases) % 3
