"""Running a reading graph to its end: checkpoints after every step, events out, drain on request."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.errors import GraphDrained
from langgraph.graph import StateGraph
from langgraph.runtime import RunControl

from coa.errors import RunDrained, StorageError
from coa.events import Event
from coa.graphs.context import ReadContext
from coa.graphs.state import ChainInput

__all__ = ["run_graph"]


async def run_graph(
    graph: StateGraph[Any, Any, Any, Any],
    *,
    question: str | None,
    context: ReadContext,
    run_id: str,
    checkpoints: Path,
    on_event: Callable[[Event], None],
    on_control: Callable[[Callable[[str], None]], None],
) -> str | None:
    """Why the budget stopped the run, or None; goes on from the last checkpoint when there is one.

    `on_control` is given a function that drains the run: the step in hand is finished and checkpointed. A
    cancellation breaks off the model call in hand and lets the graph end by itself: one that is cancelled
    from outside leaves half a transaction, or a checkpoint that says it was at its end.

    Raises: RunDrained then, StorageError, whatever the nodes raise otherwise.
    """
    control = RunControl()
    on_control(control.request_drain)
    running = asyncio.create_task(
        _run(
            graph,
            ChainInput(question=question),
            context=context,
            run_id=run_id,
            checkpoints=checkpoints,
            on_event=on_event,
            control=control,
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


async def _run(
    graph: StateGraph[Any, Any, Any, Any],
    start: ChainInput,
    *,
    context: ReadContext,
    run_id: str,
    checkpoints: Path,
    on_event: Callable[[Event], None],
    control: RunControl,
) -> str | None:
    config: RunnableConfig = {
        "configurable": {"thread_id": run_id},
        "recursion_limit": context.n_chunks + len(context.parts) + 10,
    }
    async with _storage_errors(checkpoints), AsyncSqliteSaver.from_conn_string(str(checkpoints)) as saver:
        compiled = graph.compile(checkpointer=saver, name=run_id)
        before = await compiled.aget_state(config)
        fresh = not before.values
        if not fresh and not before.next and not _at_end(before.values, context):
            # Nothing is lost: what was read is in the note store, and no call is made for it again.
            await saver.adelete_thread(run_id)
            fresh = True
        if fresh or before.next:
            try:
                async for event in compiled.astream(
                    start if fresh else None,
                    config,
                    context=context,
                    stream_mode="custom",
                    durability="sync",
                    control=control,
                ):
                    on_event(cast("Event", event))  # our nodes write nothing else to the custom stream
            except GraphDrained as drained:
                raise RunDrained(
                    "stopped after the chunk in hand; everything read so far is kept.",
                    run_id=run_id,
                    hint=f"Go on with: coa resume {run_id}",
                ) from drained
        after = await compiled.aget_state(config)
    stopped: str | None = after.values.get("stopped")
    return stopped


def _at_end(values: Mapping[str, Any], context: ReadContext) -> bool:
    """True where the state is that of a chain that was read and answered, or stopped by its budget and answered."""
    if values.get("part", 0) >= len(context.parts):
        return True
    return values.get("stopped") is not None and values.get("position") == 0


@contextlib.asynccontextmanager
async def _storage_errors(checkpoints: Path) -> AsyncIterator[None]:
    """Turns what sqlite raises (disk full, read-only, damaged file) into StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"{checkpoints}: {error}.", hint="Free some space or check the folder, then `coa resume`; notes are kept."
        ) from error
