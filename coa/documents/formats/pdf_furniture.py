"""Running heads and page numbers: what stands at the edge of page after page."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from coa.documents.formats.pdf_paragraphs import LEADERS
from coa.documents.formats.pdf_text import Line
from coa.documents.numbers import roman_number

__all__ = ["Furniture", "take_furniture"]

# So many lines at the top and at the bottom of a page may be furniture.
_EDGE_LINES = 3
_SAME_HEIGHT = 6.0
_FEWEST_PAGES = 3
# A head stands on this share of the pages between its first and its last one.
_DENSE_RATIO = 0.3
# Heads of single chapters are taken by their place where lines stand there on this share of the pages,
_USUAL_RATIO = 0.5
# and this share of these lines are known to be heads.
_KNOWN_RATIO = 0.3
_LONGEST = 160
_NUMBER = re.compile(r"^(?:page|seite|p\.|s\.|página|pagina)?\s*[-–—\[(]*\s*(\d{1,5}|[ivxlcdm]{1,9})\s*[-–—\])]*"
                     r"(?:\s*(?:of|von|/|de|sur)\s*\d{1,5})?$", re.IGNORECASE)  # fmt: skip
# Chapters of a page each count with the pages, too.
_COUNTED = re.compile(
    r"(?:chapter|part|section|poem|canto|letter|kapitel|teil|abschnitt|chapitre|partie|capítulo|parte|capitolo)\W*"
)
_FIRST_NUMBER = re.compile(r"^(\d{1,5}|[ivxlcdm]{1,9})\b\W*")
_LAST_NUMBER = re.compile(r"\W*\b(\d{1,5}|[ivxlcdm]{1,9})$")


class Furniture(NamedTuple):
    """A line that belongs to the page, not to the text."""

    line: Line
    kind: Literal["running_head", "page_number"]


class _Edge(NamedTuple):
    line: Line
    rank: int
    """From the page's edge: 0, 1, 2 from the top, -1, -2, -3 from the bottom."""


def take_furniture(
    pages: Sequence[list[Line]], labels: Sequence[str | None]
) -> tuple[list[list[Line]], list[Furniture]]:
    """The pages without their furniture, and that in order.

    A line is furniture where the same words stand at the same height on page after page, or where a number
    there counts with the pages. Numbers that count otherwise ("Chapter 1", "Chapter 2") are text.
    """
    edges = [_edges(lines) for lines in pages]
    numbers = _page_numbers(edges, labels)
    heads = _repeated(edges, numbers)
    kept: list[list[Line]] = []
    furniture: list[Furniture] = []
    for lines in pages:
        taken = {id(line): "page_number" for line in lines if id(line) in numbers and _NUMBER.match(line.text)}
        taken |= {id(line): "running_head" for line in lines if id(line) in heads and id(line) not in taken}
        kept.append([line for line in lines if id(line) not in taken])
        for line in lines:
            if kind := taken.get(id(line)):
                furniture.append(Furniture(line, "page_number" if kind == "page_number" else "running_head"))
    return kept, furniture


def _edges(lines: list[Line]) -> list[_Edge]:
    short = sorted((line for line in lines), key=lambda line: -line.bottom)
    top = [_Edge(line, i) for i, line in enumerate(short[:_EDGE_LINES])]
    rest = short[len(top) :]
    bottom = [_Edge(line, -1 - i) for i, line in enumerate(reversed(rest[-_EDGE_LINES:]))]
    return [e for e in (*top, *bottom) if len(e.line.text) <= _LONGEST]


def _value(word: str) -> int | None:
    return int(word) if word.isdigit() else roman_number(word.upper())


def _numbers_in(line: Line) -> list[tuple[int, str]]:
    """The numbers that `line` is, begins or ends with, each with the words beside it."""
    text = " ".join(line.text.split())
    if match := _NUMBER.match(text):
        value = _value(match[1])
        return [] if value is None else [(value, "")]
    found = []
    for pattern in (_FIRST_NUMBER, _LAST_NUMBER):
        match = pattern.search(text)
        value = _value(match[1]) if match else None
        if match and value is not None:
            found.append((value, (text[: match.start()] + text[match.end() :]).strip().casefold()))
    return found


def _page_numbers(edges: Sequence[list[_Edge]], labels: Sequence[str | None]) -> dict[int, str]:
    """Lines (by id) that hold the page's own number, with the words beside it.

    The number less the page's index has to be the same on at least three pages near each other, or the number
    has to be the page's label.
    """
    by_offset: dict[tuple[int, bool], list[tuple[int, Line, str]]] = defaultdict(list)
    found: dict[int, str] = {}
    for page, page_edges in enumerate(edges):
        for edge in page_edges:
            text = edge.line.text.strip()
            if labels[page] and text == labels[page] and len(text) < 8:
                found[id(edge.line)] = ""
            for value, rest in _numbers_in(edge.line):
                outermost = edge.rank in (0, 1, -1, -2)
                if not rest or (outermost and not _COUNTED.fullmatch(rest) and not LEADERS.search(edge.line.text)):
                    by_offset[value - page, edge.rank >= 0].append((page, edge.line, rest))
    for lines in by_offset.values():
        pages = sorted({page for page, _, _ in lines})
        near = {p for p in pages if sum(1 for q in pages if abs(p - q) <= 6) >= _FEWEST_PAGES}
        for page, line, rest in lines:
            if page in near:
                found[id(line)] = rest
    return found


def _repeated(edges: Sequence[list[_Edge]], numbers: dict[int, str]) -> set[int]:
    """Lines (by id) whose words, the page's number apart, come again at the same height on other pages."""
    groups: dict[tuple[str, int], list[tuple[int, Line]]] = defaultdict(list)
    for page, page_edges in enumerate(edges):
        for edge in page_edges:
            words = numbers.get(id(edge.line), " ".join(edge.line.text.split()).casefold())
            if words:
                groups[words, round(edge.line.bottom / _SAME_HEIGHT)].append((page, edge.line))
    heads: set[int] = set()
    for (words, height), members in groups.items():
        pages = {p for p, _ in (*members, *groups.get((words, height + 1), ()), *groups.get((words, height - 1), ()))}
        span = max(pages) - min(pages) + 1
        dense = len(pages) >= _FEWEST_PAGES and len(pages) >= _DENSE_RATIO * span
        heads |= {id(x) for _, x in members if dense or (len(pages) > 1 and numbers.get(id(x)))}
    return heads | _by_place(edges, heads | {line for line, words in numbers.items() if not words})


def _by_place(edges: Sequence[list[_Edge]], known: set[int]) -> set[int]:
    """Outermost lines (by id) that stand where the heads of most pages stand.

    A chapter of two pages has its head only once or twice.
    """
    found: set[int] = set()
    for rank in (0, -1):
        places: dict[tuple[int, int], list[Line]] = defaultdict(list)
        for line in (edge.line for page_edges in edges for edge in page_edges if edge.rank == rank):
            places[round(line.bottom / _SAME_HEIGHT), round(line.size)].append(line)
        for lines in places.values():
            n_known = sum(1 for line in lines if id(line) in known)
            if len(lines) >= max(_FEWEST_PAGES, _USUAL_RATIO * len(edges)) and n_known >= _KNOWN_RATIO * len(lines):
                found |= {id(line) for line in lines}
    return found
