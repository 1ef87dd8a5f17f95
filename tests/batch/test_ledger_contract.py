"""One behaviour for every ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from coa.batch.ledger import (
    MAX_LOST,
    N_SLOWEST,
    Entry,
    Lease,
    Ledger,
    NewItem,
    Outcome,
    Row,
    Spending,
    SpendingLimits,
)
from coa.batch.redis_ledger import RedisLedger, client_for
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.testing.redis_process import RedisProcess, redis_servers

LEASE_S = 60.0


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


Make = Callable[[], Ledger]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    if not redis_servers():
        pytest.skip("no redis-server here")
    with RedisProcess() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis-server"])
async def make(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> AsyncIterator[Make]:
    """A ledger over the same ground each time it is called: another process's view of it."""
    async with AsyncExitStack() as stack:

        def made() -> Ledger:
            ledger: Ledger
            if request.param == "sqlite":
                ledger = SQLiteLedger(tmp_path / "batch" / "ledger.sqlite", clock=clock)
            else:
                url = request.getfixturevalue("redis").url
                ledger = RedisLedger(client_for(url), f"b{tmp_path.parent.name}-{tmp_path.name}", clock=clock)
            stack.push_async_callback(ledger.close)
            return ledger

        yield made


@pytest.fixture
def ledger(make: Make) -> Ledger:
    return make()


def entry(name: str, *questions: str, digest: str | None = None, stamp: str = "1") -> Entry:
    digest = digest or f"digest of {name}"
    items = tuple(NewItem(f"{digest}/{q}", f'{{"question": "{q}"}}', "base") for q in questions or ("q",))
    return Entry(source=name, digest=digest, stamp=stamp, n_bytes=10, items=items)


async def rows_of(ledger: Ledger, *states: str) -> list[Row]:
    return [row async for row in ledger.rows(states or None)]  # type: ignore[arg-type]


async def leased(ledger: Ledger, owner: str = "me") -> Lease:
    lease = await ledger.lease(owner, seconds=LEASE_S)
    assert lease is not None
    return lease


def done(lease: Lease, **changes: object) -> list[Outcome]:
    return [replace(Outcome(item.key, "done"), **changes) for item in lease.items]  # type: ignore[arg-type]


async def test_an_empty_ledger_has_nothing_to_lease_and_every_state_counted(ledger: Ledger) -> None:
    assert await ledger.lease("me", seconds=LEASE_S) is None
    status = await ledger.status()
    assert dict(status.counts) == {"pending": 0, "leased": 0, "done": 0, "partial": 0, "failed": 0}
    assert (status.documents, status.spent, status.control, status.open) == (0, Spending(), "run", 0)
    assert await ledger.known("a.txt") is None
    assert await rows_of(ledger) == []
    assert await ledger.expire(everyone=True) == 0
    assert await ledger.limits() == SpendingLimits()


async def test_documents_come_in_the_order_of_adding_with_all_their_items(ledger: Ledger) -> None:
    assert await ledger.add([entry("b", "one", "two"), entry("a", "one")]) == 3
    first, second = await leased(ledger), await leased(ledger, "you")
    assert first.sources == ("b",)
    assert [item.payload for item in first.items] == ['{"question": "one"}', '{"question": "two"}']
    assert (first.items[0].config, first.items[0].tries, first.items[0].generation) == ("base", 0, 0)
    assert (first.n_bytes, first.owner, first.digest) == (10, "me", "digest of b")
    assert (second.sources, second.owner) == (("a",), "you")
    assert await ledger.lease("me", seconds=LEASE_S) is None
    assert dict((await ledger.status()).owners) == {"me": 1, "you": 1}


async def test_what_was_added_before_is_left_as_it_is(ledger: Ledger) -> None:
    await ledger.add([entry("a", "one")])
    lease = await leased(ledger)
    await ledger.record(lease, done(lease))
    assert await ledger.add([entry("a", "one", stamp="2"), entry("b")]) == 1
    assert await ledger.known("a") == ("digest of a", "2")
    assert [(row.sources, row.state) for row in await rows_of(ledger)] == [(("a",), "done"), (("b",), "pending")]


async def test_sources_of_the_same_bytes_are_one_document(ledger: Ledger) -> None:
    await ledger.add([entry("b", digest="same"), entry("a", digest="same")])
    assert (await ledger.status()).documents == 1
    assert (await leased(ledger)).sources == ("b", "a")
    assert await ledger.lease("me", seconds=LEASE_S) is None


