"""The bookmarks of a PDF: its chapters, and the lines they point to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pypdfium2

from coa.documents.formats.pdf_text import Line
from coa.documents.numbers import parse_number

__all__ = ["Bookmark", "bookmarks", "mark_lines", "spelled_number"]

_MOST = 50_000
_NOT_WORDS = re.compile(r"[\W_]+")
_LONGEST_TITLE_LINES = 4
# What may stand before the title in letters: "chaptertwentythree".
_LONGEST_NUMBER = 24
# As Sphinx and LaTeX's fncychap write it.
_SPELLED = re.compile(
    r"chapter (twenty|thirty|forty|fifty|sixty)-?(one|two|three|four|five|six|seven|eight|nine)\b", re.IGNORECASE
)


class Bookmark(NamedTuple):
    """An entry of the outline and where it points to."""

    title: str
    level: int
    """1 for the outermost."""
    page: int
    """Counted from 0."""
    top: float | None
    """Height on the page in points, where the entry says one."""


def bookmarks(document: pypdfium2.PdfDocument, *, max_depth: int) -> list[Bookmark]:
    """The outline's entries that point to a page, in its order, none deeper than `max_depth`.

    Entries that point to themselves are met once; of a damaged outline the part before the damage is taken.
    """
    found: list[Bookmark] = []
    n_pages = len(document)
    try:
        for item in document.get_toc(max_depth=max_depth):
            if len(found) >= _MOST:
                break
            if entry := _entry(item, n_pages):
                found.append(entry)
    except (pypdfium2.PdfiumError, UnicodeError, ValueError):
        return found
    return found


def _entry(item: Any, n_pages: int) -> Bookmark | None:
    title = " ".join(str(item.get_title()).replace("\x00", "").split())
    target = item.get_dest()
    if not title or target is None:
        return None
    page = target.get_index()
    if page is None or not 0 <= page < n_pages:
        return None
    _, view = target.get_view()
    # /XYZ left top zoom, /FitH top, /FitR left bottom right top.
    top = {3: 1, 1: 0, 4: 3}.get(len(view))
    return Bookmark(title, item.level + 1, page, None if top is None else view[top])


def mark_lines(pages: Sequence[list[Line]], entries: Sequence[Bookmark]) -> None:
    """Tells the lines that entries point to so: `Line.entry`, and `Line.level` where they are the title.

    An entry whose title is not on its page (a picture, another wording) opens at the first line at or below the
    height it points to, else at the page's first line.
    """
    taken: set[int] = set()
    for index, entry in enumerate(entries):
        lines = pages[entry.page]
        if title := _title_lines(lines, entry, taken):
            for line in title:
                line.level, line.title_of = entry.level, index
                taken.add(id(line))
            title[0].entry, title[0].opens = index, entry.level
            continue
        below = (x for x in lines if entry.top is None or x.bottom <= entry.top + 2)
        first = next((x for x in below if x.entry is None and id(x) not in taken), None)
        if first is not None:
            first.entry, first.opens = index, entry.level


def spelled_number(heading: str) -> int | None:
    """The number of a heading "CHAPTER TWENTYONE …"; None for others, which are read as in any text."""
    match = _SPELLED.match(heading)
    return parse_number(f"{match[1]}-{match[2]}") if match else None


def _title_lines(lines: list[Line], entry: Bookmark, taken: set[int]) -> list[Line]:
    """The lines that make up the entry's title, the ones nearest to the height it points to."""
    wanted = _key(entry.title)
    if not wanted:
        return []
    best: tuple[float, list[Line]] | None = None
    for start, first in enumerate(lines):
        if id(first) in taken:
            continue
        text = ""
        for end in range(start, min(start + _LONGEST_TITLE_LINES, len(lines))):
            text += _key(lines[end].text)
            # The number may stand on the page alone: "Chapter 3" over its title, "3.1" before it.
            head = text.removesuffix(wanted) if text.endswith(wanted) else None
            if (
                head is not None
                and len(head) <= _LONGEST_NUMBER
                and (not head or any(c.isdigit() for c in head) or end > start)
            ):
                distance = 0.0 if entry.top is None else abs(first.top - entry.top)
                if best is None or distance < best[0]:
                    best = (distance, lines[start : end + 1])
                break
            if len(text) > len(wanted) + _LONGEST_NUMBER:
                break
    return best[1] if best else []


def _key(text: str) -> str:
    return _NOT_WORDS.sub("", text).casefold()
