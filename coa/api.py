"""What a Python user calls; the only place that wires settings, models, agents and graphs.

    import coa
    document = coa.read_document("moby.txt")
    answer = await coa.ask(document, "Who is Queequeg?", model="openai/gpt-4o-mini")
    print(answer.text, answer.citations)

A `Session` keeps the model loaded over several questions. Everything is validated before the first call, every
finished chunk is on disk before the next begins, and a run that was stopped or killed goes on with `resume`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from coa.agents.checked import Checked, checked_of
from coa.agents.outline import Outline
from coa.agents.statements import Statement
from coa.config import Settings, load_settings
from coa.diagnosis import Check, diagnose, test_model
from coa.documents.isolation import read_document_isolated
from coa.errors import ConfigError
from coa.planning import Plan
from coa.runs import RunStore
from coa.session import OnEvent, Session
from coa.stopping import StopSignal
from coa.types import Answer, Document

__all__ = [
    "Check",
    "OnEvent",
    "Plan",
    "Session",
    "StopSignal",
    "StrategyGraph",
    "StrategyInfo",
    "ask",
    "ask_sync",
    "check",
    "check_sync",
    "diagnose",
    "list_strategies",
    "open_document",
    "resume",
    "resume_sync",
    "show_strategy",
    "structure",
    "structure_sync",
    "summarize",
    "summarize_sync",
    "test_model",
]

Source = Document | str | Path | bytes
_T = TypeVar("_T")


async def ask(
    source: Source, question: str, *, on_event: OnEvent | None = None, stop: StopSignal | None = None, **settings: Any
) -> Answer:
    """The answer to `question` about a document or file; `settings` are keys of `coa.config.Settings`.

    Raises: as `Session.ask`.
    """
    async with _session(settings, on_event, stop) as session:
        return await session.ask(await open_document(source, session.settings), question)


async def summarize(
    source: Source,
    *,
    words: int | None = None,
    per: Literal["book", "chapter"] = "book",
    language: str = "auto",
    on_event: OnEvent | None = None,
    stop: StopSignal | None = None,
    **settings: Any,
) -> Answer:
    """A summary of a document or file; see `Session.summarize`."""
    async with _session(settings, on_event, stop) as session:
        document = await open_document(source, session.settings)
        return await session.summarize(document, words=words, per=per, language=language)


async def structure(
    source: Source,
    *,
    form: Literal["ids", "free"] = "ids",
    on_event: OnEvent | None = None,
    stop: StopSignal | None = None,
    **settings: Any,
) -> Outline:
    """The outline of a document or file; see `Session.structure`. Chunks that were structured before take no call."""
    async with _session(settings, on_event, stop) as session:
        answer = await session.structure(await open_document(source, session.settings), form=form)
        return await asyncio.to_thread(session.outline, answer.run_id)


async def check(
    source: Source,
    statements: Sequence[str | Statement],
    *,
    on_event: OnEvent | None = None,
    stop: StopSignal | None = None,
    **settings: Any,
) -> list[Checked]:
    """What becomes of each of `statements` about a document or file, in order; see `Session.check`."""
    async with _session(settings, on_event, stop) as session:
        document = await open_document(source, session.settings)
        answer = await session.check(document, statements)
        return await asyncio.to_thread(_checked, session.runs, answer, document)


async def resume(
    run_id: str, *, on_event: OnEvent | None = None, stop: StopSignal | None = None, **settings: Any
) -> Answer:
    """The answer of an earlier run; see `Session.resume`. Only `home` and keys of models matter in `settings`."""
    async with _session(settings, on_event, stop) as session:
        return await session.resume(run_id)


@dataclass(frozen=True, slots=True)
class StrategyInfo:
    """A reading strategy, for people and tools."""

    name: str
    description: str
    agents: tuple[str, ...]
    """The roles that it needs."""


@dataclass(frozen=True, slots=True)
class StrategyGraph(StrategyInfo):
    """A strategy with its graph."""

    nodes: tuple[str, ...]
    mermaid: str
    schemas: Mapping[str, Any]
    """Of "input" and "output" as JSON schemas, and the fields of the "context"."""


def list_strategies() -> list[StrategyInfo]:
    """The strategies there are, those of installed packages last."""
    from coa.graphs import STRATEGIES, strategies

    found = sorted(strategies().values(), key=lambda s: s.name not in STRATEGIES)
    return [StrategyInfo(s.name, s.description, tuple(sorted(s.agents))) for s in found]


def show_strategy(name: str) -> StrategyGraph:
    """One strategy with its graph. Raises: ConfigError for a name that is none."""
    from coa.graphs import mermaid, schemas, strategy

    found = strategy(name)
    nodes = tuple(found.build().nodes)
    return StrategyGraph(
        found.name, found.description, tuple(sorted(found.agents)), nodes, mermaid(name), schemas(name)
    )


def ask_sync(source: Source, question: str, **options: Any) -> Answer:
    """`ask` for code without an event loop. Raises: ConfigError inside a running loop."""
    return _sync(lambda: ask(source, question, **options), "coa.ask")


def summarize_sync(source: Source, **options: Any) -> Answer:
    """`summarize` for code without an event loop. Raises: ConfigError inside a running loop."""
    return _sync(lambda: summarize(source, **options), "coa.summarize")


def structure_sync(source: Source, **options: Any) -> Outline:
    """`structure` for code without an event loop. Raises: ConfigError inside a running loop."""
    return _sync(lambda: structure(source, **options), "coa.structure")


def check_sync(source: Source, statements: Sequence[str | Statement], **options: Any) -> list[Checked]:
    """`check` for code without an event loop. Raises: ConfigError inside a running loop."""
    return _sync(lambda: check(source, statements, **options), "coa.check")


def resume_sync(run_id: str, **options: Any) -> Answer:
    """`resume` for code without an event loop. Raises: ConfigError inside a running loop."""
    return _sync(lambda: resume(run_id, **options), "coa.resume")


def _checked(runs: RunStore, answer: Answer, document: Document) -> list[Checked]:
    (part,) = runs.plan(answer.run_id, document).parts
    return checked_of(document, part.chunks, answer.question or "", runs.stored_steps(answer.run_id))


def _session(settings: Mapping[str, Any], on_event: OnEvent | None, stop: StopSignal | None) -> Session:
    return Session(load_settings(overrides=settings).settings, on_event=on_event, stop=stop)


async def open_document(source: Source, settings: Settings) -> Document:
    """The document that `source` is or names, read in a worker process within the settings' limits.

    Raises: DocumentError.
    """
    if isinstance(source, Document):
        return source
    return await asyncio.to_thread(
        read_document_isolated,
        source,
        max_bytes=settings.max_document_bytes,
        limits=settings.document_limits,
        reader=settings.reader,
    )


def _sync(make: Callable[[], Coroutine[Any, Any, _T]], name: str) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make())
    raise ConfigError(f"{name}_sync was called inside a running event loop.", hint=f"Use `await {name}(…)` there.")