async def test_a_source_that_has_changed_leaves_its_old_document_behind(ledger: Ledger) -> None:
    await ledger.add([entry("a", "one", digest="old"), entry("b", digest="kept"), entry("c", digest="kept")])
    lease = await leased(ledger)
    await ledger.record(lease, [Outcome("old/one", "failed", cause="so", kind="DocumentError")])
    lost = await leased(ledger)
    assert await ledger.add([entry("a", "one", digest="new"), entry("b", digest="newer")]) == 2
    assert [(row.digest, row.sources) for row in await rows_of(ledger)] == [
        ("kept", ("c",)),
        ("new", ("a",)),
        ("newer", ("b",)),
    ]
    status = await ledger.status()
    assert (status.documents, dict(status.causes), status.counts["failed"]) == (3, {}, 0)
    assert await ledger.add([entry("c", digest="newest")]) == 1
    assert not await ledger.record(lost, done(lost))
    assert (await ledger.status()).counts["leased"] == 0


async def test_items_added_under_a_lease_wait_for_its_end(ledger: Ledger) -> None:
    await ledger.add([entry("a", "one")])
    lease = await leased(ledger)
    assert await ledger.add([entry("a", "one", "two")]) == 1
    assert await ledger.lease("you", seconds=LEASE_S) is None
    assert await ledger.record(lease, done(lease))
    later = await leased(ledger)
    assert [item.key for item in later.items] == ["digest of a/two"]


async def test_items_end_one_after_the_other_and_the_lease_with_the_last(ledger: Ledger) -> None:
    await ledger.add([entry("a", "one", "two", "three")])
    lease = await leased(ledger)
    paid = Spending(calls=2, prompt_tokens=100, completion_tokens=10, cached_tokens=50, cost_usd=0.25, unpriced=1)
    outcomes = [
        Outcome("digest of a/one", "done", paid, seconds=2.0),
        Outcome("digest of a/two", "partial", paid, "2 chunks were skipped", "skipped", 3.0),
        Outcome("digest of a/three", "failed", Spending(reused=1), "no text", "DocumentEmpty"),
    ]
    assert await ledger.record(lease, outcomes[:1])
    assert (await ledger.status()).counts == {"pending": 0, "leased": 2, "done": 1, "partial": 0, "failed": 0}
    assert await ledger.record(lease, outcomes[1:])
    status = await ledger.status()
    assert dict(status.counts) == {"pending": 0, "leased": 0, "done": 1, "partial": 1, "failed": 1}
    assert status.spent == Spending(4, 200, 20, 100, 0.5, 2, 1)
    assert dict(status.causes) == {"skipped": 1, "DocumentEmpty": 1}
    assert [(slow.seconds, slow.source) for slow in status.slowest] == [(3.0, "a"), (2.0, "a")]
    assert dict(status.owners) == {}
    first, second, third = await rows_of(ledger)
    assert (first.state, first.spent, first.cause, first.seconds, first.owner) == ("done", paid, None, 2.0, None)
    assert (second.state, second.cause, second.kind) == ("partial", "2 chunks were skipped", "skipped")
    assert (third.state, third.kind) == ("failed", "DocumentEmpty")
    assert [row.key for row in await rows_of(ledger, "failed", "partial")] == [second.key, third.key]
    assert not await ledger.record(lease, outcomes)
    assert (await ledger.status()).spent == status.spent


async def test_an_outcome_told_twice_counts_once(ledger: Ledger) -> None:
    await ledger.add([entry("a", "one", "two")])
    lease = await leased(ledger)
    outcome = Outcome("digest of a/one", "done", Spending(calls=1))
    assert await ledger.record(lease, [outcome])
    assert await ledger.record(lease, [outcome])
    assert (await ledger.status()).spent.calls == 1


async def test_a_lease_that_ran_out_goes_to_somebody_else_and_its_holder_is_refused(make: Make, clock: Clock) -> None:
    mine, theirs = make(), make()
    await mine.add([entry("a", "one")])
    lost = await leased(mine)
    clock.now += LEASE_S - 1
    assert await theirs.lease("you", seconds=LEASE_S) is None
    assert await mine.heartbeat(lost, seconds=LEASE_S)
    clock.now += LEASE_S - 1
    assert await theirs.lease("you", seconds=LEASE_S) is None
    clock.now += 2
    taken = await leased(theirs, "you")
    assert taken.token > lost.token
    assert not await mine.heartbeat(lost, seconds=LEASE_S)
    assert not await mine.record(lost, done(lost))
    assert await mine.reserve(lost, Spending(calls=1)) == "never"
    await mine.release(lost, cause="late", kind="late")
    assert await theirs.record(taken, done(taken))
    (row,) = await rows_of(mine)
    assert (row.state, row.cause, row.tries) == ("done", None, 0)


