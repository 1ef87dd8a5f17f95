"""A book in many files: a .zip or a folder of chapters, read in the order that people number them in."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from coa.documents.canonical import canonicalise
from coa.documents.decoding import decode
from coa.documents.formats.natural import natural_key
from coa.documents.formats.phrases import counted, listed
from coa.documents.formats.raw import Block, OutlineEntry, PlaceRef, RawText
from coa.documents.formats.registry import FORMATS
from coa.documents.formats.zipped import Archive
from coa.documents.gutenberg import find_boilerplate
from coa.documents.headings import Block as HeadingBlock
from coa.documents.headings import find_headings, named_heading
from coa.documents.limits import ReadingLimits
from coa.documents.signatures import kind_of, not_text
from coa.documents.structure import find_structure
from coa.errors import DocumentEmpty, DocumentError, DocumentTooLarge
from coa.types import Span

__all__ = ["read", "read_folder"]

_TEXT_NAMES = frozenset({"", ".txt", ".text", ".asc", ".md", ".markdown", ".mdown", ".mkd", ".rst", ".adoc", ".tex"})
_NOT_CHAPTERS = frozenset(
    {".css", ".js", ".json", ".xml", ".opf", ".ncx", ".yaml", ".yml", ".toml", ".ini", ".csv", ".tsv", ".log", ".svg"}
)
_HIDDEN = re.compile(r"(?:^|/)(?:\.|__MACOSX/|Thumbs\.db$|desktop\.ini$|~\$)", re.IGNORECASE)
_LONGEST_TITLE = 100
_NUMBER_IN_NAME = re.compile(r"(\d{1,4})")
_SEPARATORS = re.compile(r"[\s_.-]+")


class _Source(NamedTuple):
    """A file that may be a chapter."""

    name: str
    load: Callable[[], bytes]


class _Part(NamedTuple):
    """A file that has been read."""

    name: str
    raw: RawText


def read(data: bytes, *, name: str, limits: ReadingLimits) -> RawText:
    """The files of the .zip `data` as one book, each read by its own reader; `item` of places is the file.

    Order is natural: 2 before 10, folder by folder. Pictures, programs, style sheets, hidden files and archives
    inside are told and not read; damaged files are told in the warnings. Raises DocumentEmpty where no file holds text.
    """
    archive = Archive(data, name=name, limits=limits)
    sources = [_Source(entry, lambda entry=entry: archive.read(entry)) for entry in archive.names]  # type: ignore[misc]
    return _book(sources, name=name, limits=limits)


def read_folder(path: Path, *, name: str, limits: ReadingLimits) -> tuple[RawText, str]:
    """The files of a folder and its folders as one book, as `read` does, and the SHA-256 of what was read.

    Links are not followed: neither a loop nor a file outside of the folder is read.
    """
    digest = hashlib.sha256()
    size = 0

    def load(file: Path) -> bytes:
        nonlocal size
        try:
            size += file.stat().st_size
            if size > limits.max_unpacked_bytes or file.stat().st_size > limits.max_bytes:
                raise DocumentTooLarge(
                    f"{name} holds over {min(limits.max_unpacked_bytes, limits.max_bytes) / 1e6:,.0f} MB.",
                    hint="Give a part of it, or raise max_unpacked_bytes.",
                )
            data = file.read_bytes()
        except OSError as exc:
            raise DocumentError(f"{file.name} cannot be read: {(exc.strerror or str(exc)).lower()}.") from exc
        digest.update(str(len(data)).encode() + b"\n" + data)
        return data

    files = sorted(_regular_files(path, name, limits), key=lambda item: natural_key(item[0]))
    sources = [_Source(relative, lambda file=file: load(file)) for relative, file in files]  # type: ignore[misc]
    return _book(sources, name=name, limits=limits), digest.hexdigest()


def _regular_files(path: Path, name: str, limits: ReadingLimits) -> Iterator[tuple[str, Path]]:
    count = 0
    for folder, folders, files in os.walk(path, followlinks=False):
        folders[:] = [f for f in folders if not _HIDDEN.search(f"{f}/")]
        for file in files:
            count += 1
            if count > limits.max_archive_entries:
                raise DocumentTooLarge(
                    f"{name} holds over {limits.max_archive_entries:,} files.",
                    hint="Name a folder with the chapters alone, or use `coa batch run` for many documents.",
                )
            found = Path(folder) / file
            try:
                regular = stat.S_ISREG(found.lstat().st_mode)
            except OSError:
                continue
            if regular:
                yield found.relative_to(path).as_posix(), found


def _book(sources: list[_Source], *, name: str, limits: ReadingLimits) -> RawText:
    sources = sorted(sources, key=lambda s: natural_key(s.name))
    parts: list[_Part] = []
    other: list[str] = []
    damaged: list[str] = []
    size = 0
    for source in sources:
        if _HIDDEN.search(source.name) or PurePosixPath(source.name).suffix.lower() in _NOT_CHAPTERS:
            other.append(source.name)
            continue
        try:
            raw = _read_one(source, replace(limits, max_unpacked_bytes=max(1, limits.max_unpacked_bytes - size)))
        except DocumentTooLarge:
            raise
        except DocumentEmpty:
            continue
        except DocumentError as exc:
            damaged.append(f"{source.name} ({exc.message.rstrip('.')})")
            continue
        if raw is None:
            other.append(source.name)
        elif raw.blocks:
            size += sum(len(b.text) for b in raw.blocks)
            parts.append(_Part(source.name, raw))
    if not parts:
        raise DocumentEmpty(f"{name} holds no file of text.", hint="Give a file, or a .zip or folder of chapters.")
    return _joined(parts, other, damaged)


def _read_one(source: _Source, limits: ReadingLimits) -> RawText | None:
    """The blocks of one file; None where it is no text."""
    data = source.load()
    kind = kind_of(data)
    if kind == "zip":
        return None
    if kind is not None:
        return FORMATS[kind](data, name=source.name, limits=limits)
    suffix = PurePosixPath(source.name).suffix.lower()
    if not_text(data) is not None or not data:
        return None
    try:
        return _text_blocks(data, source.name)
    except DocumentError:
        if suffix in _TEXT_NAMES:
            raise
        return None  # bytes without a signature of their own


def _text_blocks(data: bytes, name: str) -> RawText:
    """A text file: a block for each of its sections, the text as it is."""
    decoded = decode(data)
    text, changes = canonicalise(decoded.text)
    boilerplate = find_boilerplate(text)
    structure = find_structure(text, boilerplate.left_out, title=boilerplate.title, name=name)
    sections = [s for s in structure.sections if s.kind != "body"]
    blocks: list[Block] = []
    outline: list[OutlineEntry] = []
    at = 0
    for section in sections:
        if section.span.start > at:
            blocks.append(Block(text[at : section.span.start], "preformatted"))
            at = section.span.start
        if section.title:
            outline.append(OutlineEntry(section.title, section.level, len(blocks), section.number, section.kind))
    blocks.append(Block(text[at:], "preformatted"))
    return RawText(
        blocks=tuple(blocks) if text.strip() else (),
        media_type=structure.media_type,
        title=structure.title,
        language=boilerplate.language,
        encoding=decoded.encoding,
        outline=tuple(outline),
        method=structure.method,
        warnings=(*decoded.warnings, *changes),
    )


def _joined(parts: list[_Part], other: list[str], damaged: list[str]) -> RawText:
    blocks: list[Block] = []
    outline: list[OutlineEntry] = []
    for part in parts:
        first = len(blocks)
        if len(parts) > 1:
            outline += _outline_of(part, first)
        for i, block in enumerate(part.raw.blocks):
            place = block.place or (PlaceRef() if i == 0 else None)
            breaks = tuple((at, _inside(ref, part.name)) for at, ref in block.breaks)
            blocks.append(replace(block, place=_inside(place, part.name) if place else None, breaks=breaks))
    only = parts[0].raw if len(parts) == 1 else None
    warnings = [f"{p.name}: {w}" for p in parts for w in p.raw.warnings]
    if damaged:
        warnings.append(f"Missing from the text: {counted(len(damaged), 'file')}: {listed(damaged)}.")
    left_out = [f"{p.name}: {what}" for p in parts for what in p.raw.left_out]
    if other:
        left_out.append(f"{counted(len(other), 'file')} of other kinds: {listed(other)}")
    encodings = {p.raw.encoding for p in parts}
    return RawText(
        blocks=tuple(blocks),
        media_type="application/zip" if only is None else only.media_type,
        title=only.title if only else None,
        language=only.language if only else None,
        encoding=encodings.pop() if len(encodings) == 1 else "mixed",
        outline=tuple(outline) if only is None else only.outline,
        method="files" if only is None else only.method,
        warnings=tuple(warnings),
        left_out=tuple(left_out),
    )


def _inside(place: PlaceRef, name: str) -> PlaceRef:
    """`place` in the file `name` of the book."""
    return replace(place, item=f"{name}/{place.item}" if place.item else name)


def _outline_of(part: _Part, first: int) -> list[OutlineEntry]:
    """The file as a section, with the sections that it has itself below."""
    own = [e for e in part.raw.outline if e.title.strip()] or [
        OutlineEntry(b.text, b.level or 1, i, b.number) for i, b in enumerate(part.raw.blocks) if b.kind == "heading"
    ]
    own = [e for e in own if " ".join(e.title.split())]
    outermost = [e for e in own if e.level == min(x.level for x in own)]
    if len(outermost) == 1 and _is_near_top(part.raw.blocks, outermost[0].block):
        entry = outermost[0]
        title, number, kind = entry.title, entry.number, entry.kind
        own = [replace(e, level=e.level - entry.level) for e in own if e is not entry]
    else:
        title, number = _title_of(part)
        kind = None
    top = OutlineEntry(title, 1, first, number, None if kind in ("body", "section") else kind)
    return [top, *(replace(e, level=max(1, e.level) + 1, block=first + e.block, kind=None) for e in own)]


def _is_near_top(blocks: tuple[Block, ...], at: int) -> bool:
    return sum(len(b.text.strip()) for b in blocks[:at]) < _LONGEST_TITLE


def _title_of(part: _Part) -> tuple[str, int | None]:
    """What to call a file without a heading of its own: its first line, if that is one, or its name."""
    first = next((b.text.strip() for b in part.raw.blocks if b.text.strip()), "")
    line = first.split("\n", 1)[0].strip("#*_= \t")
    if line and len(line) <= _LONGEST_TITLE:
        found = find_headings(line, [HeadingBlock(Span(0, len(line)), (line,))])
        if found or named_heading(line):
            return line, found[0].number if found else None
    stem = PurePosixPath(part.name).stem
    match = _NUMBER_IN_NAME.search(stem)
    title = part.raw.title if part.raw.title and len(part.raw.title) <= _LONGEST_TITLE else None
    return title or " ".join(_SEPARATORS.split(stem)).strip() or stem, int(match[1]) if match else None
