"""Aspects as pages that a worker can read: copied sentences under their headings, the ids of the source kept.

A page is a chunk like any other to a worker, so every worker can read it, and its notes come back with ids of the
page's sentences; `translated` turns these into the ids of the document's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coa.agents.aspect_choice import Listed
from coa.agents.lexical import SentenceRanker
from coa.agents.references import Reference
from coa.agents.segmentation import sentence_texts
from coa.agents.structure import Aspect
from coa.reading import render_text
from coa.types import Chunk, Span

__all__ = ["Page", "pages_of", "translated"]

_ID = re.compile(r"\[(\d+)\.(\d+)\]")
# Headings, and longer numbers than in the chunks that the tokens were counted of.
_MARGIN = 1.15
_SUMMARY_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Page:
    """Sentences of several aspects, in one call's size."""

    chunk: Chunk
    """Made up: its sentences are copies, its offsets its own."""
    places: tuple[Reference, ...]
    """Where each of its sentences stands, chunks counted within the part."""
    positions: tuple[int, ...]
    """The chunks that they come from, ascending, counted from 0."""


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    place: Reference
    tokens: float


def pages_of(chunks: Sequence[Chunk], aspects: Sequence[Listed], *, room_tokens: int, gist: bool = False) -> list[Page]:
    """The aspects' sentences on as few pages of `room_tokens` as reading order allows.

    Each sentence once, in the order of `aspects`; `gist` keeps only the most telling three of ten of each aspect.
    Pages' chunks have indices from `len(chunks)` on, so that their ids are not taken for the document's. Tokens
    are worked out from those of the chunks; a sentence that is over the room has a page of its own.
    """
    pages: list[list[_Line]] = []
    used = 0.0
    for line in _lines(chunks, aspects, gist=gist):
        if not pages or used + line.tokens > room_tokens:
            pages.append([])
            used = 0.0
        pages[-1].append(line)
        used += line.tokens
    return [_page(lines, len(chunks) + n, chunks[0]) for n, lines in enumerate(pages)]


def translated(text: str, page: Page) -> str:
    """`text` with the ids of the page's sentences made those of the document's."""
    number = page.chunk.index + 1

    def replace(match: re.Match[str]) -> str:
        chunk, sentence = int(match.group(1)), int(match.group(2))
        if chunk != number or not 1 <= sentence <= len(page.places):
            return match.group()
        return str(page.places[sentence - 1])

    return _ID.sub(replace, text)


def _lines(chunks: Sequence[Chunk], aspects: Sequence[Listed], *, gist: bool) -> Iterator[_Line]:
    for entry in aspects:
        chunk = chunks[entry.place.position]
        texts = sentence_texts(chunk)
        per_char = chunk.n_tokens / max(1, len(chunk.text)) * _MARGIN
        kept = _telling(entry.aspect, texts) if gist else None
        heading = f"**{render_text(entry.scope)}: {render_text(entry.aspect.title)}** "
        for title, n in _in_order(entry.aspect):
            if kept is not None and n not in kept:
                continue
            part = f"*{render_text(title)}* " if title is not None else ""
            text = heading + part + render_text(texts[n])
            heading = ""
            yield _Line(text, Reference(entry.place.position + 1, n + 1), (len(text) + 8) * per_char)


def _in_order(aspect: Aspect) -> Iterator[tuple[str | None, int]]:
    """The sentences of an aspect and then of its parts, each part's first one with its title."""
    for description in aspect.descriptions:
        for n in range(description.start, description.end):
            yield None, n
    for part in aspect.aspects:
        title: str | None = part.title
        for n in part.sentences():
            yield title, n
            title = None


def _telling(aspect: Aspect, texts: Sequence[str]) -> set[int]:
    """The sentences that say most of what the aspect is about."""
    numbers = aspect.sentences()
    salience = SentenceRanker([texts[n] for n in numbers]).salience(0, len(numbers))
    order = sorted(range(len(numbers)), key=lambda at: (-salience[at], at))
    return {numbers[at] for at in order[: max(1, math.ceil(len(numbers) * _SUMMARY_SHARE))]}


def _page(lines: Sequence[_Line], index: int, like: Chunk) -> Page:
    text, spans = "", []
    for line in lines:
        spans.append(Span(len(text), len(text) + len(line.text) + 1))
        text += line.text + "\n"
    tokens = math.ceil(sum(line.tokens for line in lines))
    chunk = Chunk(index, text, Span(0, len(text)), tuple(spans), tokens, like.tokenizer, False)
    return Page(chunk, tuple(line.place for line in lines), tuple(sorted({line.place.chunk - 1 for line in lines})))
