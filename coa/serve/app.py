"""The HTTP service: documents in, answers out, events on the way (server-sent events).

    POST /v1/documents            the file as the body (or multipart "file"); gives its digest
    POST /v1/runs                 a question or summary; JSON, or events with `Accept: text/event-stream`
    GET  /v1/runs/{id}            how it stands, and its answer
    POST /v1/runs/{id}/resume     goes on with a drained, failed or waiting run
    POST /v1/runs/{id}/stop       stops it after the step in hand; it can be gone on with
    GET  /v1/strategies, /health, /openapi.json

Whoever leaves a stream of events leaves the run to be drained: it can be gone on with. Runs, notes and documents lie
in coa's home, as with the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from coa import __version__
from coa.answer_json import answer_object
from coa.api import Session, list_strategies
from coa.config import Settings
from coa.documents.isolation import read_document_isolated
from coa.errors import CoaError, ConfigError, DocumentTooLarge, RunNotFound
from coa.runs import RunRecord
from coa.serve.active import ActiveRun, ActiveRuns, TooManyRuns
from coa.serve.bodies import DocumentInfo, ErrorBody, ResumeRequest, RunInfo, RunRequest, StrategyBody
from coa.serve.failures import body_of, status_of
from coa.serve.guard import Guard
from coa.serve.limits import ServeLimits
from coa.types import Document

__all__ = ["create_app"]

RunId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{3,63}$")]
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
_EVENTS = "text/event-stream"
_RETRY_AFTER_S = 10
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 409, 413, 422, 502, 503, 504, 507)
}


class _Service:
    """What the endpoints share; made when the app starts."""

    def __init__(self, session: Session, limits: ServeLimits) -> None:
        self.session = session
        self.limits = limits
        self.active = ActiveRuns(session, limits)


def create_app(
    settings: Settings | None = None,
    *,
    token: str | None = None,
    limits: ServeLimits | None = None,
    warm: bool = False,
) -> FastAPI:
    """The ASGI app; `settings` None are those of the folder and environment.

    Without a `token` only calls that name this machine are answered. `warm` opens the model before the first call,
    and takes what was imported for that out of the garbage collector's sight: a full collection over all of litellm
    holds the event loop up for a third of a second. That is for processes that do nothing else.
    """
    limits = limits or ServeLimits()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Session(settings) as session:
            app.state.service = service = _Service(session, limits)
            if warm:
                await session.open()
                gc.collect()
                gc.freeze()
            try:
                yield
            finally:
                await service.active.close()

    app = FastAPI(
        title="coa",
        version=__version__,
        description="Questions about documents longer than a model's window, answered with citations.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(Guard, token=token)
    app.add_exception_handler(CoaError, _coa_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    _add_documents(app)
    _add_runs(app)
    _add_facts(app)
    return app


def _service(request: Request) -> _Service:
    found: _Service = request.app.state.service
    return found


Service = Annotated[_Service, Depends(_service)]


async def _coa_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CoaError)  # noqa: S101 - registered for nothing else
    if isinstance(error, TooManyRuns):
        headers = {"Retry-After": str(_RETRY_AFTER_S)}
        return JSONResponse(body_of(error).model_dump(), 503, headers)
    return JSONResponse(body_of(error).model_dump(), status_of(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Names the field and the rule; what was sent is not sent back."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse(ErrorBody(error="Invalid", message=f"{where}: {first['msg']}").model_dump(), 422)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """The framework's own (no such path, a body that is no JSON) in the form of all others."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return JSONResponse(
        ErrorBody(error="Invalid", message=str(error.detail)).model_dump(), error.status_code, error.headers
    )


def _add_documents(app: FastAPI) -> None:
    body = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}

    @app.post(
        "/v1/documents", status_code=201, responses=_ERRORS, openapi_extra={"requestBody": {**body, "required": True}}
    )
    async def add_document(request: Request, service: Service, name: str = "document") -> DocumentInfo:
        """Takes a document: the file itself as the body, in any format that coa reads."""
        data = await _received(request, service.session.settings.max_document_bytes)
        document = await asyncio.to_thread(
            read_document_isolated,
            data,
            name=_plain_name(name),
            max_bytes=service.session.settings.max_document_bytes,
            limits=service.session.settings.document_limits,
            reader=service.session.settings.reader,
        )
        await asyncio.to_thread(service.session.runs.save_document, document)
        return _info(document)

    @app.get("/v1/documents/{document}", responses=_ERRORS)
    async def get_document(document: Digest, service: Service) -> DocumentInfo:
        """What the service holds under a digest."""
        return _info(await _stored(service, document))


