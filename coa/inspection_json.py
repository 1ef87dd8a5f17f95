"""Inspections as JSON values, the same for the command line and for tools."""

from __future__ import annotations

from coa.inspection import Inspection, chapter_confidence, places_phrase
from coa.types import Document, Section

__all__ = ["inspection_object"]


def inspection_object(found: Inspection) -> dict[str, object]:
    """The inspection as JSON."""
    document = found.document
    return {
        "schema_version": 1,
        "document": document.name,
        "document_sha256": document.sha256,
        "source_sha256": document.source_sha256,
        "title": document.title,
        "media_type": document.media_type,
        "encoding": document.encoding,
        "language": document.language,
        "characters": found.characters,
        "words": found.words,
        "tokens": found.tokens,
        "tokenizer": found.tokenizer,
        "exact": found.exact,
        "chunk_tokens": found.chunk_tokens,
        "chapter_method": document.chapter_method,
        "chapter_confidence": chapter_confidence(document),
        "places": places_phrase(document),
        "chapters": [
            {
                "title": share.section.title,
                "kind": share.section.kind,
                "level": share.section.level,
                "number": share.section.number,
                "start": share.section.span.start,
                "end": share.section.span.end,
                "words": share.words,
                "ratio": round(share.ratio, 4),
                "place": _place_object(document, share.section),
            }
            for share in found.sections
        ],
        "chunks": [
            {"index": c.index, "start": c.span.start, "end": c.span.end, "tokens": c.n_tokens} for c in found.chunks
        ],
        "left_out": [
            {"start": part.span.start, "end": part.span.end, "cause": part.cause, "detail": part.detail}
            for part in found.left_out
        ],
        "warnings": list(document.warnings),
    }


def _place_object(document: Document, section: Section) -> dict[str, object] | None:
    """Where the section begins in the source file; None where the source has no places."""
    place = document.place_at(section.span.start)
    if place is None:
        return None
    fields = ("page", "page_label", "item", "fragment", "paragraph")
    return {name: value for name in fields if (value := getattr(place, name)) is not None}
