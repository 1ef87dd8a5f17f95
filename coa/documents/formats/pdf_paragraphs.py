"""Blocks of a PDF from its lines: paragraphs over line, column and page borders, headings, notes, code."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from coa.documents.formats.pdf_hyphens import Joiner
from coa.documents.formats.pdf_text import Line
from coa.documents.formats.raw import Block, BlockKind, PlaceRef

__all__ = ["LEADERS", "Measures", "Paragraph", "measure", "paragraphs", "to_block"]

_BULLET = re.compile(r"^[•◦▪▫‣⁃●○■□✓➢➤·–—*-]\s+\S")
_NUMBERED = re.compile(r"^\(?(?:\d{1,3}|[a-zA-Z]|[ivxlc]{1,5})[.)]\s+\S")
_NOTE = re.compile(r"^(?:\d{1,3}|[*†‡§¶])\s?\S")
_ENDS = re.compile(r"[.!?:;…][\"'”’»)\]]*$")
# Dots that lead to a page number: a line of a table of contents.
LEADERS = re.compile(r"(?:[.·…_]\s?){4,}\s*(?:\d{1,5}|[ivxlcdm]{1,9})$", re.IGNORECASE)
_INDENT = 0.6
_LOOSE = 1.3
_NOTE_RATIO = 0.93
_MOST_NOTES_RATIO = 0.8
_SIZE_RATIO = 1.1
_USUAL_LEADING = 1.2


@dataclass(frozen=True, slots=True)
class Measures:
    """What is usual in a document."""

    size: float
    """Of the body's font box, in points."""
    leading: dict[int, float]
    """From line to line, by the rounded size."""
    fixed: bool
    """True where the body is in a font of fixed pitch, so that this says nothing of a line."""
    bold: bool
    indents: bool
    """True where paragraphs begin with an indent rather than behind a space."""

    def step(self, size: float) -> float:
        """The usual distance of lines of that size, in points."""
        return self.leading.get(round(size), _USUAL_LEADING * size)


@dataclass(slots=True)
class Paragraph:
    """Lines that belong together."""

    lines: list[Line] = field(default_factory=list)
    kind: BlockKind = "paragraph"
    tight: bool = False


def measure(pages: Sequence[list[Line]]) -> Measures:
    """The measures of the document with these pages; sets the right border of lines on pages without columns."""
    sizes: Counter[float] = Counter()
    steps: dict[int, list[float]] = defaultdict(list)
    n_fixed = n_bold = n_all = n_indents = n_gaps = 0
    for lines in pages:
        for line in lines:
            sizes[round(line.size * 2) / 2] += len(line.text)
            n_all += len(line.text)
            n_fixed += len(line.text) * line.fixed
            n_bold += len(line.text) * line.bold
    size = sizes.most_common(1)[0][0] if sizes else 10.0
    for before, line in _neighbours(pages):
        step = before.bottom - line.bottom
        if 0.6 * line.size < step < 3 * line.size and abs(before.size - line.size) < 0.5:
            steps[round(line.size)].append(step)
    leading = {key: median(values) for key, values in steps.items() if len(values) >= 8}
    for before, line in _neighbours(pages):
        usual = leading.get(round(line.size), _USUAL_LEADING * line.size)
        if abs(line.size - size) < 0.6:
            n_gaps += _LOOSE * usual < before.bottom - line.bottom < 3 * usual
            indent = line.x0 - before.x0
            n_indents += before.bottom - line.bottom < _LOOSE * usual and 0.6 * size < indent < 5 * size
    _set_right(pages, size)
    return Measures(size, leading, n_fixed * 2 > n_all, n_bold * 2 > n_all, n_indents > n_gaps)


def _neighbours(pages: Sequence[list[Line]]) -> Iterator[tuple[Line, Line]]:
    for lines in pages:
        for before, line in pairwise(lines):
            if before.column == line.column:
                yield before, line


