"""Who is leased, how many at once, and when a batch stops by itself; without a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from coa.api import StopSignal
from coa.batch.driving import Driven, Patience, drive
from coa.batch.ledger import Entry, Lease, NewItem, Outcome, Spending, SpendingLimits
from coa.batch.processing import Desk, Worked
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.errors import AuthenticationFailed, CoaError, ModelUnavailable

Work = Callable[[Lease, StopSignal], Awaitable[Worked]]


class FakeDesk(Desk):
    """Does with a lease what it is told to, and records how many there are at once."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.now = self.most = 0
        self.seen: list[str] = []
        self.last_ones: list[str] | None = None
        """Those that were in hand, or over, when it was told that there are no others."""

    def no_others(self) -> None:
        self.last_ones = self.last_ones or list(self.seen)

    async def work(self, lease: Lease, stop: StopSignal, progress: asyncio.Event | None = None) -> Worked:
        self.seen.append(lease.sources[0])
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._work(lease, stop)
        finally:
            self.now -= 1


@pytest.fixture
async def ledger(tmp_path: Path) -> SQLiteLedger:
    made = SQLiteLedger(tmp_path / "ledger.sqlite")
    entries = [Entry(f"d{n:02}", f"digest {n}", "1", 1, (NewItem(f"key {n}", "{}"),)) for n in range(12)]
    await made.add(entries)
    return made


async def done(ledger: SQLiteLedger, lease: Lease) -> Worked:
    await ledger.record(lease, [Outcome(lease.items[0].key, "done", Spending(calls=1))])
    worked = Worked(lease)
    worked.states["done"] += 1
    return worked


async def failed(ledger: SQLiteLedger, lease: Lease, kind: str) -> Worked:
    await ledger.record(lease, [Outcome(lease.items[0].key, "failed", kind=kind, cause=kind)])
    worked = Worked(lease)
    worked.states["failed"] += 1
    worked.kinds[kind] += 1
    return worked


async def requested(stop: StopSignal) -> None:
    there = asyncio.Event()
    stop.listen(lambda reason: there.set())
    await asyncio.wait_for(there.wait(), 20)


async def driven(
    desk: FakeDesk, ledger: SQLiteLedger, *, jobs: int = 4, stop: StopSignal | None = None, **patience: float
) -> Driven:
    told = Patience(**patience)  # type: ignore[arg-type]
    found = await drive(desk, ledger, owner="me", jobs=jobs, stop=stop or StopSignal(), patience=told)
    await ledger.close()
    return found


async def test_every_document_is_worked_on_and_never_more_at_once_than_allowed(ledger: SQLiteLedger) -> None:
    async def work(lease: Lease, stop: StopSignal) -> Worked:
        await asyncio.sleep(0.002)
        return await done(ledger, lease)

    desk = FakeDesk(work)
    assert (await driven(desk, ledger, jobs=3)).ending == "finished"
    assert sorted(desk.last_ones or ()) == sorted(desk.seen), "those in hand at the end are told so"
    assert (desk.most, sorted(desk.seen)) == (3, [f"d{n:02}" for n in range(12)])


async def test_a_long_document_holds_one_place_and_the_others_go_past_it(ledger: SQLiteLedger) -> None:
    others_done = asyncio.Event()
    n_done = 0

    async def work(lease: Lease, stop: StopSignal) -> Worked:
        nonlocal n_done
        if lease.sources[0] == "d00":
            await asyncio.wait_for(others_done.wait(), 20)
        n_done += 1
        if n_done == 11:
            others_done.set()
        return await done(ledger, lease)

    assert (await driven(FakeDesk(work), ledger, jobs=2)).ending == "finished"


