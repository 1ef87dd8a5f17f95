"""Reading in a tree: every chunk by itself, then notes merged level by level, then the answer.

The hierarchical baseline of CoA (Zhang et al. 2024, section 4.1) has one level: each worker judges whether its
chunk is of use and writes notes if so, and a manager is shown them all. Here as many levels are put between as it
takes for the notes to fit. It ends: each level has at most half as many notes as the one below (a merge takes at
least two), until one is left.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from coa.agents.lexical import SentenceRanker
from coa.events import StageChanged
from coa.graphs.citing import add_citing, started
from coa.graphs.context import Answering, ReadContext, Reading, teller
from coa.graphs.roles import Merging
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.graphs.steps import (
    CHUNK_FAILURES,
    PlannedStep,
    Refusal,
    StepReply,
    answer_part,
    needed,
    read_chunk,
    side_by_side,
    take_steps,
)
from coa.runs import StoredStep
from coa.types import CommunicationUnit, Usage

__all__ = ["TreeGraph", "answer", "build_tree", "merge", "read"]

# In characters: what of a note still says something, and what every manager is shown of notes.
_LEAST_SHOWN = 200
_LEAST_ROOM = 600
_GOLDEN = (5**0.5 - 1) / 2


class TreeState(ReadState, total=False):
    """Where the tree stands."""

    level: int
    """0 while chunks are read; then the level of notes that is being merged."""


TreeGraph = StateGraph[TreeState, ReadContext, ReadInput, ReadOutput]


def build_tree(*, worker: Reading | None = None, manager: Answering | None = None) -> TreeGraph:
    """The uncompiled graph: nodes `start`, `read` (some chunks side by side), `merge` (a level), `answer`, `cite`.

    Agents "worker", "manager" and "merger".
    """

    async def reading(state: TreeState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await read(state, runtime, worker=worker)

    async def answering(state: TreeState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await answer(state, runtime, manager=manager)

    graph: TreeGraph = StateGraph(
        TreeState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", _start)
    graph.add_node("read", reading)
    graph.add_node("merge", merge)
    graph.add_node("answer", answering)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "read")
    graph.add_conditional_edges("read", _after_read, ["read", "merge"])
    graph.add_conditional_edges("merge", _after_merge, ["merge", "answer"])
    graph.add_conditional_edges("answer", _after_answer, ["read", cite])
    return graph


async def _start(state: ReadInput) -> TreeState:
    return {**started(state.get("question")), "level": 0}


async def read(state: TreeState, runtime: Runtime[ReadContext], *, worker: Reading | None = None) -> dict[str, object]:
    """Reads the next chunks, each from empty notes."""
    context, part, position = runtime.context, state["part"], state["position"]
    reader = needed(worker or context.worker, "worker")
    n_chunks = len(context.parts[part].chunks)
    following = range(position, min(n_chunks, position + context.options.max_parallel))
    outcomes = await side_by_side(
        read_chunk(
            context,
            teller(runtime),
            reader,
            CommunicationUnit(),
            question=state["question"],
            part=part,
            position=at,
        )
        for at in following
    )
    refusal = next((o for o in outcomes if isinstance(o, Refusal)), None)
    if refusal is not None:
        return {"position": n_chunks, "stopped": refusal.reason}
    return {"position": following.stop}


async def merge(state: TreeState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Merges one level, and leaves it where the budget does not allow that."""
    context, part, level = runtime.context, state["part"], state["level"]
    units = _level(context, part, level)
    merger = context.agent("merger", Merging)
    if len(units) <= 1:
        return {"level": level + 1}
    teller(runtime)(StageChanged(f"merging {len(units)} notes"))
    groups = _groups(units, merger)
    planned = [_merging(context, merger, _key(part, level, at), group, state["question"]) for at, group in groups]
    taken = await take_steps(context, planned)
    refusal = next((t for t in taken if isinstance(t, Refusal)), None)
    if refusal is not None:
        return {"stopped": refusal.reason}
    failed = [str(t.payload["cause"]) for t in taken if isinstance(t, StoredStep) and "cause" in t.payload]
    doubts = [f"{len(failed)} sets of notes were cut short rather than merged: {failed[0]}"] if failed else []
    return {"level": level + 1, "warnings": [*(state.get("warnings") or ()), *doubts]}