async def test_leases_of_the_dead_are_taken_back_at_once_by_who_knows(ledger: Ledger) -> None:
    await ledger.add([entry("a"), entry("b")])
    await leased(ledger)
    await leased(ledger)
    assert await ledger.expire() == 0
    assert await ledger.expire(everyone=True) == 2
    assert (await ledger.status()).counts["pending"] == 2


async def test_leases_of_one_who_is_dead_are_taken_back_and_the_others_stay(ledger: Ledger) -> None:
    await ledger.add([entry(name) for name in "abc"])
    dead, alive, too = await leased(ledger, "dead"), await leased(ledger, "alive"), await leased(ledger, "dead")
    assert await ledger.expire(owner="dead") == 2
    assert [await ledger.heartbeat(lease, seconds=LEASE_S) for lease in (dead, alive, too)] == [False, True, False]
    assert dict((await ledger.status()).owners) == {"alive": 1}
    assert await ledger.expire(owner="nobody") == 0


async def test_a_document_lost_with_progress_is_next_and_one_without_comes_last(ledger: Ledger) -> None:
    await ledger.add([entry("a"), entry("b"), entry("c")])
    await leased(ledger)
    assert await ledger.heartbeat(await leased(ledger), seconds=LEASE_S, progress=True)
    await ledger.expire(everyone=True)
    after = [await leased(ledger) for _ in range(3)]
    assert [(lease.sources[0], lease.lost) for lease in after] == [("b", 0), ("c", 0), ("a", 1)]


async def test_a_document_whose_holders_keep_dying_fails_with_that_cause(ledger: Ledger) -> None:
    await ledger.add([entry("poison", "one", "two"), entry("good")])
    for _ in range(MAX_LOST):
        first, second = await leased(ledger), await leased(ledger)
        good = first if first.sources == ("good",) else second
        await ledger.heartbeat(good, seconds=LEASE_S, progress=True)
        await ledger.expire(everyone=True)
    status = await ledger.status()
    assert dict(status.counts) == {"pending": 1, "leased": 0, "done": 0, "partial": 0, "failed": 2}
    assert dict(status.causes) == {"lost": 2}
    failed = await rows_of(ledger, "failed")
    assert all(row.cause and str(MAX_LOST) in row.cause and row.sources == ("poison",) for row in failed)
    assert {row.key for row in await ledger.unreported()} == {row.key for row in failed}


async def test_progress_forgets_earlier_losses(ledger: Ledger) -> None:
    await ledger.add([entry("a")])
    for _ in range(MAX_LOST + 2):
        lease = await leased(ledger)
        await ledger.expire(everyone=True)
        lease = await leased(ledger)
        assert lease.lost == 1
        await ledger.heartbeat(lease, seconds=LEASE_S, progress=True)
        await ledger.expire(everyone=True)


async def test_what_is_given_back_without_a_cause_is_as_if_it_had_not_been_leased(ledger: Ledger) -> None:
    await ledger.add([entry("a", "one", "two"), entry("b")])
    lease = await leased(ledger)
    await ledger.record(lease, [Outcome("digest of a/one", "done")])
    await ledger.release(lease)
    again = await leased(ledger)
    assert [(item.key, item.tries) for item in again.items] == [("digest of a/two", 0)]
    assert (again.sources, again.lost) == (("a",), 0)
    assert not await ledger.heartbeat(lease, seconds=LEASE_S)


async def test_a_cause_counts_as_a_try_and_the_document_waits(ledger: Ledger, clock: Clock) -> None:
    await ledger.add([entry("a"), entry("b")])
    lease = await leased(ledger)
    await ledger.release(lease, cause="the server is down", kind="ModelUnavailable", wait_s=30)
    assert (await leased(ledger)).sources == ("b",)
    assert await ledger.lease("me", seconds=LEASE_S) is None
    (row,) = await rows_of(ledger, "pending")
    assert (row.tries, row.cause, row.kind) == (1, "the server is down", "ModelUnavailable")
    assert dict((await ledger.status()).causes) == {}
    clock.now += 30
    again = await leased(ledger)
    assert (again.sources, again.items[0].tries) == (("a",), 1)
    await ledger.record(again, done(again))
    (row, _) = await rows_of(ledger)
    assert (row.cause, row.kind) == (None, None)


