"""Chain of Agents as a graph: read, read, …, answer; and so for each part; then cite.

Source: CoA, Zhang et al. 2024, Algorithm 1. Every node is idempotent: it looks for its result in the note
store first and puts it there before the graph goes on, so at-least-once execution never pays twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from coa.agents.adapting import prefaced
from coa.graphs.citing import add_citing, started
from coa.graphs.context import Answering, ReadContext, Reading, teller
from coa.graphs.demonstrating import demonstrate, demonstrations_of
from coa.graphs.state import ChainState, ReadInput, ReadOutput
from coa.graphs.steps import Refusal, answer_part, needed, read_chunk
from coa.graphs.together import Turn
from coa.types import Chunk, CommunicationUnit

__all__ = ["ChainGraph", "answer", "build_chain", "read"]

ChainGraph = StateGraph[ChainState, ReadContext, ReadInput, ReadOutput]

_SECOND_READING = "again"


def build_chain(*, worker: Reading | None = None, manager: Answering | None = None) -> ChainGraph:
    """The uncompiled graph: nodes `start`, `demonstrate` (where demonstrations are wanted), `read` (once a chunk and
    pass, or once where steps are not stored), `answer` (once a part) and `cite`.

    Run it with a `ReadContext`, whose worker and manager are used where none is given here, and a
    recursion_limit above chunks * passes + parts + 3 (langgraph counts each node).
    """

    async def reading(state: ChainState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await read(state, runtime, worker=worker)

    async def answering(state: ChainState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await answer(state, runtime, manager=manager)

    graph: ChainGraph = StateGraph(
        ChainState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", _start)
    graph.add_node("demonstrate", demonstrate)
    graph.add_node("read", reading)
    graph.add_node("answer", answering)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_conditional_edges("start", _after_start, ["demonstrate", "read"])
    graph.add_edge("demonstrate", "read")
    graph.add_conditional_edges("read", _after_read, ["read", "answer"])
    graph.add_conditional_edges("answer", _after_answer, ["read", cite])
    return graph


async def _start(state: ReadInput) -> ChainState:
    return {**started(state.get("question")), "reading": 1, "unit_text": "", "unit_chunk": -1}


async def read(state: ChainState, runtime: Runtime[ReadContext], *, worker: Reading | None = None) -> dict[str, object]:
    """Reads the chunk at the state's position, or finds that it was read before; where the graph's steps are not
    stored, all that are left of the part, as a step of the graph takes longer than what coa does for a chunk."""
    context, changed = runtime.context, await _read_one(state, runtime, worker)
    while not (context.stores_steps or "stopped" in changed or _drained(runtime)):
        so_far = cast("ChainState", {**state, **changed})
        if so_far["position"] >= len(context.parts[state["part"]].chunks):
            break
        changed |= await _read_one(so_far, runtime, worker)
    return changed


async def _read_one(state: ChainState, runtime: Runtime[ReadContext], worker: Reading | None) -> dict[str, object]:
    context, part, position, pass_ = runtime.context, state["part"], state["position"], state["reading"]
    n_chunks = len(context.parts[part].chunks)
    outcome = await read_chunk(
        context,
        teller(runtime),
        prefaced(needed(worker or context.worker, "worker"), demonstrations_of(context)),
        CommunicationUnit(state["unit_text"], state["unit_chunk"]),
        question=state["question"],
        part=part,
        position=position,
        path="" if pass_ == 1 else _SECOND_READING,
        turn=Turn(part, pass_, position),
        following=_following(context, part, pass_, position),
    )
    if isinstance(outcome, Refusal):  # its manager still answers from the notes so far
        return {"position": n_chunks, "reading": context.options.passes, "stopped": outcome.reason}
    changed: dict[str, object] = {
        "position": position + 1,
        "unit_text": outcome.text,
        "unit_chunk": outcome.unit_chunk,
    }
    if position + 1 == n_chunks and pass_ < context.options.passes:
        changed |= {"position": 0, "reading": pass_ + 1}
    return changed


def _drained(runtime: Runtime[ReadContext]) -> bool:
    return runtime.control is not None and runtime.control.drain_requested


def _following(context: ReadContext, part: int, reading: int, position: int) -> Sequence[Chunk]:
    """What is read after a chunk: to the end of its part, or what comes after that where it is the last."""
    chunks = context.parts[part].chunks
    if position + 1 < len(chunks):
        return chunks[position + 1 :]
    if reading < context.options.passes:
        return chunks
    return context.parts[part + 1].chunks if part + 1 < len(context.parts) else ()


async def answer(
    state: ChainState, runtime: Runtime[ReadContext], *, manager: Answering | None = None
) -> dict[str, object]:
    """Lets the manager answer from the part's last unit, and turns to the next part."""
    context = runtime.context
    await answer_part(
        context,
        teller(runtime),
        prefaced(needed(manager or context.manager, "manager"), demonstrations_of(context)),
        CommunicationUnit(state["unit_text"], state["unit_chunk"]),
        question=state["question"],
        part=state["part"],
    )
    return {"part": state["part"] + 1, "position": 0, "reading": 1, "unit_text": "", "unit_chunk": -1}


async def _after_start(state: ChainState, runtime: Runtime[ReadContext]) -> str:
    return "read" if runtime.context.options.demos == "none" else "demonstrate"


async def _after_read(state: ChainState, runtime: Runtime[ReadContext]) -> str:
    return "read" if state["position"] < len(runtime.context.parts[state["part"]].chunks) else "answer"


async def _after_answer(state: ChainState, runtime: Runtime[ReadContext]) -> str:
    if state["stopped"] is not None or state["part"] >= len(runtime.context.parts):
        return "cite"
    return "read"
