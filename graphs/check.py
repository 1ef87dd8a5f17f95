"""Checking statements about a document: select, judge, judge, …, conclude.

For each statement the sentences are selected that may decide it, by their words; the checker says whether they bear
it out, say otherwise, or do not tell; what it rests on is copied from the source. Every statement is a step of its
own: a run that was killed judges none of them twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, cast

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from coa.agents.checked import check_key, checked_of
from coa.agents.checker import Checking, CheckLabel
from coa.agents.evidence import EvidenceLine, Selected, verified
from coa.agents.references import Reference
from coa.agents.statements import Statement, StatementRanker, statements_from
from coa.errors import ConfigError
from coa.events import EvidenceFound, StageChanged
from coa.graphs.citing import coverage_of, started
from coa.graphs.context import ReadContext, teller
from coa.graphs.estimates import Estimate, Forecast
from coa.graphs.state import CitationState, ClaimState, ReadInput, ReadOutput, ReadState
from coa.graphs.steps import PlannedStep, Refusal, StepReply, take_steps
from coa.runs import StoredStep
from coa.types import Chunk, Citation

__all__ = ["CheckGraph", "CheckOutput", "CheckedState", "build_check", "check_estimate"]

_SELECTION = "statements/select"
_SHOWN = {"true": "true", "false": "false", "not_in_text": "not in the text"}
# Of a passage, about: 400 to 1,200 characters.
_PASSAGE_TOKENS = 200
_REPLY_TOKENS = 256


class CheckedState(TypedDict):
    """`coa.agents.checked.Checked`, with the numbers of its citations."""

    id: str | None
    statement: str
    label: CheckLabel | None
    reason: str
    citations: list[int]
    cause: str | None


class CheckOutput(ReadOutput):
    """What the graph ends with; `answer` lists the statements with their labels."""

    checks: list[CheckedState]


class CheckState(ReadState, total=False):
    """How far checking has come: `position` counts statements."""

    checks: list[CheckedState]


CheckGraph = StateGraph[CheckState, ReadContext, ReadInput, CheckOutput]


def build_check(*, checker: Checking | None = None) -> CheckGraph:
    """The uncompiled graph: nodes `start`, `select`, `judge` (once a batch of statements) and `conclude`.

    Its question is one statement a line, see `coa.agents.statements.statements_from`. Run it with a `ReadContext` of
    one part, with its document; the context's agent "checker" is used where none is given here.
    """

    async def start(state: ReadInput, runtime: Runtime[ReadContext]) -> CheckState:
        if not statements_from(state.get("question") or ""):
            raise ConfigError("there is no statement to check.", hint="Give one a line.")
        if len(runtime.context.parts) != 1:
            raise ConfigError("statements are checked against a whole document, not against its parts.")
        return cast("CheckState", started(state["question"]))

    async def judge(state: CheckState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        """Judges the next statements, as many side by side as the options say."""
        context, first = runtime.context, state["position"]
        agent = checker or context.agent("checker", Checking)
        statements = statements_from(state["question"] or "")
        batch = statements[first : first + max(1, context.options.max_parallel)]
        selected = await _selected(context, statements)
        planned = [_planned(agent, statement, n, selected[n], context) for n, statement in enumerate(batch, first)]
        outcomes = await take_steps(context, planned)
        refusal = next((o.reason for o in outcomes if isinstance(o, Refusal)), None)
        for outcome in outcomes:
            if isinstance(outcome, StoredStep):
                _tell(outcome, runtime)
        done = first + sum(isinstance(o, StoredStep) for o in outcomes)
        teller(runtime)(StageChanged(f"{done} of {len(statements)} statements checked"))
        return {"position": len(statements) if refusal else first + len(batch), "stopped": refusal}

    graph: CheckGraph = StateGraph(
        CheckState, context_schema=ReadContext, input_schema=ReadInput, output_schema=CheckOutput
    )
    graph.add_node("start", start)
    graph.add_node("select", _select)
    graph.add_node("judge", judge)
    graph.add_node("conclude", _conclude)
    graph.add_edge(START, "start")
    graph.add_edge("start", "select")
    graph.add_edge("select", "judge")
    graph.add_conditional_edges("judge", _after_judge, ["judge", "conclude"])
    graph.add_edge("conclude", END)
    return graph


def check_estimate(forecast: Forecast) -> Estimate:
    """A call for each statement, with the passages that are shown for it."""
    if forecast.options.quotes:
        return Estimate(0, 0, 0, 0)
    n, limits = forecast.n_lines, forecast.limits
    shown = min(forecast.options.top_k * _PASSAGE_TOKENS, limits.chunk_tokens)
    out = min(_REPLY_TOKENS, limits.answer_tokens)
    return Estimate(n, n * (limits.template_tokens + shown) + (forecast.question_tokens or 0), n * out, 0)


async def _select(state: CheckState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Stores which sentences are shown for each statement; makes no call."""
    await _selected(runtime.context, statements_from(state["question"] or ""))
    return {}