async def test_a_budget_is_shared_among_holders(make: Make) -> None:
    mine, theirs = make(), make()
    await mine.set_limits(SpendingLimits(max_calls=10, max_tokens=1000, max_cost_usd=1.0))
    assert await theirs.limits() == SpendingLimits(10, 1000, 1.0)
    await mine.add([entry("a"), entry("b"), entry("c")])
    one, two, three = await leased(mine), await leased(theirs, "you"), await leased(mine)
    assert await mine.reserve(one, Spending(calls=6)) == "granted"
    assert await theirs.reserve(two, Spending(calls=5)) == "later"
    assert await theirs.reserve(two, Spending(calls=4)) == "granted"
    assert await mine.reserve(three, Spending(calls=1)) == "later"
    assert await mine.reserve(three, Spending(calls=11)) == "never"
    assert (await mine.status()).reserved.calls == 10
    assert await mine.record(one, done(one, spent=Spending(calls=3, prompt_tokens=100)))
    assert (await mine.status()).reserved.calls == 4
    assert await mine.reserve(three, Spending(calls=3)) == "granted"
    assert await mine.reserve(three, Spending(calls=4)) == "later", "in place of the three, beside the four"
    assert await mine.reserve(three, Spending(prompt_tokens=800, completion_tokens=101)) == "never"
    assert await mine.reserve(three, Spending(prompt_tokens=800, completion_tokens=100)) == "granted"
    assert await mine.reserve(three, Spending(cost_usd=1.01)) == "never"
    await theirs.release(two)
    await mine.expire(everyone=True)
    status = await mine.status()
    assert (status.reserved, status.spent.calls) == (Spending(), 3)


async def test_what_the_dead_have_set_aside_is_there_for_who_asks_again(make: Make, clock: Clock) -> None:
    mine, theirs = make(), make()
    await mine.set_limits(SpendingLimits(max_calls=10))
    await mine.add([entry("a"), entry("b"), entry("c")])
    dead, living, waiting = await leased(theirs, "dead"), await leased(theirs, "living"), await leased(mine)
    assert await theirs.reserve(dead, Spending(calls=6)) == "granted"
    assert await theirs.reserve(living, Spending(calls=4)) == "granted"
    clock.now += LEASE_S / 2
    assert await theirs.heartbeat(living, seconds=LEASE_S)
    assert await mine.heartbeat(waiting, seconds=LEASE_S)
    assert await mine.reserve(waiting, Spending(calls=6)) == "later"
    assert await theirs.heartbeat(dead, seconds=0), "nothing is taken back before its time"
    clock.now += 1
    assert await mine.reserve(waiting, Spending(calls=7)) == "later"
    assert (await mine.status()).reserved.calls == 4
    assert not await theirs.heartbeat(dead, seconds=LEASE_S)
    assert await mine.reserve(waiting, Spending(calls=6)) == "granted"
    assert await theirs.heartbeat(living, seconds=LEASE_S)


async def test_without_limits_everything_is_granted(ledger: Ledger) -> None:
    await ledger.add([entry("a")])
    assert await ledger.reserve(await leased(ledger), Spending(calls=10**9, cost_usd=1e9)) == "granted"


async def test_a_cancelled_batch_leases_nothing_until_it_runs_again(make: Make) -> None:
    mine, theirs = make(), make()
    await mine.add([entry("a"), entry("b")])
    lease = await leased(mine)
    await theirs.set_control("cancelled")
    assert await mine.control() == "cancelled"
    assert (await mine.status()).control == "cancelled"
    assert await mine.lease("me", seconds=LEASE_S) is None
    assert await mine.record(lease, done(lease)), "what is under way may be finished"
    await mine.set_control("run")
    assert (await leased(mine)).sources == ("b",)


async def test_ended_items_are_opened_again_by_state_and_cause(ledger: Ledger) -> None:
    await ledger.add([entry(name) for name in "abcd"])
    kinds = {
        "a": ("done", None),
        "b": ("failed", "ModelTimeout"),
        "c": ("failed", "DocumentError"),
        "d": ("partial", "budget"),
    }
    for state, kind in kinds.values():
        lease = await leased(ledger)
        await ledger.record(lease, done(lease, state=state, kind=kind, cause=kind, spent=Spending(calls=2)))
    assert await ledger.reopen({"failed"}, kinds={"ModelTimeout", "lost"}, config="other") == 1
    (row,) = await rows_of(ledger, "pending")
    assert (row.sources, row.config, row.cause, row.kind, row.generation) == (("b",), "other", None, None, 0)
    assert row.spent.calls == 2, "the same run goes on"
    again = await leased(ledger)
    assert (again.items[0].spent.calls, again.items[0].config) == (2, "other")
    assert await ledger.reopen({"failed", "partial"}, fresh=True) == 2
    later = [await leased(ledger), await leased(ledger)]
    assert [(lease.items[0].generation, lease.items[0].spent.calls) for lease in later] == [(1, 0), (1, 0)]
    status = await ledger.status()
    assert (status.counts["done"], status.counts["leased"], status.spent.calls) == (1, 3, 8)
    assert dict(status.causes) == {}
    assert await ledger.reopen(set()) == 0


