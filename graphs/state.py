"""Graph states: positions and notes, never the document's text.

600 KB of text in the state made a 127 MB checkpoint file over 200 steps; with references it stays at a few
kilobytes a step. Plain types only: what a checkpoint gives back is lists and dicts.
"""

from __future__ import annotations

from typing_extensions import TypedDict

__all__ = ["ChainInput", "ChainOutput", "ChainState", "SkippedState"]


class SkippedState(TypedDict):
    """A chunk that no note came from."""

    part: int
    index: int
    cause: str


class ChainInput(TypedDict):
    """What a chain starts from."""

    question: str | None
    """None asks for a summary."""


class ChainOutput(TypedDict):
    """What a chain ends with; the answers' texts lie in the context's note store."""

    skipped: list[SkippedState]
    stopped: str | None
    """Why reading ended early (a limit of the budget); None when everything was read."""


class ChainState(ChainInput, ChainOutput):
    """Where a chain stands."""

    part: int
    """The part being read; as many as there are parts when the chain is at its end."""
    position: int
    """The next chunk of the part."""
    unit_text: str
    unit_chunk: int
    """The last chunk that changed the unit; -1 for none."""
