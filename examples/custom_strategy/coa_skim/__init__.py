"""Skimming as a strategy of coa: reads the first and the last chunk of each chapter, in order, then answers.

    pip install ./examples/custom_strategy
    coa graph show skim --mermaid
    coa ask book.txt "What becomes of the ferry?" --strategy skim

Every paid step goes through `read_chunk` and `answer_part`: they look for its result first and store it before the
graph goes on, which makes the strategy resumable and keeps it to the budget.
"""

from __future__ import annotations

import asyncio
from itertools import groupby

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from coa.graphs import ReadContext, ReadInput, ReadOutput, Strategy
from coa.graphs.citing import add_citing, started
from coa.graphs.state import ChainState
from coa.graphs.steps import Refusal, answer_part, needed, read_chunk
from coa.runs import StoredStep
from coa.types import CommunicationUnit

__all__ = ["SKIM", "build_skim"]

SkimGraph = StateGraph[ChainState, ReadContext, ReadInput, ReadOutput]


def build_skim() -> SkimGraph:
    """The uncompiled graph: nodes `start`, `read` (once a chunk that is looked at), `answer` (once a part), `cite`."""
    graph: SkimGraph = StateGraph(
        ChainState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", _start)
    graph.add_node("read", _read)
    graph.add_node("answer", _answer)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "read")
    graph.add_conditional_edges("read", _after_read, ["read", "answer"])
    graph.add_conditional_edges("answer", _after_answer, ["read", cite])
    return graph


SKIM = Strategy(
    "skim",
    "the first and the last chunk of each chapter, in order, then the answer",
    build_skim,
)
"""Its estimate is the chain's: the most that it can take, where every chapter has one chunk or two."""


def ends_of_chapters(context: ReadContext, part: int) -> list[int]:
    """The positions of the chunks that each chapter of a part begins and ends in. Chunks go to where they begin."""
    chunks = context.parts[part].chunks
    document = context.document
    chapters = [document.section_at(chunk.span.start) if document is not None else None for chunk in chunks]
    groups = [list(group) for _, group in groupby(range(len(chunks)), key=lambda position: chapters[position])]
    return sorted({end for group in groups for end in (group[0], group[-1])})


async def _start(state: ReadInput) -> ChainState:
    return {**started(state.get("question")), "reading": 1, "unit_text": "", "unit_chunk": -1}


async def _read(state: ChainState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    context, part, position = runtime.context, state["part"], state["position"]
    chosen = await asyncio.to_thread(ends_of_chapters, context, part)
    if position == 0:  # so that coverage tells what was left out on purpose from what could not be read
        selected = tuple(context.ordinal(part, at) for at in chosen)
        await context.notes.add_step(StoredStep(f"skim/{part}", {"chunks": chosen}, selected=selected))
    outcome = await read_chunk(
        context,
        runtime.stream_writer,
        needed(context.worker, "worker"),
        CommunicationUnit(state["unit_text"], state["unit_chunk"]),
        question=state["question"],
        part=part,
        position=chosen[position],
    )
    if isinstance(outcome, Refusal):  # the budget: the manager answers from what there is
        return {"position": -1, "stopped": outcome.reason}
    following = position + 1 if position + 1 < len(chosen) else -1
    return {"position": following, "unit_text": outcome.text, "unit_chunk": outcome.unit_chunk}


async def _answer(state: ChainState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    context, unit = runtime.context, CommunicationUnit(state["unit_text"], state["unit_chunk"])
    manager = needed(context.manager, "manager")
    await answer_part(context, runtime.stream_writer, manager, unit, question=state["question"], part=state["part"])
    return {"part": state["part"] + 1, "position": 0, "unit_text": "", "unit_chunk": -1}


def _after_read(state: ChainState) -> str:
    return "answer" if state["position"] < 0 else "read"


def _after_answer(state: ChainState, runtime: Runtime[ReadContext]) -> str:
    return "cite" if state["part"] == len(runtime.context.parts) or state["stopped"] else "read"
