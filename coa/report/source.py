"""A document's text as markup: paragraphs in blocks that are laid out when they come into view, places marked.

Browsers find text, follow links and read aloud also in blocks that are not laid out (`content-visibility`), so a book
of any size is there whole, and opens at once. There is no element for a word or a sentence, only for what is marked.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from coa.report.page import escaped
from coa.types import Document, Section, Span

__all__ = ["Mark", "SourceText", "anchor_id", "source_html"]

_BLOCK_CHARS = 8000
_LONGEST_PARAGRAPH = 6000
_LONGEST_HEADING = 200
_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n\s*)+")
_SPACE = re.compile(r"\s*")
# What typesetters of plain text break at; shorter lines are verse, tables or code.
_SHORTEST_FULL_LINE = 45
_COLUMNS = re.compile(r"\S(?: {3,}|\t)\S")
_CHARS_PER_REM_OF_HEIGHT = 50


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of the text that is highlighted and can be jumped to."""

    id: str
    """Of the element; unique in the page."""
    span: Span
    label: str
    """What the link back shows: the citation's number."""
    back: str
    """The id of the element that the link back leads to."""
    description: str
    """The same for those who hear it."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """The markup and what belongs to it in the page's head."""

    body: str = field(repr=False)
    style: str
    """The height that a block is taken to have until it is laid out."""


@dataclass(slots=True)
class _Paragraph:
    span: Span
    left_out: bool
    section: Section | None
    """The one that begins with this paragraph."""
    cut: str | None = None
    marks: list[Mark] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)


def anchor_id(offset: int) -> str:
    """The id of the element at an offset that was named to `source_html`."""
    return f"s{offset}"


def source_html(
    document: Document,
    *,
    marks: Sequence[Mark] = (),
    anchors: Iterable[int] = (),
    cuts: Mapping[int, str] | None = None,
) -> SourceText:
    """The text of `document`, each character of it once and in order, white space between paragraphs apart.

    Each of `anchors` (offsets) gets an element with its `anchor_id`, and so does each section. `cuts` are lines of
    markup that are put in at offsets: where a chunk begins. What was left out of the reading is marked so.
    """
    cuts = cuts or {}
    paragraphs = list(_paragraphs(document, cuts))
    if not paragraphs:
        return SourceText('<p class="dim">The document has no text.</p>\n', "")
    _place(document, paragraphs, marks, anchors)
    blocks: list[str] = []
    block: list[str] = []
    size = 0
    for paragraph in paragraphs:
        if block and (size + paragraph.span.length > _BLOCK_CHARS or paragraph.cut is not None):
            blocks.append("".join(block))
            block, size = [], 0
        if paragraph.cut is not None:
            block.append(f'<p class="cut">{paragraph.cut}</p>\n')
        block.append(_element(document.text, paragraph))
        size += paragraph.span.length
    blocks.append("".join(block))
    rem = max(4, round(len(document.text) / len(blocks) / _CHARS_PER_REM_OF_HEIGHT))
    style = (
        f".block{{contain-intrinsic-block-size:auto {rem}rem}}\n"
        f"@media(max-width:40rem){{.block{{contain-intrinsic-block-size:auto {2 * rem}rem}}}}\n"
    )
    return SourceText("".join(f'<div class="block">\n{b}</div>\n' for b in blocks), style)


def _paragraphs(document: Document, cuts: Mapping[int, str]) -> Iterator[_Paragraph]:
    """The paragraphs, none of them across a cut, a section's start or the border of what was left out."""
    text = document.text
    sections = {_solid(text, s.span.start): s for s in reversed(document.sections)}
    left_out = [part.span for part in document.left_out]
    waiting = {_solid(text, offset): line for offset, line in cuts.items()}
    borders = {0, len(text), *sections, *waiting, *(edge for span in left_out for edge in span)}
    starts = [span.start for span in left_out]
    ordered = sorted(edge for edge in borders if 0 <= edge <= len(text))
    for start, end in pairwise(ordered):
        at = bisect_right(starts, start) - 1
        outside = at >= 0 and start < left_out[at].end
        for span in _split(text, start, end):
            yield _Paragraph(span, outside, sections.get(span.start), waiting.get(span.start))


def _split(text: str, start: int, end: int) -> Iterator[Span]:
    """What stands between blank lines, without the white space around it; very long stretches in pieces."""
    at = start
    while at < end:
        gap = _BLANK_LINES.search(text, at, end)
        stop = gap.start() if gap is not None else end
        first = _solid(text, at)
        last = stop - (len(text[at:stop]) - len(text[at:stop].rstrip()))
        while last - first > _LONGEST_PARAGRAPH:
            cut = _cut(text, first, first + _LONGEST_PARAGRAPH)
            yield Span(first, cut)
            first = _solid(text, cut)
        if first < last:
            yield Span(first, last)
        at = gap.end() if gap is not None else end


