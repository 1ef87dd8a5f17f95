"""What the commands use of `coa.api`: protocols, for type checkers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

from coa.agents.statements import Statement
from coa.config import Settings
from coa.errors import CoaError
from coa.events import Event
from coa.types import Answer, Document

__all__ = ["Api", "CheckLike", "PlanLike", "SessionLike", "StopLike", "WarmedLike"]


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


class WarmedLike(Protocol):
    """`coa.warming.Warmed`: what reading ahead took."""

    @property
    def chunks(self) -> int: ...
    @property
    def ready(self) -> int: ...
    @property
    def found(self) -> int: ...
    @property
    def computed_tokens(self) -> int: ...
    @property
    def seconds(self) -> float: ...


class CheckLike(Protocol):
    """`coa.api.Check`: one line of `doctor`."""

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> Literal["ok", "warn", "fail"]: ...
    @property
    def detail(self) -> str: ...


class StrategyLike(Protocol):
    """`coa.api.StrategyInfo`."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def agents(self) -> tuple[str, ...]: ...


class StrategyGraphLike(StrategyLike, Protocol):
    """`coa.api.StrategyGraph`."""

    @property
    def nodes(self) -> tuple[str, ...]: ...
    @property
    def mermaid(self) -> str: ...
    @property
    def schemas(self) -> Mapping[str, Any]: ...


class SessionLike(Protocol):
    """What the commands use of `coa.api.Session`."""

    async def ask(self, document: Document, question: str) -> Answer: ...
    async def ask_many(
        self,
        document: Document,
        questions: Sequence[str],
        *,
        on_answer: Callable[[int, Answer | CoaError], None] | None = None,
        on_event: Callable[[int, Event], None] | None = None,
    ) -> list[Answer | CoaError]: ...
    async def summarize(
        self,
        document: Document,
        *,
        words: int | None = None,
        per: Literal["book", "chapter"] = "book",
        language: str = "auto",
    ) -> Answer: ...
    async def structure(self, document: Document, *, form: Literal["ids", "free"] = "ids") -> Answer: ...
    async def check(self, document: Document, statements: Sequence[str | Statement]) -> Answer: ...
    async def resume(self, run_id: str, *, review: object = None) -> Answer: ...
    async def warm(
        self, document: Document, *, on_progress: Callable[[int, int], None] | None = None
    ) -> WarmedLike: ...
    async def plan(
        self,
        document: Document,
        question: str | None,
        *,
        per: Literal["book", "chapter"] = "book",
        words: int | None = None,
    ) -> PlanLike: ...


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
    def list_strategies(self) -> Sequence[StrategyLike]: ...
    def show_strategy(self, name: str) -> StrategyGraphLike: ...
    async def diagnose(self, settings: Settings) -> Sequence[CheckLike]: ...
    async def test_model(self, settings: Settings) -> Sequence[CheckLike]: ...
