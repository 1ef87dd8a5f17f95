"""Running a reading graph to its end: checkpoints after every step, events out, drain on request."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, Durability, Interrupt, StateSnapshot

from coa.errors import ReviewNeeded, RunDrained
from coa.events import Event
from coa.graphs.checkpoints import checkpointer
from coa.graphs.context import ReadContext
from coa.graphs.state import STATE_VERSION, ReadInput, ReadOutput
from coa.graphs.together import Companion, WaitEnded

__all__ = ["most_steps", "run_graph"]

# A guard against graphs that go round in circles, well above what any strategy takes.
_STEPS_PER_CHUNK = 20
_MORE_STEPS = 200
_INTERRUPTS = "__interrupt__"
"""langgraph's name for them among a stream's values."""


async def run_graph(
    graph: StateGraph[Any, Any, Any, Any] | CompiledStateGraph[Any, Any, Any, Any],
    *,
    question: str | None,
    context: ReadContext,
    run_id: str,
    checkpoints: Path | str | None,
    on_event: Callable[[Event], None],
    on_control: Callable[[Callable[[str], None]], None],
    review: object = None,
) -> ReadOutput:
    """What the graph ends with; goes on from the last checkpoint when there is one.

    To compile a graph takes longer than to take a short run's steps: one that is run often is given compiled, and is
    left as it was. `checkpoints` is what `checkpointer` opens; None keeps none. `review` answers a graph that waits for
    a person (`ReviewNeeded`), in the form that its interrupt asks for, and needs the checkpoint that it waits at.

    `on_control` is given a function that drains the run: the step in hand is finished and checkpointed. A
    cancellation breaks off the model call in hand and lets the graph end by itself: one that is cancelled
    from outside leaves half a transaction, or a checkpoint that says it was at its end.

    Raises: RunDrained then, ReviewNeeded, StorageError, whatever the nodes raise otherwise.
    """
    control = RunControl()
    on_control(_draining(control, context.together))
    context.on_event, context.stores_steps = on_event, checkpoints is not None
    compiled = graph.compile() if isinstance(graph, StateGraph) else graph
    run, start = _Running(compiled, context, run_id, control), ReadInput(question=question)
    running = asyncio.create_task(
        _unstored(run, start) if checkpoints is None else _stored(run, start, checkpoints, review)
    )
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        context.interrupt()
        try:
            await asyncio.wait([running])
        finally:
            running.cancel()  # the second time there is no waiting
            if running.done() and not running.cancelled():
                running.exception()
        raise


def _draining(control: RunControl, companion: Companion | None) -> Callable[[str], None]:
    """Drains the run, from any thread; a chunk that it only waits to begin is not begun."""
    loop = asyncio.get_running_loop()

    def drain(reason: str) -> None:
        control.request_drain(reason)
        if companion is not None:
            with contextlib.suppress(RuntimeError):  # asked for after the run's loop was closed
                loop.call_soon_threadsafe(companion.stop)

    return drain


def most_steps(context: ReadContext) -> int:
    """What langgraph's `recursion_limit` has to be at least: servers and hosts set it to a few dozen steps."""
    return _STEPS_PER_CHUNK * (context.n_chunks + len(context.parts)) + _MORE_STEPS


async def _stored(run: _Running, start: ReadInput, where: Path | str, review: object) -> ReadOutput:
    """Runs the graph with checkpoints, from the last one where there is one."""
    async with checkpointer(where) as saver:
        compiled = run.bound(saver)
        before = await compiled.aget_state(run.config)
        given: Any = Command(resume=review) if before.interrupts else None
        if before.values and not _goes_on(before):
            # Nothing is lost: what was read is in the note store, and no call is made for it again.
            await saver.adelete_thread(run.run_id)
            before = await compiled.aget_state(run.config)
        if before.interrupts and review is None:
            raise _review_needed(before.interrupts, run.run_id)
        if not before.values.get("finished"):
            await run.streamed(compiled, given if before.values else start, durability="sync")
        after = await compiled.aget_state(run.config)
        if after.interrupts:
            raise _review_needed(after.interrupts, run.run_id)
    return _output(after.values)


async def _unstored(run: _Running, start: ReadInput) -> ReadOutput:
    """Runs the graph from its start; what it ends with is all that is left of its state."""
    values = await run.streamed(run.bound(None), start)
    if values.get(_INTERRUPTS):
        raise _review_needed(values[_INTERRUPTS], run.run_id)
    return _output(values)


@dataclass(frozen=True, slots=True)
class _Running:
    graph: CompiledStateGraph[Any, Any, Any, Any]
    context: ReadContext
    run_id: str
    control: RunControl

    @property
    def config(self) -> RunnableConfig:
        return {"configurable": {"thread_id": self.run_id}, "recursion_limit": most_steps(self.context)}

    def bound(self, saver: BaseCheckpointSaver[str] | None) -> CompiledStateGraph[Any, Any, Any, Any]:
        """The graph with a checkpointer of the run's own, and its name."""
        bound = copy.copy(self.graph)
        bound.checkpointer, bound.name = saver, self.run_id
        return bound

    async def streamed(
        self, compiled: CompiledStateGraph[Any, Any, Any, Any], given: Any, *, durability: Durability | None = None
    ) -> Mapping[str, Any]:
        """Takes the graph to its end, or to where it waits for a person; the last of its values. Raises: RunDrained."""
        values: Mapping[str, Any] = {}
        # Not the custom stream, for which langgraph keeps tasks waiting beside each step.
        steps = compiled.astream(
            given,
            self.config,
            context=self.context,
            stream_mode="values",
            durability=durability,
            control=self.control,
        )
        try:
            async for told in steps:
                values = cast("Mapping[str, Any]", told)
        except (GraphDrained, WaitEnded) as drained:
            raise RunDrained(
                "stopped after the chunk in hand; everything read so far is kept.",
                run_id=self.run_id,
                hint=f"Go on with: coa resume {self.run_id}",
            ) from drained
        return values


def _output(values: Mapping[str, Any]) -> ReadOutput:
    return cast("ReadOutput", {key: values.get(key) for key in ReadOutput.__annotations__})


def _goes_on(state: StateSnapshot) -> bool:
    """True where the checkpoint is one of this version's, and at its end only if it says so itself."""
    if state.values.get("version") != STATE_VERSION:
        return False
    return bool(state.next) or bool(state.values.get("finished"))


def _review_needed(interrupts: Sequence[Interrupt], run_id: str) -> ReviewNeeded:
    return ReviewNeeded(
        "the run waits for a person to look at it.",
        run_id=run_id,
        payload=interrupts[0].value,
        hint=f"Go on with: coa resume {run_id}",
    )
