"""Retrieval-augmented generation, the baseline: the passages that a ranking by words puts first, one answer call.

Source: CoA, Zhang et al. 2024, section 4.1 (RAG baseline); passages are ranked by coa.agents.preselection rather
than by embeddings, so that nothing besides the answering model is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from coa.agents.evidence import EvidenceLine, Selected, verified
from coa.agents.preselection import PassageRanker, passages_of
from coa.agents.reasoner import Reasoning
from coa.agents.references import Reference
from coa.errors import ConfigError
from coa.events import EvidenceFound
from coa.graphs.citing import add_citing, started
from coa.graphs.context import ReadContext, teller
from coa.graphs.estimates import Estimate, Forecast, chain_estimate
from coa.graphs.reasoning import ask_reasoner, keep_answer
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.runs import StoredStep
from coa.types import Chunk, Document

__all__ = ["RagGraph", "build_rag", "rag_estimate"]

RagGraph = StateGraph[ReadState, ReadContext, ReadInput, ReadOutput]

# Of a passage, about: 400 to 1,200 characters.
_PASSAGE_TOKENS = 200


def build_rag(*, reasoner: Reasoning | None = None) -> RagGraph:
    """The uncompiled graph: nodes `start`, `rank` and `answer` (once a part), and `cite`.

    Run it with a `ReadContext` that has a document; its agent "reasoner" is used where none is given here.
    """

    async def start(state: ReadInput) -> ReadState:
        if state.get("question") is None:
            raise ConfigError("rag answers questions; it writes no summary.", hint="Use --strategy chain.")
        return started(state["question"])

    async def answer(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        """Answers from the part's passages, and turns to the next part."""
        context, part = runtime.context, state["part"]
        if await context.notes.answer(part) is None:
            stored = await context.notes.step(_key(part))
            if stored is None:
                raise RuntimeError("`answer` ran before `rank`")
            agent = reasoner or context.agent("reasoner", Reasoning)
            lines = _lines(context.parts[part].chunks, stored.payload["passages"], context.document)
            reply = await ask_reasoner(runtime, agent, state["question"] or "", lines, last=True)
            await keep_answer(context.notes, part, reply)
        return {"part": part + 1}

    graph: RagGraph = StateGraph(
        ReadState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", start)
    graph.add_node("rank", _rank)
    graph.add_node("answer", answer)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "rank")
    graph.add_edge("rank", "answer")
    graph.add_conditional_edges("answer", _after_answer, ["rank", cite])
    return graph


def rag_estimate(forecast: Forecast) -> Estimate:
    """One call for each part."""
    if forecast.options.quotes:
        return chain_estimate(forecast)
    limits, calls = forecast.limits, len(forecast.plan.parts)
    shown = min(forecast.options.top_k * _PASSAGE_TOKENS, limits.window - limits.template_tokens - limits.answer_tokens)
    prompt = limits.template_tokens + (forecast.question_tokens or 0) + shown
    return Estimate(calls, calls * prompt, calls * limits.answer_tokens, 0)


async def _rank(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Stores which passages of the part are shown; makes no call."""
    context, part = runtime.context, state["part"]
    chunks = context.parts[part].chunks
    stored = await context.notes.step(_key(part))
    if stored is None:
        passages = await asyncio.to_thread(_best, chunks, state["question"] or "", context.options.top_k)
        ordinals = tuple(sorted({context.ordinal(part, chunk) for chunk, *_ in passages}))
        stored = StoredStep(_key(part), {"passages": passages}, chunks=ordinals, selected=ordinals)
        await context.notes.add_step(stored)
    for ordinal in stored.chunks:
        shown = [p for p in stored.payload["passages"] if context.ordinal(part, p[0]) == ordinal]
        texts = tuple(line.text for line in _lines(chunks, shown, context.document))
        teller(runtime)(EvidenceFound(ordinal, texts))
    return {}


def _best(chunks: Sequence[Chunk], query: str, most: int) -> list[list[Any]]:
    """Chunk, first and last sentence, and relevance of each passage, best first."""
    passages = passages_of(chunks)
    best = PassageRanker(passages).best(query, most)
    return [
        [passages[at].chunk, passages[at].first, passages[at].last, round(score / best[0].score, 3)]
        for at, score in best
    ]


def _lines(
    chunks: Sequence[Chunk], passages: Sequence[Sequence[Any]], document: Document | None
) -> tuple[EvidenceLine, ...]:
    """The passages in document order, those that touch each other as one."""
    selected = [
        Selected(reference, relevance)
        for chunk, first, last, relevance in passages
        for reference in (Reference(chunk + 1, n) for n in range(first, last + 1))
    ]
    return verified(selected, chunks, document=document).lines


def _key(part: int) -> str:
    return f"passages/{part}"


async def _after_answer(state: ReadState, runtime: Runtime[ReadContext]) -> str:
    return "cite" if state["part"] >= len(runtime.context.parts) else "rank"
