"""From what a run's graph ended with to its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coa.run_format import CHOICE_KEY
from coa.run_notes import DiskNotes
from coa.runs import RunRecord
from coa.types import Answer, Citation, Claim, Coverage, Document, Note, SkippedChunk

if TYPE_CHECKING:  # langgraph takes seconds to import
    from coa.graphs.state import ReadOutput

__all__ = ["assembled"]


def assembled(
    record: RunRecord,
    document: Document,
    output: ReadOutput,
    notes: DiskNotes,
    *,
    quotes: bool,
    warnings: Sequence[str] = (),
    seconds: float,
) -> Answer:
    """The answer of a run whose graph has come to its end. `quotes`: its sentences were picked by code."""
    told = [*document.warnings, *warnings, *output["warnings"]]
    if quotes and record.task == "summarize":
        told.append("the summary is made of sentences copied from the text: the model is too small to write one.")
    coverage = output["coverage"]
    choice = next((s.payload for s in notes.all_steps() if s.key == CHOICE_KEY), None)
    return Answer(
        text=output["answer"],
        run_id=record.run_id,
        strategy=record.strategy if choice is None else str(choice["strategy"]),
        strategy_reason=None if choice is None else str(choice["reason"]),
        model=record.model,
        question=record.question,
        coverage=Coverage(
            coverage["chunks"],
            coverage["read"],
            tuple(SkippedChunk(s["index"], s["cause"]) for s in coverage["skipped"]),
            coverage["unselected"],
        ),
        usage=notes.spent,
        citations=tuple(Citation(**c) for c in output["citations"]),
        notes=tuple(Note(n.chunk, n.text, n.informative, n.path) for n in notes.all_notes() if n.cause is None),
        warnings=tuple(dict.fromkeys(told)),
        document=document.name,
        document_sha256=document.sha256,
        seconds=seconds,
        claims=tuple(Claim(c["text"], tuple(c["citations"])) for c in output["claims"]),
        quotes_not_found=output["quotes_not_found"],
        verdict=output["verdict"],
        prompts=dict(record.prompts),
    )
