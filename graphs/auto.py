"""The strategy that a document and a question suggest, and why.

The rules come from what the papers measured: full context is hard to beat where it is short (and falls off above
some 16k tokens); retrieving evidence first is best for facts (ALR², Li et al. 2024); a chain is best where the
whole has to be read (CoA, Zhang et al. 2024, Table 4 and Fig. 6). Models under a billion parameters read by quotes,
and there is one way to do that.
"""

from __future__ import annotations

from typing import NamedTuple

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from coa.agents.question_kinds import question_kind
from coa.events import StageChanged
from coa.graphs.alr2 import build_alr2
from coa.graphs.chain import build_chain
from coa.graphs.citing import started
from coa.graphs.context import ReadContext, teller
from coa.graphs.direct import build_direct
from coa.graphs.roles import AnsweringPassages
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.run_format import CHOICE_KEY
from coa.runs import StoredStep

__all__ = ["AutoGraph", "Choice", "build_auto", "choose_strategy"]

AutoGraph = StateGraph[ReadState, ReadContext, ReadInput, ReadOutput]

LONGEST_DIRECT_TOKENS = 16_000


class Choice(NamedTuple):
    """A strategy, and why."""

    strategy: str
    reason: str


def choose_strategy(question: str | None, *, n_tokens: int, room_tokens: int, quotes: bool) -> Choice:
    """For a text of `n_tokens`, where one call takes `room_tokens` of text; `quotes` for models under a billion
    parameters."""
    if quotes:
        return Choice("chain", "the model is too small for more than one sentence at a time")
    if n_tokens <= min(room_tokens, LONGEST_DIRECT_TOKENS):
        return Choice("direct", f"the text's {n_tokens:,} tokens fit into one call")
    if question is None:
        return Choice("chain", "a summary needs the whole text, in order")
    kind = question_kind(question)
    if kind == "whole":
        return Choice("chain", "the question is about the whole text")
    if kind == "several":
        return Choice("chain", "the question asks for several facts, which may stand far apart")
    return Choice("alr2", "the question asks for a single fact: its evidence is looked for first")


def build_auto() -> AutoGraph:
    """The uncompiled graph: `choose`, then one of the strategies as a subgraph, then `finish`.

    The agents of `chain`, `direct` and `alr2`.
    """
    graph: AutoGraph = StateGraph(
        ReadState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("choose", _choose)
    graph.add_node("chain", build_chain().compile())
    graph.add_node("direct", build_direct().compile())
    graph.add_node("alr2", build_alr2().compile())
    graph.add_node("finish", _finish)
    graph.add_edge(START, "choose")
    graph.add_conditional_edges("choose", _chosen, ["chain", "direct", "alr2"])
    for name in ("chain", "direct", "alr2"):
        graph.add_edge(name, "finish")
    graph.add_edge("finish", END)
    return graph


async def _choose(state: ReadInput, runtime: Runtime[ReadContext]) -> ReadState:
    """Chooses once: a resumed run stays with it."""
    context = runtime.context
    stored = await context.notes.step(CHOICE_KEY)
    if stored is None:
        choice = choose_strategy(
            state.get("question"),
            n_tokens=max(sum(c.n_tokens for c in part.chunks) for part in context.parts),
            room_tokens=context.agent("passages", AnsweringPassages).room_tokens,
            quotes=context.options.quotes,
        )
        stored = StoredStep(CHOICE_KEY, choice._asdict())
        await context.notes.add_step(stored)
    teller(runtime)(StageChanged(f"{stored.payload['strategy']}: {stored.payload['reason']}"))
    return started(state.get("question"))


async def _chosen(state: ReadState, runtime: Runtime[ReadContext]) -> str:
    steps = runtime.context.notes.all_steps()
    return next(str(s.payload["strategy"]) for s in steps if s.key == CHOICE_KEY)


async def _finish(state: ReadState) -> dict[str, object]:
    return {"finished": True}
