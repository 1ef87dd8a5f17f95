"""A service of your own over coa: POST a document, ask about it, watch the events, go on with a thread.

    pip install 'coa-orchestrator[serve]'
    uvicorn --factory --app-dir examples/service app:create_app

    curl --data-binary @book.txt 'http://127.0.0.1:8000/documents?name=book.txt'
    curl -N -d '{"document": "<digest>", "question": "Who kept the key?", "thread": "t1"}' \
         -H 'Content-Type: application/json' http://127.0.0.1:8000/ask

A thread that was cut off (the reader went away, the process was killed) goes on where it stood when it is asked the
same again. COA_REDIS_URL shares kept replies and rate limits between processes, COA_CHECKPOINTS=postgresql://… (extra
`postgres`) the graphs' checkpoints; all other settings are coa's (`coa config show`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, cast

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from coa import CoaError, Session, Settings, load_settings, read_document
from coa.answer_json import answer_object, event_object
from coa.config import resolve_environment
from coa.graphs import ReadInput, ReadOutput, strategy
from coa.graphs.checkpoints import checkpointer


class Question(BaseModel):
    document: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    question: Annotated[str, Field(min_length=1, max_length=2000)]
    thread: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,40}$")]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app; `settings` None are those of the folder and environment."""
    settings = settings or load_settings().settings

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Session(settings) as session:  # one open model for everybody
            await session.open()
            app.state.session = session
            yield

    app = FastAPI(title="questions about books", lifespan=lifespan)

    @app.post("/documents", status_code=201)
    async def add(request: Request, name: str = "document") -> dict[str, object]:
        session: Session = request.app.state.session
        try:
            document = await asyncio.to_thread(read_document, await request.body(), name=name)
        except CoaError as error:
            raise HTTPException(422, error.message) from error
        await asyncio.to_thread(session.runs.save_document, document)
        return {"document": document.sha256, "characters": len(document.text)}

    @app.post("/ask")
    async def ask(asked: Question, request: Request) -> StreamingResponse:
        session: Session = request.app.state.session
        if not await asyncio.to_thread(session.runs.has_document, asked.document):
            raise HTTPException(404, "there is no such document: POST it to /documents first")
        return StreamingResponse(_sse(session, asked), media_type="text/event-stream")

    return app


async def _sse(session: Session, asked: Question) -> AsyncIterator[str]:
    try:
        async for event in _events(session, asked):
            yield f"data: {json.dumps(event)}\n\n"
    except CoaError as error:
        yield f"data: {json.dumps({'type': 'error', 'message': error.message, 'hint': error.hint})}\n\n"


async def _events(session: Session, asked: Question) -> AsyncIterator[dict[str, Any]]:
    """What happens while the thread's graph runs, then the answer; the graph goes on from its last checkpoint."""
    settings = session.settings
    document = await asyncio.to_thread(session.runs.document, asked.document)
    about = hashlib.sha256(f"{asked.document} {asked.question}".encode()).hexdigest()[:12]
    run_id = f"{asked.thread}-{about}"
    async with session.prepared(document, asked.question, run_id=run_id) as run:
        kept = resolve_environment(settings.checkpoints) or session.runs.path(run_id) / "state.sqlite"
        async with checkpointer(kept) as saver:
            graph = strategy(settings.strategy).build().compile(checkpointer=saver)
            config: Any = {"configurable": {"thread_id": run_id}, "recursion_limit": 100 + 20 * run.context.n_chunks}
            state = await graph.aget_state(config)
            if not state.values.get("finished"):
                given = None if state.next else ReadInput(question=asked.question)
                stream = graph.astream(given, config, context=run.context, stream_mode="custom", subgraphs=True)
                async for _, event in stream:
                    yield event_object(cast("Any", event))
                state = await graph.aget_state(config)
        output = cast("ReadOutput", {key: state.values.get(key) for key in ReadOutput.__annotations__})
        yield {"type": "answer", **answer_object(await asyncio.to_thread(run.finished, output))}
