"""Control arms: what a strategy has to beat before its cost means anything.

- `closed_book`: the question alone. What a model answers from memory was not found by reading.
- `full_context`: as much of the document as one call takes; of a longer one the middle is left out, as LongBench and
  the "vanilla" baseline of CoA (Zhang et al. 2024, section 4.1) do.
- `bm25`: passages that BM25 puts first, at most `top_k` and one window, in the text's order; one answer call.
- `single_chunk`: one worker reads one chunk, the manager answers from its notes. The paper's gain on sets of little
  more than one chunk may be this "summarise, then answer" rather than chaining; it did not run the control. Of a
  document of several chunks, it is the chunk that BM25 puts first.

They are graphs like the strategies, over the same agents, prompts and citations, so that only the reading differs. In
all of them the model reads by itself: nothing is picked by code for models that are small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from coa.agents.passages import PassageReader
from coa.evaluation.bm25 import ranked
from coa.graphs.citing import add_citing, started
from coa.graphs.context import ReadContext, teller
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.graphs.steps import (
    PlannedStep,
    Refusal,
    StepReply,
    answer_part,
    needed,
    nothing_found,
    read_chunk,
    store_answer,
    take_step,
)
from coa.llm.budget import Demand
from coa.reading import Prompt, harmless
from coa.runs import StoredStep
from coa.types import Chunk, CommunicationUnit, Usage

__all__ = ["PASSAGE_TOKENS", "STRATEGY_OF", "ControlGraph", "build_control"]

ControlGraph = StateGraph[ReadState, ReadContext, ReadInput, ReadOutput]

STRATEGY_OF = {"closed_book": "direct", "full_context": "direct", "bm25": "direct", "single_chunk": "chain"}
"""Whose agents a control takes."""
PASSAGE_TOKENS = 400
"""Of the passages of `bm25` and the pieces of `full_context`: about 300 words, as in the paper's RAG baseline."""

_CLOSED_BOOK_SYSTEM = "You answer questions from what you know. Be brief and exact."
_CLOSED_BOOK = "Answer the question in a few words. There is no text to read.\n\nQuestion: {question}\n\nAnswer:"
_IDS_TOKENS = 4
"""Of a sentence's number, which grows when several chunks stand in one prompt."""

_Node = Callable[[ReadState, Runtime[ReadContext]], Coroutine[Any, Any, dict[str, object]]]
_Choose = Callable[[Sequence[Chunk], str, "_Room"], list[int]]


class _Room:
    """What a call takes of passages."""

    def __init__(self, tokens: int, most: int) -> None:
        self.tokens = tokens
        self.most = most

    def filled(self, chunks: Sequence[Chunk], order: Sequence[int]) -> list[int]:
        """The places of `order` for as long as there is room, sorted; the first one at least."""
        chosen: list[int] = []
        left = self.tokens
        for at in order:
            left -= chunks[at].n_tokens + _IDS_TOKENS * len(chunks[at].sentences)
            if chosen and left < 0:
                break
            chosen.append(at)
        return sorted(chosen)


def build_control(name: str) -> ControlGraph:
    """The uncompiled graph of a control: nodes `start`, `answer` and `cite`, over one part."""
    graph: ControlGraph = StateGraph(
        ReadState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", _start)
    graph.add_node("answer", _ANSWERING[name])
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "answer")
    graph.add_edge("answer", cite)
    return graph


async def _start(state: ReadInput) -> ReadState:
    return started(state.get("question"))


async def _closed_book(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    context, question = runtime.context, state["question"] or ""
    reader = context.agent("passages", PassageReader)
    await _select(context, [])

    async def call() -> StepReply:
        prompt = Prompt(tail=_CLOSED_BOOK.format(question=harmless(question)), system=_CLOSED_BOOK_SYSTEM)
        decoding = reader.prose(reader.limits.answer_tokens, bounded=reader.profile.bounded)
        completion = await reader.model.complete(prompt, decoding)
        usage = Usage().plus(completion.usage, seconds=completion.seconds)
        return StepReply({"text": completion.text, "truncated": completion.finish_reason == "length"}, usage)

    limits = reader.limits
    demand = Demand(1, limits.template_tokens + limits.question_tokens, limits.answer_tokens)
    return await _answered(runtime, question, PlannedStep("control/answer", call, demand, may_fail=False, answers=True))


def _passages(choose: _Choose) -> _Node:
    """A node that shows the passages that `choose` picks."""

    async def answer(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        context, question = runtime.context, state["question"] or ""
        reader = context.agent("passages", PassageReader)
        chunks = context.parts[0].chunks
        room = _Room(reader.room_tokens, context.options.top_k)
        chosen = await asyncio.to_thread(choose, chunks, question, room)
        await _select(context, chosen)
        shown = [chunks[at] for at in chosen]

        async def call() -> StepReply:
            reply = await reader.answer(question, shown)
            return StepReply({"text": reply.text, "truncated": reply.truncated}, reply.usage)

        demand = reader.demand(question, shown)
        return await _answered(
            runtime, question, PlannedStep("control/answer", call, demand, tuple(chosen), may_fail=False, answers=True)
        )

    return answer


async def _single_chunk(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    context, question, write = runtime.context, state["question"], teller(runtime)
    chunks = context.parts[0].chunks
    order = await asyncio.to_thread(ranked, [chunk.text for chunk in chunks], question or "")
    await _select(context, order[:1])
    worker, manager = needed(context.worker, "worker"), needed(context.manager, "manager")
    empty = CommunicationUnit()
    note = await read_chunk(context, write, worker, empty, question=question, part=0, position=order[0])
    if isinstance(note, Refusal):
        return {"stopped": note.reason}
    unit = CommunicationUnit(note.text, note.unit_chunk)
    await answer_part(context, write, manager, unit, question=question, part=0)
    return {}


async def _answered(runtime: Runtime[ReadContext], question: str, planned: PlannedStep) -> dict[str, object]:
    context, write = runtime.context, teller(runtime)
    taken = await take_step(context, planned)
    if isinstance(taken, Refusal):
        return {"stopped": taken.reason}
    text = str(taken.payload["text"])
    if text:
        await store_answer(context, write, 0, text, truncated=bool(taken.payload["truncated"]))
    else:
        await nothing_found(context, write, question=question, part=0)
    return {}


async def _select(context: ReadContext, chosen: Sequence[int]) -> None:
    """Says that the other chunks are left out on purpose."""
    if await context.notes.step("control/select") is None:
        await context.notes.add_step(StoredStep("control/select", {}, selected=tuple(chosen)))


def _from_both_ends(chunks: Sequence[Chunk], question: str, room: _Room) -> list[int]:
    """First, last, second, last but one, and so on: what is left out is in the middle."""
    last = len(chunks) - 1
    order = [at for step in range((last + 2) // 2) for at in dict.fromkeys((step, last - step))]
    return room.filled(chunks, order)


def _best(chunks: Sequence[Chunk], question: str, room: _Room) -> list[int]:
    return room.filled(chunks, ranked([chunk.text for chunk in chunks], question)[: room.most])


_ANSWERING: Mapping[str, Any] = {  # langgraph types nodes by the names of their parameters
    "closed_book": _closed_book,
    "full_context": _passages(_from_both_ends),
    "bm25": _passages(_best),
    "single_chunk": _single_chunk,
}
