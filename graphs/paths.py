"""Several chains over the same chunks, and the choice among them.

Source: CoA, Zhang et al. 2024, section 5.6: bi-direction (left to right and right to left), self-consistency
(the same order, sampled), permutation (random orders). Chosen by a judge (a model picks the most reliable last
unit, and the answer is written from it) or by a majority over the chains' answers.

The chains advance together, one chunk each a step, so that all of them share each chunk's prefix: the reading
prefix depends on nothing but the chunk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from coa.agents.adapting import sampled
from coa.errors import ConfigError
from coa.events import StageChanged
from coa.graphs.citing import add_citing, started
from coa.graphs.context import Answering, ReadContext, Reading, teller
from coa.graphs.roles import Judging
from coa.graphs.state import ReadInput, ReadOutput, ReadState
from coa.graphs.steps import (
    PlannedStep,
    Refusal,
    StepReply,
    answer_part,
    needed,
    read_chunk,
    side_by_side,
    store_answer,
    take_step,
    take_steps,
)
from coa.graphs.together import Turn
from coa.graphs.voting import majority
from coa.runs import StoredStep
from coa.types import CommunicationUnit

__all__ = ["Path", "PathsGraph", "build_bidirectional", "build_permutation", "build_self_consistency"]


class UnitState(TypedDict):
    """A chain's last unit."""

    text: str
    chunk: int


class PathsState(ReadState, total=False):
    """Where the chains stand; `position` is the same for all."""

    units: dict[str, UnitState]
    """By path."""


PathsGraph = StateGraph[PathsState, ReadContext, ReadInput, ReadOutput]


class Path(NamedTuple):
    """A chain among several."""

    name: str
    order: Sequence[int]
    """The chunks' positions in the order in which it reads them."""
    seed: int | None = None
    """Its replies are sampled with it; None for greedy ones."""


PathsOf = Callable[[ReadContext, int], list[Path]]
"""The paths over a part, the same ones in every process."""


def build_bidirectional(*, worker: Reading | None = None, manager: Answering | None = None) -> PathsGraph:
    """Two chains, one from each end. The uncompiled graph; agents "worker", "manager" and "judge"."""
    return _build(_both_ways, worker, manager)


def build_self_consistency(*, worker: Reading | None = None, manager: Answering | None = None) -> PathsGraph:
    """`ReadOptions.paths` chains from left to right, sampled. Agents as `build_bidirectional`."""
    return _build(_same_order, worker, manager)


def build_permutation(*, worker: Reading | None = None, manager: Answering | None = None) -> PathsGraph:
    """`ReadOptions.paths` chains over random orders. Agents as `build_bidirectional`."""
    return _build(_random_orders, worker, manager)


def _both_ways(context: ReadContext, part: int) -> list[Path]:
    n_chunks = len(context.parts[part].chunks)
    return [Path("forward", range(n_chunks)), Path("backward", range(n_chunks - 1, -1, -1))]


def _same_order(context: ReadContext, part: int) -> list[Path]:
    n_chunks = len(context.parts[part].chunks)
    return [Path(f"sample-{n}", range(n_chunks), seed=n) for n in range(1, context.options.paths + 1)]


def _random_orders(context: ReadContext, part: int) -> list[Path]:
    chunks = context.parts[part].chunks
    paths = []
    for n in range(1, context.options.paths + 1):
        order = list(range(len(chunks)))
        # By the text's extent, not by its name: a resumed run has to draw the same order.
        random.Random(f"{n} {chunks[0].span.start} {chunks[-1].span.end}").shuffle(order)
        paths.append(Path(f"order-{n}", order))
    return paths


