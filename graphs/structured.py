"""Reading over structures as a graph: structurize, …; then for each part choose, read, read, …, answer; then cite.

Source: StruXGPT, Liu et al. 2024: a structured text is read better than a plain one, and the structure is made once.
Of a long document only the aspects that the question needs are read, as copied sentences under their headings, in
a chain of workers as in Chain of Agents; so a second question takes a few calls, however long the book.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from coa.agents.aspect_choice import AspectPlace, ChooserReply, Listed, fused, listed, ranked_by_words
from coa.agents.aspect_pages import Page, pages_of, translated
from coa.agents.structure import Structure
from coa.agents.structure_steps import step_key, structures_of
from coa.events import ChunkSkipped, StageChanged
from coa.graphs.citing import add_citing, started
from coa.graphs.context import Answering, ReadContext, Reading, teller
from coa.graphs.estimates import Estimate, Forecast, added, chain_estimate
from coa.graphs.state import ReadInput, ReadOutput
from coa.graphs.steps import PlannedStep, Refusal, StepReply, answer_part, needed, read_chunk, take_step
from coa.graphs.structuring import (
    StructureState,
    Structuring,
    all_structured,
    outline_estimate,
    structurize,
)
from coa.graphs.together import Turn
from coa.llm.budget import Demand
from coa.types import CommunicationUnit

__all__ = ["Choosing", "StructuredGraph", "StructuredState", "build_structured", "structured_estimate"]

# Lines of an outline that a model is asked to choose from.
_SHOWN = 120


@runtime_checkable
class Choosing(Protocol):
    """What a graph needs of a chooser: `coa.agents.aspect_choice.AspectChooser`, or one of the host's."""

    async def choose(self, question: str, aspects: Sequence[Listed], most: int) -> ChooserReply:
        """Which of `aspects` the question needs. Raises: ModelError."""
        ...

    def demand(self) -> Demand:
        """The most that `choose` can take."""
        ...


class StructuredState(StructureState, total=False):
    """Where reading over the structures stands."""

    chosen: list[list[int]]
    """Of the part in hand: chunk and aspect, both from 0, in reading order."""
    unit_text: str
    unit_chunk: int


StructuredGraph = StateGraph[StructuredState, ReadContext, ReadInput, ReadOutput]


