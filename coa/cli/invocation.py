"""One run of the command line: what its parts share, and the seams that tests replace."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import typer

if TYPE_CHECKING:
    from coa.cli.options import CommonOptions, RunOptions
    from coa.config import LoadedSettings, Settings
    from coa.events import Event
    from coa.types import Answer, Document

__all__ = ["Api", "CheckLike", "Invocation", "PlanLike", "SessionLike", "StopLike", "invocation_of", "settings_of"]


class StopLike(Protocol):
    """`coa.api.StopSignal`."""

    def request(self, reason: str) -> None:
        """Asks the run to stop after the chunk in hand."""
        ...

    @property
    def requested(self) -> bool:
        """True from the first request on."""
        ...


class PlanLike(Protocol):
    """`coa.api.Plan`: what a run would take."""

    @property
    def document(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def strategy(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def tokenizer(self) -> str: ...
    @property
    def exact(self) -> bool: ...
    @property
    def n_chunks(self) -> int: ...
    @property
    def chunk_tokens(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens_max(self) -> int: ...
    @property
    def cacheable_ratio(self) -> float: ...
    @property
    def cost_usd(self) -> float | None: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def chapters(self) -> int: ...
    @property
    def window(self) -> int: ...


class CheckLike(Protocol):
    """`coa.api.Check`: one line of `doctor`."""

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> Literal["ok", "warn", "fail"]: ...
    @property
    def detail(self) -> str: ...


class SessionLike(Protocol):
    """What the commands use of `coa.api.Session`."""

    async def ask(self, document: Document, question: str) -> Answer: ...
    async def summarize(
        self,
        document: Document,
        *,
        words: int | None = None,
        per: Literal["book", "chapter"] = "book",
        language: str = "auto",
    ) -> Answer: ...
    async def resume(self, run_id: str) -> Answer: ...
    async def plan(self, document: Document, question: str | None) -> PlanLike: ...


class Api(Protocol):
    """What the commands use of the module `coa.api`."""

    @property
    def StopSignal(self) -> Callable[[], StopLike]: ...  # noqa: N802
    def Session(  # noqa: N802
        self,
        settings: Settings,
        *,
        on_event: Callable[[Event], None] | None = None,
        stop: StopLike | None = None,
    ) -> AbstractAsyncContextManager[SessionLike]: ...
    async def diagnose(self, settings: Settings) -> Sequence[CheckLike]: ...
    async def test_model(self, settings: Settings) -> Sequence[CheckLike]: ...


def _load_api() -> Api:
    return importlib.import_module("coa.api")


@dataclass
class Invocation:
    """State of one `coa ...`; `ctx.obj` of every command."""

    load_api: Callable[[], Api] = _load_api
    verbosity: int = 0
    """Times -v was given."""
    quiet: bool = False


def invocation_of(ctx: typer.Context) -> Invocation:
    """The invocation that the command belongs to."""
    found = ctx.find_object(Invocation)
    return found if found is not None else Invocation()


def settings_of(ctx: typer.Context, common: CommonOptions, run: RunOptions | None = None) -> LoadedSettings:
    """The settings in force for a command; also takes over -v and --quiet."""
    from coa.config import load_settings

    invocation = invocation_of(ctx)
    invocation.verbosity = common.verbose
    invocation.quiet = common.quiet
    _set_up_logging(common.verbose)
    return load_settings(config=common.config, profile=common.profile, overrides=_flags(ctx, run))


def _flags(ctx: typer.Context, run: RunOptions | None) -> dict[str, object]:
    """Settings given as flags; what came from `COA_*` is left to load_settings, so that it names its origin."""
    if run is None:
        return {}
    names = {
        "model": "model",
        "strategy": "strategy",
        "chunk_tokens": "chunk_tokens",
        "note_tokens": "note_tokens",
        "answer_tokens": "answer_tokens",
        "max_cost": "max_cost_usd",
        "max_tokens_total": "max_tokens_total",
        "max_calls": "max_calls",
    }
    flags: dict[str, object] = {}
    for option, key in names.items():
        source = ctx.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            flags[key] = getattr(run, option)
    return flags


def _set_up_logging(verbosity: int) -> None:
    if verbosity:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger("coa")
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