def _add_runs(app: FastAPI) -> None:
    responses: dict[int | str, dict[str, Any]] = {
        **_ERRORS,
        200: {
            "description": "The answer as `coa ask --json` prints it, or events that end with it.",
            "content": {"application/json": {"schema": {"type": "object"}}, _EVENTS: {}},
        },
        202: {"model": ErrorBody, "description": "The run waits for review."},
    }

    @app.post("/v1/runs", response_model=None, responses=responses)
    async def start_run(wanted: RunRequest, request: Request, service: Service) -> JSONResponse | StreamingResponse:
        """Answers a question, or summarizes."""
        document = await _stored(service, wanted.document)
        chosen = ("strategy", "notes", "max_calls", "max_tokens_total")
        settings = {key: getattr(wanted, key) for key in chosen if getattr(wanted, key) is not None}

        async def start(session: Session) -> Any:
            if wanted.question is not None:
                return await session.ask(document, wanted.question)
            return await session.summarize(document, words=wanted.words, per=wanted.per, language=wanted.language)

        return await _reply(request, service.active.start(start, {**settings, "review": wanted.review}))

    @app.post("/v1/runs/{run_id}/resume", response_model=None, responses=responses)
    async def resume_run(
        run_id: RunId, request: Request, service: Service, how: ResumeRequest | None = None
    ) -> JSONResponse | StreamingResponse:
        """Goes on with a run; a finished one's answer is given again."""
        record = await asyncio.to_thread(service.session.runs.get, run_id)
        if service.active.find(record.run_id) is not None:
            raise ConfigError(f"the run {record.run_id} is under way.", hint="Wait until it ends, or stop it.")
        told = None if how is None else how.strike
        return await _reply(
            request, service.active.start(lambda session: session.resume(record.run_id, review=told), {})
        )

    @app.post("/v1/runs/{run_id}/stop", status_code=202, responses=_ERRORS)
    async def stop_run(run_id: RunId, service: Service) -> RunInfo:
        """Stops a run after the step in hand."""
        record = await asyncio.to_thread(service.session.runs.get, run_id)
        found = service.active.find(record.run_id)
        if found is not None:
            found.stop.request("asked to stop")
        return await _run_info(service, record)

    @app.get("/v1/runs/{run_id}", responses=_ERRORS)
    async def get_run(run_id: RunId, service: Service) -> RunInfo:
        """How a run stands."""
        return await _run_info(service, await asyncio.to_thread(service.session.runs.get, run_id))


def _add_facts(app: FastAPI) -> None:
    @app.get("/health")
    async def health(service: Service) -> dict[str, Any]:
        """That the service is there, and how much is under way."""
        return {"ok": True, "version": __version__, "runs": len(service.active)}

    @app.get("/v1/strategies", responses=_ERRORS)
    async def get_strategies() -> list[StrategyBody]:
        """The reading strategies there are."""
        found = await asyncio.to_thread(list_strategies)
        return [StrategyBody(name=s.name, description=s.description, agents=list(s.agents)) for s in found]


async def _received(request: Request, most: int) -> bytes:
    """The body, read no further than the limit. Raises: DocumentTooLarge."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise DocumentTooLarge(f"the document is larger than {most:,} bytes.", hint="Split it.")
    return bytes(data)


def _plain_name(name: str) -> str:
    """The last part of a file's name, fit to be shown."""
    bare = unquote(name).replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in bare if c.isprintable())[:200] or "document"


async def _stored(service: _Service, digest: str) -> Document:
    if not await asyncio.to_thread(service.session.runs.has_document, digest):
        raise RunNotFound(f"there is no document {digest[:12]}….", hint="Send it to /v1/documents first.")
    return await asyncio.to_thread(service.session.runs.document, digest)


def _info(document: Document) -> DocumentInfo:
    return DocumentInfo(
        document=document.sha256,
        name=document.name,
        title=document.title,
        language=document.language,
        media_type=document.media_type,
        characters=len(document.text),
        chapters=[section.title for section in document.chapters()],
        warnings=list(document.warnings),
    )


async def _run_info(service: _Service, record: RunRecord) -> RunInfo:
    answer = await asyncio.to_thread(service.session.runs.answer, record.run_id)
    return RunInfo(
        run_id=record.run_id,
        state=record.state,
        task=record.task,
        document=record.document,
        document_sha256=record.document_sha256,
        question=record.question,
        strategy=record.strategy,
        model=record.model,
        n_chunks=record.n_chunks,
        n_done=record.n_done,
        error=record.error,
        created=record.created,
        answer=None if answer is None else answer_object(answer, notes=True),
    )


async def _reply(request: Request, run: ActiveRun) -> JSONResponse | StreamingResponse:
    if _EVENTS in request.headers.get("accept", ""):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_streamed(run), media_type=_EVENTS, headers=headers)
    try:
        answer = await run.answer()
    except CoaError as error:
        partial = getattr(error, "answer", None)
        if partial is not None:
            return JSONResponse({**answer_object(partial, notes=True), "stopped": error.message})
        return JSONResponse(body_of(error, run_id=run.run_id).model_dump(), status_of(error))
    return JSONResponse(answer_object(answer, notes=True))


async def _streamed(run: ActiveRun) -> AsyncIterator[str]:
    """Server-sent events; the run is drained where its reader goes away."""
    finished = False
    try:
        async for event in run.told():
            yield f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
        finished = True
    finally:
        if not finished:
            run.stop.request("the reader of its events has gone")
