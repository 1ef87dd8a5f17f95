"""The order in which the lines of a page are read: column by column where it has columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from coa.documents.formats.pdf_text import Line, Word, line_of

__all__ = ["read_columns"]

# Widths of a bin of the profile that gutters are looked for in, in points.
_BIN = 2.0
# White space inside a line that no word space is, as a share of the font's size.
_WIDE_GAP = 0.9
_NARROWEST_GUTTER = 6.0
# A gutter may be crossed by titles, figures and tables: at most this share of the lines beside it.
_CROSSED_RATIO = 0.4
# A column of prose: this many lines, most of them nearly as wide as the column.
_FEWEST_LINES = 5
_FULL_RATIO = 0.6
_NARROWEST_COLUMN_RATIO = 0.15


class _Piece(NamedTuple):
    """Words of a line that no wide gap parts."""

    x0: float
    x1: float


def read_columns(words: Sequence[list[Word]], page: int) -> list[Line]:
    """The lines of a page in reading order, each with its column's borders.

    Without columns the order is that of `words`. With them, what spans the columns is read where it stands, and
    between two such lines one column after the other.
    """
    gutters = _gutters(words)
    if not gutters:
        lines = [line_of(line, page) for line in words]
        _set_borders(lines)
        return lines
    placed: list[tuple[int, Line]] = []
    for line in words:
        for piece in _split(line, gutters):
            made = line_of(piece, page)
            placed.append((_column(made, gutters), made))
    lines = _in_bands(placed, len(gutters) + 1)
    for column in range(-1, len(gutters) + 1):
        _set_borders([line for line in lines if line.column == column])
    return lines


def _pieces(line: Sequence[Word]) -> list[_Piece]:
    pieces = [_Piece(line[0].x0, line[0].x1)]
    for word in line[1:]:
        last = pieces[-1]
        if -1.0 <= word.x0 - last.x1 < _WIDE_GAP * (word.top - word.bottom):
            pieces[-1] = _Piece(last.x0, max(last.x1, word.x1))
        else:
            pieces.append(_Piece(word.x0, word.x1))
    return pieces


def _gutters(words: Sequence[list[Word]]) -> list[float]:
    """The middles of the white stripes between columns of prose, from left to right."""
    pieces = [piece for line in words for piece in _pieces(line)]
    if len(pieces) < 2 * _FEWEST_LINES:
        return []
    left = min(p.x0 for p in pieces)
    width = max(p.x1 for p in pieces) - left
    n_bins = int(width / _BIN) + 1
    if not 0 < n_bins < 10_000:
        return []
    profile = [0] * (n_bins + 1)
    for piece in pieces:
        for i in range(int((piece.x0 - left) / _BIN), min(int((piece.x1 - left) / _BIN) + 1, n_bins)):
            profile[i] += 1
    found: list[float] = []
    floor = left
    for start, end in _valleys(profile, n_bins):
        a, b = left + start * _BIN, left + end * _BIN
        if b - a >= _NARROWEST_GUTTER and _is_gutter(pieces, a, b, floor, left + width):
            found.append((a + b) / 2)
            floor = b
    return found


def _valleys(profile: list[int], n_bins: int) -> list[tuple[int, int]]:
    """Runs of bins that far fewer lines cover than the bins on either side do."""
    highest_left = highest = 0
    left_of = []
    for value in profile[:n_bins]:
        left_of.append(highest_left)
        highest_left = max(highest_left, value)
    right_of = [0] * n_bins
    for i in range(n_bins - 1, -1, -1):
        right_of[i] = highest
        highest = max(highest, profile[i])
    runs: list[tuple[int, int]] = []
    start: int | None = None
    for i in range(n_bins + 1):
        low = i < n_bins and profile[i] <= _CROSSED_RATIO * min(left_of[i], right_of[i])
        if low and start is None:
            start = i
        elif not low and start is not None:
            runs.append((start, i))
            start = None
    return runs


def _is_gutter(pieces: Sequence[_Piece], a: float, b: float, floor: float, right: float) -> bool:
    """True where prose stands on both sides of the stripe from `a` to `b`; cells of a table are short."""
    sides = (
        [p for p in pieces if p.x1 <= a + _BIN and p.x0 >= floor - _BIN],
        [p for p in pieces if p.x0 >= b - _BIN],
    )
    for side, limit in zip(sides, (a - floor, right - b), strict=True):
        if len(side) < _FEWEST_LINES or limit < _NARROWEST_COLUMN_RATIO * (right - floor):
            return False
        widest = sorted(p.x1 - p.x0 for p in side)[-max(1, len(side) // 10)]
        full = sum(1 for p in side if p.x1 - p.x0 >= 0.8 * widest)
        if full < max(_FEWEST_LINES, _FULL_RATIO * len(side)) or widest < 60:
            return False
    return True


def _split(line: list[Word], gutters: Sequence[float]) -> list[list[Word]]:
    parts: list[list[Word]] = [[line[0]]]
    for before, word in pairwise(line):
        crossed = any(before.x1 <= gutter <= word.x0 for gutter in gutters)
        if crossed and word.x0 - before.x1 >= _NARROWEST_GUTTER / 2:
            parts.append([word])
        else:
            parts[-1].append(word)
    return parts


def _column(line: Line, gutters: Sequence[float]) -> int:
    """The column that `line` stands in, from 0; -1 where it spans several."""
    if any(line.x0 < gutter < line.x1 for gutter in gutters):
        return -1
    return sum(1 for gutter in gutters if line.x0 >= gutter)


def _in_bands(placed: list[tuple[int, Line]], n_columns: int) -> list[Line]:
    ordered: list[Line] = []
    waiting: list[list[Line]] = [[] for _ in range(n_columns)]

    def flush() -> None:
        for column in waiting:
            ordered.extend(column)
            column.clear()

    for column, line in sorted(placed, key=lambda p: -p[1].bottom):
        line.column = column
        if column < 0:
            flush()
            ordered.append(line)
        else:
            waiting[column].append(line)
    flush()
    return ordered


def _set_borders(lines: list[Line]) -> None:
    if lines:
        left, right = min(line.x0 for line in lines), max(line.x1 for line in lines)
        for line in lines:
            line.left, line.right = left, right
