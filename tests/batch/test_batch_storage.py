"""How what a batch stores gets to the disk: from which threads, how much at once, and how little."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import Mock

import pytest

from coa.api import Session
from coa.batch.items import ItemDesk
from coa.batch.ledger import Entry, NewItem, Outcome, Spending, SpendingLimits
from coa.batch.result_lines import ResultLines
from coa.batch.results import ResultFolder
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.config import Settings
from coa.documents import read_document
from coa.errors import StorageError
from coa.runs import RunStore
from coa.testing.fault_server import FaultServer

_T = TypeVar("_T")


class _Guarded(SQLiteLedger):
    """Sees to it that no cursor leaves the ledger's thread."""

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        found = await super()._run(work)
        assert not isinstance(found, sqlite3.Cursor)
        return found


async def test_a_ledger_in_a_file_waits_in_its_thread_where_somebody_else_writes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SQLiteLedger(path)
    await ledger.add([Entry("a", "1" * 64, "1", 1, (NewItem("1" * 32, "q"),))])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    leasing = asyncio.create_task(ledger.lease("me", seconds=60))
    await asyncio.sleep(0.05)
    assert not leasing.done(), "the event loop goes on meanwhile"
    assert await ledger.known("a") is not None, "who reads waits for nobody"
    other.execute("COMMIT")
    lease = await leasing
    assert lease is not None
    assert await ledger.heartbeat(lease, seconds=60)
    other.close()
    await ledger.close()


async def test_the_log_of_a_ledger_in_a_file_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SQLiteLedger(path)
    await ledger.add([Entry("a", "1" * 64, "1", 1, (NewItem("1" * 32, "q"),))])
    lease = await ledger.lease("me", seconds=60)
    assert lease is not None
    for _ in range(6_000):
        assert await ledger.heartbeat(lease, seconds=60)
        await asyncio.sleep(0)
    # It is cut at 8 MB when it was put into the file; without that it would be 50 MB.
    assert (tmp_path / "ledger.sqlite-wal").stat().st_size <= 16_000_000
    await ledger.close()


async def test_no_cursor_leaves_the_thread_of_a_ledger_in_a_file(tmp_path: Path) -> None:
    ledger = _Guarded(tmp_path / "ledger.sqlite")
    await ledger.add([Entry("a", "1" * 64, "1", 1, (NewItem("1" * 32, "q"),))])
    await ledger.known("a")
    await ledger.set_limits(SpendingLimits(max_calls=5))
    await ledger.set_control("run")
    lease = await ledger.lease("me", seconds=60)
    assert lease is not None
    await ledger.heartbeat(lease, seconds=60, progress=True)
    await ledger.reserve(lease, Spending(calls=1))
    await ledger.release(lease)
    lease = await ledger.lease("me", seconds=60)
    assert lease is not None
    await ledger.record(lease, [Outcome(lease.items[0].key, "done")])
    assert [row.key for row in await ledger.unreported()] == ["1" * 32]
    await ledger.reported(["1" * 32])
    assert [row.state async for row in ledger.rows()] == ["done"]
    await ledger.reopen({"done"})
    await ledger.expire(everyone=True)
    assert (await ledger.limits(), await ledger.control()) == (SpendingLimits(max_calls=5), "run")
    assert (await ledger.status()).counts["pending"] == 1
    await ledger.close()


