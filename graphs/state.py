"""Graph states: positions and notes, never the document's text.

600 KB of text in the state made a 127 MB checkpoint file over 200 steps; with references it stays at a few
kilobytes a step. Plain types only: what a checkpoint gives back is lists and dicts.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from coa.types import CitationStatus, Verdict

__all__ = [
    "STATE_VERSION",
    "ChainState",
    "CitationState",
    "ClaimState",
    "CoverageState",
    "ReadInput",
    "ReadOutput",
    "ReadState",
    "SkippedState",
]

STATE_VERSION = 2
"""Of every reading graph's state. A checkpoint of another version is not gone on with: the graph starts over, and
finds in the note store what was paid for."""


class SkippedState(TypedDict):
    """A chunk that no note came from."""

    index: int
    """Over the whole run."""
    cause: str


class CoverageState(TypedDict):
    """`coa.types.Coverage`."""

    chunks: int
    read: int
    skipped: list[SkippedState]
    unselected: int


class CitationState(TypedDict):
    """`coa.types.Citation`."""

    quote: str
    start: int
    end: int
    chapter: str | None
    page: int | None
    status: CitationStatus
    origin: Literal["model", "located"]
    score: float | None


class ClaimState(TypedDict):
    """`coa.types.Claim`."""

    text: str
    citations: list[int]


class ReadInput(TypedDict):
    """What every reading graph starts from."""

    question: str | None
    """None asks for a summary."""


class ReadOutput(TypedDict):
    """What every reading graph ends with."""

    answer: str
    """With `[1]`, `[2]` for its citations; with sentence ids where the context has no document."""
    citations: list[CitationState]
    claims: list[ClaimState]
    quotes_not_found: int
    coverage: CoverageState
    verdict: Verdict | None
    stopped: str | None
    """Why reading ended early (a limit of the budget); None when all was done."""
    warnings: list[str]


class ReadState(ReadInput, ReadOutput, total=False):
    """What the states of all reading graphs have."""

    version: int
    finished: bool
    part: int
    """The part being read; as many as there are parts when all are answered."""
    position: int
    """Where in the part."""


class ChainState(ReadState, total=False):
    """Where a chain stands."""

    reading: int
    """Which pass over the part, from 1."""
    unit_text: str
    unit_chunk: int
    """The last chunk that changed the unit; -1 for none."""
