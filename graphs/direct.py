"""The whole text in one call: the "vanilla" baseline of CoA (Zhang et al. 2024, section 4.1), without its truncation.

A text that does not fit is an error before the first call, never cut off in silence.
"""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from coa.errors import LimitsError
from coa.events import AnswerStarted, AnswerToken, ChunkRead, ChunkStarted
from coa.graphs.citing import add_citing, started
from coa.graphs.context import ReadContext, teller
from coa.graphs.roles import AnsweringPassages
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.graphs.steps import PlannedStep, Refusal, StepReply, nothing_found, take_step
from coa.runs import PartAnswer
from coa.types import Chunk, Usage

__all__ = ["DirectGraph", "build_direct"]

DirectGraph = StateGraph[ReadState, ReadContext, ReadInput, ReadOutput]


def build_direct() -> DirectGraph:
    """The uncompiled graph: nodes `start`, `answer` (once a part) and `cite`. Agent "passages"."""
    graph: DirectGraph = StateGraph(
        ReadState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", _start)
    graph.add_node("answer", _answer)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "answer")
    graph.add_conditional_edges("answer", _after_answer, ["answer", cite])
    return graph


async def _start(state: ReadInput, runtime: Runtime[ReadContext]) -> ReadState:
    """Raises: LimitsError where a part does not fit into the window."""
    room = runtime.context.agent("passages", AnsweringPassages).room_tokens
    for part in runtime.context.parts:
        n_tokens = sum(c.n_tokens for c in part.chunks)
        if n_tokens > room:
            what = "the text" if part.title is None else repr(part.title)
            raise LimitsError(
                f"{what} has {n_tokens} tokens, one call takes {room} beside the question and the answer.",
                hint="Use --strategy chain, or a model with a larger window.",
            )
    return started(state.get("question"))


async def _answer(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    context, part, question = runtime.context, state["part"], state["question"]
    write = teller(runtime)
    reader = context.agent("passages", AnsweringPassages)
    chunks: Sequence[Chunk] = context.parts[part].chunks
    ordinals = tuple(context.ordinal(part, at) for at in range(len(chunks)))

    async def call() -> StepReply:
        for ordinal, chunk in zip(ordinals, chunks, strict=True):
            write(ChunkStarted(ordinal, context.n_chunks, chunk.n_tokens))
        write(AnswerStarted())
        reply = await reader.answer(question, chunks, on_text=lambda piece: write(AnswerToken(piece)))
        return StepReply({"text": reply.text, "truncated": reply.truncated}, reply.usage)

    planned = PlannedStep(
        f"direct/{part}", call, reader.demand(question, chunks), chunks=ordinals, may_fail=False, answers=True
    )
    taken = await take_step(context, planned)
    if isinstance(taken, Refusal):
        return {"part": part + 1, "stopped": taken.reason}
    for ordinal, chunk in zip(ordinals, chunks, strict=True):
        write(
            ChunkRead(ordinal, context.n_chunks, chunk.n_tokens, "", True, context.spent, taken.seconds / len(chunks))
        )
    if not taken.payload["text"]:
        await nothing_found(context, write, question=question, part=part)
    elif await context.notes.answer(part) is None:
        answer = PartAnswer(str(taken.payload["text"]), bool(taken.payload["truncated"]), Usage())
        await context.notes.add_answer(part, answer)
    return {"part": part + 1}


async def _after_answer(state: ReadState, runtime: Runtime[ReadContext]) -> str:
    if state["stopped"] is not None or state["part"] >= len(runtime.context.parts):
        return "cite"
    return "answer"
