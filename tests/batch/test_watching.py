"""What the driver of a batch does when the workers that it has placed die, stop and fail; the cluster is a double."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from coa.api import StopSignal
from coa.batch import watching
from coa.batch.driving import Driven
from coa.batch.ledger import Entry, Ledger, NewItem, Outcome
from coa.batch.parts import Part, share
from coa.batch.placed_worker import WorkerPlace, WorkOrder
from coa.batch.record import BatchOptions, BatchRecord, BatchStore
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.batch.watching import Placed, WorkerLost, WorkersFailed, watch_workers
from coa.config import Settings
from coa.errors import ModelUnavailable

Script = Callable[["FakeWorker"], Awaitable[Driven]]


class FakeWorker:
    """Does what its script says, on the caller's loop."""

    def __init__(self, order: WorkOrder, number: int, script: Script) -> None:
        self.order = order
        self.number = number
        self.told = asyncio.Event()
        self.killed = False
        self._script = script

    async def place(self) -> WorkerPlace:
        return WorkerPlace("here", self.number)

    async def run(self) -> Driven:
        return await self._script(self)

    async def stop(self, reason: str) -> None:
        self.told.set()

    def kill(self) -> None:
        self.killed = True


class FakeCluster:
    hint = "Ask it"

    def __init__(self, script: Script) -> None:
        self.placed: list[FakeWorker] = []
        self._script = script

    def place(self, order: WorkOrder) -> Placed:
        self.placed.append(FakeWorker(order, len(self.placed), self._script))
        return self.placed[-1]


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    opened = SQLiteLedger(tmp_path / "ledger.sqlite")
    await opened.add([Entry(f"d{i}", f"{i:064x}", "1", 1, (NewItem(f"{i:032x}", "q"),)) for i in range(6)])
    yield opened
    await opened.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", max_parallel_calls=5)


@pytest.fixture
def record(settings: Settings, tmp_path: Path) -> BatchRecord:
    return BatchStore(settings.home).create(
        task="ask", inputs=(), payloads=(), out=tmp_path / "out", settings=settings, options=BatchOptions(jobs=7)
    )


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_PAUSE_S", 0.0)
    monkeypatch.setattr(watching, "_LAST_WORDS_S", 0.5)


async def work_through(ledger: Ledger, owner: str) -> Driven:
    while (lease := await ledger.lease(owner, seconds=60)) is not None:
        await ledger.record(lease, [Outcome(item.key, "done") for item in lease.items])
    return Driven("finished")


