"""What a document holds, without calling a model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from coa.chunking import chunk_document
from coa.config import Settings
from coa.limits import fit_limits
from coa.tokens import EstimatedTokens, TokenCounter
from coa.types import Chunk, Document, LeftOut, Section

__all__ = [
    "Inspection",
    "SectionShare",
    "chapter_confidence",
    "inspect_document",
    "inspect_for_model",
    "places_phrase",
]

# Larger models take seconds to load, which their tokenizer alone is not worth.
_QUICK_BYTES = 500_000_000
_UNKNOWN_WINDOW = 8192
_TEMPLATE_TOKENS = 256

# How far chapters are to be believed that were found in this way; styles of headings not named here: `_BY_STYLE`.
_BY_METHOD = {
    "nav": 0.97, "ncx": 0.97, "outline": 0.95, "files": 0.95, "markdown": 0.95, "headings": 0.9,
    "headings:chapter": 0.9, "headings:cjk": 0.9, "contents": 0.7,
}  # fmt: skip
_BY_STYLE = 0.75
_TOO_LARGE_RATIO = 0.6

# A run of letters and digits, apostrophes and hyphens inside included; in scripts without spaces each sign.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
    r"(?:['’\-][^\W_]+)*"
)


@dataclass(frozen=True, slots=True)
class SectionShare:
    """A section and how much of the document it takes."""

    section: Section
    words: int
    ratio: float
    """Of the document's characters, 0..1."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A document in figures; counts of words and characters are of the readable text, `left_out` apart."""

    document: Document
    characters: int
    words: int
    """In Chinese and Japanese each character counts as one."""
    tokens: int
    """Of all chunks, as rendered for the model."""
    tokenizer: str
    exact: bool
    """False where `tokens` is an estimate."""
    chunk_tokens: int
    """The budget that the chunks were packed to."""
    chunks: tuple[Chunk, ...]
    sections: tuple[SectionShare, ...]
    left_out: tuple[LeftOut, ...]


def inspect_document(document: Document, *, counter: TokenCounter, chunk_tokens: int) -> Inspection:
    """Figures of `document`, its sections, and its chunks at a budget of `chunk_tokens` tokens of `counter`.

    Raises:
        ChunkTooLarge: the budget cannot hold even one character.
    """
    chunks = tuple(chunk_document(document, budget=chunk_tokens, counter=counter))
    readable = [document.text[span.start : span.end] for span in document.readable()]
    size = max(1, len(document.text))
    return Inspection(
        document=document,
        characters=sum(map(len, readable)),
        words=sum(map(count_words, readable)),
        tokens=sum(chunk.n_tokens for chunk in chunks),
        tokenizer=counter.name,
        exact=counter.exact,
        chunk_tokens=chunk_tokens,
        chunks=chunks,
        sections=tuple(
            SectionShare(
                section,
                words=count_words(document.text[section.span.start : section.span.end]),
                ratio=section.span.length / size,
            )
            for section in document.sections
        ),
        left_out=document.left_out,
    )


async def inspect_for_model(document: Document, settings: Settings, *, estimate: bool = False) -> Inspection:
    """`inspect_document` with the chunks that a run with `settings` would read.

    Counts are the model's own where it is a small file on this machine and no `estimate` was asked for; for
    others they are estimates, and no server is asked.

    Raises:
        LimitsError, ChunkTooLarge: the budget is too small. ModelError: the engine does not start.
    """
    from coa.llm.catalogue import catalogue_model
    from coa.llm.download import find_model
    from coa.llm.gateway import open_gateway
    from coa.planning import limits_for

    groups = {entry["model_name"] for entry in settings.model_list}
    known = not estimate and settings.model not in groups
    local = find_model(settings.model, models_dir=settings.models_dir) if known else None
    if local is not None and local.path.stat().st_size <= _QUICK_BYTES:
        gateway = await open_gateway(settings, calls=False)
        try:
            budget = (await asyncio.to_thread(limits_for, gateway, settings)).chunk_tokens
            return await asyncio.to_thread(inspect_document, document, counter=gateway.counter, chunk_tokens=budget)
        finally:
            await gateway.close()
    entry = catalogue_model(settings.model)
    advised = entry.chunk_tokens if entry is not None and settings.window is None else None
    limits = fit_limits(
        window=settings.window or (entry.window if entry is not None else _UNKNOWN_WINDOW),
        template_tokens=_TEMPLATE_TOKENS,
        question_tokens=settings.question_tokens,
        chunk_tokens=settings.chunk_tokens or advised,
        note_tokens=settings.note_tokens or (entry.note_tokens if entry is not None else None),
        answer_tokens=settings.answer_tokens or (entry.answer_tokens if entry is not None else None),
    )
    return await asyncio.to_thread(
        inspect_document, document, counter=EstimatedTokens(), chunk_tokens=limits.chunk_tokens
    )


def count_words(text: str) -> int:
    """Words of `text`; each character of scripts without spaces counts as one."""
    return sum(1 for _ in _WORD.finditer(text))


def chapter_confidence(document: Document) -> float | None:
    """How sure it is that the chapters are the book's own, 0..1; None where none were found.

    What the file itself lists counts most; numbers that do not rise, a chapter that takes most of the book, and a
    single chapter speak against them.
    """
    chapters = document.chapters()
    if not chapters or document.chapter_method == "none":
        return None
    sure = _BY_METHOD.get(document.chapter_method, _BY_STYLE)
    numbers = [c.number for c in chapters if c.number is not None]
    steps = [(a, b) for a, b in pairwise(numbers)]
    if steps:
        rising = sum(1 for a, b in steps if b in (a + 1, 1)) / len(steps)
        sure *= 0.5 + 0.5 * rising
    whole = sum(span.length for span in document.readable())
    if max(c.span.length for c in chapters) > _TOO_LARGE_RATIO * max(1, whole):
        sure *= 0.7
    return round(sure, 2)


def places_phrase(document: Document) -> str:
    """What the document's places are, to a person: "412 pages (i to 400)", "25 files", "4,754 paragraphs"."""
    pages = [p for p in document.places if p.page is not None]
    labels = list(dict.fromkeys(p.page_label for p in document.places if p.page_label))
    items = list(dict.fromkeys(p.item for p in document.places if p.item))
    paragraphs = [p.paragraph for p in document.places if p.paragraph is not None]
    phrases = []
    if pages:
        phrases.append(f"{len({p.page for p in pages}):,} pages{_labelled(labels)}")
    if items:
        phrases.append(f"{len(items):,} files ({items[0]} …)" if len(items) > 1 else f"1 file ({items[0]})")
    if labels and not pages:
        phrases.append(f"{len(labels):,} printed pages{_labelled(labels)}")
    if paragraphs:
        phrases.append(f"{max(paragraphs):,} paragraphs")
    if not phrases and any(p.fragment for p in document.places):
        phrases.append(f"{len(document.places):,} anchors")
    return ", ".join(phrases)


def _labelled(labels: Sequence[str]) -> str:
    return f" ({labels[0]} to {labels[-1]})" if len(labels) > 1 else ""