def build_structured(
    *,
    structurizer: Structuring | None = None,
    chooser: Choosing | None = None,
    worker: Reading | None = None,
    manager: Answering | None = None,
) -> StructuredGraph:
    """The uncompiled graph: nodes `start`, `structurize`, `choose` and `answer` (once a part), `read` (once a page).

    Run it with a `ReadContext`, whose agents are used where none is given here; it can do without a "chooser".
    """

    async def start(state: ReadInput) -> StructuredState:
        begun = {**started(state.get("question")), "structured": 0, "chosen": [], "unit_text": "", "unit_chunk": -1}
        return cast("StructuredState", begun)

    async def structurizing(state: StructuredState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await structurize(state, runtime, structurizer=structurizer)

    async def choosing(state: StructuredState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await _choose(state, runtime, chooser)

    async def read(state: StructuredState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await _read(state, runtime, needed(worker or runtime.context.worker, "worker"))

    async def answer(state: StructuredState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await _answer(state, runtime, needed(manager or runtime.context.manager, "manager"))

    graph: StructuredGraph = StateGraph(
        StructuredState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", start)
    graph.add_node("structurize", structurizing)
    graph.add_node("choose", choosing)
    graph.add_node("read", read)
    graph.add_node("answer", answer)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "structurize")
    graph.add_conditional_edges("structurize", _after_structurize, ["structurize", "choose"])
    graph.add_edge("choose", "read")
    graph.add_conditional_edges("read", _after_read, ["read", "answer"])
    graph.add_conditional_edges("answer", _after_answer, ["choose", cite])
    return graph


def structured_estimate(forecast: Forecast) -> Estimate:
    """Of the first question: the structures, a choice, a page or two, and the answer."""
    if forecast.options.quotes:
        return chain_estimate(forecast)
    pages = len(forecast.plan.parts) * 2
    page = forecast.limits.chunk_tokens + forecast.tail_tokens
    reading = Estimate(2 * pages, 2 * pages * page, pages * forecast.limits.note_tokens, 0)
    return added(outline_estimate(forecast), reading, forecast.answers())


async def _choose(state: StructuredState, runtime: Runtime[ReadContext], chooser: Choosing | None) -> dict[str, object]:
    """Which aspects of the part are read, in reading order."""
    context, part, question = runtime.context, state["part"], state["question"]
    aspects = _listed(context, part)
    most = context.options.top_k
    if question is None or len(aspects) <= most:
        return {"chosen": [list(a.place) for a in aspects]}
    by_words = await asyncio.to_thread(ranked_by_words, aspects, question)
    orders: list[Sequence[int]] = [by_words]
    agent = chooser or context.agents.get("chooser")
    if isinstance(agent, Choosing) and not context.options.quotes:
        teller(runtime)(StageChanged(f"choosing among {len(aspects)} aspects"))
        others = set(range(len(aspects))) - set(by_words)
        shown = sorted([*by_words, *sorted(others)][:_SHOWN])

        async def call() -> StepReply:
            reply = await agent.choose(question, [aspects[n] for n in shown], most)
            return StepReply({"chosen": [shown[n] for n in reply.chosen]}, reply.usage)

        taken = await take_step(context, PlannedStep(f"choose/{part}", call, agent.demand()))
        if not isinstance(taken, Refusal) and taken.cause is None:
            orders.insert(0, taken.payload["chosen"])
    # Where nothing speaks for any of them, all are read rather than none.
    chosen = fused(orders, most) or range(len(aspects))
    return {"chosen": [list(aspects[n].place) for n in sorted(chosen)]}


async def _read(state: StructuredState, runtime: Runtime[ReadContext], worker: Reading) -> dict[str, object]:
    """Reads the next page; where code picks the sentences, the next chunk that a chosen aspect is in."""
    context, part, at = runtime.context, state["part"], state["position"]
    unit = CommunicationUnit(state["unit_text"], state["unit_chunk"])
    if context.options.quotes:
        return await _read_chosen(state, runtime, worker, unit)
    pages = await asyncio.to_thread(_pages, context, state)
    if at >= len(pages):
        return {"position": _DONE}
    teller(runtime)(StageChanged(f"reading page {at + 1} of {len(pages)}"))
    page = pages[at]

    async def call() -> StepReply:
        reply = await worker.read(page.chunk, state["question"], unit)
        text = translated(reply.unit.text, page) if reply.informative else unit.text
        last = page.positions[-1] if reply.informative else unit.chunk_index
        return StepReply({"text": text, "unit_chunk": last, "informative": reply.informative}, reply.usage)

    ordinals = tuple(context.ordinal(part, position) for position in page.positions)
    demand = context.demand(worker, page.chunk, state["question"], unit)
    taken = await take_step(context, PlannedStep(f"page/{part}/{at}", call, demand, ordinals))
    if isinstance(taken, Refusal):
        return {"position": _DONE, "stopped": taken.reason}
    changed: dict[str, Any] = {"position": at + 1 if at + 1 < len(pages) else _DONE}
    if taken.cause is None:
        changed |= {"unit_text": taken.payload["text"], "unit_chunk": taken.payload["unit_chunk"]}
    else:
        for ordinal in ordinals:
            teller(runtime)(ChunkSkipped(ordinal, context.n_chunks, taken.cause))
        changed["warnings"] = [
            *(state.get("warnings") or []),
            f"page {at + 1} of the chosen aspects was not read: {taken.cause}",
        ]
    return changed


async def _read_chosen(
    state: StructuredState, runtime: Runtime[ReadContext], worker: Reading, unit: CommunicationUnit
) -> dict[str, object]:
    """Reads the next chunk that a chosen aspect is in."""
    context, part, at = runtime.context, state["part"], state["position"]
    positions = sorted({position for position, _ in state["chosen"]})
    if at >= len(positions):
        return {"position": _DONE}
    outcome = await read_chunk(
        context,
        teller(runtime),
        worker,
        unit,
        question=state["question"],
        part=part,
        position=positions[at],
        turn=Turn(part, 1, positions[at]),
        following=[context.parts[part].chunks[n] for n in positions[at + 1 :]],
    )
    if isinstance(outcome, Refusal):
        return {"position": _DONE, "stopped": outcome.reason}
    left = at + 1 < len(positions)
    return {"position": at + 1 if left else _DONE, "unit_text": outcome.text, "unit_chunk": outcome.unit_chunk}


async def _answer(state: StructuredState, runtime: Runtime[ReadContext], manager: Answering) -> dict[str, object]:
    """Lets the manager answer from the part's last unit, and turns to the next part."""
    unit = CommunicationUnit(state["unit_text"], state["unit_chunk"])
    await answer_part(runtime.context, teller(runtime), manager, unit, question=state["question"], part=state["part"])
    return {"part": state["part"] + 1, "position": 0, "chosen": [], "unit_text": "", "unit_chunk": -1}


_DONE = -1


def _pages(context: ReadContext, state: StructuredState) -> list[Page]:
    part = state["part"]
    chunks = context.parts[part].chunks
    chosen = {AspectPlace(*place) for place in state["chosen"]}
    aspects = [a for a in _listed(context, part) if a.place in chosen]
    room = max(c.n_tokens for c in chunks)
    return pages_of(chunks, aspects, room_tokens=room, gist=state["question"] is None)


def _listed(context: ReadContext, part: int) -> list[Listed]:
    """The part's aspects, in reading order."""
    structures = structures_of(context.notes.all_steps())
    chunks = context.parts[part].chunks
    keyed = {n: structures.get(step_key(part, n)) for n in range(len(chunks))}
    there: dict[int, Structure] = {n: s for n, s in keyed.items() if s is not None}
    return listed(chunks, there)


async def _after_structurize(state: StructuredState, runtime: Runtime[ReadContext]) -> str:
    return "choose" if all_structured(state, runtime.context) else "structurize"


async def _after_read(state: StructuredState) -> str:
    return "answer" if state["position"] == _DONE else "read"


async def _after_answer(state: StructuredState, runtime: Runtime[ReadContext]) -> str:
    if state["stopped"] is not None or state["part"] >= len(runtime.context.parts):
        return "cite"
    return "choose"
