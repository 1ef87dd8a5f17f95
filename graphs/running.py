"""Running a reading graph to its end: checkpoints after every step, events out, drain on request."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
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

    `on_control` is given a function that drains the run: the step in hand is finished and checkpointed.
    Raises: RunDrained then; whatever the nodes raise otherwise.
    """
    control = RunControl()
    on_control(control.request_drain)
    config: RunnableConfig = {
        "configurable": {"thread_id": run_id},
        "recursion_limit": context.n_chunks + len(context.parts) + 10,
    }
    async with _storage_errors(checkpoints), AsyncSqliteSaver.from_conn_string(str(checkpoints)) as saver:
        compiled = graph.compile(checkpointer=saver, name=run_id)
        before = await compiled.aget_state(config)
        fresh = not before.values
        if fresh or before.next:
            start = ChainInput(question=question) if fresh else None
            try:
                async for event in compiled.astream(
                    start, config, context=context, stream_mode="custom", durability="sync", control=control
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


@contextlib.asynccontextmanager
async def _storage_errors(checkpoints: Path) -> AsyncIterator[None]:
    """Turns what sqlite raises (disk full, read-only, damaged file) into StorageError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"{checkpoints}: {error}.", hint="Free some space or check the folder, then `coa resume`; notes are kept."
        ) from error
