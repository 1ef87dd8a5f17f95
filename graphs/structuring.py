"""The node `structurize` and the graph `outline`: every chunk structured once, nothing asked.

Chunks are structured side by side, each as a step of its own: what was paid for is stored before the graph goes
on, and a kept structure (of an earlier run or question) takes no call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol, cast, runtime_checkable

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from coa.agents.structure import Structure
from coa.agents.structure_steps import step_key, structures_of
from coa.agents.structurizer import STRUCTURE_TOKENS, StructurizerReply
from coa.errors import ConfigError
from coa.events import ChunkRead, ChunkSkipped, ChunkStarted
from coa.graphs.citing import coverage_of, started
from coa.graphs.context import ReadContext, teller
from coa.graphs.estimates import Estimate, Forecast
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.graphs.steps import PlannedStep, Refusal, StepReply, take_steps
from coa.llm.budget import Demand
from coa.runs import StoredStep
from coa.types import Chunk

__all__ = [
    "StructureGraph",
    "StructureState",
    "Structuring",
    "all_structured",
    "build_outline_graph",
    "outline_estimate",
    "structurize",
]


@runtime_checkable
class Structuring(Protocol):
    """What a graph needs of a structurizer: `coa.agents.structurizer.Structurizer`, or one of the host's."""

    async def structurize(self, chunk: Chunk) -> StructurizerReply:
        """The structure of `chunk`. Raises: ModelError."""
        ...

    def demand(self, chunk: Chunk) -> Demand:
        """The most that `structurize` can take; may read a file. No calls where the structure is there already."""
        ...


class StructureState(ReadState, total=False):
    """How far structurizing has come."""

    structured: int
    """Chunks that are done, over all parts."""


StructureGraph = StateGraph[StructureState, ReadContext, ReadInput, ReadOutput]


def build_outline_graph(*, structurizer: Structuring | None = None) -> StructureGraph:
    """The uncompiled graph: nodes `start`, `structurize` (once a batch of chunks) and `finish`.

    It writes no answer: `coa.agents.structure_steps.structures_of` gives the structures from the note store.
    """

    async def start(state: ReadInput) -> StructureState:
        if state.get("question") is not None:
            raise ConfigError("outline answers no question.", hint="Use --strategy structured, or `coa structure`.")
        return cast("StructureState", {**started(None), "structured": 0})

    async def structurizing(state: StructureState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await structurize(state, runtime, structurizer=structurizer)

    graph: StructureGraph = StateGraph(
        StructureState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", start)
    graph.add_node("structurize", structurizing)
    graph.add_node("finish", _finish)
    graph.add_edge(START, "start")
    graph.add_edge("start", "structurize")
    graph.add_conditional_edges("structurize", _after, ["structurize", "finish"])
    graph.add_edge("finish", END)
    return graph


def outline_estimate(forecast: Forecast) -> Estimate:
    """Of structuring every chunk once, none of which is stored."""
    if forecast.options.quotes:
        return Estimate(0, 0, 0, 0)
    return forecast.readings(1, out=STRUCTURE_TOKENS)


async def structurize(
    state: StructureState, runtime: Runtime[ReadContext], *, structurizer: Structuring | None = None
) -> dict[str, object]:
    """Structures the next chunks, as many side by side as the options say; tells of them by events.

    A chunk whose call fails for a reason of its own (it was refused, it did not fit) is skipped, where the run's
    setting allows that.
    """
    context = runtime.context
    agent = structurizer or context.agent("structurizer", Structuring)
    chunks = _all(context)
    first = state["structured"]
    batch = chunks[first : first + max(1, context.options.max_parallel)]
    planned = await asyncio.to_thread(_planned, agent, batch, first)
    done_before = {step.key for step in planned if await context.notes.step(step.key) is not None}
    for step, (_, _, chunk) in zip(planned, batch, strict=True):
        if step.key not in done_before:
            teller(runtime)(ChunkStarted(step.chunks[0], context.n_chunks, chunk.n_tokens))
    refused: str | None = None
    for outcome, (_, _, chunk) in zip(await take_steps(context, planned), batch, strict=True):
        if isinstance(outcome, Refusal):
            refused = outcome.reason
        else:
            _tell(runtime, outcome, chunk, reused=outcome.key in done_before)
    if refused is not None:
        return {"structured": len(chunks), "stopped": refused}
    return {"structured": first + len(batch)}


def all_structured(state: StructureState, context: ReadContext) -> bool:
    """True when no chunk is left for `structurize`."""
    return state["structured"] >= context.n_chunks


def _all(context: ReadContext) -> list[tuple[int, int, Chunk]]:
    """Part, position and chunk, in order."""
    return [(n, chunk_n, chunk) for n, part in enumerate(context.parts) for chunk_n, chunk in enumerate(part.chunks)]


def _planned(agent: Structuring, batch: Sequence[tuple[int, int, Chunk]], first: int) -> list[PlannedStep]:
    return [
        PlannedStep(
            key=step_key(part, position),
            call=partial(_called, agent, chunk),
            demand=agent.demand(chunk),
            chunks=(first + n,),
        )
        for n, (part, position, chunk) in enumerate(batch)
    ]


async def _called(agent: Structuring, chunk: Chunk) -> StepReply:
    reply = await agent.structurize(chunk)
    return StepReply({"structure": reply.structure.to_json(), "how": reply.how}, reply.usage)


def _tell(runtime: Runtime[ReadContext], step: StoredStep, chunk: Chunk, *, reused: bool) -> None:
    context, ordinal = runtime.context, step.chunks[0]
    if step.cause is not None:
        teller(runtime)(ChunkSkipped(ordinal, context.n_chunks, step.cause))
        return
    structure = Structure.from_json(step.payload["structure"])
    note = f"{structure.scope}: " + "; ".join(a.title for a in structure.aspects)
    teller(runtime)(
        ChunkRead(
            ordinal,
            context.n_chunks,
            chunk.n_tokens,
            note,
            informative=True,
            usage=context.spent,
            seconds=step.seconds,
            reused=reused or step.payload["how"] == "stored",
        )
    )


async def _after(state: StructureState, runtime: Runtime[ReadContext]) -> str:
    return "finish" if all_structured(state, runtime.context) else "structurize"


async def _finish(state: StructureState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Says how many aspects were found; the outline itself is built from the steps, so the state stays small."""
    context, stopped = runtime.context, state.get("stopped")
    structures = structures_of(context.notes.all_steps())
    n_aspects = sum(len(s.aspects) for s in structures.values())
    plain = sum(s.made_by == "plain" for s in structures.values())
    warnings = []
    if structures and all(s.made_by == "code" for s in structures.values()):
        warnings.append("the titles are phrases of the text that code picked: the model is too small to write them.")
    if plain:
        warnings.append(
            f"{plain} of {context.n_chunks} chunks could not be structured by the model; "
            "each stands in the outline as one piece."
        )
    output = ReadOutput(
        answer=f"{n_aspects} aspects of {sum(s.n_sentences for s in structures.values())} sentences",
        citations=[],
        claims=[],
        quotes_not_found=0,
        coverage=coverage_of(context, unread="not read" if stopped is None else f"stopped by {stopped}"),
        verdict=None,
        stopped=stopped,
        warnings=warnings,
    )
    return {**output, "finished": True}
