"""A document from the blocks of a format reader: one canonical text, and every span in it."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from coa.documents.canonical import canonical, canonicalise
from coa.documents.formats.raw import Block, PlaceRef, RawText
from coa.documents.formats.sections import find_sections, title_of
from coa.documents.gutenberg import find_boilerplate
from coa.documents.languages import guess_language
from coa.documents.structure import find_structure
from coa.errors import DocumentEmpty
from coa.types import Document, LeftOut, Place, Section, Span

__all__ = ["assemble"]


class _Layout(NamedTuple):
    """The canonical text and where the blocks stand in it."""

    text: str
    starts: list[int]
    """Where each block begins; for one without text, where the next one does."""
    bodies: list[str]
    warnings: tuple[str, ...]


def assemble(raw: RawText, *, name: str, source_sha256: str = "") -> Document:
    """The document of `raw`.

    Blocks are parted by a blank line, or by a line break where they are `tight`. Running heads, page numbers and
    what else a block or Project Gutenberg marks as left out stays in the text and is not to be read; what is in
    no block is told in `Document.left_out` by an empty span at 0. Sections come from the outline, else from the
    headings, else they are found in the text.

    Raises DocumentEmpty where no block holds text.
    """
    layout = _lay_out(raw.blocks)
    text = layout.text
    if not text:
        raise DocumentEmpty(f"{name} holds no text.", hint="Give a file that holds text.")
    boilerplate = find_boilerplate(text)
    left_out = _without_overlap([*boilerplate.left_out, *_left_out(raw.blocks, layout)])
    title = title_of(raw) or boilerplate.title
    sections, method, title = _sections(raw, layout, left_out, title, name)
    return Document(
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        name=name,
        title=title,
        language=_language(raw.language or boilerplate.language, guess_language(text)),
        media_type=raw.media_type,
        encoding=raw.encoding,
        source_sha256=source_sha256,
        sections=sections,
        left_out=(*(LeftOut(Span(0, 0), "markup", what) for what in raw.left_out), *left_out),
        places=_places(raw.blocks, layout),
        chapter_method=method,
        warnings=(*raw.warnings, *layout.warnings),
    )


def _language(declared: str | None, guessed: str | None) -> str | None:
    """What the file declares; but many programs declare English where nobody chose a language."""
    return guessed if guessed and declared in (None, "en") else declared


def _lay_out(blocks: Sequence[Block]) -> _Layout:
    bodies = [b.text.strip("\r\n").rstrip() if b.kind == "preformatted" else b.text.strip() for b in blocks]
    whole = "\n\n".join(bodies)
    changed = canonicalise(whole)
    if changed.text != whole:
        bodies = [canonical(body) for body in bodies]
        bodies = [c.rstrip() if b.kind == "preformatted" else c.strip() for b, c in zip(blocks, bodies, strict=True)]
    pieces: list[str] = []
    starts: list[int] = []
    at = 0
    for block, body in zip(blocks, bodies, strict=True):
        if body and pieces:
            separator = "\n" if block.tight else "\n\n"
            pieces.append(separator)
            at += len(separator)
        starts.append(at)
        if body:
            pieces.append(body)
            at += len(body)
    if pieces:
        pieces.append("\n")
    following = at
    for i in range(len(blocks) - 1, -1, -1):
        if bodies[i]:
            following = starts[i]
        else:
            starts[i] = following
    return _Layout("".join(pieces), starts, bodies, changed.warnings)


def _left_out(blocks: Sequence[Block], layout: _Layout) -> list[LeftOut]:
    """Blocks that are not to be read, up to where the next block begins; neighbours of one cause as one."""
    found: list[LeftOut] = []
    for i, block in enumerate(blocks):
        cause = block.left_out
        if cause is None and block.kind in ("running_head", "page_number"):
            cause = "running_head" if block.kind == "running_head" else "page_number"
        if cause is None or not layout.bodies[i]:
            continue
        start = layout.starts[i]
        after = bisect_left(layout.starts, start + 1)
        end = layout.starts[after] if after < len(blocks) else len(layout.text)
        if end + 1 >= len(layout.text):  # the line break that ends the text belongs to its last block
            end = len(layout.text)
        if found and found[-1].span.end == start and (found[-1].cause, found[-1].detail) == (cause, block.detail):
            found[-1] = LeftOut(Span(found[-1].span.start, end), cause, block.detail)
        else:
            found.append(LeftOut(Span(start, end), cause, block.detail))
    return found


def _without_overlap(parts: list[LeftOut]) -> list[LeftOut]:
    """In order; of two that overlap the one that begins first, or is longer, keeps the common stretch."""
    kept: list[LeftOut] = []
    for part in sorted(parts, key=lambda p: (p.span.start, -p.span.end)):
        start = max(part.span.start, kept[-1].span.end if kept else 0)
        if start < part.span.end:
            kept.append(LeftOut(Span(start, part.span.end), part.cause, part.detail))
    return kept


def _sections(
    raw: RawText, layout: _Layout, left_out: Sequence[LeftOut], title: str | None, name: str
) -> tuple[tuple[Section, ...], str, str | None]:
    text = layout.text
    start = left_out[0].span.end if left_out and left_out[0].span.start == 0 else 0
    end = len(text)
    for part in reversed(left_out):  # a PDF's running heads, then its page numbers
        if part.span.end == end:
            end = part.span.start
    if start >= end:
        return (), "none", title
    sections, method = find_sections(raw, text, layout.starts, Span(start, end))
    if sections:
        return sections, method, title
    structure = find_structure(text, left_out, title=title, name=f"{name}.txt")
    return structure.sections, structure.method, structure.title


def _places(blocks: Sequence[Block], layout: _Layout) -> tuple[Place, ...]:
    """Where the stretches stand, each up to where the next place begins."""
    marks: list[tuple[int, PlaceRef]] = []
    for i, block in enumerate(blocks):
        if not layout.bodies[i]:
            continue
        if block.place is not None:
            _mark(marks, layout.starts[i], block.place)
        for offset, ref in block.breaks:
            whole = canonical(block.text)
            lead = len(whole) - len(whole.lstrip())
            inside = min(max(len(canonical(block.text[:offset])) - lead, 0), len(layout.bodies[i]))
            _mark(marks, layout.starts[i] + inside, ref)
    ends = [start for start, _ in marks[1:]]
    if marks:
        ends.append(len(layout.text))
    return tuple(
        Place(Span(start, end), ref.page, ref.page_label, ref.item, ref.fragment, ref.paragraph)
        for (start, ref), end in zip(marks, ends, strict=True)
    )


def _mark(marks: list[tuple[int, PlaceRef]], start: int, ref: PlaceRef) -> None:
    if marks and marks[-1][0] >= start:
        marks[-1] = (marks[-1][0], ref)
    elif not marks or marks[-1][1] != ref:
        marks.append((start, ref))
