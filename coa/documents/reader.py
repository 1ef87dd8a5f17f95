"""A document from a file, a folder, a stream or bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from coa.documents.canonical import canonicalise, text_digest
from coa.documents.decoding import Decoded, decode
from coa.documents.formats import FORMATS, FormatReader, plugin_for, plugin_named
from coa.documents.gutenberg import find_boilerplate
from coa.documents.languages import guess_language
from coa.documents.limits import DEFAULT_LIMITS, ReadingLimits
from coa.documents.signatures import kind_of, looks_like_html, not_text
from coa.documents.sources import Source, load
from coa.documents.structure import find_structure
from coa.errors import DocumentEmpty, DocumentError
from coa.types import Document

__all__ = ["parse_document", "read_document"]


def read_document(
    source: str | Path | bytes | BinaryIO,
    *,
    name: str | None = None,
    encoding: str | None = None,
    max_bytes: int = 50_000_000,
    limits: ReadingLimits = DEFAULT_LIMITS,
    reader: str | None = None,
) -> Document:
    """The document that `source` holds; a str is a path, and a folder of chapter files is one book.

    Read are EPUB, PDF, DOCX, HTML, Markdown and plain text, alone or as chapters in a .zip, told apart by content.
    `name` is what to call it to people, by default the file's name. `encoding` overrides detection for text and
    HTML; `reader` names the reader instead, one of coa's own or of an installed plug-in. The licence and header of
    Project Gutenberg, running heads and the like are marked as left out; chapters become sections.

    Raises DocumentTooLarge over `max_bytes` or a limit, DocumentEmpty where there is nothing to read,
    ConfigError for an unknown `reader`, and DocumentError where the source cannot be opened or is of a kind that
    no reader takes.
    """
    if isinstance(source, (str, Path)) and _is_folder(Path(source)):
        from coa.documents.formats.archive import read_folder
        from coa.documents.formats.assembly import assemble

        label = name or Path(source).resolve().name
        raw, digest = read_folder(Path(source), name=label, limits=limits)
        return assemble(raw, name=label, source_sha256=digest)
    loaded = [load(source, name=name, max_bytes=min(max_bytes, limits.max_bytes))]
    return _parsed(loaded, encoding, limits, reader)


def parse_document(
    data: bytes,
    *,
    name: str,
    encoding: str | None = None,
    limits: ReadingLimits = DEFAULT_LIMITS,
    reader: str | None = None,
) -> Document:
    """The document in `data`, as `read_document` reads it; opens no file."""
    return _parsed([Source(data, name)], encoding, limits, reader)


def _parsed(loaded: list[Source], encoding: str | None, limits: ReadingLimits, reader: str | None) -> Document:
    """The document in the one source of `loaded`, which is taken out: the bytes of a long text are not held on."""
    data, name = loaded.pop()
    if not data:
        raise DocumentEmpty(f"{name} is empty.", hint="Give a file that holds text.")
    kind = reader or kind_of(data)
    chosen: FormatReader | None = None
    if kind is not None and kind != "text":
        chosen = FORMATS.get(kind) or plugin_named(kind)
    elif kind is None:
        chosen = plugin_for(data, name=name)
    if chosen is None:
        decoded = _decoded_text(data, name, encoding)
        digest = hashlib.sha256(data).hexdigest()
        del data
        return _text_document(decoded, name, digest)
    if encoding is not None and kind == "html":
        data = _decoded_as(data, encoding, name)
    from coa.documents.formats.assembly import assemble

    raw = chosen(data, name=name, limits=limits)
    return assemble(raw, name=name, source_sha256=hashlib.sha256(data).hexdigest())


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False


def _decoded_as(data: bytes, encoding: str, name: str) -> bytes:
    """The bytes in UTF-8 with its mark, which no declaration inside of the page can contradict."""
    try:
        return decode(data, encoding).text.encode("utf-8-sig", errors="replace")
    except DocumentError as exc:
        raise DocumentError(f"{name}: {exc.message}", hint=exc.hint) from exc


def _decoded_text(data: bytes, label: str, encoding: str | None) -> Decoded:
    """The canonical text of `data`, its encoding and all that was uncertain or lost."""
    if kind := not_text(data):
        raise _unreadable(label, kind)
    try:
        text, name, doubts = decode(data, encoding)
    except DocumentError as exc:
        raise DocumentError(f"{label}: {exc.message}", hint=exc.hint) from exc
    if (kind := looks_like_html(text)) == "a FictionBook":
        raise _unreadable(label, kind)
    text, changes = canonicalise(text)
    if not text or text.isspace():
        raise DocumentEmpty(f"{label} holds nothing but white space.", hint="Give a file that holds text.")
    return Decoded(text, name, (*doubts, *changes))


def _text_document(decoded: Decoded, label: str, source_sha256: str) -> Document:
    text = decoded.text
    boilerplate = find_boilerplate(text)
    structure = find_structure(text, boilerplate.left_out, title=boilerplate.title, name=label)
    return Document(
        text=text,
        sha256=text_digest(text),
        name=label,
        title=structure.title,
        language=boilerplate.language or guess_language(text),
        media_type=structure.media_type,
        encoding=decoded.encoding,
        source_sha256=source_sha256,
        sections=structure.sections,
        left_out=boilerplate.left_out,
        chapter_method=structure.method,
        warnings=decoded.warnings,
    )


def _unreadable(label: str, kind: str) -> DocumentError:
    return DocumentError(
        f"{label} looks like {kind}; coa reads EPUB, PDF, DOCX, HTML, Markdown and plain text.",
        hint="Convert it to one of these first, for example with pandoc or LibreOffice.",
    )
