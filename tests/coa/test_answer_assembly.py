"""From stored notes to an answer: warnings, coverage, numbering over parts; and the signal that stops a run."""

from __future__ import annotations

from pathlib import Path

from coa.answering import assembled
from coa.chunking import chunk_document
from coa.documents import read_document
from coa.graphs import InMemoryNotes, ReadContext
from coa.graphs.citing import cited, coverage_of
from coa.run_notes import DiskNotes
from coa.runs import Part, PartAnswer, RunPlan, RunRecord, RunStore, StoredNote, StoredStep
from coa.stopping import StopSignal
from coa.tokens import EstimatedTokens
from coa.types import Answer, Usage

TEXT = b"Ada came to the harbour. The lamp was lit at seven. Nobody slept in the town.\n"


def _answer(
    home: Path,
    *replies: PartAnswer,
    notes: tuple[StoredNote, ...] = (),
    titles: tuple[str | None, ...] = (None,),
    stopped: str | None = None,
) -> Answer:
    document = read_document(TEXT, name="b.txt")
    chunks = tuple(chunk_document(document, budget=500, counter=EstimatedTokens()))
    plan = RunPlan(tuple(Part(title, chunks) for title in titles), "e", False)
    record = RunRecord("r", "ask", "running", "", "", "b.txt", document.sha256, "Who?", "chain", "m")
    runs = RunStore(home)
    runs.create(record, document, plan)
    for note in notes:
        runs.add_note("r", note)
    for part, reply in enumerate(replies):
        runs.add_part_answer("r", part, reply)
    stored = DiskNotes(runs, "r")
    context = ReadContext(plan.parts, notes=stored, document=document, spent=stored.spent)
    output = cited(context, "Who?", stopped)
    return assembled(record, document, output, context, warnings=("w", "w"), seconds=1.0)


def _note(part: int, cause: str | None = None) -> StoredNote:
    return StoredNote(part, 0, "n", 0, cause is None, Usage(calls=1, prompt_tokens=5), cause=cause)


def test_a_well_supported_answer_brings_no_doubts(tmp_path: Path) -> None:
    answer = _answer(tmp_path, PartAnswer("The lamp at seven [1.2].", False, Usage(calls=1)), notes=(_note(0),))
    assert answer.text == "The lamp at seven [1]."
    assert answer.warnings == ("w",)
    assert answer.coverage.complete
    assert answer.usage.calls == 2


def test_an_answer_beyond_its_sources_and_one_that_was_cut_off_are_doubted(tmp_path: Path) -> None:
    answer = _answer(tmp_path, PartAnswer("Dragons burned Paris [1.2].", True, Usage(calls=1)), notes=(_note(0),))
    assert any("cut off at its limit" in warning for warning in answer.warnings)
    assert any("0% of the reply's own words" in warning for warning in answer.warnings)


def test_the_parts_of_an_answer_share_one_numbering_and_missing_parts_are_told(tmp_path: Path) -> None:
    answer = _answer(
        tmp_path,
        PartAnswer("Ada came [1.1].", False, Usage(calls=1)),
        PartAnswer("The lamp [1.2], nobody [1.3].", False, Usage(calls=1)),
        notes=(_note(0), _note(1, "filtered")),
        titles=("I", "II", "III"),
    )
    assert answer.text == "## I\n\nAda came [1].\n\n## II\n\nThe lamp [2], nobody [3]."
    assert [c.quote for c in answer.citations][1] == "The lamp was lit at seven."
    assert [(s.index, s.cause) for s in answer.coverage.skipped] == [(1, "filtered"), (2, "not read")]
    assert answer.coverage.read == 1


def test_what_a_limit_left_unread_is_put_down_to_it(tmp_path: Path) -> None:
    reply = PartAnswer("Ada came [1.1].", False, Usage(calls=1))
    titles = ("I", "II", "III")
    answer = _answer(
        tmp_path, reply, notes=(_note(0), _note(1, "filtered")), titles=titles, stopped="the limit of 3 calls"
    )
    assert [s.cause for s in answer.coverage.skipped] == ["filtered", "stopped by the limit of 3 calls"]


def test_chunks_that_a_selection_left_out_are_neither_read_nor_skipped(tmp_path: Path) -> None:
    document = read_document(TEXT, name="b.txt")
    chunks = tuple(chunk_document(document, budget=500, counter=EstimatedTokens())) * 3
    notes = InMemoryNotes()
    notes.steps["pick"] = StoredStep("pick", {}, selected=(0, 2))
    notes.steps["evidence/0"] = StoredStep("evidence/0", {}, chunks=(0,))
    notes.steps["evidence/2"] = StoredStep("evidence/2", {}, chunks=(2,), cause="filtered")
    coverage = coverage_of(ReadContext([Part(None, chunks)], notes=notes), unread="not read")
    assert (coverage["chunks"], coverage["read"], coverage["unselected"]) == (3, 1, 1)
    assert coverage["skipped"] == [{"index": 2, "cause": "filtered"}]


def test_a_stop_is_told_once_to_each_listener_early_or_late() -> None:
    heard: list[str] = []
    stop = StopSignal()
    stop.listen(lambda reason: heard.append(f"early {reason}"))
    assert not stop.requested
    stop.request("SIGTERM")
    stop.request("SIGINT")
    stop.listen(lambda reason: heard.append(f"late {reason}"))
    assert heard == ["early SIGTERM", "late SIGTERM"]
    assert stop.requested
