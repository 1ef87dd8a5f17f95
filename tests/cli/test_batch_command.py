"""`coa batch`: what is refused before anything is read, and what is told of batches that are there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coa.batch.asking import question_payload
from coa.batch.ledger import Entry, NewItem, Outcome, Spending
from coa.batch.record import BatchOptions, BatchRecord, BatchStore
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.config import Settings

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def batch(cli: Cli) -> BatchRecord:
    """Four items: one done, one failed, two open."""
    home = cli.folder / "home"
    store = BatchStore(home)
    record = store.create(
        task="ask",
        inputs=(str(cli.folder),),
        payloads=(question_payload("Who?"),),
        out=cli.folder / "results",
        settings=Settings(home=home),
        options=BatchOptions(jobs=2),
    )

    async def fill() -> None:
        ledger = SQLiteLedger(store.ledger_path(record.batch_id))
        items = [(NewItem(f"key{n}", question_payload("Who?"), record.config),) for n in range(4)]
        await ledger.add([Entry(f"/in/d{n}.txt", f"digest{n}", "1", 1, items[n]) for n in range(4)])
        for state in ("done", "failed"):
            lease = await ledger.lease("me", seconds=60)
            assert lease is not None
            spent = Spending(calls=3, prompt_tokens=1000, completion_tokens=50, cost_usd=0.25)
            cause = None if state == "done" else "the file is damaged."
            kind = None if state == "done" else "DocumentError"
            await ledger.record(lease, [Outcome(lease.items[0].key, state, spent, cause, kind, 2.0)])
        await ledger.close()

    asyncio.run(fill())
    return record


def test_the_state_of_a_batch_is_told_for_people_and_as_json(cli: Cli, batch: BatchRecord) -> None:
    told = cli("batch", "status", batch.batch_id)
    assert told.code == 3
    assert "4 of 4 documents: 1 done, 1 failed, 2 pending" in told.out
    assert "6 calls, 2,000 tokens in (0 cached), 100 out, $0.5000" in told.out
    assert "DocumentError: 1" in told.out
    found = json.loads(cli("batch", "status", str(cli.folder / "results"), "--json").out)
    assert (found["batch"], found["state"], found["counts"]["pending"]) == (batch.batch_id, "open", 2)
    assert found["slowest"][0]["source"].startswith("/in/d")
    assert json.loads(cli("batch", "status", "--json").out) == found, "the last one, where none is named"


def test_batches_are_listed_and_cancelled(cli: Cli, batch: BatchRecord) -> None:
    row = cli("batch", "list").out.rstrip("\n").split("\t")
    assert row[:4] == [batch.batch_id, "open", "1/4", "1"]
    told = cli("batch", "cancel", batch.batch_id[:-2])
    assert (told.code, "2 items are left" in told.err) == (0, True)
    assert json.loads(cli("batch", "list", "--json").out)[0]["state"] == "cancelled"


def test_an_export_goes_by_the_ending_of_its_file(cli: Cli, batch: BatchRecord) -> None:
    told = cli("batch", "export", batch.batch_id)
    assert told.out.strip() == str(cli.folder / "results" / "export.csv")
    target = cli.folder / "failed.jsonl"
    assert cli("batch", "export", batch.batch_id, "-o", str(target), "--state", "failed").code == 0
    (row,) = [json.loads(line) for line in target.read_text().splitlines()]
    assert (row["source"], row["state"], row["cause"]) == ("/in/d1.txt", "failed", "the file is damaged.")
    told = cli("batch", "export", batch.batch_id, "-o", str(cli.folder / "x.dat"))
    assert (told.code, "ending" in told.err) == (2, True)


@pytest.mark.parametrize("command", ["status", "resume", "retry", "cancel", "export"])
def test_a_batch_that_is_not_there_is_told(cli: Cli, command: str) -> None:
    told = cli("batch", command, "20990101")
    assert (told.code, "there is no batch" in told.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "no such file"),
        (["."], "no question"),
        ([".", "-q", "Who?", "--task", "summarize"], "-q belongs to --task ask"),
        ([".", "--task", "check"], "no statement"),
        ([".", "-q", "Who?", "--words", "50"], "--words belongs to --task summarize"),
        ([".", "--task", "summarize", "--language", "Klingon"], "--language"),
        ([".", "-q", "Who?", "--out", "book.txt"], "no folder"),
    ],
)
def test_what_cannot_be_is_refused_with_nothing_made(cli: Cli, arguments: list[str], told: str) -> None:
    (cli.folder / "book.txt").write_text("A book.")
    out = [] if "--out" in arguments else ["--out", "results"]
    found = cli("batch", "run", *arguments, *out)
    assert found.code == 2
    assert told in found.err
    assert not (cli.folder / "results" / "documents").exists()


def test_a_folder_of_another_batch_is_not_written_into(cli: Cli, batch: BatchRecord) -> None:
    (cli.folder / "book.txt").write_text("A book.")
    (cli.folder / "results" / "results.jsonl").write_text('{"key": "key0"}\n')
    found = cli("batch", "run", "book.txt", "-q", "Where?", "--out", "results")
    assert (found.code, "what is asked is another here" in found.err) == (2, True)
    found = cli("batch", "run", "book.txt", "-q", "Who?", "--strategy", "tree", "--out", "results")
    assert (found.code, "the setting strategy is another here" in found.err) == (2, True)


def test_a_batch_that_another_process_works_on_is_left_alone(cli: Cli, batch: BatchRecord) -> None:
    with BatchStore(cli.folder / "home").locked(batch.batch_id):
        found = cli("batch", "resume", batch.batch_id)
    assert (found.code, "another process" in found.err) == (2, True)


def test_results_of_another_home_are_told_apart(cli: Cli) -> None:
    Path(cli.folder / "results").mkdir()
    (cli.folder / "results" / "batch.json").write_text('{"batch": "20200101-000000-abcd"}')
    found = cli("batch", "status", str(cli.folder / "results"))
    assert (found.code, "COA_HOME" in found.err) == (2, True)
