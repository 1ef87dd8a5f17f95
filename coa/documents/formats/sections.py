"""Sections from what a file says of its structure: its outline, or the headings among its blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from coa.documents.formats.raw import OutlineEntry, RawText
from coa.documents.headings import Block as HeadingBlock
from coa.documents.headings import find_headings, named_heading
from coa.types import Section, SectionKind, Span

__all__ = ["Opening", "find_sections", "title_of"]

_FEWEST = 2
_FEWEST_NUMBERED = 2
_RISING_RATIO = 0.6
_NUMBERED_RATIO = 0.4
_EXPLICIT = frozenset({"chapter", "cjk", "part"})
_LARGEST_RATIO = 0.6
_DEEPEST = 6
_LONGEST_HEADING = 200
_FRONT = re.compile(
    r"(?:(?:table of )?contents|toc|cover|(?:half[- ]?)?title(?: ?page)?|copyright|imprint|dedication|epigraph"
    r"|(?:list of )?(?:illustrations|figures|tables|maps|plates)|foreword|acknowledge?ments|by\s.{1,60}"
    r"|inhalt(?:sverzeichnis)?|titel(?:blatt|seite)?|impressum|widmung|umschlag|abbildungsverzeichnis"
    r"|table des mati[eè]res|sommaire|couverture|page de titre|d[eé]dicace|remerciements"
    r"|[ií]ndice|portada|cubierta|cr[eé]ditos|dedicatoria|sommario|copertina|目录|目錄|目次|封面|版权|版權.*)[\s.:]*",
    re.IGNORECASE,
)
_BACK = re.compile(
    r"(?:(?:the )?(?:full )?(?:project gutenberg.*)?licen[cs]e|colophon|about the authors?|also by.*|metadata"
    r"|(?:general |subject )?index|endnotes|foot ?notes|references|bibliograph(?:y|ie)|works cited|credits"
    r"|transcriber['’]s? notes?.*|[uü]ber den autor|register|literatur(?:verzeichnis)?|m[eé]tadonn[eé]es)[\s.:]*",
    re.IGNORECASE,
)
_APPENDIX = re.compile(
    r"(?:appendix|anhang|annexe|ap[eé]ndice|appendice|bijlage|附录|附錄|приложение)\b", re.IGNORECASE
)
_OF_APPENDICES = re.compile(
    r"\b(?:appendi(?:x|ces)|anh[aä]nge?|annexes?|ap[eé]ndices?|appendic[ei]|bijlagen?)\b", re.IGNORECASE
)
# A section shorter than this is its title, in code points.
_TITLE_PAGE = 200
_NOT_WORDS = re.compile(r"[\W_]+")


class Opening(NamedTuple):
    """Where a section begins, and as what."""

    start: int
    title: str
    level: int
    number: int | None = None
    kind: SectionKind = "section"
    fixed: bool = False
    """True where the source itself says what kind it is."""


def find_sections(raw: RawText, text: str, starts: Sequence[int], span: Span) -> tuple[tuple[Section, ...], str]:
    """The sections of `span` and how they were found; none where neither outline nor headings give two.

    `starts` has where each block of `raw` begins in `text`.
    """
    from_outline = [
        _opening(raw, starts[e.block], e, text) for e in raw.outline if e.title.strip() and e.block < len(starts)
    ]
    found = _usable(from_outline, span)
    headings = _usable(_from_headings(raw, starts), span)
    if len(found) >= _FEWEST and not (len(headings) > len(found) and _one_holds_all(found, span)):
        return _nested(_with_kinds(found, text, span), text, span), raw.method or "outline"
    if len(headings) >= _FEWEST and not _one_holds_all(headings, span):
        return _nested(_with_kinds(_without_title(headings), text, span), text, span), "headings"
    return (), ""


def title_of(raw: RawText) -> str | None:
    """The title that the file states, or that stands alone above all other headings."""
    if raw.title and raw.title.strip():
        return _one_line(raw.title)
    titles = [b for b in raw.blocks if b.kind == "title" and b.text.strip()]
    if titles:
        return _one_line(titles[0].text)
    top = [b for b in raw.blocks if b.kind == "heading" and b.level == 1 and b.text.strip()]
    return _one_line(top[0].text) if len(top) == 1 else None


def _opening(raw: RawText, start: int, entry: OutlineEntry, text: str) -> Opening:
    """The entry's section, by the heading in the text where that says more: "1. Scope" for "Scope"."""
    title = _one_line(entry.title)
    end = text.find("\n\n", start)
    heading = _one_line(text[start : end if end >= 0 else len(text)]) if end - start < _LONGEST_HEADING else ""
    heading = heading.strip("#*_= ")
    if len(heading) <= len(title) + 24 and _key(heading).endswith(_key(title)) and _key(title):
        title = heading
    kind = entry.kind
    return Opening(start, title, max(1, min(entry.level, _DEEPEST)), entry.number, kind or "section", kind is not None)


