"""Chain of Agents as a graph: read, read, …, answer; and so for each part.

Source: CoA, Zhang et al. 2024, Algorithm 1. Every node is idempotent: it looks for its result in the note
store first and puts it there before the graph goes on, so at-least-once execution never pays twice.
"""

from __future__ import annotations

import time

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from coa.errors import BadOutput, ContentRefused, ContextOverflow, ModelError
from coa.events import AnswerStarted, AnswerToken, ChunkRead, ChunkSkipped, ChunkStarted
from coa.graphs.context import ReadContext
from coa.graphs.state import ChainInput, ChainOutput, ChainState, SkippedState
from coa.runs import PartAnswer, StoredNote
from coa.types import CommunicationUnit, Usage

__all__ = ["build_chain"]

# A chunk can be to blame for these. The rest is the server's or the key's fault: the run stops and is resumed
# later, since going on would skip chunk after chunk of a book that could have been read.
_CHUNK_FAILURES = (BadOutput, ContentRefused, ContextOverflow)

ChainGraph = StateGraph[ChainState, ReadContext, ChainInput, ChainOutput]


def build_chain() -> ChainGraph:
    """The uncompiled graph: nodes `start`, `read` (once a chunk) and `answer` (once a part).

    Run it with a `ReadContext` and a recursion_limit above chunks + parts + 1 (langgraph counts each node).
    """
    graph: ChainGraph = StateGraph(
        ChainState, context_schema=ReadContext, input_schema=ChainInput, output_schema=ChainOutput
    )
    graph.add_node("start", _start)
    graph.add_node("read", _read)
    graph.add_node("answer", _answer)
    graph.add_edge(START, "start")
    graph.add_edge("start", "read")
    graph.add_conditional_edges("read", _after_read, ["read", "answer"])
    graph.add_conditional_edges("answer", _after_answer, ["read", END])
    return graph


async def _start(state: ChainInput) -> ChainState:
    return ChainState(
        question=state.get("question"),
        part=0,
        position=0,
        unit_text="",
        unit_chunk=-1,
        skipped=[],
        stopped=None,
    )


async def _read(state: ChainState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Reads the chunk at the state's position, or finds that it was read before."""
    context, part, position = runtime.context, state["part"], state["position"]
    chunk = context.parts[part].chunks[position]
    ordinal = context.ordinal(part, position)
    stored = await context.notes.note(part, position)
    reused = stored is not None
    if stored is None:
        unit = CommunicationUnit(state["unit_text"], state["unit_chunk"])
        demand = context.demand(chunk, state["question"], unit)
        refusal = context.budget.refusal(context.spent, demand, context.manager_demand)
        if refusal is not None:
            return _stopped(state, context, refusal)
        runtime.stream_writer(ChunkStarted(ordinal, context.n_chunks, chunk.n_tokens))
        stored = await _paid(state, context)
        context.spent = context.spent.merged(stored.usage)
        await context.notes.add_note(stored)
    if stored.cause is not None:
        runtime.stream_writer(ChunkSkipped(ordinal, context.n_chunks, stored.cause))
    else:
        runtime.stream_writer(
            ChunkRead(
                ordinal,
                context.n_chunks,
                chunk.n_tokens,
                stored.text,
                stored.informative,
                context.spent,
                stored.seconds,
                reused,
            )
        )
    skipped = state["skipped"]
    if stored.cause is not None:
        skipped = [*skipped, SkippedState(part=part, index=position, cause=stored.cause)]
    return {
        "position": position + 1,
        "unit_text": stored.text,
        "unit_chunk": stored.unit_chunk,
        "skipped": skipped,
    }


async def _paid(state: ChainState, context: ReadContext) -> StoredNote:
    """Reads the chunk by a model call; a failure that the chunk may be to blame for becomes a skipped chunk."""
    part, position = state["part"], state["position"]
    unit = CommunicationUnit(state["unit_text"], state["unit_chunk"])
    started = time.perf_counter()
    try:
        reply = await context.calling(
            context.worker.read(context.parts[part].chunks[position], state["question"], unit)
        )
    except ModelError as error:
        if context.on_worker_failure == "fail" or not isinstance(error, _CHUNK_FAILURES):
            raise
        return StoredNote(
            part=part,
            chunk=position,
            text=unit.text,
            unit_chunk=unit.chunk_index,
            informative=False,
            usage=error.usage or Usage(),
            seconds=time.perf_counter() - started,
            cause=error.message,
        )
    return StoredNote(
        part=part,
        chunk=position,
        text=reply.unit.text,
        unit_chunk=reply.unit.chunk_index,
        informative=reply.informative,
        usage=reply.usage,
        seconds=time.perf_counter() - started,
    )


def _stopped(state: ChainState, context: ReadContext, refusal: str) -> dict[str, object]:
    """The rest of the part is not read; its manager still answers from the notes so far."""
    part, n_chunks = state["part"], len(context.parts[state["part"]].chunks)
    cause = f"stopped by {refusal}"
    rest = [SkippedState(part=part, index=i, cause=cause) for i in range(state["position"], n_chunks)]
    return {"position": n_chunks, "skipped": [*state["skipped"], *rest], "stopped": refusal}


def _after_read(state: ChainState, runtime: Runtime[ReadContext]) -> str:
    return "read" if state["position"] < len(runtime.context.parts[state["part"]].chunks) else "answer"


async def _answer(state: ChainState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Lets the manager answer from the part's last unit, and turns to the next part."""
    context, part = runtime.context, state["part"]
    if await context.notes.answer(part) is None:
        runtime.stream_writer(AnswerStarted())
        reply = await context.calling(
            context.manager.answer(
                state["question"],
                CommunicationUnit(state["unit_text"], state["unit_chunk"]),
                on_text=lambda piece: runtime.stream_writer(AnswerToken(piece)),
            )
        )
        context.spent = context.spent.merged(reply.usage)
        await context.notes.add_answer(part, PartAnswer(reply.text, reply.truncated, reply.usage))
    return {"part": part + 1, "position": 0, "unit_text": "", "unit_chunk": -1}


def _after_answer(state: ChainState, runtime: Runtime[ReadContext]) -> str:
    if state["stopped"] is not None or state["part"] >= len(runtime.context.parts):
        return END
    return "read"
