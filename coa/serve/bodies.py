"""What the service takes and gives, as pydantic models: its OpenAPI is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["DocumentInfo", "ErrorBody", "ResumeRequest", "RunInfo", "RunRequest", "StrategyBody"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# PostgreSQL's text and half of the world's terminals cannot hold it; a question has no use for it.
Text = Annotated[str, Field(min_length=1, max_length=4000, pattern=r"^[^\x00]*\S[^\x00]*$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DocumentInfo(_Body):
    """A document that the service holds."""

    document: Sha256
    """Digest of its text; names it in other requests."""
    name: str
    title: str | None
    language: str | None
    media_type: str
    characters: int
    chapters: list[str]
    warnings: list[str]


class RunRequest(_Body):
    """A question about a document, or a summary of it."""

    document: Sha256
    task: Literal["ask", "summarize"] = "ask"
    question: Text | None = None
    """Of task "ask"."""
    words: Annotated[int, Field(ge=1, le=20_000)] | None = None
    per: Literal["book", "chapter"] = "book"
    language: Annotated[str, Field(pattern=r"^(auto|[a-z]{2,3})$")] = "auto"
    strategy: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] | None = None
    notes: Literal["auto", "paper", "structured", "quotes"] | None = None
    review: bool = False
    max_calls: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_tokens_total: Annotated[int, Field(ge=1, le=10**12)] | None = None

    @model_validator(mode="after")
    def _question_of_ask(self) -> RunRequest:
        if (self.task == "ask") != (self.question is not None):
            raise ValueError("a question belongs to the task ask, and only to it")
        return self


class ResumeRequest(_Body):
    """How to go on with a run."""

    strike: list[Annotated[str, Field(pattern=r"^\d{1,6}\.\d{1,6}$")]] | None = None
    """Ids of evidence to leave out, of a run that waits for review; an empty list takes all of it."""


class RunInfo(_Body):
    """A run as the service knows it."""

    run_id: str
    state: str
    task: str
    document: str
    document_sha256: str
    question: str | None
    strategy: str
    model: str
    n_chunks: int
    n_done: int
    error: str | None
    created: str
    answer: dict[str, Any] | None
    """As `coa ask --json` prints it; None until there is one."""


class StrategyBody(_Body):
    """A reading strategy."""

    name: str
    description: str
    agents: list[str]


class ErrorBody(_Body):
    """What went wrong, and what to do."""

    error: str
    """The kind: "ConfigError", "DocumentTooLarge", …"""
    message: str
    hint: str | None = None
    run_id: str | None = None
    """The run that can be gone on with, where there is one."""
    review: Any = None
    """What there is to look at, of a run that waits for review."""