def _from_headings(raw: RawText, starts: Sequence[int]) -> list[Opening]:
    return [
        Opening(start, _one_line(b.text), max(1, min(b.level or 1, _DEEPEST)), b.number)
        for b, start in zip(raw.blocks, starts, strict=True)
        if b.kind == "heading" and b.left_out is None and b.text.strip()
    ]


def _usable(openings: list[Opening], span: Span) -> list[Opening]:
    """Those inside of `span`, in order, each once, with levels that begin at 1 and leave none out."""
    kept: list[Opening] = []
    for opening in sorted(openings, key=lambda o: o.start):
        inside = span.start <= opening.start < span.end
        same = kept and kept[-1].start == opening.start and _key(kept[-1].title) == _key(opening.title)
        if inside and not same:
            kept.append(opening)
    ranks = {level: rank for rank, level in enumerate(sorted({o.level for o in kept}), 1)}
    deepest = 0
    for i, opening in enumerate(kept):
        deepest = min(ranks[opening.level], deepest + 1)
        kept[i] = opening._replace(level=deepest)
    return kept


def _one_holds_all(openings: list[Opening], span: Span) -> bool:
    """True where one stretch between two openings takes most of the text, so that most chapters are missing."""
    borders = [*(o.start for o in openings), span.end]
    return max(b - a for a, b in pairwise(borders)) > _LARGEST_RATIO * span.length


def _without_title(headings: list[Opening]) -> list[Opening]:
    """Without the first heading where it alone stands above all others: it is the book's title."""
    if sum(1 for h in headings if h.level == 1) != 1 or headings[0].level != 1 or len(headings) <= _FEWEST:
        return headings
    rest = headings[1:]
    return _usable([h._replace(level=h.level - 1) for h in rest], Span(rest[0].start, rest[-1].start + 1))


def _with_kinds(openings: list[Opening], text: str, span: Span) -> list[Opening]:
    """With numbers read from the titles, and told apart: parts, chapters, sections, front and back matter."""
    styles = [_style(o.title) for o in openings]
    level, by_number = _chapter_level(openings, styles, span)
    numbered: list[Opening] = []
    for opening, (number, style) in zip(openings, styles, strict=True):
        believed = style in _EXPLICIT or (by_number and opening.level == level)
        numbered.append(opening if opening.number is not None or not believed else opening._replace(number=number))
    mine = [o for o in numbered if o.level == level and o.number is not None] if by_number else []
    first, last = (mine[0].start, mine[-1].start) if mine else (span.start, span.end)
    kinds: list[Opening] = []
    for i, opening in enumerate(numbered):
        holds_deeper = i + 1 < len(numbered) and numbered[i + 1].level > opening.level
        if opening.fixed:
            kinds.append(opening)
        elif opening.level > level:
            kinds.append(opening._replace(kind="section"))
        elif (
            opening.level < level
            and not _matter(opening.title)
            and (holds_deeper or _is_title_page(numbered, i, first, last))
        ) or (opening.level == level and styles[i][1] == "part" and by_number and not holds_deeper):
            kinds.append(opening._replace(kind="part"))
        else:
            kinds.append(opening._replace(kind=_kind(opening, first, last)))
    return _with_appendices(kinds)