class _Slow(ResultFolder):
    """Its first lines take until they are let go."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.go = threading.Event()
        self.at_once: list[int] = []
        self.broken = False

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.go.wait(10)
        self.at_once.append(len(rows))
        if self.broken:
            raise StorageError("the disk is full.")
        super().append(rows)


@pytest.fixture
def results(tmp_path: Path) -> _Slow:
    return _Slow(tmp_path / "out")


async def test_lines_of_items_that_end_together_are_written_together(tmp_path: Path, results: _Slow) -> None:
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    lines = ResultLines(results, ledger)
    first = asyncio.create_task(lines.add("0", {"key": "0"}))
    await asyncio.sleep(0)
    others = [asyncio.create_task(lines.add(str(i), {"key": str(i)})) for i in range(1, 6)]
    given_up = others.pop()
    await asyncio.sleep(0)
    given_up.cancel()
    results.go.set()
    await asyncio.gather(first, *others)
    await lines.close()
    assert results.at_once == [1, 5]
    assert [row["key"] for row in results.rows()] == [str(i) for i in range(6)], "also that of who did not wait"
    await ledger.close()


async def test_a_line_that_cannot_be_written_is_told_to_each_item_and_the_next_is_tried(
    tmp_path: Path, results: _Slow
) -> None:
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    lines = ResultLines(results, ledger)
    results.go.set()
    results.broken = True
    found = await asyncio.gather(*(lines.add(str(i), {}) for i in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [StorageError] * 3
    results.broken = False
    await lines.add("9", {"key": "9"})
    assert [row["key"] for row in results.rows()] == ["9"]
    await ledger.close()


async def test_nobody_waits_for_ever_for_a_line_whose_writing_was_ended(tmp_path: Path, results: _Slow) -> None:
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    lines = ResultLines(results, ledger)
    waiting = [asyncio.create_task(lines.add("0", {"key": "0"}))]
    await asyncio.sleep(0.05)
    waiting.append(asyncio.create_task(lines.add("1", {"key": "1"})))  # behind the one that is being written
    await asyncio.sleep(0)
    assert lines._writing is not None
    lines._writing.cancel()
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError] * 2
    results.go.set()
    await lines.add("2", {"key": "2"})
    await ledger.close()


@pytest.mark.parametrize("alive", [True, False])
async def test_a_line_that_a_living_worker_is_about_to_write_is_left_to_it(
    tmp_path: Path, results: _Slow, alive: bool
) -> None:
    ledger = SQLiteLedger(tmp_path / "ledger.sqlite")
    await ledger.add([Entry("a", "1" * 64, "1", 1, (NewItem("1" * 32, '{"task":"ask","question":"q"}'),))])
    lease = await ledger.lease("another", seconds=60)
    assert lease is not None
    await ledger.record(lease, [Outcome("1" * 32, "failed", cause="it was empty", kind="DocumentError")])
    results.go.set()
    record = Mock(batch_id="b", options=Mock(keep_runs=False))
    reporting = asyncio.create_task(ItemDesk(record, Mock(), ledger, results, Mock()).report(others_s=0.1))
    await asyncio.sleep(0.02)
    if alive:
        await ledger.reported(["1" * 32])
    assert await reporting == (0 if alive else 1)
    assert len(list(results.rows())) == (0 if alive else 1)
    await ledger.close()


@pytest.mark.slow
async def test_a_run_that_stores_no_answer_gives_it_again_without_a_call(tmp_path: Path) -> None:
    document = read_document(" ".join(f"On day {i} the key hung by door {i}." for i in range(60)).encode())
    with FaultServer() as server:
        params = {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"}
        info = {"kind": "hosted", "max_input_tokens": 4096}
        entries = [{"model_name": "readers", "litellm_params": params, "model_info": info}]
        settings = Settings(
            home=tmp_path, model="readers", notes="paper", chunk_tokens=200, response_cache=False, model_list=entries
        )
        answers, calls = [], []
        for _ in range(2):  # the second is another process, but for the model that is open
            runs = RunStore(tmp_path / "runs of a batch", keeps_checkpoints=False, keeps_ended=False)
            runs.save_document(document)
            async with Session(settings, runs=runs) as session:
                answers.append(await session.ask(document, "Where was the key?", run_id="one"))
            calls.append(server.stats().calls)
    assert calls[0] == calls[1] > 2
    assert answers[0].text == answers[1].text
    assert answers[0].usage.calls == answers[1].usage.calls == calls[0]
    stored = sorted(path.name for path in (runs.home / "runs" / "one").iterdir())
    assert stored == ["lock", "notes.jsonl", "plan.json", "run.json"]
    (runs.home / "runs" / "one" / "plan.json").write_text("")
    assert not runs.has("one"), "it is begun anew, over its notes"
    assert not (runs.home / "documents").exists()
    assert runs.has_document(document.sha256)
    runs.forget_document(document.sha256)
    assert not runs.has_document(document.sha256)
