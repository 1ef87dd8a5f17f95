"""ALR² as a graph: retrieve, retrieve, …, verify, (review), reason; again where the evidence was too little; then cite.

Source: ALR², Li et al. 2024 (arXiv 2410.03227): facts first, then an answer from the facts alone. The nodes
`retrieve`, `verify`, `review` and `reason` are plain functions of a state and the run's context, for other graphs.

What a chunk gave is stored under the round and the chunk before the graph goes on, so a kill never pays twice. The
state holds ids and the query; sentences are copied from the chunks where they are needed. Evidence of another run is
not taken over by itself: the same chunk and query make the same prompt, which the response cache answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt

from coa.agents.evidence import EvidenceLine, Selected, verified
from coa.agents.reasoner import Reasoning
from coa.agents.references import Reference
from coa.agents.retriever import Retrieving
from coa.errors import ConfigError
from coa.events import ChunkRead, ChunkSkipped, ChunkStarted, EvidenceFound, WarningRaised
from coa.graphs.citing import add_citing, started
from coa.graphs.context import ReadContext, teller
from coa.graphs.estimates import Estimate, Forecast, added, chain_estimate
from coa.graphs.reasoning import ask_reasoner, keep_answer, short_id
from coa.graphs.selecting import chosen_chunks, n_chosen, selection_key
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.graphs.steps import PlannedStep, Refusal, StepReply, take_steps
from coa.llm.budget import Demand
from coa.runs import StoredStep
from coa.types import Chunk

__all__ = ["Alr2Graph", "Alr2State", "alr2_estimate", "build_alr2", "reason", "retrieve", "review", "verify"]

_ID = re.compile(r"(\d{1,6})\.(\d{1,6})")

EvidenceState = list[Any]
"""Chunk and sentence, both from 1, and relevance: JSON's form of a `Selected`."""


class Alr2State(ReadState, total=False):
    """Where retrieving and reasoning stand."""

    query: str
    """What is looked for in this round: the question, or what the reasoner missed."""
    round: int
    """From 1."""
    left: int
    """Chunks of this round that were not read yet."""
    selected: list[EvidenceState]
    """What the retriever named in all rounds, unchecked."""
    evidence: list[EvidenceState]
    """What of it is in the document, in its order, without what a person struck out."""
    gained: bool
    """Whether this round added to the evidence."""
    dropped: int
    """Sentences that retrievers named and found not to exist themselves, over all rounds."""
    struck: list[str]
    """Ids that a person struck out: "3.7"."""
    answered: bool
    """Whether the part has its answer."""


Alr2Graph = StateGraph[Alr2State, ReadContext, ReadInput, ReadOutput]


