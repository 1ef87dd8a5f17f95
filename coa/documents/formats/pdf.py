"""PDF files, by PDFium: text in reading order with its pages, chapters by the outline or by the type's size."""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium_c

from coa.documents.formats.pdf_columns import read_columns
from coa.documents.formats.pdf_furniture import Furniture, take_furniture
from coa.documents.formats.pdf_headings import mark_headings
from coa.documents.formats.pdf_hyphens import Joiner
from coa.documents.formats.pdf_outline import Bookmark, bookmarks, mark_lines, spelled_number
from coa.documents.formats.pdf_paragraphs import measure, paragraphs, to_block
from coa.documents.formats.pdf_text import Frame, Line, page_words, unmapped_share
from coa.documents.formats.raw import Block, OutlineEntry, PlaceRef, RawText
from coa.documents.limits import ReadingLimits
from coa.errors import DocumentEmpty, DocumentError, DocumentTooLarge

__all__ = ["MEDIA_TYPE", "read"]

MEDIA_TYPE = "application/pdf"

# PDFium is not made for threads: one document at a time in a process.
_PDFIUM = threading.Lock()
_TITLE_OF_A_FILE = re.compile(
    r"(?i)^(?:microsoft (?:word|powerpoint) - .*|untitled.*|.*\.(?:docx?|pdf|tex|dvi|indd|rtf))$"
)
_UNMAPPED_RATIO = 0.1
_END_MARK_WITHIN = 2048


class _Pages(NamedTuple):
    """What the pages of a file gave."""

    lines: list[list[Line]]
    labels: list[str | None]
    damaged: list[int]
    """Counted from 1."""
    pictures: list[int]
    """Pages with pictures and no text."""


def read(data: bytes, *, name: str, limits: ReadingLimits) -> RawText:
    """The text of a PDF.

    Columns are read one after the other; words broken at line ends are joined; paragraphs run on over pages.
    Running heads and page numbers come last, each with its page. Footnotes come behind the paragraph that is
    open where they stand.

    Raises DocumentError where the file is damaged or needs a password, DocumentEmpty where it has no pages or
    only pictures of pages, DocumentTooLarge over a limit.
    """
    deadline = time.monotonic() + limits.max_seconds
    with _PDFIUM, _opened(data, name) as document:
        n_pages = len(document)
        if n_pages == 0:
            raise DocumentEmpty(f"{name} is a PDF without pages.", hint="Give a file that holds text.")
        if n_pages > limits.max_pages:
            raise DocumentTooLarge(
                f"{name} has {n_pages:,} pages where at most {limits.max_pages:,} are read.",
                hint="Split it, or raise the limit for pages.",
            )
        pages = _read_pages(document, name, limits, deadline)
        if not any(pages.lines):
            raise _without_text(pages, n_pages, name)
        entries = bookmarks(document, max_depth=limits.max_depth)
        title = _title(document)
    return _raw_text(pages, entries, title, _warnings(pages, data))


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[pypdfium2.PdfDocument]:
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as exc:
        raise _not_opened(exc, name, encrypted=b"/Encrypt" in data) from exc
    try:
        yield document
    except pypdfium2.PdfiumError as exc:
        raise DocumentError(f"{name} is a damaged PDF: {exc}.", hint="Save it anew from where it came.") from exc
    finally:
        document.close()


def _not_opened(exc: pypdfium2.PdfiumError, name: str, *, encrypted: bool) -> DocumentError:
    # PDFium may report the error of the file before.
    code = getattr(exc, "err_code", None)
    if encrypted and code == pdfium_c.FPDF_ERR_PASSWORD:
        return DocumentError(
            f"{name} is an encrypted PDF: it opens with a password only.",
            hint="Save a copy without the password, for example with qpdf --decrypt.",
        )
    if encrypted and code == pdfium_c.FPDF_ERR_SECURITY:
        return DocumentError(
            f"{name} is an encrypted PDF of a kind that cannot be opened.", hint="Save a copy without protection."
        )
    return DocumentError(
        f"{name} is a damaged PDF, or only the beginning of one.", hint="Fetch or save it again from where it came."
    )


def _without_text(pages: _Pages, n_pages: int, name: str) -> DocumentError:
    if len(pages.damaged) == n_pages:
        return DocumentError(f"{name} is a PDF whose pages are all damaged.", hint="Fetch or save it again.")
    if pages.pictures:
        return DocumentEmpty(
            f"{name} is a PDF of pictures ({len(pages.pictures):,} of {n_pages:,} pages) without a text layer.",
            hint="Recognise its text first, for example with ocrmypdf.",
        )
    return DocumentEmpty(f"{name} is a PDF whose pages hold no text.", hint="Give a file that holds text.")


