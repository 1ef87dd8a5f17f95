"""Whole batches over a fault server, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coa.api import StopSignal
from coa.batch.asking import ask_item, plain_payload, question_payload
from coa.batch.driving import Patience
from coa.batch.estimating import Expected
from coa.batch.exporting import COLUMNS, export
from coa.batch.ledger import SpendingLimits
from coa.batch.opening import open_ledger
from coa.batch.record import BatchOptions
from coa.batch.results import ResultFolder
from coa.batch.running import Listener, open_again, run_batch
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.testing.fault_server import ChatRequest, Faults, FaultServer
from tests.batch.place import WHO, Place

pytestmark = [
    pytest.mark.slow,
    # litellm makes a coroutine in a thread; a time limit that ends just then leaves it unawaited.
    pytest.mark.filterwarnings("ignore:coroutine 'OpenAIChatCompletion:RuntimeWarning"),
]

WHERE = question_payload("Where was the key?")


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(keep=10_000) as running:
        yield running


@pytest.fixture
def place(server: FaultServer, tmp_path: Path) -> Place:
    server.faults = Faults()
    server.reset_stats()
    return Place(tmp_path, server)


class Killed(BaseException):
    """In place of a process that dies."""


async def test_good_documents_are_done_broken_ones_fail_with_their_cause_and_nothing_is_asked_twice(
    place: Place,
) -> None:
    for name in ("a.txt", "b.txt"):
        place.write(name)
    (place.documents / "copy-of-a.txt").write_bytes((place.documents / "a.txt").read_bytes())
    (place.documents / "empty.txt").write_bytes(b"")
    (place.documents / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    record = place.record(WHO, WHERE)
    end = await place.run(record)
    assert (end.exit_code, end.ending, end.error) == (3, "finished", None)
    assert place.states() == {
        "a.txt": ["done"] * 2,
        "b.txt": ["done"] * 2,
        "empty.txt": ["failed"] * 2,
        "broken.pdf": ["failed"] * 2,
    }
    causes = {failure["kind"]: failure["items"] for failure in end.summary["failures"]}
    assert causes == {"DocumentEmpty": 2, "DocumentError": 2}
    assert all("broken.pdf" in row["cause"] for row in place.rows() if row["document"] == "broken.pdf")
    needed = sum(row["coverage"]["chunks"] + 1 for row in place.rows() if row["state"] == "done")
    assert place.calls == needed == end.summary["usage"]["calls"]
    assert not any(call.body.get("stream") for call in place.server.requests), "nobody watches"
    (row,) = (row for row in place.rows() if row["document"] == "a.txt" and row["question"] == "Who had the key?")
    assert [Path(source).name for source in row["sources"]] == ["a.txt", "copy-of-a.txt"]
    for line in place.rows():
        kept = json.loads((place.out / line["file"]).read_text())
        assert kept["items"][line["key"]]["answer"] == line["answer"], "items that end together lose nothing"
    assert list((place.store.path(record.batch_id) / "runs").iterdir()) == [], "finished runs are not kept"

    again = await place.run(record)
    assert (again.exit_code, again.ending, place.calls) == (3, "finished", needed)
    place.write("new.txt")
    place.write("b.txt", 25)
    end = await place.run(record)
    assert place.states()["new.txt"] == ["done"] * 2
    assert end.summary["counts"]["done"] == 6
    assert end.summary["documents"] == 5


async def test_a_stopped_batch_goes_on_where_it_was(place: Place) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        place.write(name, 40)
    place.server.faults = Faults(latency_s=0.03)
    record, stop = place.record(jobs=2), StopSignal()

    def reply(call: ChatRequest) -> None:
        if call.number >= 0 and place.calls >= 3:
            stop.request("test")

    place.server.faults = Faults(latency_s=0.03, when=reply)
    end = await place.run(record, stop=stop)
    assert (end.exit_code, end.ending) == (75, "stopped")
    before = place.calls
    place.server.faults = Faults()
    end = await place.run(record, new_documents=False)
    assert (end.exit_code, end.summary["counts"]["done"]) == (0, 3)
    needed = sum(row["coverage"]["chunks"] + 1 for row in place.rows())
    assert before < place.calls == needed == end.summary["usage"]["calls"]


async def test_what_was_killed_between_the_result_and_its_line_has_one_line_and_no_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write("a.txt")
    place.write("b.txt")
    record = place.record(jobs=1)

    async def killed(self: object, *arguments: object, **more: object) -> bool:
        raise Killed

    for method in ("record", "reported"):  # before the ledger is told, and before the line is known to be there
        with monkeypatch.context() as patch:
            patch.setattr(SQLiteLedger, method, killed)
            with pytest.raises(Killed):
                await place.run(record)
    before = place.calls
    end = await place.run(record)
    assert (end.exit_code, len(place.rows()), len({row["key"] for row in place.rows()})) == (0, 2, 2)
    assert place.calls == sum(row["coverage"]["chunks"] + 1 for row in place.rows())
    assert before <= place.calls == end.summary["usage"]["calls"]


async def test_failures_that_may_pass_are_tried_again_and_another_model_can_take_over(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coa.batch.processing._WAITS_S", (0.01,))
    place.write("good.txt")
    place.write("unlucky.txt")

    def unlucky(call: ChatRequest) -> Any:
        return "503" if "keeper of unlucky" in call.prompt else None

    place.server.faults = Faults(when=unlucky)
    record = place.record(max_tries=2)
    end = await place.run(record, patience=Patience(seconds=60))
    assert (end.exit_code, place.states()) == (3, {"good.txt": ["done"], "unlucky.txt": ["failed"]})
    (failure,) = end.summary["failures"]
    assert failure["kind"] == "ModelUnavailable"
    assert "(2 tries)" in failure["examples"][0]["cause"]
    assert place.server.stats().by_outcome["503"] == 4, "two tries with one retry each"

    place.server.faults = Faults()
    changed = record.with_config({"model": "others"}, place.settings)
    place.store.save(replace(changed, config=record.config))
    ledger = await open_ledger(record, place.settings, place.store)
    n = await open_again(ledger, ResultFolder(place.out), {"failed"}, config=changed.config, fresh=True)
    await ledger.close()
    end = await place.run(place.store.get(record.batch_id), new_documents=False)
    assert (n, end.exit_code) == (1, 0)
    assert {row["document"]: row["model"] for row in place.rows()} == {"good.txt": "readers", "unlucky.txt": "others"}


async def test_a_bug_fails_the_document_that_brings_it_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def buggy(session: Any, document: Any, payload: str, *, run_id: str) -> Any:
        if document.name == "odd.txt":
            raise IndexError("list index out of range")
        return await ask_item(session, document, payload, run_id=run_id)

    monkeypatch.setattr("coa.batch.items.ask_item", buggy)
    place.write("good.txt")
    place.write("odd.txt")
    end = await place.run(place.record())
    assert (end.exit_code, place.states()) == (3, {"good.txt": ["done"], "odd.txt": ["failed"]})
    assert end.summary["failures"][0]["examples"][0]["cause"] == "unexpected IndexError: list index out of range"


async def test_a_wrong_key_stops_the_batch_and_fails_nothing(place: Place) -> None:
    place.write("a.txt")
    place.write("b.txt")
    place.server.faults = Faults(when=lambda call: "401")
    end = await place.run(place.record(jobs=1))
    assert (end.exit_code, end.ending, end.summary["counts"]["pending"]) == (4, "error", 2)


async def test_a_document_that_takes_too_long_fails_alone(place: Place) -> None:
    place.write("slow.txt")
    place.write("quick.txt")
    place.server.faults = Faults(when=lambda call: "hang" if "keeper of slow" in call.prompt else None)
    end = await place.run(place.record(max_seconds=1.5))
    assert place.states() == {"quick.txt": ["done"], "slow.txt": ["failed"]}
    assert end.summary["causes"] == {"timeout": 1}


async def test_the_budget_of_the_batch_is_kept_and_a_higher_one_goes_on(place: Place) -> None:
    for name in "abcd":
        place.write(f"{name}.txt")
    record = place.record(jobs=4, limits=SpendingLimits(max_calls=14))
    end = await place.run(record)
    assert end.exit_code == 6, end.summary["failures"]
    assert place.calls <= 14
    assert 0 < end.summary["counts"]["done"] < 4
    paid = place.calls
    more = replace(record, options=replace(record.options, limits=SpendingLimits(max_calls=100)))
    end = await place.run(more, new_documents=False)
    assert (end.exit_code, end.summary["counts"]["done"], len(place.rows())) == (0, 4, 4)
    assert paid < place.calls == sum(row["coverage"]["chunks"] + 1 for row in place.rows())


async def test_the_budget_of_a_document_leaves_it_partial(place: Place) -> None:
    place.write("long.txt", 60)
    place.write("short.txt", 3)
    end = await place.run(place.record(document_limits=SpendingLimits(max_calls=3)))
    assert (end.exit_code, place.states()) == (3, {"long.txt": ["partial"], "short.txt": ["done"]})
    assert end.summary["causes"] == {"document budget": 1}


async def test_what_is_expected_is_told_before_the_first_call_and_can_be_declined(place: Place) -> None:
    for name in "abc":
        place.write(f"{name}.txt")
    told: list[Expected] = []

    async def confirm(expected: Expected) -> bool:
        assert place.calls == 0
        return len(told) > 1

    record, listener = place.record(), Listener(on_expected=told.append)
    end = await run_batch(record, place.settings, listener=listener, confirm=confirm)
    assert (end.exit_code, place.calls, told[0].items) == (75, 0, 3)
    end = await run_batch(record, place.settings, listener=listener, confirm=confirm)
    assert (end.exit_code, told[1].calls) == (0, place.calls)


async def test_results_are_exported_row_by_row_for_each_source(place: Place) -> None:
    place.write("a.txt")
    (place.documents / "=b.txt").write_bytes((place.documents / "a.txt").read_bytes())
    (place.documents / "empty.txt").write_bytes(b"")
    record = place.store.create(
        task="summarize",
        inputs=(str(place.documents),),
        payloads=(plain_payload("summarize", words=50),),
        out=place.out,
        settings=place.settings,
        options=BatchOptions(jobs=2),
    )
    await place.run(record)
    ledger = await open_ledger(record, place.settings, place.store)
    for form in ("csv", "jsonl", "html"):
        assert await export(record, ledger, place.out / f"all.{form}", form=form) == 3
    assert await export(record, ledger, place.out / "done.jsonl", form="jsonl", states=["done"]) == 2
    await ledger.close()
    lines = (place.out / "all.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert "'=b.txt" in (place.out / "all.csv").read_text()
    rows = [json.loads(line) for line in (place.out / "all.jsonl").read_text().splitlines()]
    assert {(Path(row["source"]).name, row["state"]) for row in rows} == {
        ("a.txt", "done"),
        ("=b.txt", "done"),
        ("empty.txt", "failed"),
    }
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    ledger = await open_ledger(record, place.settings, place.store)
    assert await export(record, ledger, place.out / "all.parquet", form="parquet") == 3
    await ledger.close()
    table = parquet.read_table(place.out / "all.parquet")
    assert table.column_names == list(COLUMNS)
    assert sorted(table.column("calls").to_pylist()) == sorted(row["usage"]["calls"] for row in rows)
