"""A document from a file, a stream or bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from coa.documents.canonical import canonicalise
from coa.documents.decoding import decode
from coa.documents.gutenberg import find_boilerplate
from coa.documents.languages import guess_language
from coa.documents.signatures import looks_like_html, not_text
from coa.documents.sources import load
from coa.documents.structure import find_structure
from coa.errors import DocumentEmpty, DocumentError
from coa.types import Document

__all__ = ["read_document"]


def read_document(
    source: str | Path | bytes | BinaryIO,
    *,
    name: str | None = None,
    encoding: str | None = None,
    max_bytes: int = 50_000_000,
) -> Document:
    """The document that `source` holds: plain text or Markdown, told apart by content. A str is a path.

    `name` is what to call it to people, by default the file's name. `encoding` overrides detection. The licence
    and header of Project Gutenberg are marked as left out; chapters become sections.

    Raises DocumentTooLarge over `max_bytes`, DocumentEmpty where there is nothing to read, and DocumentError
    where the source cannot be opened, is no text, or is text that would need a reader of its own (PDF, HTML …).
    """
    data, label = load(source, name=name, max_bytes=max_bytes)
    if not data:
        raise DocumentEmpty(f"{label} is empty.", hint="Give a file that holds text.")
    if kind := not_text(data):
        raise _unreadable(label, kind)
    try:
        decoded = decode(data, encoding)
    except DocumentError as exc:
        raise DocumentError(f"{label}: {exc.message}", hint=exc.hint) from exc
    if kind := looks_like_html(decoded.text):
        raise _unreadable(label, kind)
    text, changes = canonicalise(decoded.text)
    if not text.strip():
        raise DocumentEmpty(f"{label} holds nothing but white space.", hint="Give a file that holds text.")
    boilerplate = find_boilerplate(text)
    structure = find_structure(text, boilerplate.left_out, title=boilerplate.title, name=label)
    return Document(
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        name=label,
        title=structure.title,
        language=boilerplate.language or guess_language(text),
        media_type=structure.media_type,
        encoding=decoded.encoding,
        source_sha256=hashlib.sha256(data).hexdigest(),
        sections=structure.sections,
        left_out=boilerplate.left_out,
        chapter_method=structure.method,
        warnings=(*decoded.warnings, *changes),
    )


def _unreadable(label: str, kind: str) -> DocumentError:
    return DocumentError(
        f"{label} looks like {kind}; coa reads plain text and Markdown.",
        hint="Convert it to text first, for example with pandoc or pdftotext.",
    )
