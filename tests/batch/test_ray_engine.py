"""What the driver of a batch on Ray does when actors die, stop and fail; the cluster is a double."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coa.api import StopSignal
from coa.batch import ray_engine
from coa.batch.driving import Driven
from coa.batch.ledger import Entry, Ledger, NewItem, Outcome
from coa.batch.ray_actor import ActorPlace, ActorWork
from coa.batch.ray_cluster import ActorLost, Placed, RayFailed
from coa.batch.ray_engine import drive_on_ray, watch_actors
from coa.batch.record import BatchOptions, BatchRecord, BatchStore
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.config import Settings
from coa.errors import ConfigError, ModelUnavailable

Script = Callable[["FakeActor"], Awaitable[Driven]]


class FakeActor:
    """Does what its script says, on the caller's loop."""

    def __init__(self, work: ActorWork, number: int, script: Script) -> None:
        self.work = work
        self.number = number
        self.told = asyncio.Event()
        self.killed = False
        self._script = script

    async def place(self) -> ActorPlace:
        return ActorPlace("here", self.number)

    async def run(self) -> Driven:
        return await self._script(self)

    async def stop(self, reason: str) -> None:
        self.told.set()

    def kill(self) -> None:
        self.killed = True


class FakeCluster:
    def __init__(self, script: Script) -> None:
        self.placed: list[FakeActor] = []
        self._script = script

    def place(self, work: ActorWork) -> Placed:
        self.placed.append(FakeActor(work, len(self.placed), self._script))
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
    monkeypatch.setattr(ray_engine, "_PAUSE_S", 0.0)


async def work_through(ledger: Ledger, owner: str) -> Driven:
    while (lease := await ledger.lease(owner, seconds=60)) is not None:
        await ledger.record(lease, [Outcome(item.key, "done") for item in lease.items])
    return Driven("finished")


async def test_documents_and_calls_at_once_are_shared_out(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    cluster = FakeCluster(lambda actor: work_through(ledger, actor.work.owner))
    driven = await watch_actors(cluster, record, settings, ledger, n_actors=2, stop=StopSignal())
    assert driven == Driven("finished")
    assert [(a.work.jobs, a.work.max_parallel_calls, a.work.batch_id) for a in cluster.placed] == [
        (4, 3, record.batch_id)
    ] * 2
    assert len({a.work.owner for a in cluster.placed}) == 2
    assert Settings.model_validate(cluster.placed[0].work.settings) == settings
    assert all(actor.killed for actor in cluster.placed), "their processes are of no more use"


async def test_an_actor_that_never_finds_room_is_not_waited_for_in_the_end(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(actor: FakeActor) -> Driven:
        if actor.number == 1:
            await asyncio.sleep(3600)
        return await work_through(ledger, actor.work.owner)

    cluster = FakeCluster(script)
    async with asyncio.timeout(10):
        driven = await watch_actors(cluster, record, settings, ledger, n_actors=2, stop=StopSignal())
    assert driven.ending == "finished"
    assert cluster.placed[1].killed


async def test_a_dead_actor_is_replaced_and_its_documents_are_taken_back_at_once(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(actor: FakeActor) -> Driven:
        if actor.number == 0:
            assert await ledger.lease(actor.work.owner, seconds=3600) is not None
            raise ActorLost("killed")
        while len(cluster.placed) < 3:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)
        return await work_through(ledger, actor.work.owner)

    cluster = FakeCluster(script)
    async with asyncio.timeout(10):
        driven = await watch_actors(cluster, record, settings, ledger, n_actors=2, stop=StopSignal())
    assert driven.ending == "finished"
    assert len(cluster.placed) == 3
    assert (await ledger.status()).counts["done"] == 6


async def test_actors_that_die_again_and_again_with_nothing_done_end_the_batch(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(actor: FakeActor) -> Driven:
        raise ActorLost("out of memory")

    cluster = FakeCluster(script)
    with pytest.raises(RayFailed, match=r"10 actors in a row .*out of memory"):
        await watch_actors(cluster, record, settings, ledger, n_actors=2, stop=StopSignal())
    assert all(actor.killed for actor in cluster.placed)


async def test_actors_that_get_something_done_may_die_for_ever(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    await ledger.add([Entry(f"e{i}", f"e{i:063x}", "1", 1, (NewItem(f"e{i:031x}", "q"),)) for i in range(30)])

    async def script(actor: FakeActor) -> Driven:
        lease = await ledger.lease(actor.work.owner, seconds=60)
        if lease is None:
            return Driven("finished")
        await ledger.record(lease, [Outcome(lease.items[0].key, "done")])
        raise ActorLost("again")

    cluster = FakeCluster(script)
    driven = await watch_actors(cluster, record, settings, ledger, n_actors=1, stop=StopSignal())
    assert driven.ending == "finished"
    assert len(cluster.placed) == 36, "the last one that dies leaves nothing open"


async def test_a_stop_reaches_every_actor_and_no_new_one_is_placed(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    async def script(actor: FakeActor) -> Driven:
        await actor.told.wait()
        if actor.number == 0:
            raise ActorLost("at the wrong moment")
        return Driven("stopped")

    cluster, stop = FakeCluster(script), StopSignal()
    asyncio.get_running_loop().call_later(0.05, stop.request, "SIGTERM")
    driven = await watch_actors(cluster, record, settings, ledger, n_actors=3, stop=stop)
    assert driven.ending == "stopped"
    assert len(cluster.placed) == 3


async def test_an_error_of_one_actor_stops_the_others_and_is_told(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    error = ModelUnavailable("nobody there")

    async def script(actor: FakeActor) -> Driven:
        if actor.number == 1:
            return Driven("unavailable", error)
        await actor.told.wait()
        return Driven("stopped")

    driven = await watch_actors(FakeCluster(script), record, settings, ledger, n_actors=2, stop=StopSignal())
    assert driven == Driven("unavailable", error)


async def test_a_ledger_in_a_file_cannot_be_shared_with_actors(
    record: BatchRecord, settings: Settings, ledger: Ledger
) -> None:
    with pytest.raises(ConfigError, match="Redis"):
        await drive_on_ray(replace(record, redis=False), settings, ledger, stop=StopSignal())