async def test_opening_again_under_a_lease_waits_for_its_end(ledger: Ledger) -> None:
    await ledger.add([entry("a", "one", "two")])
    lease = await leased(ledger)
    await ledger.record(lease, [Outcome("digest of a/one", "failed", cause="x", kind="x")])
    assert await ledger.reopen({"failed"}) == 1
    assert await ledger.lease("you", seconds=LEASE_S) is None
    await ledger.record(lease, [Outcome("digest of a/two", "done")])
    assert [item.key for item in (await leased(ledger)).items] == ["digest of a/one"]


async def test_ended_items_are_unreported_until_they_are_reported(make: Make) -> None:
    mine, theirs = make(), make()
    await mine.add([entry("a", "one", "two")])
    lease = await leased(mine)
    assert await mine.unreported() == []
    await mine.record(lease, [Outcome("digest of a/two", "done"), Outcome("digest of a/one", "failed", kind="x")])
    assert {(row.key, row.state) for row in await theirs.unreported()} == {
        ("digest of a/one", "failed"),
        ("digest of a/two", "done"),
    }
    assert len(await theirs.unreported(1)) == 1
    await mine.reported(["digest of a/two"])
    assert [row.key for row in await theirs.unreported()] == ["digest of a/one"]
    await theirs.reopen({"failed"})
    assert await theirs.unreported() == []


async def test_what_is_unreported_comes_bit_by_bit_as_it_is_reported(ledger: Ledger) -> None:
    questions = [f"q{n}" for n in range(450)]
    await ledger.add([entry("a", *questions)])
    lease = await leased(ledger)
    await ledger.record(lease, done(lease))
    sizes, keys = [], set[str]()
    while rows := await ledger.unreported(220):
        sizes.append(len(rows))
        keys |= {row.key for row in rows}
        await ledger.reported([row.key for row in rows])
    assert sizes == [220, 220, 10]
    assert len(keys) == 450


async def test_the_slowest_are_kept_and_no_more(ledger: Ledger) -> None:
    await ledger.add([entry(f"d{n}") for n in range(N_SLOWEST + 5)])
    for n in range(N_SLOWEST + 5):
        lease = await leased(ledger)
        await ledger.record(lease, done(lease, seconds=float((n * 7) % 15 + 1)))
    slowest = (await ledger.status()).slowest
    assert [slow.seconds for slow in slowest] == [float(s) for s in range(15, 5, -1)]


async def test_rows_come_page_by_page_in_order_and_once(ledger: Ledger) -> None:
    n = 1200
    await ledger.add([entry(f"d{i:04}", "one", "two") for i in range(n // 2)])
    rows = await rows_of(ledger)
    assert [row.sources[0] for row in rows] == [f"d{i:04}" for i in range(n // 2) for _ in range(2)]
    assert len({row.key for row in rows}) == n
    assert await rows_of(ledger, "done") == []


async def test_a_ledger_is_there_for_who_comes_later(make: Make) -> None:
    first = make()
    await first.add([entry("a"), entry("b")])
    lease = await leased(first)
    await first.record(lease, done(lease, spent=Spending(calls=1)))
    await first.close()
    second = make()
    status = await second.status()
    assert (status.counts["done"], status.counts["pending"], status.spent.calls) == (1, 1, 1)


async def test_many_holders_side_by_side_get_each_document_once(make: Make) -> None:
    n = 40
    await make().add([entry(f"d{i}") for i in range(n)])

    async def work(owner: str) -> list[str]:
        ledger, got = make(), []
        while (lease := await ledger.lease(owner, seconds=LEASE_S)) is not None:
            got.append(lease.sources[0])
            await ledger.record(lease, done(lease, spent=Spending(calls=1)))
        return got

    got = await asyncio.gather(*(work(f"worker {i}") for i in range(4)))
    assert sorted(name for names in got for name in names) == sorted(f"d{i}" for i in range(n))
    assert (await make().status()).spent.calls == n