def _set_right(pages: Sequence[list[Line]], size: float) -> None:
    """The right border of pages without columns: the usual one of odd and of even pages."""
    borders: dict[int, list[float]] = defaultdict(list)
    for page, lines in enumerate(pages):
        if lines and all(line.column == 0 for line in lines):
            prose = sorted(x.x1 for x in lines if abs(x.size - size) < 0.6 and not x.fixed and len(x.text) > 30)
            if len(prose) >= 5:
                borders[page % 2].append(prose[-1 - len(prose) // 10])
    for page, lines in enumerate(pages):
        if borders[page % 2] and all(line.column == 0 for line in lines):
            usual = median(borders[page % 2])
            for line in lines:
                line.right = max(usual, line.x1) if line.right > usual else usual


def paragraphs(pages: Sequence[list[Line]], measures: Measures) -> list[Paragraph]:
    """The paragraphs in reading order.

    Notes at the foot of a page come at the end of their chapter, as e-books have them; without chapters behind the
    paragraph that they interrupt.
    """
    by_chapter = sum(1 for lines in pages for line in lines if _opens_chapter(line)) > 1
    done: list[Paragraph] = []
    waiting: list[Paragraph] = []
    current: Paragraph | None = None

    def close(*, chapter_ends: bool) -> None:
        nonlocal current
        if current is not None:
            done.append(current)
        current = None
        if chapter_ends or not by_chapter:
            done.extend(waiting)
            waiting.clear()

    notes: list[Line] = []
    for lines in pages:
        body, notes = _without_notes(lines, measures, running=bool(notes))
        for line in body:
            if current is not None and _continues(current, line, measures):
                current.lines.append(line)
                continue
            tight = current is not None and _is_tight(current, line, measures)
            close(chapter_ends=_opens_chapter(line))
            current = Paragraph([line], _kind(line, measures), tight)
        waiting += _note_paragraphs(notes)
    close(chapter_ends=True)
    return done


def _opens_chapter(line: Line) -> bool:
    return line.opens == 1


def _kind(line: Line, measures: Measures) -> BlockKind:
    if line.level is not None:
        return "heading"
    if line.fixed and not measures.fixed:
        return "preformatted"
    return "list_item" if _BULLET.match(line.text) or _NUMBERED.match(line.text) else "paragraph"


def _without_notes(lines: list[Line], measures: Measures, *, running: bool) -> tuple[list[Line], list[Line]]:
    """The lines and, apart, the small ones at the foot of the page if they begin as notes do.

    `running`: the page before had notes, so that one of them may run on here.
    """
    at = len(lines)
    while at > 0 and lines[at - 1].size < _NOTE_RATIO * measures.size:
        at -= 1
    # A page of small print is no page of notes.
    if at == len(lines) or len(lines) - at > _MOST_NOTES_RATIO * len(lines):
        return lines, []
    return (lines[:at], lines[at:]) if running or _NOTE.match(lines[at].text) else (lines, [])


def _note_paragraphs(lines: Sequence[Line]) -> list[Paragraph]:
    notes: list[Paragraph] = []
    for line in lines:
        if notes and not (_NOTE.match(line.text) and _ENDS.search(notes[-1].lines[-1].text)):
            notes[-1].lines.append(line)
        else:
            notes.append(Paragraph([line], "footnote"))
    return notes


def _continues(current: Paragraph, line: Line, measures: Measures) -> bool:
    before = current.lines[-1]
    if line.title_of is not None or before.title_of is not None:
        return line.title_of == before.title_of and line.page == before.page
    if line.entry is not None or LEADERS.search(before.text) or LEADERS.search(line.text):
        return False
    if abs(before.size - line.size) > (_SIZE_RATIO - 1) * max(before.size, line.size):
        return False
    if (before.page, before.column) != (line.page, line.column):
        return _continues_over_border(current, line, measures)
    step = before.bottom - line.bottom
    usual = measures.step(line.size)
    if abs(step) < 0.3 * line.size:
        return line.x0 >= before.x1 - 1
    if step < 0 or step > _LOOSE * usual:
        return False
    if current.kind == "preformatted":
        return line.fixed
    return _continues_prose(current, line, measures)


def _continues_prose(current: Paragraph, line: Line, measures: Measures) -> bool:
    before = current.lines[-1]
    full = _is_full(before, line)
    if line.bold != before.bold and not measures.bold and not full:
        return False
    if not full or _BULLET.match(line.text):
        return False
    if _NUMBERED.match(line.text) and _ENDS.search(before.text):
        return False
    indent = line.x0 - before.x0
    em = _INDENT * line.size
    if len(current.lines) == 1:
        return True
    return -em <= indent <= em


def _is_full(before: Line, line: Line) -> bool:
    """True where the next line's first word would not have fitted behind `before`."""
    space = 0.15 * line.size
    return before.x1 + space + line.first_width > before.right - 0.1 * line.size


def _continues_over_border(current: Paragraph, line: Line, measures: Measures) -> bool:
    before = current.lines[-1]
    if current.kind == "preformatted" or (line.fixed and not measures.fixed):
        return False
    if _BULLET.match(line.text) or not _is_full(before, line):
        return False
    if before.text[-1] in "-\u00ad" or line.text[0].islower():
        return True
    if _ENDS.search(before.text):
        if _NUMBERED.match(line.text):
            return False
        return measures.indents and line.x0 - line.left < _INDENT * line.size
    return True


def _is_tight(current: Paragraph, line: Line, measures: Measures) -> bool:
    """True where a line alone is followed by the next without a space: verse, addresses, tables, short items."""
    before = current.lines[-1]
    if line.level is not None or before.level is not None or line.entry is not None or line.page != before.page:
        return False
    if LEADERS.search(before.text) and LEADERS.search(line.text):
        return True
    alike = abs(before.size - line.size) < 0.5 and line.column == before.column
    close = 0 < before.bottom - line.bottom < _LOOSE * measures.step(line.size)
    return alike and close and len(current.lines) == 1 and not _is_full(before, line) and line.fixed == before.fixed


def to_block(paragraph: Paragraph, joiner: Joiner, place_of: Callable[[int], PlaceRef]) -> Block:
    """The block of a paragraph: its lines joined, those of code kept as they stand."""
    first = paragraph.lines[0]
    breaks: list[tuple[int, PlaceRef]] = []
    text = ""
    page = first.page
    left = min(line.x0 for line in paragraph.lines)
    soft = False
    for line in paragraph.lines:
        own = line.text
        if paragraph.kind == "preformatted":
            own = _indented(line, left)
            text = f"{text}\n{own}" if text else own
        else:
            text = joiner.join(text, own, soft=soft)
        if line.page != page:
            page = line.page
            breaks.append((len(text) - len(own), place_of(page)))
        soft = line.soft_hyphen
    level = first.level if paragraph.kind == "heading" else None
    return Block(text, paragraph.kind, level, place_of(first.page), breaks=tuple(breaks), tight=paragraph.tight)


def _indented(line: Line, left: float) -> str:
    width = (line.x1 - line.x0) / max(len(line.text), 1)
    return " " * min(round((line.x0 - left) / width) if width > 0 else 0, 80) + line.text
