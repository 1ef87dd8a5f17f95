"""Every chunk answered by itself, and a majority over the answers.

Source: the "merge" baseline of CoA (Zhang et al. 2024, section 4.1). Chunks that do not hold the answer do not
vote. Answers that are too long to vote on are left to the judge.
"""

from __future__ import annotations

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from coa.errors import ConfigError
from coa.events import ChunkRead, ChunkSkipped, ChunkStarted, StageChanged
from coa.graphs.citing import add_citing, started
from coa.graphs.context import ReadContext, teller
from coa.graphs.roles import AnsweringPassages, Judging
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.graphs.steps import PlannedStep, Refusal, StepReply, nothing_found, store_answer, take_step, take_steps
from coa.graphs.voting import majority
from coa.runs import StoredStep
from coa.types import Chunk, CommunicationUnit

__all__ = ["MergeGraph", "build_merge"]

MergeGraph = StateGraph[ReadState, ReadContext, ReadInput, ReadOutput]


def build_merge() -> MergeGraph:
    """The uncompiled graph: nodes `start`, `read` (some chunks side by side), `vote`, `cite`.

    Agents "passages" and "judge".
    """
    graph: MergeGraph = StateGraph(
        ReadState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", _start)
    graph.add_node("read", _read)
    graph.add_node("vote", _vote)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "read")
    graph.add_conditional_edges("read", _after_read, ["read", "vote"])
    graph.add_conditional_edges("vote", _after_vote, ["read", cite])
    return graph


async def _start(state: ReadInput) -> ReadState:
    if state.get("question") is None:
        raise ConfigError("merge votes on answers: it cannot summarize.", hint="Use --strategy tree or chain.")
    return started(state.get("question"))


async def _read(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Lets the next chunks be answered from, each alone."""
    context, part, position = runtime.context, state["part"], state["position"]
    n_chunks = len(context.parts[part].chunks)
    following = range(position, min(n_chunks, position + context.options.max_parallel))
    taken = await take_steps(context, [_reading(runtime, part, at, str(state["question"])) for at in following])
    refusal = next((t for t in taken if isinstance(t, Refusal)), None)
    if refusal is not None:
        return {"position": n_chunks, "stopped": refusal.reason}
    for at, step in zip(following, taken, strict=True):
        if isinstance(step, StoredStep):
            _tell(runtime, part, at, step)
    return {"position": following.stop}


def _tell(runtime: Runtime[ReadContext], part: int, at: int, step: StoredStep) -> None:
    context = runtime.context
    ordinal, n_tokens = context.ordinal(part, at), context.parts[part].chunks[at].n_tokens
    if step.cause is not None:
        teller(runtime)(ChunkSkipped(ordinal, context.n_chunks, step.cause))
        return
    said = str(step.payload["text"])
    teller(runtime)(ChunkRead(ordinal, context.n_chunks, n_tokens, said, bool(said), context.spent, step.seconds))


def _reading(runtime: Runtime[ReadContext], part: int, at: int, question: str) -> PlannedStep:
    context = runtime.context
    reader = context.agent("passages", AnsweringPassages)
    chunk: Chunk = context.parts[part].chunks[at]

    async def call() -> StepReply:
        teller(runtime)(ChunkStarted(context.ordinal(part, at), context.n_chunks, chunk.n_tokens))
        reply = await reader.answer(question, [chunk])
        return StepReply({"text": reply.text, "truncated": reply.truncated}, reply.usage)

    demand = reader.demand(question, [chunk])
    return PlannedStep(f"read/{part}/{at}", call, demand, chunks=(context.ordinal(part, at),))


async def _vote(state: ReadState, runtime: Runtime[ReadContext]) -> dict[str, object]:
    """Takes the answer of most chunks, and turns to the next part."""
    context, part = runtime.context, state["part"]
    steps = {s.key: s for s in context.notes.all_steps()}
    read = (steps.get(f"read/{part}/{at}") for at in range(len(context.parts[part].chunks)))
    given = [s.payload for s in read if s is not None and s.payload.get("text")]
    texts = [str(g["text"]) for g in given]
    changed: dict[str, object] = {"part": part + 1, "position": 0}
    if not given:
        await nothing_found(context, teller(runtime), question=state["question"], part=part)
    else:
        chosen = majority(texts)
        if chosen is None:
            chosen, doubt = await _judged(runtime, part, state["question"], texts)
            if doubt is not None:
                changed["warnings"] = [*(state.get("warnings") or ()), doubt]
        await store_answer(context, teller(runtime), part, texts[chosen], truncated=bool(given[chosen]["truncated"]))
    return changed


async def _judged(
    runtime: Runtime[ReadContext], part: int, question: str | None, texts: list[str]
) -> tuple[int, str | None]:
    """The judge's choice; without one the first answer, and why there was none."""
    judge = runtime.context.agent("judge", Judging)

    async def call() -> StepReply:
        teller(runtime)(StageChanged(f"judging {len(texts)} answers"))
        reply = await judge.choose(question, [CommunicationUnit(text) for text in texts])
        return StepReply({"choice": reply.choice, "decided": reply.decided}, reply.usage)

    planned = PlannedStep(f"judge/{part}", call, judge.demand(len(texts)), answers=True)
    taken = await take_step(runtime.context, planned)
    cause = taken.reason if isinstance(taken, Refusal) else taken.cause
    if isinstance(taken, StoredStep) and cause is None:
        return int(taken.payload["choice"]), None
    return 0, f"nobody judged the answers, the first was taken: {cause}"


async def _after_read(state: ReadState, runtime: Runtime[ReadContext]) -> str:
    return "read" if state["position"] < len(runtime.context.parts[state["part"]].chunks) else "vote"


async def _after_vote(state: ReadState, runtime: Runtime[ReadContext]) -> str:
    if state["stopped"] is not None or state["part"] >= len(runtime.context.parts):
        return "cite"
    return "read"
