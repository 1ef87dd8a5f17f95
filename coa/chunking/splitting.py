"""Cutting a sentence that does not fit into a chunk."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from coa.types import Span

__all__ = ["cut"]

# The best place first: after a clause, then after white space.
_CLAUSE = re.compile(r"[;:,.!?–—][\"'»”’)\]]*\s+|[；：，、。！？…][」』”’）》]*|\n\s*")
_BLANK = re.compile(r"\s+")
# The share of a piece, counted from its end, in which a place to cut is looked for.
_SEARCHED_RATIO = 0.4
# Unicode's stream-safe format (UAX 15) allows 30 marks in a row: longer runs are no text and may be cut.
_LONGEST_GRAPHEME = 64

_ZERO_WIDTH_JOINER = "\u200d"
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
_SKIN_TONES = range(0x1F3FB, 0x1F400)


def cut(text: str, span: Span, size: int) -> list[Span]:
    """Spans of at most `size` code points and white space that cover `span` without gaps, in order.

    Cut after clause marks, else after white space, else between code points, but not between a letter and its
    combining marks or inside a joined emoji: only there a piece may be longer than `size`.
    """
    borders = [span.start]
    while True:
        # White space is free when rendered, and no piece may be of white space alone.
        start = _after_blanks(text, borders[-1])
        if span.end - start <= size:
            break
        border = _after_blanks(text, _border(text, start, start + size))
        if border >= span.end:
            break
        borders.append(border)
    borders.append(span.end)
    return [Span(a, b) for a, b in pairwise(borders)]


def _after_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _border(text: str, start: int, limit: int) -> int:
    """The best place to cut after `start`, at `limit` or before it where possible."""
    searched = max(start + 1, limit - int((limit - start) * _SEARCHED_RATIO))
    for pattern in (_CLAUSE, _BLANK):
        last = None
        for match in pattern.finditer(text, searched, limit):
            last = match.end()
        if last is not None and not _joined(text, last):
            return last
    for border in range(limit, max(start, limit - _LONGEST_GRAPHEME), -1):
        if not _joined(text, border):
            return border
    for border in range(limit + 1, min(start + _LONGEST_GRAPHEME, len(text)) + 1):
        if not _joined(text, border):
            return border
    return limit


def _joined(text: str, at: int) -> bool:
    """True when the code points before and after `at` are one character to a reader."""
    if at >= len(text):
        return False
    after = text[at]
    if after < "\u0300":
        return False
    if unicodedata.category(after)[0] == "M" or after == _ZERO_WIDTH_JOINER or ord(after) in _SKIN_TONES:
        return True
    before = text[at - 1]
    if before == _ZERO_WIDTH_JOINER:
        return True
    return ord(after) in _REGIONAL_INDICATORS and ord(before) in _REGIONAL_INDICATORS
