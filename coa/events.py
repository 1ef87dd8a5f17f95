"""What a run tells while it goes on: the same typed events for the CLI, the API and graph streams."""

from __future__ import annotations

from dataclasses import dataclass

from coa.types import Usage

__all__ = [
    "AnswerStarted",
    "AnswerToken",
    "ChunkRead",
    "ChunkSkipped",
    "ChunkStarted",
    "Event",
    "EvidenceFound",
    "RunStarted",
    "StageChanged",
    "WarningRaised",
]


@dataclass(frozen=True, slots=True)
class StageChanged:
    """Something slow began: "loading model", "counting tokens", "judging 3 answers" and the like."""

    stage: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The plan is made and stored; the run can be resumed from here on."""

    run_id: str
    document: str
    strategy: str
    model: str
    n_chunks: int
    n_tokens: int
    """Of all chunks, as rendered."""
    n_done: int = 0
    """Chunks that an earlier process had finished."""


@dataclass(frozen=True, slots=True)
class ChunkStarted:
    """A worker began to read."""

    index: int
    n_chunks: int
    n_tokens: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class ChunkRead:
    """A worker's note is stored."""

    index: int
    n_chunks: int
    n_tokens: int
    note: str
    informative: bool
    usage: Usage
    """Of the whole run so far."""
    seconds: float
    reused: bool = False
    """True when the note came from the store and no call was made."""
    path: str = ""
    """Which chain, for strategies that read along several; also in the other events about chunks."""


@dataclass(frozen=True, slots=True)
class ChunkSkipped:
    """A worker failed for good and the run goes on without its note."""

    index: int
    n_chunks: int
    cause: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class EvidenceFound:
    """Sentences of a chunk that a retriever picked."""

    index: int
    quotes: tuple[str, ...]
    """Copied from the source; empty where the chunk holds nothing of use."""


@dataclass(frozen=True, slots=True)
class AnswerStarted:
    """The manager began to write."""


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class WarningRaised:
    """Something the user should know; also in `Answer.warnings`."""

    message: str


Event = (
    StageChanged
    | RunStarted
    | ChunkStarted
    | ChunkRead
    | ChunkSkipped
    | EvidenceFound
    | AnswerStarted
    | AnswerToken
    | WarningRaised
)
