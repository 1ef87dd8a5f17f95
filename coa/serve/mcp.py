"""An MCP server over stdio: ask, summarize, inspect and structure as tools of an assistant on this machine.

It opens the files that it is asked about, with the rights of whoever started it; that is why there is no MCP over the
network.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from coa import __version__
from coa.agents.outline_rendering import outline_to_json
from coa.answer_json import answer_object
from coa.api import Session, open_document
from coa.config import Settings
from coa.errors import CoaError
from coa.events import ChunkRead, ChunkSkipped, Event
from coa.inspection import inspect_for_model
from coa.inspection_json import inspection_object

__all__ = ["create_mcp_server"]

_INSTRUCTIONS = (
    "Reads documents longer than a model's window (text, Markdown, EPUB, PDF, DOCX, HTML) and answers with citations "
    "copied from the source. Give absolute paths. Reading a book takes a while; progress is reported."
)


def create_mcp_server(settings: Settings | None = None) -> MCPServer[Session]:
    """The server; `settings` None are those of the folder and environment."""

    @contextlib.asynccontextmanager
    async def lifespan(server: MCPServer[Session]) -> AsyncIterator[Session]:
        async with Session(settings) as session:
            yield session

    server: MCPServer[Session] = MCPServer("coa", version=__version__, instructions=_INSTRUCTIONS, lifespan=lifespan)

    @server.tool()
    async def ask(path: str, question: str, ctx: Context[Session], strategy: str | None = None) -> dict[str, Any]:
        """Answers a question about the document at `path`, with citations copied from it.

        `strategy` is one of coa's reading strategies ("auto" chooses); the configured one when left out.
        """
        async with _told(ctx) as (session, on_event):
            document = await open_document(Path(path), session.settings)
            view = session.view(on_event=on_event, strategy=strategy or session.settings.strategy)
            return answer_object(await view.ask(document, question))

    @server.tool()
    async def summarize(path: str, ctx: Context[Session], words: int = 200, per: str = "book") -> dict[str, Any]:
        """Summarizes the document at `path` in about `words` words; `per` is "book" or "chapter"."""
        if per not in {"book", "chapter"}:
            raise ToolError('per is "book" or "chapter"')
        async with _told(ctx) as (session, on_event):
            document = await open_document(Path(path), session.settings)
            view = session.view(on_event=on_event)
            answer = await view.summarize(document, words=words, per="chapter" if per == "chapter" else "book")
            return answer_object(answer)

    @server.tool()
    async def inspect(path: str, ctx: Context[Session]) -> dict[str, Any]:
        """Chapters, pages, language and size of the document at `path`; asks no model."""
        async with _told(ctx) as (session, _):
            document = await open_document(Path(path), session.settings)
            return inspection_object(await inspect_for_model(document, session.settings, estimate=True))

    @server.tool()
    async def structure(path: str, ctx: Context[Session]) -> dict[str, Any]:
        """The outline of the document at `path`: what each stretch is about, linked to its place in the text."""
        async with _told(ctx) as (session, on_event):
            document = await open_document(Path(path), session.settings)
            answer = await session.view(on_event=on_event).structure(document)
            return outline_to_json(session.outline(answer.run_id), document)

    return server


@contextlib.asynccontextmanager
async def _told(ctx: Context[Session]) -> AsyncIterator[tuple[Session, Callable[[Event], None]]]:
    """The session, and what takes its events on as progress; coa's errors become the tool's."""
    session = ctx.request_context.lifespan_context
    sending: set[asyncio.Task[None]] = set()

    def on_event(event: Event) -> None:
        if isinstance(event, ChunkRead | ChunkSkipped):
            task = asyncio.create_task(ctx.report_progress(event.index + 1, event.n_chunks))
            sending.add(task)
            task.add_done_callback(sending.discard)

    try:
        yield session, on_event
    except CoaError as error:
        raise ToolError(str(error)) from error
    finally:
        await asyncio.gather(*sending, return_exceptions=True)
