"""The sections of a text, whatever it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from coa.documents.chapters import Chapters, find_chapters
from coa.documents.headings import blocks, named_heading
from coa.documents.markdown import MarkdownHeading, find_markdown_headings, is_markdown
from coa.documents.numbers import parse_number
from coa.types import LeftOut, Section, SectionKind, Span

__all__ = ["Structure", "find_structure"]

_MARKDOWN_NAMES = (".md", ".markdown", ".mdown", ".mkd")
# An unnumbered heading this close to the next one stands in a list of contents, in code points.
_SHORTEST_NAMED = 300
_LONGEST_TITLE = 90


class Structure(NamedTuple):
    """Sections and how they were found."""

    sections: tuple[Section, ...]
    method: str
    title: str | None
    media_type: str


class _Opening(NamedTuple):
    """Where a section begins, and as what."""

    start: int
    title: str
    kind: SectionKind
    level: int = 1
    number: int | None = None


def find_structure(text: str, left_out: Sequence[LeftOut], *, title: str | None, name: str) -> Structure:
    """The sections of `text` outside of `left_out` at its ends; `title` where it is known already.

    Markdown headings where the text is Markdown and has at least two, else chapters by their headings, else one
    section that holds everything.
    """
    start = left_out[0].span.end if left_out and left_out[0].span.start == 0 else 0
    end = len(text)
    for part in reversed(left_out):
        if part.span.end == end:
            end = part.span.start
    span = Span(start, end)
    marked = find_markdown_headings(text, span)
    markdown = is_markdown(text, marked, named_so=name.lower().endswith(_MARKDOWN_NAMES))
    media_type = "text/markdown" if markdown else "text/plain"
    if markdown and len(marked) > 1:
        own_title, openings = _markdown_openings(marked)
        sections = _sections(text, openings, span)
        return Structure(sections, "markdown", title or own_title, media_type)
    if markdown and marked and not title:
        title = marked[0].title or None
    chapters = find_chapters(text, span)
    if chapters.style is None:
        return Structure((Section(title or "", span, kind="body"),), "none", title, media_type)
    sections = _sections(text, _chapter_openings(text, chapters, span), span)
    method = "contents" if chapters.style == "contents" else f"headings:{chapters.style}"
    return Structure(sections, method, title or _title_line(text, sections[0]), media_type)


def _sections(text: str, openings: list[_Opening], span: Span) -> tuple[Section, ...]:
    """Sections from where each opens to where the next of its level or above does; first what stands before them."""
    first = openings[0].start
    if any(c.isalnum() for c in text[span.start : first]):
        openings = [_Opening(span.start, "", "front"), *openings]
    else:
        openings = [openings[0]._replace(start=span.start), *openings[1:]]
    sections = []
    for i, opening in enumerate(openings):
        end = next((o.start for o in openings[i + 1 :] if o.level <= opening.level), span.end)
        sections.append(Section(opening.title, Span(opening.start, end), opening.kind, opening.level, opening.number))
    return tuple(sections)


def _markdown_openings(headings: list[MarkdownHeading]) -> tuple[str | None, list[_Opening]]:
    """The title, if the first heading alone stands above all others, and where the sections open."""
    top = min(h.level for h in headings)
    title = None
    if headings[0].level == top and sum(1 for h in headings if h.level == top) == 1:
        title, headings = headings[0].title, headings[1:]
        top = min(h.level for h in headings)
    ranks = {level: rank for rank, level in enumerate(sorted({h.level for h in headings}), 1)}
    openings = []
    deepest = 0
    for heading in headings:
        # A deeper heading before the first outermost one opens an outermost section: nothing may be uncovered.
        level = min(ranks[heading.level], deepest + 1)
        deepest = level
        kind: SectionKind = "chapter" if level == 1 else "section"
        openings.append(_Opening(heading.span.start, heading.title, kind, level, _number_in(heading.title)))
    return title, openings


def _number_in(title: str) -> int | None:
    words = title.replace(":", " ").replace(".", " ").split()
    for word in words[:2]:
        if (word[0].isdigit() or word.isupper() or words[0] != word) and (number := parse_number(word)):
            return number
    return None


def _chapter_openings(text: str, chapters: Chapters, span: Span) -> list[_Opening]:
    level = 2 if chapters.parts else 1
    openings = [
        _Opening(h.span.start, _full_title(h.label, h.title), "chapter", level, h.number) for h in chapters.headings
    ]
    openings += [_Opening(h.span.start, _full_title(h.label, h.title), "part", 1, h.number) for h in chapters.parts]
    openings += _named_openings(text, chapters, span)
    openings.sort()
    return [openings[0]._replace(level=1), *openings[1:]]


def _full_title(label: str, title: str) -> str:
    """The heading on one line: its number and its title."""
    label = " ".join(label.strip("*_=~- \t\u3000").split())
    title = " ".join(title.strip("*_=~- \t\u3000").split())
    if not title or title in label:
        return label
    # A long title runs on from the heading's own line.
    words = title.split()
    for n in range(len(words) - 1, 0, -1):
        if label.endswith(" ".join(words[:n])):
            return f"{label} {' '.join(words[n:])}"
    return f"{label} {title}" if label.endswith((".", ":", "—", "-")) else f"{label}. {title}"


def _named_openings(text: str, chapters: Chapters, span: Span) -> list[_Opening]:
    """Prefaces before the first chapter, epilogues and notes after the last one's start."""
    first, last = chapters.headings[0].span, chapters.headings[-1].span
    if chapters.parts:
        first = min(first, chapters.parts[0].span)
    openings: list[_Opening] = []
    for outside in (Span(span.start, first.start), Span(last.end, span.end)):
        for block in blocks(text, outside):
            named = named_heading(block.lines[0]) if len(block.lines) == 1 else None
            if named and (named[0] != "back" or outside.start == last.end):
                openings.append(_Opening(block.span.start, named[1], named[0], 1))
    borders = [*(o.start for o in openings if o.start < first.start), first.start]
    early = {a for a, b in pairwise(borders) if b - a < _SHORTEST_NAMED}
    return [o for o in openings if o.start not in early]


def _title_line(text: str, front: Section) -> str | None:
    """The first line of the front matter, where it stands alone and does not end as a sentence does."""
    if front.kind != "front":
        return None
    lines = text[front.span.start : front.span.end].strip().split("\n")
    line = lines[0].strip("*_=# \t")
    if not 0 < len(line) <= _LONGEST_TITLE or not any(c.isalpha() for c in line):
        return None
    alone = len(lines) == 1 or not lines[1].strip() or (line.isupper() and not lines[1].isupper())
    return line if alone and line[-1] not in ".!?,;:" and not line.lower().startswith("produced by") else None