def _build(paths_of: PathsOf, worker: Reading | None, manager: Answering | None) -> PathsGraph:
    async def reading(state: PathsState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await _read(state, runtime, paths_of, worker)

    async def choosing(state: PathsState, runtime: Runtime[ReadContext]) -> dict[str, object]:
        return await _choose(state, runtime, paths_of, manager)

    graph: PathsGraph = StateGraph(
        PathsState, context_schema=ReadContext, input_schema=ReadInput, output_schema=ReadOutput
    )
    graph.add_node("start", _start)
    graph.add_node("read", reading)
    graph.add_node("choose", choosing)
    cite = add_citing(graph)
    graph.add_edge(START, "start")
    graph.add_edge("start", "read")
    graph.add_conditional_edges("read", _after_read, ["read", "choose"])
    graph.add_conditional_edges("choose", _after_choose, ["read", cite])
    return graph


async def _start(state: ReadInput, runtime: Runtime[ReadContext]) -> PathsState:
    if runtime.context.options.choose == "vote" and state.get("question") is None:
        raise ConfigError("summaries cannot be voted on: no two of them are the same.", hint="Use --choose judge.")
    return {**started(state.get("question")), "units": {}}


async def _read(
    state: PathsState, runtime: Runtime[ReadContext], paths_of: PathsOf, worker: Reading | None
) -> dict[str, object]:
    """Takes every chain one chunk further."""
    context, part, position = runtime.context, state["part"], state["position"]
    reader = needed(worker or context.worker, "worker")
    paths, chunks = paths_of(context, part), context.parts[part].chunks
    outcomes = await side_by_side(
        read_chunk(
            context,
            teller(runtime),
            _reader(reader, path, context),
            _unit(state, path.name),
            question=state["question"],
            part=part,
            position=path.order[position],
            path=path.name,
            turn=Turn(part, 1, position),
            following=[chunks[at] for at in path.order[position + 1 :]],
        )
        for path in paths
    )
    units = dict(state["units"])
    stopped: str | None = None
    for path, outcome in zip(paths, outcomes, strict=True):
        if isinstance(outcome, Refusal):
            stopped = outcome.reason
        else:
            units[path.name] = UnitState(text=outcome.text, chunk=outcome.unit_chunk)
    if stopped is not None:
        return {"position": len(context.parts[part].chunks), "units": units, "stopped": stopped}
    return {"position": position + 1, "units": units}


async def _choose(
    state: PathsState, runtime: Runtime[ReadContext], paths_of: PathsOf, manager: Answering | None
) -> dict[str, object]:
    """Answers the part by the chains' choice, and turns to the next part."""
    context, part = runtime.context, state["part"]
    answering = needed(manager or context.manager, "manager")
    names = [path.name for path in paths_of(context, part)]
    changed: dict[str, object] = {"part": part + 1, "position": 0, "units": {}}
    if await context.notes.answer(part) is not None:
        return changed
    answers = await _answers(state, runtime, answering, names) if context.options.choose == "vote" else {}
    chosen = _voted(runtime, answers)
    if chosen is None:
        chosen, doubt = await _judged(state, runtime, list(answers) or names)
        if doubt is not None:
            changed["warnings"] = [*(state.get("warnings") or ()), doubt]
    if chosen in answers:
        text, truncated = answers[chosen]
        await store_answer(context, teller(runtime), part, text, truncated=truncated)
    else:
        await answer_part(
            context, teller(runtime), answering, _unit(state, chosen), question=state["question"], part=part
        )
    return changed


def _reader(worker: Reading, path: Path, context: ReadContext) -> Reading:
    if path.seed is None:
        return worker
    return sampled(worker, seed=path.seed, temperature=context.options.sampling_temperature)


def _unit(state: PathsState, path: str) -> CommunicationUnit:
    found = state["units"].get(path)
    return CommunicationUnit() if found is None else CommunicationUnit(found["text"], found["chunk"])


async def _judged(state: PathsState, runtime: Runtime[ReadContext], names: Sequence[str]) -> tuple[str, str | None]:
    """The path whose unit the judge takes; without a judge the first that found anything, and why there was none."""
    context = runtime.context
    judge = context.agent("judge", Judging)
    units = [_unit(state, name) for name in names]

    async def call() -> StepReply:
        teller(runtime)(StageChanged(f"judging {len(names)} readings"))
        reply = await judge.choose(state["question"], units)
        return StepReply({"path": names[reply.choice], "decided": reply.decided}, reply.usage)

    taken = await take_step(context, PlannedStep(f"judge/{state['part']}", call, judge.demand(len(names))))
    cause = taken.reason if isinstance(taken, Refusal) else taken.cause
    if isinstance(taken, StoredStep) and cause is None:
        return str(taken.payload["path"]), None
    first = next((name for name, unit in zip(names, units, strict=True) if unit.text), names[0])
    return first, f"nobody judged the readings, the first was taken: {cause}"


async def _answers(
    state: PathsState, runtime: Runtime[ReadContext], manager: Answering, names: Sequence[str]
) -> dict[str, tuple[str, bool]]:
    """The text of each chain's own answer, and whether it was cut off; without those that the budget refuses."""
    context, part, question = runtime.context, state["part"], state["question"]

    def step(name: str) -> PlannedStep:
        async def call() -> StepReply:
            reply = await manager.answer(question, _unit(state, name))
            return StepReply({"text": reply.text, "truncated": reply.truncated}, reply.usage)

        return PlannedStep(f"answer/{part}/{name}", call, context.manager_demand, may_fail=False, answers=True)

    teller(runtime)(StageChanged(f"writing {len(names)} answers"))
    taken = await take_steps(context, [step(name) for name in names])
    return {
        name: (str(t.payload["text"]), bool(t.payload["truncated"]))
        for name, t in zip(names, taken, strict=True)
        if isinstance(t, StoredStep)
    }


def _voted(runtime: Runtime[ReadContext], answers: Mapping[str, tuple[str, bool]]) -> str | None:
    """The first path of the majority; None where there are no answers, or they are too long to vote on."""
    chosen = majority([text for text, _ in answers.values()])
    if chosen is not None:
        return list(answers)[chosen]
    if answers:
        teller(runtime)(StageChanged("the answers are too long to vote on: the judge chooses"))
    return None


async def _after_read(state: PathsState, runtime: Runtime[ReadContext]) -> str:
    return "read" if state["position"] < len(runtime.context.parts[state["part"]].chunks) else "choose"


async def _after_choose(state: PathsState, runtime: Runtime[ReadContext]) -> str:
    if state["stopped"] is not None or state["part"] >= len(runtime.context.parts):
        return "cite"
    return "read"
