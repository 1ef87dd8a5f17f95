"""Running a reading graph to its end: checkpoints after every step, events out, drain on request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained
from langgraph.graph import StateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, StateSnapshot

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


async def run_graph(
    graph: StateGraph[Any, Any, Any, Any],
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

    `checkpoints` is what `checkpointer` opens. `review` answers a graph that waits for a person (`ReviewNeeded`), in
    the form that its interrupt asks for.

    `on_control` is given a function that drains the run: the step in hand is finished and checkpointed. A
    cancellation breaks off the model call in hand and lets the graph end by itself: one that is cancelled
    from outside leaves half a transaction, or a checkpoint that says it was at its end.

    Raises: RunDrained then, ReviewNeeded, StorageError, whatever the nodes raise otherwise.
    """
    control = RunControl()
    on_control(_draining(control, context.together))
    running = asyncio.create_task(
        _run(
            graph,
            ReadInput(question=question),
            context=context,
            run_id=run_id,
            checkpoints=checkpoints,
            on_event=on_event,
            control=control,
            review=review,
        )
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


async def _run(
    graph: StateGraph[Any, Any, Any, Any],
    start: ReadInput,
    *,
    context: ReadContext,
    run_id: str,
    checkpoints: Path | str | None,
    on_event: Callable[[Event], None],
    control: RunControl,
    review: object,
) -> ReadOutput:
    config: RunnableConfig = {
        "configurable": {"thread_id": run_id},
        "recursion_limit": most_steps(context),
    }
    async with checkpointer(checkpoints) as saver:
        compiled = graph.compile(checkpointer=saver, name=run_id)
        before = await compiled.aget_state(config)
        given: Any = Command(resume=review) if before.interrupts else None
        if before.values and not _goes_on(before):
            # Nothing is lost: what was read is in the note store, and no call is made for it again.
            await saver.adelete_thread(run_id)
            before = await compiled.aget_state(config)
        if before.interrupts and review is None:
            raise _review_needed(before, run_id)
        if not before.values.get("finished"):
            try:
                async for _, event in compiled.astream(
                    given if before.values else start,
                    config,
                    context=context,
                    stream_mode="custom",
                    subgraphs=True,
                    durability="exit" if checkpoints is None else "sync",
                    control=control,
                ):
                    on_event(cast("Event", event))  # our nodes write nothing else to the custom stream
            except (GraphDrained, WaitEnded) as drained:
                raise RunDrained(
                    "stopped after the chunk in hand; everything read so far is kept.",
                    run_id=run_id,
                    hint=f"Go on with: coa resume {run_id}",
                ) from drained
        after = await compiled.aget_state(config)
        if after.interrupts:
            raise _review_needed(after, run_id)
    return cast("ReadOutput", {key: after.values.get(key) for key in ReadOutput.__annotations__})


def _goes_on(state: StateSnapshot) -> bool:
    """True where the checkpoint is one of this version's, and at its end only if it says so itself."""
    if state.values.get("version") != STATE_VERSION:
        return False
    return bool(state.next) or bool(state.values.get("finished"))


def _review_needed(state: StateSnapshot, run_id: str) -> ReviewNeeded:
    return ReviewNeeded(
        "the run waits for a person to look at it.",
        run_id=run_id,
        payload=state.interrupts[0].value,
        hint=f"Go on with: coa resume {run_id}",
    )
