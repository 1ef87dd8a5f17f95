"""From a finished run's notes to its answer: citations, coverage, usage, warnings."""

from __future__ import annotations

from collections.abc import Sequence

from coa.agents import Grounding, Reference, ground, quotes_of
from coa.agents.manager import NOTHING_FOUND
from coa.run_notes import DiskNotes
from coa.runs import Part, PartAnswer, RunPlan, RunRecord
from coa.types import Answer, Citation, CommunicationUnit, Coverage, Document, Note, SkippedChunk

__all__ = ["assembled"]

_LITTLE_SUPPORT = 0.5


def assembled(
    record: RunRecord,
    document: Document,
    plan: RunPlan,
    notes: DiskNotes,
    *,
    quotes: bool,
    stopped: str | None = None,
    warnings: Sequence[str] = (),
    seconds: float,
) -> Answer:
    """The answer of a run whose graph has come to its end.

    `quotes`: the notes are sentences picked by code. Chunks without a note count as skipped, by `stopped`'s limit.
    """
    texts: list[str] = []
    citations: list[Citation] = []
    told = [*document.warnings, *warnings]
    for at, part in enumerate(plan.parts):
        stored = notes.part_answer(at)
        if stored is None:
            continue
        grounding = _grounded(
            stored.text,
            document,
            part,
            question=record.question,
            first=len(citations) + 1,
            quoted=_candidates(notes, at, len(part.chunks)) if quotes else None,
        )
        citations.extend(grounding.citations)
        texts.append(grounding.text if part.title is None else f"## {part.title}\n\n{grounding.text}")
        told.extend(_doubts(stored, grounding.support, part.title))
    if quotes and record.question is None:
        told.append("the summary is made of sentences copied from the text: the model is too small to write one.")
    return Answer(
        text="\n\n".join(texts),
        run_id=record.run_id,
        strategy=record.strategy,
        model=record.model,
        question=record.question,
        coverage=_coverage(plan, notes, unread="not read" if stopped is None else f"stopped by {stopped}"),
        usage=notes.spent,
        citations=tuple(citations),
        notes=tuple(Note(n.chunk, n.text, n.informative) for n in notes.stored() if n.cause is None),
        warnings=tuple(dict.fromkeys(told)),
        document=document.name,
        document_sha256=document.sha256,
        seconds=seconds,
    )


def _grounded(
    text: str, document: Document, part: Part, *, question: str | None, first: int, quoted: list[Reference] | None
) -> Grounding:
    """`text` with its citations; "nothing found" has none, whatever words it shares with a sentence."""
    if text == NOTHING_FOUND:
        return Grounding(text, (), None)
    return ground(text, document=document, chunks=part.chunks, question=question, first=first, quoted=quoted)


def _candidates(notes: DiskNotes, part: int, n_chunks: int) -> list[Reference]:
    """The sentences of the part's last unit, best first."""
    last = next((n for at in reversed(range(n_chunks)) if (n := notes.stored_note(part, at)) is not None), None)
    if last is None:
        return []
    kept = quotes_of(CommunicationUnit(last.text, last.unit_chunk))
    return [q.reference for q in sorted(kept, key=lambda q: -q.score)]


def _doubts(answer: PartAnswer, support: float | None, title: str | None) -> list[str]:
    where = "" if title is None else f" of {title!r}"
    found = []
    if answer.truncated:
        found.append(f"the reply{where} was cut off at its limit; raise --answer-tokens.")
    if support is not None and support < _LITTLE_SUPPORT and answer.usage.calls:
        found.append(
            f"only {support:.0%} of the reply's own words{where} stand in the cited places: "
            "check it before you rely on it."
        )
    return found


def _coverage(plan: RunPlan, notes: DiskNotes, *, unread: str) -> Coverage:
    """What was read; chunks that no note came from are counted over the whole run."""
    found: list[SkippedChunk] = []
    ordinal = 0
    for at, part in enumerate(plan.parts):
        for chunk in part.chunks:
            note = notes.stored_note(at, chunk.index)
            cause = unread if note is None else note.cause
            if cause is not None:
                found.append(SkippedChunk(ordinal, cause))
            ordinal += 1
    return Coverage(plan.n_chunks, plan.n_chunks - len(found), tuple(found))
