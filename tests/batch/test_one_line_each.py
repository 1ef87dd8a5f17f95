"""Every item has one line in the list of results, whoever writes it and whatever was lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Set
from pathlib import Path
from unittest.mock import Mock

import pytest

from coa.batch import items, results
from coa.batch.asking import question_payload
from coa.batch.items import ItemDesk
from coa.batch.ledger import Entry, NewItem, Outcome
from coa.batch.record import BatchOptions, BatchStore
from coa.batch.results import ListedKeys, ResultFolder
from coa.batch.running import run_batch
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.config import Settings
from coa.testing.fault_server import FaultServer

N_ITEMS = 5


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SQLiteLedger]:
    """Items that have failed, and whoever told it is dead."""
    made = SQLiteLedger(tmp_path / "ledger.sqlite")
    payload = question_payload("Who?")
    await made.add([Entry(f"{n}.txt", f"{n}" * 64, "1", 1, (NewItem(f"key{n}", payload),)) for n in range(N_ITEMS)])
    while (lease := await made.lease("dead", seconds=60)) is not None:
        await made.record(lease, [Outcome(lease.items[0].key, "failed", cause="it was empty", kind="DocumentError")])
    yield made
    await made.close()


@pytest.fixture
def folder(tmp_path: Path) -> ResultFolder:
    return ResultFolder(tmp_path / "out")


def desk(ledger: SQLiteLedger, folder: ResultFolder, *, shared: bool = False) -> ItemDesk:
    record = Mock(batch_id="b", redis=shared, options=Mock(keep_runs=False))
    return ItemDesk(record, Mock(), ledger, ResultFolder(folder.out), Mock())


def keys_of(folder: ResultFolder) -> list[str]:
    return sorted(row["key"] for row in folder.rows())


async def test_several_who_report_at_the_same_time_write_each_line_once(
    ledger: SQLiteLedger, folder: ResultFolder
) -> None:
    folder.append([{"key": "key3"}])
    told = await asyncio.gather(*(desk(ledger, folder).report() for _ in range(4)))
    assert keys_of(folder) == [f"key{n}" for n in range(N_ITEMS)]
    assert sum(told) == N_ITEMS - 1
    assert await ledger.unreported() == []


@pytest.mark.parametrize(("shared", "n_reported"), [(True, N_ITEMS - 1), (False, N_ITEMS)])
async def test_others_are_given_time_to_write_their_lines_where_the_ledger_is_shared(
    ledger: SQLiteLedger,
    folder: ResultFolder,
    monkeypatch: pytest.MonkeyPatch,
    shared: bool,
    n_reported: int,
) -> None:
    monkeypatch.setattr(items, "_OTHERS_S", 0.3)
    reporting = asyncio.create_task(desk(ledger, folder, shared=shared).report())
    if shared:
        await asyncio.sleep(0.1)
        folder.append([{"key": "key0"}])
        await ledger.reported(["key0"])
    assert await reporting == n_reported
    assert keys_of(folder) == [f"key{n}" for n in range(N_ITEMS)]


async def test_many_are_reported_bit_by_bit_and_the_list_is_read_once(
    ledger: SQLiteLedger, folder: ResultFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "_ROWS_AT_ONCE", 2)
    n_read = 0
    row_of = results._row_of

    def counted(line: bytes) -> object:
        nonlocal n_read
        n_read += 1
        return row_of(line)

    folder.append([{"key": f"another{n}"} for n in range(50)])
    monkeypatch.setattr(results, "_row_of", counted)
    assert await desk(ledger, folder).report() == N_ITEMS
    assert n_read <= 50 + N_ITEMS
    monkeypatch.undo()
    assert len(keys_of(folder)) == 50 + N_ITEMS


def test_keys_are_read_on_and_anew_where_the_list_was_replaced(folder: ResultFolder) -> None:
    listed = ListedKeys(folder.lines)

    def read() -> Set[str]:
        return set(listed.read_on())

    assert read() == set()
    folder.append([{"key": "a"}, {"key": "b"}])
    assert read() == {"a", "b"}
    with folder.lines.open("ab") as file:
        file.write(b'{"key":"torn"}')
        file.flush()
        assert read() == {"a", "b"}, "who adds the next line cuts it off"
    folder.append([{"key": "c"}])
    assert read() == {"a", "b", "c"}
    folder.forget(["a"], before=folder.size())
    assert read() == {"b", "c"}
    assert folder.append_missing([{"key": "a"}, {"key": "b"}, {"key": "a"}], listed) == 1
    assert keys_of(folder) == ["a", "b", "c"]


@pytest.mark.slow
async def test_a_lost_ledger_and_a_file_that_changes_back_add_no_second_line(tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    texts = [f"The keeper of lamp {n} wrote that the key hung by the door." for n in range(3)]
    for n in range(2):
        (documents / f"{n}.txt").write_text(texts[n])
    with FaultServer() as server:
        params = {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"}
        info = {"kind": "hosted", "max_input_tokens": 4096}
        settings = Settings(
            home=tmp_path / "home",
            model="readers",
            notes="paper",
            chunk_tokens=300,
            response_cache=False,
            model_list=[{"model_name": "readers", "litellm_params": params, "model_info": info}],
        )
        store = BatchStore(settings.home)
        record = store.create(
            task="ask",
            inputs=(str(documents),),
            payloads=(question_payload("Where was the key?"),),
            out=tmp_path / "out",
            settings=settings,
            options=BatchOptions(jobs=2),
        )
        folder = ResultFolder(tmp_path / "out")

        async def run() -> tuple[int, int]:
            end = await run_batch(record, settings, estimate=False)
            keys = [json.loads(line)["key"] for line in folder.lines.read_text().splitlines()]
            assert len(keys) == len(set(keys))
            assert end.exit_code == 0
            return len(keys), server.stats().calls

        n_lines, n_calls = await run()
        assert n_lines == 2
        for file in store.ledger_path(record.batch_id).parent.glob("ledger.sqlite*"):
            file.unlink()
        assert await run() == (2, n_calls)
        (documents / "1.txt").write_text(texts[2])
        n_lines, n_calls = await run()
        (documents / "1.txt").write_text(texts[1])
        assert await run() == (n_lines, n_calls)
        lines = list(folder.rows())
        folder.forget([lines[0]["key"]], before=folder.size())
        for file in store.ledger_path(record.batch_id).parent.glob("ledger.sqlite*"):
            file.unlink()
        assert await run() == (n_lines, n_calls), "and one whose line was never written has it at the end"
