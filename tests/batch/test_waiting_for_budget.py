"""Documents that wait for their share of a batch's budget."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from coa.api import StopSignal
from coa.batch.asking import question_payload
from coa.batch.driving import drive
from coa.batch.estimating import Sample
from coa.batch.items import Job, Worked
from coa.batch.ledger import Spending, SpendingLimits
from coa.batch.processing import Desk
from coa.batch.record import BatchOptions, BatchRecord, BatchStore
from coa.batch.results import ResultFolder
from coa.batch.running import scan
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.config import Settings
from coa.documents import read_document
from coa.testing.fault_server import FaultServer

pytestmark = pytest.mark.slow

N_CALLS = 20


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with FaultServer() as server:
        params = {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"}
        info = {"kind": "hosted", "max_input_tokens": 4096}
        yield Settings(
            home=tmp_path / "home",
            model="readers",
            notes="paper",
            chunk_tokens=300,
            response_cache=False,
            model_list=[{"model_name": "readers", "litellm_params": params, "model_info": info}],
        )


@pytest.fixture
def record(settings: Settings, tmp_path: Path) -> BatchRecord:
    folder = tmp_path / "documents"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(f"The keeper of {name} wrote that the key hung by the door.")
    return BatchStore(settings.home).create(
        task="ask",
        inputs=(str(folder),),
        payloads=(question_payload("Where was the key?"),),
        out=tmp_path / "out",
        settings=settings,
        options=BatchOptions(jobs=1, limits=SpendingLimits(max_calls=N_CALLS)),
    )


@pytest.fixture
async def ledger(record: BatchRecord, settings: Settings, tmp_path: Path) -> SQLiteLedger:
    made = SQLiteLedger(tmp_path / "ledger.sqlite")
    await made.set_limits(record.options.limits)
    await scan(record, made, BatchStore(settings.home), sample=Sample())
    return made


@pytest.fixture
def desk(record: BatchRecord, settings: Settings, ledger: SQLiteLedger, tmp_path: Path) -> Desk:
    runs = BatchStore(settings.home).runs_of(record)
    return Desk(record, settings, ledger, ResultFolder(tmp_path / "out"), runs)


async def test_who_waits_with_all_places_taken_gets_what_a_dead_worker_had_set_aside(
    desk: Desk, ledger: SQLiteLedger
) -> None:
    dead = await ledger.lease("dead", seconds=1.0)
    assert dead is not None
    assert await ledger.reserve(dead, Spending(calls=N_CALLS)) == "granted"
    async with desk, asyncio.timeout(10):
        driven = await drive(desk, ledger, owner="me", jobs=1, stop=StopSignal())
    assert (driven.ending, (await ledger.status()).counts["done"]) == ("finished", 2)
    await ledger.close()


async def test_a_lease_that_is_lost_while_it_waits_tells_nothing_of_its_document(
    desk: Desk, ledger: SQLiteLedger, tmp_path: Path
) -> None:
    lost = await ledger.lease("me", seconds=0)
    assert lost is not None
    await ledger.expire()
    job = Job(lost, StopSignal(), Worked(lost), open={item.key: item for item in lost.items})
    async with desk:
        assert not await desk._shares(job, read_document((tmp_path / "documents" / "a.txt").read_bytes()))
    assert job.lost
    assert not (tmp_path / "out" / "documents").exists(), "what its next holder has found there is not replaced"
    await ledger.close()
