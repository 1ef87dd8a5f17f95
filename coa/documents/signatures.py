"""What kind of file bytes are, by their content."""

from __future__ import annotations

import re

__all__ = ["kind_of", "looks_like_html", "not_text"]

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF"),
    (b"%!PS", "a PostScript file"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (DOC, XLS, PPT)"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF87a", "a GIF picture"),
    (b"GIF89a", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ\x90\x00", "a program (Windows)"),
    (b"\xcf\xfa\xed\xfe", "a program (Mach-O)"),
    (b"\xca\xfe\xba\xbe", "a program (Java or Mach-O)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"AT&TFORM", "a DjVu document"),
)
# Signatures of letters alone could begin a text: these need the bytes that follow, too.
_PATTERNS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"BZh[1-9]1AY&SY"), "a bzip2 archive"),
    (re.compile(rb"GGUF[\x01-\x0f]\x00"), "a GGUF model"),
    (re.compile(rb"ID3[\x00-\x08]"), "an MP3 file"),
    (re.compile(rb"OggS\x00"), "an Ogg file"),
    (re.compile(rb"RIFF.{4}(?:WAVE|AVI |WEBP)", re.DOTALL), "a RIFF file (WAV, AVI, WebP)"),
    (re.compile(rb"wOF[F2]\x00\x01"), "a font"),
    (re.compile(rb".{4}ftyp[\w ]{4}\x00", re.DOTALL), "an MP4 or HEIF file"),
    (re.compile(rb".{257}ustar[\x00 ]", re.DOTALL), "a tar archive"),
    (re.compile(rb".{60}BOOKMOBI", re.DOTALL), "a Mobipocket (Kindle) book"),
)

_BEFORE = r"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.{0,4000}?-->\s*|<\?[\w-]+[^>]{0,400}\?>\s*)*"
_HTML = re.compile(_BEFORE + r"<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
# A page without its frame. Markdown files may begin so, too, and hold other marks besides.
_FRAGMENT = re.compile(
    _BEFORE
    + r"<(title|meta|link|style|div|p|h[1-6]|table|article|section|main|center|blockquote|ul|ol|dl|pre)\b[^<>]*>",
    re.I | re.S,
)
_MARKDOWN = re.compile(r"^ {0,3}(?:#{1,6} \S|`{3}|~{3}|[-*+] \S)|\]\(\S", re.M)
_LOCKED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_LATE_PDF = re.compile(rb"[^%]{0,1024}?%PDF-\d", re.S)
_FICTION_BOOK = re.compile(r"\s*<\?xml[^>]*>\s*(?:<!--.{0,4000}?-->\s*)*<FictionBook\b", re.I | re.S)


def kind_of(data: bytes) -> str | None:
    """The key in `coa.documents.formats.FORMATS` of what `data` is by its content; None for text and all others."""
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return {"an EPUB book": "epub", "a Word document (DOCX)": "docx", "a ZIP archive": "zip"}.get(_zip_kind(data))
    if data.startswith(b"%PDF-") or (b"%%EOF" in data[-2048:] and _LATE_PDF.match(data)):
        return "pdf"
    if not_text(data):
        return None
    return "html" if looks_like_html(_beginning(data)) == "an HTML page" else None


def not_text(data: bytes) -> str | None:
    """What `data` is, with its article, where its first bytes say that it is no plain text; else None."""
    if data.startswith(b"PK\x03\x04"):
        return _zip_kind(data)
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            locked = kind.startswith("an old Office") and _LOCKED_OFFICE in data
            return "an Office document that is locked with a password" if locked else kind
    return next((kind for pattern, kind in _PATTERNS if pattern.match(data)), None)


def looks_like_html(text: str) -> str | None:
    """ "an HTML page" or "a FictionBook" where `text` begins as one; else None."""
    head = text[:8000].lstrip("\ufeff")
    if _HTML.match(head):
        return "an HTML page"
    if match := _FRAGMENT.match(head):
        closed = f"</{match[1].lower()}" in text.lower() or match[1].lower() in ("meta", "link", "p")
        if closed and not _MARKDOWN.search(text[:100_000]):
            return "an HTML page"
    return "a FictionBook" if _FICTION_BOOK.match(head) else None


def _beginning(data: bytes) -> str:
    """The first 100,000 bytes as text in which the marks of HTML can be told, whatever its encoding is."""
    head = data[:100_000]
    for bom, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(bom):
            return head[2:].decode(encoding, errors="replace")
    if head[1:8:2] == b"\x00" * len(head[1:8:2]):
        return head.decode("utf-16-le", errors="replace")
    return head.removeprefix(b"\xef\xbb\xbf").decode("latin-1")


def _zip_kind(data: bytes) -> str:
    head = data[:4096]
    if b"mimetypeapplication/epub+zip" in head:
        return "an EPUB book"
    # Part names stand in the local headers at the front and again in the directory at the end.
    names = head + data[-65_536:]
    for part, kind in (
        (b"word/document", "a Word document (DOCX)"),
        (b"xl/workbook", "a spreadsheet (XLSX)"),
        (b"ppt/presentation", "a presentation (PPTX)"),
        (b"opendocument.text", "an OpenDocument text (ODT)"),
        (b"META-INF/container.xml", "an EPUB book"),
    ):
        if part in names:
            return kind
    return "a ZIP archive"