def _cut(text: str, start: int, most: int) -> int:
    """Behind the last line, sentence or word that ends before `most`; at `most` where there is none."""
    for sign in ("\n", ". ", "。", " "):
        at = text.rfind(sign, start + 1, most)
        if at > 0:
            return at + len(sign.rstrip(" "))
    return most


def _solid(text: str, offset: int) -> int:
    """The first character at or behind `offset` that is no white space."""
    match = _SPACE.match(text, offset)
    return match.end() if match is not None else offset


def _place(document: Document, paragraphs: list[_Paragraph], marks: Sequence[Mark], anchors: Iterable[int]) -> None:
    """Gives marks and anchors to the paragraphs that they are in."""
    starts = [p.span.start for p in paragraphs]
    text = document.text
    for given in marks:
        end = given.span.end - (given.span.length - len(text[given.span.start : given.span.end].rstrip()))
        mark = replace(given, span=Span(_solid(text, given.span.start), end))
        at = max(0, bisect_right(starts, mark.span.start) - 1)
        while at < len(paragraphs) and starts[at] < mark.span.end:
            if paragraphs[at].span.end > mark.span.start:
                paragraphs[at].marks.append(mark)
            at += 1
    for offset in dict.fromkeys(anchors):
        at = max(0, bisect_right(starts, _solid(document.text, offset)) - 1)
        paragraphs[at].anchors.append(offset)


def _element(text: str, paragraph: _Paragraph) -> str:
    """The paragraph's element; a section's first line is its heading."""
    span, section = paragraph.span, paragraph.section
    content = text[span.start : span.end]
    ids = list(dict.fromkeys([*([section.span.start] if section is not None else []), *paragraph.anchors]))
    own = next((n for n in ids if n <= span.start), None)
    inner = _inner(text, paragraph, [n for n in ids if n != own])
    name = f' id="{anchor_id(own)}"' if own is not None else ""
    if section is not None and span.length <= _LONGEST_HEADING:
        tag = "h3" if section.level == 1 else "h4"
        return f"<{tag}{name}>{inner}</{tag}>\n"
    classes = [*(["out"] if paragraph.left_out else []), *([] if _flows(content) else ["lines"])]
    looks = f' class="{" ".join(classes)}"' if classes else ""
    return f"<p{name}{looks}>{inner}</p>\n"


def _flows(paragraph: str) -> bool:
    """True where line breaks mean nothing: the lines are as long as a typesetter makes them."""
    *full, _ = paragraph.split("\n")
    return all(len(line) >= _SHORTEST_FULL_LINE for line in full) and not (full and _COLUMNS.search(paragraph))


def _inner(text: str, paragraph: _Paragraph, anchors: Sequence[int]) -> str:
    span = paragraph.span
    if not paragraph.marks and not anchors:
        return escaped(text[span.start : span.end], quotes=False)
    spots: dict[int, list[int]] = {}
    for offset in anchors:
        spots.setdefault(min(max(offset, span.start), span.end), []).append(offset)
    edges = {span.start, span.end, *spots}
    for mark in paragraph.marks:
        edges |= {max(mark.span.start, span.start), min(mark.span.end, span.end)}
    pieces = []
    for start, end in pairwise(sorted(edges)):
        pieces += [f'<span id="{anchor_id(offset)}"></span>' for offset in spots.get(start, ())]
        covering = [m for m in paragraph.marks if m.span.start <= start and end <= m.span.end]
        pieces.append(_marked(escaped(text[start:end], quotes=False), covering, start))
        pieces += [_back(mark) for mark in covering if mark.span.end == end]
    pieces += [f'<span id="{anchor_id(offset)}"></span>' for offset in spots.get(span.end, ())]
    return "".join(pieces)


def _marked(content: str, covering: Sequence[Mark], start: int) -> str:
    if not covering:
        return content
    begun = [mark for mark in covering if mark.span.start == start]
    for mark in begun[1:]:
        content = f'<span id="{mark.id}" tabindex="-1">{content}</span>'
    name = f' id="{begun[0].id}" tabindex="-1"' if begun else ""
    return f'<mark{name} data-c="{" ".join(m.id for m in covering)}">{content}</mark>'


def _back(mark: Mark) -> str:
    return (
        f'<a class="back" href="#{mark.back}" data-n="{escaped(mark.label)}" '
        f'aria-label="{escaped(mark.description)}"></a>'
    )