async def _selected(context: ReadContext, statements: Sequence[Statement]) -> list[list[Selected]]:
    stored = await context.notes.step(_SELECTION)
    if stored is None:
        found = await asyncio.to_thread(_ranked, context.parts[0].chunks, statements, context.options.top_k)
        # What is judged counts as read; everything else was left out on purpose.
        ordinals = tuple(sorted({s.reference.chunk - 1 for selected in found for s in selected}))
        payload = {"evidence": [[[*s.reference, s.relevance] for s in selected] for selected in found]}
        stored = StoredStep(_SELECTION, payload, selected=ordinals)
        await context.notes.add_step(stored)
    return [
        [Selected(Reference(c, s), relevance) for c, s, relevance in selected]
        for selected in stored.payload["evidence"]
    ]


def _ranked(chunks: Sequence[Chunk], statements: Sequence[Statement], top_k: int) -> list[list[Selected]]:
    ranker = StatementRanker(chunks)
    return [ranker.selected(statement.text, top_k) for statement in statements]


def _planned(
    agent: Checking, statement: Statement, n: int, selected: Sequence[Selected], context: ReadContext
) -> PlannedStep:
    lines = verified(selected, context.parts[0].chunks, document=context.document).lines
    return PlannedStep(
        key=check_key(n),
        call=partial(_called, agent, statement.text, lines),
        demand=agent.demand(statement.text),
        chunks=tuple(sorted({r.chunk - 1 for line in lines for r in line.references})),
    )


async def _called(agent: Checking, statement: str, lines: Sequence[EvidenceLine]) -> StepReply:
    report = await agent.check(statement, lines)
    payload: dict[str, Any] = {
        "statement": statement,
        "label": report.label,
        "references": [list(r) for r in report.references],
        "reason": report.reason,
        "left_out": report.left_out,
    }
    return StepReply(payload, report.usage)


def _tell(step: StoredStep, runtime: Runtime[ReadContext]) -> None:
    """The sentences that a label rests on, chunk by chunk."""
    chunks = runtime.context.parts[0].chunks
    by_chunk: dict[int, list[str]] = {}
    for number, sentence in step.payload.get("references", ()):
        chunk = chunks[number - 1]
        span = chunk.sentences[sentence - 1]
        by_chunk.setdefault(number - 1, []).append(
            chunk.text[span.start - chunk.span.start : span.end - chunk.span.start]
        )
    for ordinal, quotes in by_chunk.items():
        teller(runtime)(EvidenceFound(ordinal, tuple(q.strip() for q in quotes)))


async def _conclude(state: CheckState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Puts the list together from the note store; makes no call."""
    context, stopped = runtime.context, state.get("stopped")
    if context.document is None:
        raise ConfigError("statements are checked against a document.", hint="Put it into ReadContext(document=…).")
    checked = checked_of(
        context.document, context.parts[0].chunks, state["question"] or "", context.notes.all_steps(), stopped=stopped
    )
    citations: dict[Citation, int] = {}
    checks: list[CheckedState] = []
    lines: list[str] = []
    for n, one in enumerate(checked, 1):
        numbers = [citations.setdefault(c, len(citations) + 1) for c in one.citations]
        checks.append(
            CheckedState(
                id=one.id, statement=one.text, label=one.label, reason=one.reason, citations=numbers, cause=one.cause
            )
        )
        label = f"not judged ({one.cause})" if one.label is None else _SHOWN[one.label]
        lines.append(f"{n}. {one.text} — {label}" + "".join(f" [{number}]" for number in numbers))
    failed = [c for c in checked if c.cause is not None and stopped is None]
    output = CheckOutput(
        answer="\n".join(lines),
        citations=[cast("CitationState", asdict(c)) for c in citations],
        claims=[ClaimState(text=c["statement"], citations=c["citations"]) for c in checks],
        quotes_not_found=0,
        coverage=coverage_of(context, unread="not judged" if stopped is None else f"stopped by {stopped}"),
        verdict=None,
        stopped=stopped,
        warnings=[f"a statement could not be judged: {c.cause}" for c in failed],
        checks=checks,
    )
    return {**output, "finished": True}


async def _after_judge(state: CheckState) -> str:
    return "conclude" if state["position"] >= len(statements_from(state["question"] or "")) else "judge"
