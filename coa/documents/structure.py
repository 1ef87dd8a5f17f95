"""The sections of a text."""

from __future__ import annotations

from typing import NamedTuple

from coa.types import LeftOut, Section, Span

__all__ = ["Structure", "find_structure"]


class Structure(NamedTuple):
    """Sections and how they were found."""

    sections: tuple[Section, ...]
    method: str
    title: str | None
    media_type: str


def find_structure(text: str, left_out: tuple[LeftOut, ...], *, title: str | None, name: str) -> Structure:
    """Sections of the readable part of `text`."""
    start = left_out[0].span.end if left_out and left_out[0].span.start == 0 else 0
    end = left_out[-1].span.start if left_out and left_out[-1].span.end == len(text) else len(text)
    return Structure((Section(title or "", Span(start, end), kind="body"),), "none", title, "text/plain")
