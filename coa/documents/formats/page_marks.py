"""Borders between the pages of a printed book, inside of the text of a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from coa.documents.formats.raw import PlaceRef

__all__ = ["MARK", "Marked", "without_marks"]

# Stands in for a border while a block is gathered; XML and HTML both forbid this control.
MARK = "\x02"


class Marked(NamedTuple):
    """A block's text without its marks, and the places that they open."""

    text: str
    start: PlaceRef | None
    """Of the block, where a page begins with it."""
    inside: tuple[tuple[int, PlaceRef], ...]
    """Code points into `text`, rising, above 0 and below its length."""
    following: PlaceRef | None
    """Of what comes after the block."""


def without_marks(text: str, refs: Sequence[PlaceRef]) -> Marked:
    """`text` without its marks, the first of which opens the first of `refs`, and so on; `refs` is not empty."""
    out = ""
    found = []
    for i, piece in enumerate(text.split(MARK)):
        if i:
            found.append((len(out), refs[min(i, len(refs)) - 1]))
        # One space, not the two on either side of the mark.
        out += piece.lstrip(" ") if not out or out[-1] in " \n" else piece
    out = out.rstrip(" \n")
    start = following = None
    inside = []
    for at, ref in found:
        if not at and out:
            start = ref
        elif at < len(out):
            inside.append((at, ref))
        else:
            following = ref
    return Marked(out, start, tuple(inside), following)
