"""Places of a document as citations: the quote is copied from the text by code, with its chapter and page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from coa.agents.references import Reference
from coa.types import Chunk, Citation, CitationStatus, Document, Span

__all__ = ["Origin", "citation_at", "sentence_at", "sentence_citation"]

Origin = Literal["model", "located"]

_LONGEST_SENTENCE = 600


def sentence_at(reference: Reference, chunks: Sequence[Chunk]) -> Span | None:
    """The sentence that an id names; None where there is none of it."""
    if not 1 <= reference.chunk <= len(chunks):
        return None
    sentences = chunks[reference.chunk - 1].sentences
    return sentences[reference.sentence - 1] if 1 <= reference.sentence <= len(sentences) else None


def sentence_citation(document: Document, sentence: Span, *, origin: Origin, score: float | None = None) -> Citation:
    """A sentence without the white space around it; of a very long one the beginning."""
    text = document.text[sentence.start : min(sentence.end, sentence.start + _LONGEST_SENTENCE)]
    start = sentence.start + len(text) - len(text.lstrip())
    return citation_at(document, Span(start, start + len(text.strip())), origin=origin, score=score)


def citation_at(
    document: Document, span: Span, *, origin: Origin, status: CitationStatus = "exact", score: float | None = None
) -> Citation:
    """What stands at `span`, as it stands there."""
    section = document.section_at(span.start)
    place = document.place_at(span.start)
    return Citation(
        quote=document.text[span.start : span.end],
        start=span.start,
        end=span.end,
        chapter=section.title if section is not None else None,
        page=place.page if place is not None else None,
        status=status,
        origin=origin,
        score=score,
    )