async def test_documents_and_calls_at_once_are_shared_out(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    cluster = FakeCluster(lambda worker: work_through(ledger, worker.order.owner))
    driven = await watch_workers(cluster, record, settings, ledger, n_workers=3, stop=StopSignal())
    assert driven == Driven("finished")
    told = [(w.order.jobs, share(settings.max_parallel_calls, w.order.part)) for w in cluster.placed]
    assert told == [(3, 2), (2, 2), (2, 1)], "seven documents and five calls at once"
    assert {w.order.batch_id for w in cluster.placed} == {record.batch_id}
    assert len({w.order.owner for w in cluster.placed}) == 3
    assert Settings.model_validate(cluster.placed[0].order.settings) == settings
    assert all(worker.killed for worker in cluster.placed), "their processes are of no more use"


async def test_there_are_no_more_workers_than_calls_at_once(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    cluster = FakeCluster(lambda worker: work_through(ledger, worker.order.owner))
    await watch_workers(cluster, record, settings, ledger, n_workers=9, stop=StopSignal())
    assert [worker.order.part for worker in cluster.placed] == [Part(number, 5) for number in range(5)]


async def test_a_worker_that_is_lost_hands_its_part_to_the_next(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(worker: FakeWorker) -> Driven:
        if worker.number == 0:
            raise WorkerLost("killed")
        return await work_through(ledger, worker.order.owner)

    cluster = FakeCluster(script)
    await watch_workers(cluster, record, settings, ledger, n_workers=1, stop=StopSignal())
    assert [worker.order.part for worker in cluster.placed] == [Part(0, 1)] * 2


async def test_a_worker_that_was_asked_to_stop_by_itself_is_replaced(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(worker: FakeWorker) -> Driven:
        return Driven("stopped") if worker.number < 12 else await work_through(ledger, worker.order.owner)

    cluster = FakeCluster(script)
    driven = await watch_workers(cluster, record, settings, ledger, n_workers=1, stop=StopSignal())
    assert (driven.ending, len(cluster.placed)) == ("finished", 13)


async def test_the_others_may_say_what_they_have_done_when_one_finds_everything_done(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    said: list[int] = []

    async def script(worker: FakeWorker) -> Driven:
        driven = await work_through(ledger, worker.order.owner)
        await asyncio.sleep(0.02 * worker.number)
        said.append(worker.number)
        return driven

    await watch_workers(FakeCluster(script), record, settings, ledger, n_workers=3, stop=StopSignal())
    assert said == [0, 1, 2]


async def test_a_worker_that_never_finds_room_is_not_waited_for_in_the_end(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(worker: FakeWorker) -> Driven:
        if worker.number == 1:
            await asyncio.sleep(3600)
        return await work_through(ledger, worker.order.owner)

    cluster = FakeCluster(script)
    async with asyncio.timeout(10):
        driven = await watch_workers(cluster, record, settings, ledger, n_workers=2, stop=StopSignal())
    assert driven.ending == "finished"
    assert cluster.placed[1].killed


async def test_a_dead_worker_is_replaced_and_its_documents_are_taken_back_at_once(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(worker: FakeWorker) -> Driven:
        if worker.number == 0:
            assert await ledger.lease(worker.order.owner, seconds=3600) is not None
            raise WorkerLost("killed")
        while len(cluster.placed) < 3:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)
        return await work_through(ledger, worker.order.owner)

    cluster = FakeCluster(script)
    async with asyncio.timeout(10):
        driven = await watch_workers(cluster, record, settings, ledger, n_workers=2, stop=StopSignal())
    assert driven.ending == "finished"
    assert len(cluster.placed) == 3
    assert (await ledger.status()).counts["done"] == 6


async def test_workers_that_die_again_and_again_with_nothing_done_end_the_batch(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(worker: FakeWorker) -> Driven:
        raise WorkerLost("out of memory")

    cluster = FakeCluster(script)
    with pytest.raises(WorkersFailed, match=r"10 workers in a row .*out of memory"):
        await watch_workers(cluster, record, settings, ledger, n_workers=2, stop=StopSignal())
    assert all(worker.killed for worker in cluster.placed)


async def test_workers_that_get_something_done_may_die_for_ever(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    await ledger.add([Entry(f"e{i}", f"e{i:063x}", "1", 1, (NewItem(f"e{i:031x}", "q"),)) for i in range(30)])

    async def script(worker: FakeWorker) -> Driven:
        lease = await ledger.lease(worker.order.owner, seconds=60)
        if lease is None:
            return Driven("finished")
        await ledger.record(lease, [Outcome(lease.items[0].key, "done")])
        raise WorkerLost("again")

    cluster = FakeCluster(script)
    driven = await watch_workers(cluster, record, settings, ledger, n_workers=1, stop=StopSignal())
    assert driven.ending == "finished"
    assert len(cluster.placed) == 36, "the last one that dies leaves nothing open"


async def test_a_stop_reaches_every_worker_and_no_new_one_is_placed(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(worker: FakeWorker) -> Driven:
        await worker.told.wait()
        if worker.number == 0:
            raise WorkerLost("at the wrong moment")
        return Driven("stopped")

    cluster, stop = FakeCluster(script), StopSignal()
    asyncio.get_running_loop().call_later(0.05, stop.request, "SIGTERM")
    driven = await watch_workers(cluster, record, settings, ledger, n_workers=3, stop=stop)
    assert driven.ending == "stopped"
    assert len(cluster.placed) == 3


async def test_an_error_of_one_worker_stops_the_others_and_is_told(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    error = ModelUnavailable("nobody there")

    async def script(worker: FakeWorker) -> Driven:
        if worker.number == 1:
            return Driven("unavailable", error)
        await worker.told.wait()
        return Driven("stopped")

    driven = await watch_workers(FakeCluster(script), record, settings, ledger, n_workers=2, stop=StopSignal())
    assert driven == Driven("unavailable", error)