async def answer(
    state: TreeState, runtime: Runtime[ReadContext], *, manager: Answering | None = None
) -> dict[str, object]:
    """Lets the manager answer from what is left, and turns to the next part."""
    context, part = runtime.context, state["part"]
    unit = _together(_level(context, part, state["level"]), state["question"])
    await answer_part(
        context,
        teller(runtime),
        needed(manager or context.manager, "manager"),
        unit,
        question=state["question"],
        part=part,
    )
    return {"part": part + 1, "position": 0, "level": 0}


def _level(context: ReadContext, part: int, level: int) -> list[CommunicationUnit]:
    """The notes of a level, in document order; level 0 are the chunks' informative notes."""
    notes = sorted((n for n in context.notes.all_notes() if n.part == part), key=lambda n: n.chunk)
    units = [CommunicationUnit(n.text, n.unit_chunk) for n in notes if n.informative and n.cause is None]
    steps = {s.key: s for s in context.notes.all_steps()}
    for below in range(level):
        merged = []
        at = 0
        while (step := steps.get(_key(part, below, at))) is not None:
            merged.append(CommunicationUnit(str(step.payload["text"]), int(step.payload["chunk"])))
            at += 1
        units = merged or units  # a level with a single unit is taken over as it is
    return units


def _together(units: Sequence[CommunicationUnit], question: str | None) -> CommunicationUnit:
    """One unit for several that were not merged, about as long as the longest of them: their beginnings, or where
    that would leave snippets, those that share most with the question; for a summary some from all over."""
    if len(units) <= 1:
        return units[0] if units else CommunicationUnit()
    scores = [0.0] * len(units) if question is None else SentenceRanker([u.text for u in units]).scores(question)
    left = max(_LEAST_ROOM, *(len(u.text) for u in units))
    share = max(_LEAST_SHOWN, left // len(units))
    kept: dict[int, str] = {}
    # However few of them are taken, multiples of the golden ratio spread them over the document.
    for n in sorted(range(len(units)), key=lambda n: (-scores[n], n * _GOLDEN % 1)):
        if left >= min(len(units[n].text), _LEAST_SHOWN):
            kept[n] = _beginning(units[n].text, min(share, left))
            left -= len(kept[n]) + 1
    return CommunicationUnit("\n".join(kept[n] for n in sorted(kept)), units[-1].chunk_index)


def _beginning(text: str, most: int) -> str:
    """As many whole lines of `text` as fit, for their ids' sake; of a first one that is too long its words."""
    if len(text) <= most:
        return text
    lines, newline, _ = text[: most + 1].rpartition("\n")
    return lines if newline and lines.strip() else textwrap.shorten(text, most, placeholder=" …")


def _groups(units: Sequence[CommunicationUnit], merger: Merging) -> list[tuple[int, Sequence[CommunicationUnit]]]:
    """Neighbours that are merged together; groups of like size, so that none is left with a single one."""
    n_groups = -(-len(units) // max(2, merger.group_size))
    bounds = [round(n * len(units) / n_groups) for n in range(n_groups + 1)]
    return [(at, units[bounds[at] : bounds[at + 1]]) for at in range(n_groups)]


def _merging(
    context: ReadContext, merger: Merging, key: str, group: Sequence[CommunicationUnit], question: str | None
) -> PlannedStep:
    async def call() -> StepReply:
        try:
            reply = await merger.merge(question, group)
        except CHUNK_FAILURES as error:
            if context.on_worker_failure == "fail":
                raise
            unit = _together(group, question)
            payload = {"text": unit.text, "chunk": unit.chunk_index, "cause": error.message}
            return StepReply(payload, error.usage or Usage())
        return StepReply({"text": reply.unit.text, "chunk": reply.unit.chunk_index}, reply.usage)

    return PlannedStep(key, call, merger.demand(len(group)), may_fail=False)


def _key(part: int, level: int, at: int) -> str:
    return f"merge/{part}/{level}/{at}"


async def _after_read(state: TreeState, runtime: Runtime[ReadContext]) -> str:
    return "read" if state["position"] < len(runtime.context.parts[state["part"]].chunks) else "merge"


async def _after_merge(state: TreeState, runtime: Runtime[ReadContext]) -> str:
    if state["stopped"] is not None:
        return "answer"
    return "merge" if len(_level(runtime.context, state["part"], state["level"])) > 1 else "answer"


async def _after_answer(state: TreeState, runtime: Runtime[ReadContext]) -> str:
    if state["stopped"] is not None or state["part"] >= len(runtime.context.parts):
        return "cite"
    return "read"
