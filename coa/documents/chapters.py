"""Which of the lines that could be headings are the chapters' headings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple, get_args

from coa.documents.contents import drop_contents, headings_by_contents
from coa.documents.headings import Block, Heading, Style, blocks, find_headings
from coa.types import Span

__all__ = ["Chapters", "find_chapters"]

# Styles whose words say that a chapter begins; the others need a sequence of numbers to be believed.
_EXPLICIT: frozenset[Style] = frozenset({"chapter", "cjk", "part"})
_WEIGHT = {"chapter": 3.0, "cjk": 3.0, "part": 0.5, "contents": 0.9, "roman": 1.2}
_LARGEST_RATIO = 0.6
_LARGEST_OF_TWO_RATIO = 0.85
_RISING_RATIO = 0.6
_SHORTEST_MEDIAN = 200
_WIDE_SHORTEST_MEDIAN = 80
# With more chapters than this they have to be longer than a page of verses.
_MANY = 150
_MANY_MEDIAN = 400
_TITLED_BELOW_RATIO = 0.6
_LONGEST_TITLE = 140
_ENDS_A_SENTENCE = re.compile(r"[.!?,;:…][\"'”’»)]*$")
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Chapters(NamedTuple):
    """The chapters' headings, those of the parts above them, and the style they were found by."""

    headings: tuple[Heading, ...] = ()
    parts: tuple[Heading, ...] = ()
    style: Style | None = None


def find_chapters(text: str, span: Span) -> Chapters:
    """The chapters of `span`; empty where no style of headings gives sane ones.

    Of the styles that do, the one with most chapters wins, explicit words ("Chapter", "第…回") counting
    threefold. A table of contents is not taken for chapters.
    """
    found = blocks(text, span)
    candidates = drop_contents(text, find_headings(text, found))
    best: tuple[float, list[Heading], Style] | None = None
    by_style: dict[Style, list[Heading]] = {}
    for style in get_args(Style):
        headings = [h for h in candidates if h.style == style]
        if style == "contents":
            headings = headings_by_contents(text, found)
        elif style in _EXPLICIT:
            headings = _without_repeats(headings)
        else:
            headings = _sequence(headings)
        by_style[style] = headings
        score = len(headings) * _WEIGHT.get(style, 1.0)
        if headings and (best is None or score > best[0]) and _is_sane(text, headings, style, span):
            best = (score, headings, style)
    if best is None:
        return Chapters()
    _, headings, style = best
    parts = _parts_above(by_style["part"], headings) if style != "part" else []
    starts = {h.span.start for h in (*headings, *parts)}
    return Chapters(tuple(_titled(headings, found, starts)), tuple(_titled(parts, found, starts)), style)


def _without_repeats(headings: list[Heading]) -> list[Heading]:
    """Without running heads: the same heading again right after itself."""
    kept: list[Heading] = []
    for heading in headings:
        if not kept or (heading.number, heading.title) != (kept[-1].number, kept[-1].title):
            kept.append(heading)
    return kept


def _sequence(headings: list[Heading]) -> list[Heading]:
    """Those that count 1, 2, 3 …; where a new part starts over, so does the count."""
    kept: list[Heading] = []
    run: list[Heading] = []
    for i, heading in enumerate(headings):
        following = headings[i + 1].number if i + 1 < len(headings) else None
        if run and heading.number == len(run) + 1:
            run.append(heading)
        elif heading.number == 1 and (len(run) < 2 or following == 2):
            # A line "I" before the last one in front of "II" was no heading.
            kept += run if len(run) > 1 else []
            run = [heading]
    return kept + (run if len(run) > 1 else [])


def _is_sane(text: str, headings: Sequence[Heading], style: Style, span: Span) -> bool:
    n = len(headings)
    lengths = [b - a for a, b in pairwise([*(h.span.start for h in headings), span.end])]
    if n == 1:
        opens = headings[0].span.start - span.start < 0.1 * span.length
        return style in ("chapter", "cjk") and opens and headings[0].number is not None
    if max(lengths) > span.length * (_LARGEST_RATIO if n > 2 else _LARGEST_OF_TWO_RATIO):
        return False
    sample = text[headings[0].span.start : headings[0].span.start + 2000]
    wide = len(_WIDE.findall(sample)) * 2 > len(sample)
    shortest = _WIDE_SHORTEST_MEDIAN if wide else _MANY_MEDIAN if n > _MANY else _SHORTEST_MEDIAN
    if median(lengths) < shortest:
        return False
    if style == "contents":
        return True
    steps = [(a.number or 0, b.number or 0) for a, b in pairwise(headings)]
    rising = sum(1 for a, b in steps if b in (a + 1, 1))
    return rising >= _RISING_RATIO * len(steps)


def _titled(headings: list[Heading], found: Sequence[Block], starts: set[int]) -> list[Heading]:
    """With the titles that stand in the block below, where most headings have one there."""
    bare = [h for h in headings if h.bare]
    if not bare:
        return headings
    index = {block.span.start: i for i, block in enumerate(found)}
    titles: dict[int, Block] = {}
    for heading in bare:
        at = index.get(heading.span.start)
        below = found[at + 1] if at is not None and at + 1 < len(found) else None
        if below and below.span.start not in starts and _is_title(below):
            titles[heading.span.start] = below
    if len(titles) < _TITLED_BELOW_RATIO * len(bare):
        return headings
    return [_with_title(h, titles.get(h.span.start)) for h in headings]


def _is_title(block: Block) -> bool:
    title = " ".join(line.strip() for line in block.lines)
    if not title or len(title) > _LONGEST_TITLE or title[0] in "«“\"'‘—–-":
        return False
    letters = [c for c in title if c.isalpha()]
    if letters and all(not c.islower() for c in letters) and any(c.isupper() for c in letters):
        return True
    return len(block.lines) == 1 and not _ENDS_A_SENTENCE.search(title)


def _with_title(heading: Heading, below: Block | None) -> Heading:
    if below is None:
        return heading
    title = " ".join(line.strip() for line in below.lines)
    return heading._replace(title=title, span=Span(heading.span.start, below.span.end), bare=False)


def _parts_above(parts: list[Heading], chapters: list[Heading]) -> list[Heading]:
    """`parts` where they divide the chapters: two or more, each with chapters of its own."""
    if len(parts) < 2:
        return []
    starts = [*(p.span.start for p in parts), chapters[-1].span.end + 1]
    held = [sum(1 for c in chapters if a < c.span.start < b) for a, b in pairwise(starts)]
    return parts if all(held) else []