def build_alr2(
    *, retriever: Retrieving | None = None, reasoner: Reasoning | None = None, in_order: bool = False
) -> Alr2Graph:
    """The uncompiled graph: nodes `start`, `retrieve` (once a batch of chunks), `verify`, `review`, `reason`, `cite`.

    Run it with a `ReadContext` that has a document; its agents "retriever" and "reasoner" are used where none is
    given here. `in_order` reads the chunks one after the other and shows the retriever the evidence so far.
    """

    async def start(state: ReadInput) -> Alr2State:
        question = state.get("question")
        if question is None:
            raise ConfigError("alr2 answers questions; it writes no summary.", hint="Use --strategy chain.")
        return cast("Alr2State", {**started(question), **_begun(question)})

    async def retrieving(state: Alr2State, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await retrieve(state, runtime, retriever=retriever, in_order=in_order)

    async def reasoning(state: Alr2State, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await reason(state, runtime, reasoner=reasoner)

    graph: Alr2Graph = StateGraph(
        Alr2State, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", start)
    graph.add_node("retrieve", retrieving)
    graph.add_node("verify", verify)
    graph.add_node("review", review)
    graph.add_node("reason", reasoning)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "retrieve")
    graph.add_conditional_edges("retrieve", _after_retrieve, ["retrieve", "verify"])
    graph.add_conditional_edges("verify", _after_verify, ["review", "reason"])
    graph.add_edge("review", "reason")
    graph.add_conditional_edges("reason", _after_reason, ["retrieve", cite])
    return graph


def alr2_estimate(forecast: Forecast) -> Estimate:
    """Of one round; a second one reads `top_k` chunks more, or all where nothing is preselected."""
    if forecast.options.quotes:
        return chain_estimate(forecast)
    share = sum(n_chosen(len(p.chunks), forecast.options) for p in forecast.plan.parts) / forecast.plan.n_chunks
    whole = forecast.readings(1)
    read = Estimate(
        calls=round(whole.calls * share),
        prompt_tokens=round(whole.prompt_tokens * share),
        completion_tokens_max=round(whole.completion_tokens_max * share),
        cacheable_tokens=round(whole.cacheable_tokens * share),
    )
    return added(read, forecast.answers())


async def retrieve(
    state: Alr2State,
    runtime: Runtime[ReadContext],
    *,
    retriever: Retrieving | None = None,
    in_order: bool = False,
) -> dict[str, object]:
    """Reads the next chunks of this round, as many side by side as the options say; tells of them by events."""
    context, part = runtime.context, state["part"]
    agent = retriever or context.agent("retriever", Retrieving)
    chosen = await chosen_chunks(
        context, part=part, round_=state["round"], query=state["query"], asks_model=_asks_model(context, state, agent)
    )
    position = state["position"]
    batch = chosen[position : position + (1 if in_order else max(1, context.options.max_parallel))]
    found = _lines(context, state, state["selected"]) if in_order else ()
    planned = [_planned(context, state, context.parts[part].chunks[index], agent, found) for index in batch]
    done_before = {step.key for step in planned if await context.notes.step(step.key) is not None}
    for step in planned:
        if step.key not in done_before:
            ordinal = step.chunks[0]
            chunk = context.parts[part].chunks[ordinal - context.ordinal(part, 0)]
            teller(runtime)(ChunkStarted(ordinal, context.n_chunks, chunk.n_tokens, _path(state)))
    outcomes = await take_steps(context, planned)
    selected, dropped = list(state["selected"]), state["dropped"]
    changed: dict[str, object] = {"position": position + len(batch), "left": len(chosen) - position - len(batch)}
    for outcome in outcomes:
        if isinstance(outcome, Refusal):  # reasons over what was found so far
            changed |= {"stopped": outcome.reason, "left": 0}
            continue
        _tell(runtime, state, outcome, reused=outcome.key in done_before)
        if outcome.cause is None:
            chunk_number = outcome.chunks[0] - context.ordinal(part, 0) + 1
            selected += [[chunk_number, sentence, relevance] for sentence, relevance in outcome.payload["selected"]]
            dropped += outcome.payload["dropped"]
    return {**changed, "selected": selected, "dropped": dropped}


async def verify(state: Alr2State, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Keeps what of the selected sentences stands in the document; makes no call."""
    context, part = runtime.context, state["part"]
    struck = _struck(state)
    selection = _selection(state["selected"])
    checked = verified(selection, context.parts[part].chunks, without=struck)
    there = {r for line in checked.lines for r in line.references} - struck
    best: dict[Reference, float] = {}
    for reference, relevance in selection:
        if reference in there:
            best[reference] = max(relevance, best.get(reference, 0.0))
    evidence: list[EvidenceState] = [[*reference, best[reference]] for reference in sorted(best)]
    before = {(chunk, sentence) for chunk, sentence, _ in state.get("evidence", [])}
    gained = any((chunk, sentence) not in before for chunk, sentence, _ in evidence)
    changed: dict[str, object] = {"evidence": evidence, "gained": gained}
    n_dropped = state["dropped"] + checked.dropped
    if n_dropped:
        message = f"{n_dropped} sentence{'s' if n_dropped > 1 else ''} that the model named are not in the text."
        changed["warnings"] = [message]
    return changed


async def review(state: Alr2State, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Waits for a person to strike out evidence, by langgraph's `interrupt`.

    Its value holds the question and the evidence with its ids; it is resumed with the ids to strike out, as a list
    or as {"strike": [...]}, an empty one to go on with all.
    """
    context, part = runtime.context, state["part"]
    key = f"review/{part}/{state['round']}"
    stored = await context.notes.step(key)
    if stored is None:
        shown = [
            {"ids": [short_id(r) for r in line.references], "text": line.text, "chapter": line.chapter}
            for line in _lines(context, state, state["evidence"])
        ]
        told = interrupt({"question": state["question"], "query": state["query"], "evidence": shown})
        stored = StoredStep(key, {"struck": _ids_in(told)})
        await context.notes.add_step(stored)
    struck = set(stored.payload["struck"])
    kept = [e for e in state["evidence"] if f"{e[0]}.{e[1]}" not in struck]
    unknown = struck - {short_id(r) for line in _lines(context, state, state["evidence"]) for r in line.references}
    if unknown:
        teller(runtime)(WarningRaised(f"there is no evidence {', '.join(sorted(unknown))} to strike out."))
    return {"evidence": kept, "struck": sorted({*state.get("struck", []), *struck})}


async def reason(
    state: Alr2State, runtime: Runtime[ReadContext], *, reasoner: Reasoning | None = None
) -> dict[str, object]:
    """Lets the reasoner answer from the evidence, or say what to look for in another round."""
    context, part, round_ = runtime.context, state["part"], state["round"]
    agent = reasoner or context.agent("reasoner", Reasoning)
    key = f"reason/{part}/{round_}"
    if await context.notes.answer(part) is not None:
        return _next_part(state, context)
    again = await context.notes.step(key)
    if again is not None and again.payload["query"]:
        return _next_round(state, again.payload["query"])
    question = state["question"] or ""
    lines = _lines(context, state, state["evidence"])
    last = again is not None or not await _may_go_on(state, context, agent.demand(question, lines))
    reply = await ask_reasoner(runtime, agent, question, lines, last=last)
    if not reply.text and not last:
        await context.notes.add_step(StoredStep(key, {"query": reply.rewritten_query}, reply.usage))
        if reply.rewritten_query:
            return _next_round(state, reply.rewritten_query)
        reply = await ask_reasoner(runtime, agent, question, lines, last=True)  # it wants more, and cannot say what
    if reply.verdict == "not_in_text" and _incomplete(state, context):
        reply = reply._replace(verdict="too_little")  # what was not read may say it
    await keep_answer(context.notes, part, reply, rounds=round_)
    changed = _next_part(state, context)
    if reply.left_out:
        told = f"the least relevant {reply.left_out} of {len(lines)} pieces of evidence did not fit into the window."
        changed["warnings"] = [*state.get("warnings", []), told]
    return changed


async def _may_go_on(state: Alr2State, context: ReadContext, demand: Demand) -> bool:
    """Whether there can be another round: the options allow it, it could find something, and it can be paid for."""
    if state["round"] >= context.options.rounds or state["stopped"] is not None:
        return False
    if not state["evidence"]:
        # Where every chunk was read with this question and nothing found, other words find nothing either.
        return await context.notes.step(selection_key(state["part"], state["round"])) is not None
    if not state["gained"]:
        return False
    return context.budget.refusal(context.spent, demand, context.manager_demand) is None


def _incomplete(state: Alr2State, context: ReadContext) -> bool:
    """Whether chunks that were to be read were not."""
    failed = (s.cause is not None for s in context.notes.all_steps() if s.key.startswith(f"evidence/{state['part']}/"))
    return state["stopped"] is not None or any(failed)


def _begun(question: str) -> dict[str, object]:
    """What a part begins with."""
    fresh = {"round": 1, "left": 0, "selected": [], "evidence": [], "gained": False, "dropped": 0, "struck": []}
    return {"position": 0, "query": question, **fresh}


def _next_round(state: Alr2State, query: str) -> dict[str, object]:
    return {"query": query, "round": state["round"] + 1, "position": 0, "left": 0, "answered": False}


def _next_part(state: Alr2State, context: ReadContext) -> dict[str, object]:
    return {**_begun(state["question"] or ""), "part": state["part"] + 1, "answered": True}


def _planned(
    context: ReadContext, state: Alr2State, chunk: Chunk, agent: Retrieving, found: Sequence[EvidenceLine]
) -> PlannedStep:
    async def call() -> StepReply:
        reply = await agent.retrieve(chunk, state["query"], found)
        selected = [[s.reference.sentence, s.relevance] for s in reply.selected]
        return StepReply({"selected": selected, "dropped": reply.dropped, "how": reply.how}, reply.usage)

    return PlannedStep(
        key=f"evidence/{state['part']}/{state['round']}/{chunk.index}",
        call=call,
        demand=agent.demand(chunk, state["query"]),
        chunks=(context.ordinal(state["part"], chunk.index),),
    )


def _tell(runtime: Runtime[ReadContext], state: Alr2State, step: StoredStep, *, reused: bool) -> None:
    context, write, ordinal = runtime.context, teller(runtime), step.chunks[0]
    if step.cause is not None:
        write(ChunkSkipped(ordinal, context.n_chunks, step.cause, _path(state)))
        return
    index = ordinal - context.ordinal(state["part"], 0)
    chunk = context.parts[state["part"]].chunks[index]
    named = [Selected(Reference(index + 1, n), relevance) for n, relevance in step.payload["selected"]]
    quotes = tuple(text for line in verified(named, context.parts[state["part"]].chunks).lines for text in line.texts)
    write(EvidenceFound(ordinal, quotes))
    write(
        ChunkRead(
            ordinal,
            context.n_chunks,
            chunk.n_tokens,
            "\n".join(quotes),
            bool(quotes),
            context.spent,
            step.seconds,
            reused,
            _path(state),
        )
    )


def _path(state: Alr2State) -> str:
    return "" if state["round"] == 1 else f"round {state['round']}"


def _selection(evidence: Sequence[EvidenceState]) -> list[Selected]:
    return [Selected(Reference(chunk, sentence), relevance) for chunk, sentence, relevance in evidence]


def _struck(state: Alr2State) -> set[Reference]:
    found = (_ID.fullmatch(struck) for struck in state.get("struck", []))
    return {Reference(int(m.group(1)), int(m.group(2))) for m in found if m is not None}


def _lines(context: ReadContext, state: Alr2State, evidence: Sequence[EvidenceState]) -> tuple[EvidenceLine, ...]:
    chunks = context.parts[state["part"]].chunks
    return verified(_selection(evidence), chunks, document=context.document, without=_struck(state)).lines


def _asks_model(context: ReadContext, state: Alr2State, agent: Retrieving) -> bool:
    return agent.demand(context.parts[state["part"]].chunks[0], state["query"]).calls > 0


def _ids_in(told: object) -> list[str]:
    """The ids in what a review was resumed with, whatever holds them."""
    if isinstance(told, dict):
        told = told.get("strike", [])
    listed = told if isinstance(told, list | tuple) else [told]
    return [f"{int(m.group(1))}.{int(m.group(2))}" for item in listed for m in _ID.finditer(str(item))]


async def _after_retrieve(state: Alr2State) -> str:
    return "retrieve" if state["left"] > 0 else "verify"


async def _after_verify(state: Alr2State, runtime: Runtime[ReadContext]) -> str:
    return "review" if runtime.context.options.review and state["evidence"] and state["gained"] else "reason"


async def _after_reason(state: Alr2State, runtime: Runtime[ReadContext]) -> str:
    if not state["answered"]:
        return "retrieve"
    done = state["stopped"] is not None or state["part"] >= len(runtime.context.parts)
    return "cite" if done else "retrieve"
