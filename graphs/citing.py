"""The end of every reading graph: from the parts' answers to one text with citations, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from langgraph.graph import END, StateGraph
from langgraph.runtime import Runtime

from coa.agents import Grounding, QuoteVerifier, Reference, ground, quotes_of
from coa.agents.nothing_found import is_nothing_found
from coa.blocking import off_loop
from coa.graphs.context import ReadContext
from coa.graphs.reasoning import candidates_of
from coa.graphs.state import (
    STATE_VERSION,
    CitationState,
    ClaimState,
    CoverageState,
    ReadOutput,
    ReadState,
    SkippedState,
)
from coa.runs import PartAnswer
from coa.types import Citation, Claim, CommunicationUnit, Verdict

__all__ = ["add_citing", "cited", "coverage_of", "started"]

_LITTLE_SUPPORT = 0.5
_LONGEST_SHOWN = 80


def started(question: str | None) -> ReadState:
    """The state that every reading graph begins with."""
    state = {
        "version": STATE_VERSION,
        "finished": False,
        "question": question,
        "part": 0,
        "position": 0,
        "stopped": None,
    }
    return cast("ReadState", state)  # the output's keys come with the last node


def add_citing(graph: StateGraph[Any, ReadContext, Any, Any]) -> str:
    """Adds the last node and its edge to the end; its name, for the edges that lead to it."""
    graph.add_node("cite", _cite)
    graph.add_edge("cite", END)
    return "cite"


async def _cite(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Puts the answer together from the note store; makes no call."""
    context = runtime.context
    size = len(context.document.text) if context.document is not None else 0
    output = await off_loop(cited, size, context, state.get("question"), state.get("stopped"))
    return {**output, "warnings": [*(state.get("warnings") or ()), *output["warnings"]], "finished": True}


def cited(context: ReadContext, question: str | None, stopped: str | None = None) -> ReadOutput:
    """What a reading graph ends with, by what the note store holds; `stopped` is the limit that ended the reading.

    Blocking: it ranks the sentences of the whole document.
    """
    answers = context.notes.all_answers()
    texts: list[str] = []
    citations: list[Citation] = []
    claims: list[Claim] = []
    warnings: list[str] = []
    verdicts: list[Verdict | None] = []
    not_found: list[str] = []
    verifier = QuoteVerifier(context.document.text) if context.document is not None else None
    for at in sorted(answers):
        part, answer = context.parts[at], answers[at]
        verdicts.append(answer.verdict)
        grounding = _grounded(context, at, answer, question=question, first=len(citations) + 1, verifier=verifier)
        text = grounding.text
        citations.extend(grounding.citations)
        claims.extend(grounding.claims)
        not_found.extend(grounding.quotes_not_found)
        warnings.extend(_doubts(answer, grounding, part.title, own_words=not context.options.quotes))
        texts.append(text if part.title is None else f"## {part.title}\n\n{text}")
    return ReadOutput(
        answer="\n\n".join(texts),
        citations=[cast("CitationState", asdict(c)) for c in citations],
        claims=[ClaimState(text=c.text, citations=list(c.citations)) for c in claims],
        quotes_not_found=len(not_found),
        coverage=coverage_of(context, unread="not read" if stopped is None else f"stopped by {stopped}"),
        verdict=verdicts[0] if len(set(verdicts)) == 1 else None,
        stopped=stopped,
        warnings=warnings,
    )


def _grounded(
    context: ReadContext,
    part: int,
    answer: PartAnswer,
    *,
    question: str | None,
    first: int,
    verifier: QuoteVerifier | None,
) -> Grounding:
    """The part's answer with its citations; "nothing found" has none, whatever words it shares with a sentence."""
    if context.document is None or is_nothing_found(answer.text):
        return Grounding(answer.text, (), None)
    return ground(
        answer.text,
        document=context.document,
        chunks=context.parts[part].chunks,
        question=question,
        first=first,
        quoted=_candidates(context, part) if context.options.quotes else None,
        verify=context.options.verify,
        verifier=verifier,
    )


def _candidates(context: ReadContext, part: int) -> list[Reference]:
    """The sentences of the part's notes, best first; then those that a reasoner weighed.

    Of all notes: chains read in several orders, and a tree's readers begin anew with each chunk.
    """
    units = {n.text: n.unit_chunk for n in context.notes.all_notes() if n.part == part}
    kept = [q for text, chunk in units.items() for q in quotes_of(CommunicationUnit(text, chunk))]
    quoted = [q.reference for q in sorted(kept, key=lambda q: -q.score)]
    return list(dict.fromkeys([*quoted, *candidates_of(context.notes, part)]))


def _doubts(answer: PartAnswer, grounding: Grounding, title: str | None, *, own_words: bool) -> list[str]:
    where = "" if title is None else f" of {title!r}"
    found = []
    if answer.truncated:
        found.append(f"the reply{where} was cut off at its limit; raise --answer-tokens.")
    missing = grounding.quotes_not_found
    if missing:
        shown = " ".join(missing[0].split())
        shown = shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 1] + "…"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        found.append(f"the reply{where} quotes what the text does not say: “{shown}”{more}.")
    if grounding.support is not None and grounding.support < _LITTLE_SUPPORT and own_words:
        found.append(
            f"only {grounding.support:.0%} of the reply's own words{where} stand in the cited places: "
            "check it before you rely on it."
        )
    return found


def coverage_of(context: ReadContext, *, unread: str) -> CoverageState:
    """What was read, by what the note store holds: a chunk counts as read when a note or step came of it.

    `unread` is the cause of chunks that nothing was tried with, apart from those that a selection left out.
    """
    read: set[int] = set()
    causes: dict[int, str] = {}
    for note in context.notes.all_notes():
        _book(read, causes, [context.ordinal(note.part, note.chunk)], note.cause)
    selected: set[int] | None = None
    for step in context.notes.all_steps():
        _book(read, causes, step.chunks, step.cause)
        if step.selected is not None:
            selected = {*(selected or ()), *step.selected}
    skipped: list[SkippedState] = []
    unselected = 0
    for ordinal in range(context.n_chunks):
        if ordinal in read:
            continue
        if ordinal in causes:
            skipped.append(SkippedState(index=ordinal, cause=causes[ordinal]))
        elif selected is not None and ordinal not in selected:
            unselected += 1
        else:
            skipped.append(SkippedState(index=ordinal, cause=unread))
    return CoverageState(chunks=context.n_chunks, read=len(read), skipped=skipped, unselected=unselected)


def _book(read: set[int], causes: dict[int, str], ordinals: Sequence[int], cause: str | None) -> None:
    for ordinal in ordinals:
        if cause is None:
            read.add(ordinal)
        else:
            causes[ordinal] = cause