async def test_documents_whose_holders_died_are_begun_one_at_a_time_and_after_the_others(ledger: SQLiteLedger) -> None:
    for _ in range(3):
        assert await ledger.lease("dead", seconds=60) is not None
    await ledger.expire(everyone=True)
    suspects: list[int] = []
    n_now = 0

    async def work(lease: Lease, stop: StopSignal) -> Worked:
        nonlocal n_now
        n_now += lease.lost > 0
        if lease.lost:
            suspects.append(n_now)
        await asyncio.sleep(0.01)
        n_now -= lease.lost > 0
        return await done(ledger, lease)

    desk = FakeDesk(work)
    assert (await driven(desk, ledger, jobs=4)).ending == "finished"
    assert suspects == [1, 1, 1]
    assert desk.seen[-3:] == ["d00", "d01", "d02"]


async def test_a_stop_reaches_those_in_work_and_begins_no_other(ledger: SQLiteLedger) -> None:
    stop = StopSignal()

    async def work(lease: Lease, own: StopSignal) -> Worked:
        stop.request("SIGTERM")
        await requested(own)
        await ledger.release(lease)
        return Worked(lease, drained=True)

    desk = FakeDesk(work)
    assert (await driven(desk, ledger, jobs=2, stop=stop)).ending == "stopped"
    assert len(desk.seen) <= 2


async def test_a_cancellation_from_outside_is_seen_while_all_places_are_taken(ledger: SQLiteLedger) -> None:
    async def work(lease: Lease, own: StopSignal) -> Worked:
        await ledger.set_control("cancelled")
        await requested(own)
        await ledger.release(lease)
        return Worked(lease, drained=True)

    assert (await driven(FakeDesk(work), ledger, jobs=1)).ending == "cancelled"


async def test_an_error_that_concerns_all_stops_the_batch_and_is_told(ledger: SQLiteLedger) -> None:
    async def work(lease: Lease, stop: StopSignal) -> Worked:
        await ledger.release(lease)
        raise AuthenticationFailed("the key is wrong.")

    desk = FakeDesk(work)
    found = await driven(desk, ledger, jobs=1)
    assert (found.ending, type(found.error), len(desk.seen)) == ("error", AuthenticationFailed, 1)


async def test_a_dead_server_stops_the_batch_after_a_while_and_a_live_one_does_not(ledger: SQLiteLedger) -> None:
    error: CoaError = ModelUnavailable("nobody answers.")
    dead = True

    async def work(lease: Lease, stop: StopSignal) -> Worked:
        if dead or lease.sources[0] == "d05":
            await ledger.release(lease, cause="x", kind="x", wait_s=0.001)
            return Worked(lease, passing=error)
        return await done(ledger, lease)

    found = await driven(FakeDesk(work), ledger, seconds=0.0, documents=6)
    assert (found.ending, found.error and found.error.exit_code) == ("unavailable", 7)
    dead = False
    stop = StopSignal()
    asyncio.get_running_loop().call_later(0.3, stop.request, "test")
    assert (await driven(FakeDesk(work), ledger, stop=stop, seconds=60.0)).ending == "stopped"


async def test_wrong_settings_are_told_before_all_documents_have_failed(ledger: SQLiteLedger) -> None:
    desk = FakeDesk(lambda lease, stop: failed(ledger, lease, "LimitsError"))
    found = await driven(desk, ledger, jobs=1, wrong_at_first=3)
    assert (found.ending, found.error and found.error.exit_code, len(desk.seen)) == ("error", 2, 3)


async def test_broken_documents_stop_nothing(ledger: SQLiteLedger) -> None:
    desk = FakeDesk(lambda lease, stop: failed(ledger, lease, "DocumentError"))
    assert (await driven(desk, ledger, wrong_at_first=3)).ending == "finished"
    assert len(desk.seen) == 12


async def test_a_budget_that_is_used_up_ends_the_batch(ledger: SQLiteLedger) -> None:
    await ledger.set_limits(SpendingLimits(max_calls=1))
    desk = FakeDesk(lambda lease, stop: failed(ledger, lease, "budget"))
    assert (await driven(desk, ledger, jobs=1, too_dear=4)).ending == "budget"
    assert len(desk.seen) == 4
