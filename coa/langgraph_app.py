"""The strategies for LangGraph's own server and Studio: graphs that take a text and a question, and wire themselves.

`langgraph.json` at the repository's root names them. Settings are those of the server's folder and environment
(`coa config show`); a request's context may name another model. What was paid for is kept in coa's home under the
thread, the model, the text and the question, so a thread that is run again pays nothing twice. No checkpointer is
compiled in: the server brings its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import dataclass
from typing import Any, NotRequired, cast
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from coa.config import load_settings
from coa.documents.isolation import read_document_isolated
from coa.graphs import ReadInput, ReadOutput, strategy
from coa.graphs.running import most_steps
from coa.session import Session
from coa.types import Document

__all__ = [
    "ServerContext",
    "ServerInput",
    "alr2",
    "auto",
    "bidirectional",
    "chain",
    "direct",
    "merge",
    "permutation",
    "rag",
    "self_consistency",
    "structured",
    "tree",
]


class ServerInput(TypedDict):
    """What a request gives."""

    text: str
    """The document's own text, plain or Markdown. Files are not opened: a request could name any of the server's."""
    question: str | None
    """None asks for a summary, of strategies that write one."""
    name: NotRequired[str]
    """How to call the document."""


class ServerState(ServerInput, ReadOutput):
    """Input and output together."""


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What a request may choose."""

    model: str | None = None
    """A group, catalogue name or litellm model; None takes the configured one."""


ServerGraph = CompiledStateGraph[ServerState, ServerContext, ServerInput, ReadOutput]

# An engine takes seconds to load its model: one session for each model and event loop, as long as that lasts.
_sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None], Session]] = WeakKeyDictionary()


def _session_in(loop: asyncio.AbstractEventLoop, name: str, model: str | None) -> Session:
    found = _sessions.setdefault(loop, {})
    if (name, model) not in found:
        settings = load_settings(overrides={"strategy": name, "model": model}).settings
        found[name, model] = Session(settings)
    return found[name, model]


def _app(name: str) -> ServerGraph:
    """The compiled graph of one strategy: a node that prepares the run and runs the strategy's graph inside."""
    inner = strategy(name).build().compile(name=name)

    async def read(state: ServerInput, runtime: Runtime[ServerContext]) -> dict[str, Any]:
        context = runtime.context or ServerContext()
        info = runtime.execution_info
        thread = info.thread_id if info is not None and info.thread_id else uuid.uuid4().hex
        # Settings, models and documents are read from disk: not on the loop that serves everybody.
        session = await asyncio.to_thread(_session_in, asyncio.get_running_loop(), name, context.model)
        document = await asyncio.to_thread(
            read_document_isolated,
            state["text"].encode(),
            name=state.get("name", "text"),
            limits=session.settings.document_limits,
        )
        question = state["question"]
        run_id = _run_id(thread, name, context.model or "", document, question)
        async with session.prepared(document, question, run_id=run_id) as run:
            config: RunnableConfig = {"recursion_limit": most_steps(run.context)}
            output = cast("ReadOutput", await inner.ainvoke(ReadInput(question=question), config, context=run.context))
            await asyncio.to_thread(run.finished, output)
        return {**output}

    graph: StateGraph[ServerState, ServerContext, ServerInput, ReadOutput] = StateGraph(
        ServerState, context_schema=ServerContext, input_schema=ServerInput, output_schema=ReadOutput
    )
    graph.add_node("read", read)
    graph.add_edge(START, "read")
    graph.add_edge("read", END)
    return graph.compile(name=f"coa {name}")


def _run_id(thread: str, name: str, model: str, document: Document, question: str | None) -> str:
    digest = hashlib.sha256("\0".join((thread, name, model, document.sha256, question or "")).encode()).hexdigest()
    return f"thread-{digest[:16]}"


chain = _app("chain")
bidirectional = _app("bidirectional")
self_consistency = _app("self-consistency")
permutation = _app("permutation")
tree = _app("tree")
merge = _app("merge")
direct = _app("direct")
rag = _app("rag")
alr2 = _app("alr2")
structured = _app("structured")
auto = _app("auto")