def _read_pages(document: pypdfium2.PdfDocument, name: str, limits: ReadingLimits, deadline: float) -> _Pages:
    pages = _Pages([], [], [], [])
    n_characters = 0
    for index in range(len(document)):
        if time.monotonic() > deadline:
            raise DocumentTooLarge(
                f"{name} takes more than {limits.max_seconds:g} seconds to read; {index:,} pages were read in that.",
                hint="Split it, or raise the limit for seconds.",
            )
        lines: list[Line] = []
        try:
            lines, has_pictures = _read_page(document, index)
        except pypdfium2.PdfiumError:
            pages.damaged.append(index + 1)
        else:
            if has_pictures:
                pages.pictures.append(index + 1)
        n_characters += sum(len(line.text) for line in lines)
        if n_characters > limits.max_unpacked_bytes:
            raise DocumentTooLarge(
                f"{name} holds more than {limits.max_unpacked_bytes / 1e6:,.1f} MB of text.",
                hint="Split it, or raise the limit for unpacked bytes.",
            )
        pages.lines.append(lines)
        pages.labels.append(_label(document, index))
    return pages


def _read_page(document: pypdfium2.PdfDocument, index: int) -> tuple[list[Line], bool]:
    """The lines of a page, and whether it holds pictures and no text."""
    page = document[index]
    try:
        width, height = page.get_size()
        text_page = page.get_textpage()
        try:
            words = page_words(text_page.raw, Frame(width, height, page.get_rotation()))
        finally:
            text_page.close()
        return read_columns(words, index), not words and _has_pictures(page)
    finally:
        page.close()


def _has_pictures(page: pypdfium2.PdfPage) -> bool:
    n_objects = min(pdfium_c.FPDFPage_CountObjects(page.raw), 10_000)
    kinds = (pdfium_c.FPDFPageObj_GetType(pdfium_c.FPDFPage_GetObject(page.raw, i)) for i in range(n_objects))
    return any(kind in (pdfium_c.FPDF_PAGEOBJ_IMAGE, pdfium_c.FPDF_PAGEOBJ_FORM) for kind in kinds)


def _label(document: pypdfium2.PdfDocument, index: int) -> str | None:
    length = pdfium_c.FPDF_GetPageLabel(document.raw, index, None, 0)
    if not 2 < length <= 200:
        return None
    buffer = ctypes.create_string_buffer(length)
    pdfium_c.FPDF_GetPageLabel(document.raw, index, buffer, length)
    return buffer.raw[: length - 2].decode("utf-16-le", errors="replace").strip() or None


def _title(document: pypdfium2.PdfDocument) -> str | None:
    title = " ".join(document.get_metadata_value("Title").replace("\x00", "").split())
    return title if title and len(title) < 300 and not _TITLE_OF_A_FILE.match(title) else None


def _warnings(pages: _Pages, data: bytes) -> list[str]:
    found = []
    if b"%%EOF" not in data[-_END_MARK_WITHIN:]:
        found.append("The file has no end mark: it may have been cut off, and pages may be missing.")
    if pages.damaged:
        found.append(f"{len(pages.damaged)} damaged pages could not be read: {_listed(pages.damaged)}.")
    if pages.pictures:
        found.append(f"{len(pages.pictures)} pages are pictures without text: {_listed(pages.pictures)}.")
    share = unmapped_share(line.text for lines in pages.lines for line in lines)
    if share > _UNMAPPED_RATIO:
        found.append(f"{share:.0%} of the characters have no Unicode value: the text may be unreadable.")
    return found


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:10])
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"


def _raw_text(pages: _Pages, entries: list[Bookmark], title: str | None, warnings: list[str]) -> RawText:
    lines, furniture = take_furniture(pages.lines, pages.labels)
    measures = measure(lines)
    if entries:
        mark_lines(lines, entries)
    else:
        mark_headings(lines, measures)
    joiner = Joiner(line.text for page in lines for line in page)

    def place_of(page: int) -> PlaceRef:
        label = pages.labels[page]
        return PlaceRef(page=page + 1, page_label=label if label != str(page + 1) else None)

    blocks: list[Block] = []
    outline: list[OutlineEntry] = []
    for paragraph in paragraphs(lines, measures):
        block = to_block(paragraph, joiner, place_of)
        entry = paragraph.lines[0].entry
        if entry is not None:
            number = spelled_number(block.text)
            outline.append(OutlineEntry(entries[entry].title, entries[entry].level, len(blocks), number))
        blocks.append(block)
    blocks += _furniture_blocks(furniture, place_of)
    return RawText(
        blocks=tuple(blocks),
        media_type=MEDIA_TYPE,
        title=title,
        outline=tuple(outline),
        method="outline" if outline else "",
        warnings=tuple(warnings),
    )


def _furniture_blocks(furniture: Sequence[Furniture], place_of: Callable[[int], PlaceRef]) -> list[Block]:
    """Running heads, then page numbers, each kind on lines of its own: two stretches that are left out."""
    blocks: list[Block] = []
    for kind in ("running_head", "page_number"):
        own = [piece for piece in furniture if piece.kind == kind]
        for i, piece in enumerate(own):
            blocks.append(Block(piece.line.text, piece.kind, place=place_of(piece.line.page), tight=i > 0))
    return blocks