def _is_title_page(openings: list[Opening], at: int, first: int, last: int) -> bool:
    """True for a page between two chapters that holds hardly more than the title of what follows."""
    start = openings[at].start
    following = openings[at + 1].start if at + 1 < len(openings) else start + _TITLE_PAGE
    return first < start < last and following - start < _TITLE_PAGE


def _with_appendices(openings: list[Opening]) -> list[Opening]:
    """With what counts from 1 again under a title that speaks of appendices as back matter."""
    chapters = [i for i, o in enumerate(openings) if o.kind == "chapter"]
    restart = next(
        (i for i in chapters[1:] if openings[i].number == 1 and _OF_APPENDICES.search(openings[i].title)), None
    )
    if restart is None or any(o.kind == "part" for o in openings[restart:]):
        return openings
    return [o._replace(kind="back") if i >= restart and o.kind == "chapter" else o for i, o in enumerate(openings)]


def _chapter_level(openings: list[Opening], styles: list[tuple[int | None, str]], span: Span) -> tuple[int, bool]:
    """The outermost level whose titles count chapters, and True; else the outermost one that divides the text."""
    for level in sorted({o.level for o in openings}):
        mine = [(o, *style) for o, style in zip(openings, styles, strict=True) if o.level == level]
        numbers = [number or o.number for o, number, style in mine if style != "part" and (number or o.number)]
        steps = [(a or 0, b or 0) for a, b in pairwise(numbers)]
        rising = sum(1 for a, b in steps if b in (a + 1, 1))
        enough = len(numbers) >= max(_FEWEST_NUMBERED, _NUMBERED_RATIO * len(mine))
        if enough and rising >= _RISING_RATIO * len(steps):
            return level, True
    level = 1
    while _one_holds_all([o for o in openings if o.level <= level], span) and any(
        o.level == level + 1 for o in openings
    ):
        level += 1
    return level, False


def _matter(title: str) -> SectionKind | None:
    """Front or back matter or an unnumbered chapter ("Epilogue"), by its title."""
    named = named_heading(title)
    if _APPENDIX.match(title) or _BACK.fullmatch(title):
        return "back"
    if _FRONT.fullmatch(title):
        return "front"
    return named[0] if named else None


def _kind(opening: Opening, first: int, last: int) -> SectionKind:
    if opening.number is not None and first <= opening.start <= last:
        return "chapter"
    kind = _matter(opening.title)
    if opening.start < first:
        return "front" if kind != "chapter" else kind
    if opening.start > last:
        return kind or "back"
    return kind or "chapter"


def _style(title: str) -> tuple[int | None, str]:
    """The number in a title and the style that it is written in; None and "" where it has none."""
    if len(title) >= _LONGEST_HEADING:
        return None, ""
    found = find_headings(title, [HeadingBlock(Span(0, len(title)), (title,))])
    return (found[0].number, found[0].style) if found else (None, "")


def _nested(openings: list[Opening], text: str, span: Span) -> tuple[Section, ...]:
    """Sections from where each opens to where the next of its level or above does; first what stands before them."""
    first = openings[0].start
    if any(c.isalnum() for c in text[span.start : first]):
        openings = [Opening(span.start, "", 1, kind="front"), *openings]
    else:
        openings = [openings[0]._replace(start=span.start), *openings[1:]]
    sections = []
    for i, opening in enumerate(openings):
        end = next((o.start for o in openings[i + 1 :] if o.level <= opening.level), span.end)
        if end > opening.start:
            inside = Span(opening.start, end)
            sections.append(Section(opening.title, inside, opening.kind, opening.level, opening.number))
    return tuple(sections)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _key(title: str) -> str:
    return _NOT_WORDS.sub(" ", title).strip().casefold()
