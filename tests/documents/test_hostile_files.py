"""Files that mean harm or are broken: each gives a clear error or the right text, within seconds and bounded memory."""

from __future__ import annotations

import gzip
import io
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from coa.documents.isolation import end_workers, read_document_isolated
from coa.documents.limits import ReadingLimits
from coa.errors import DocumentError
from coa.testing.pdf_files import Bookmark, Page, pdf_file, prose

LIMITS = ReadingLimits(
    max_bytes=20_000_000,
    max_archive_entries=500,
    max_unpacked_bytes=60_000_000,
    max_pages=1000,
    max_seconds=20,
    max_memory_bytes=900_000_000,
)
SECRET = "root:x:0:0"
TEXT = "It rained on the harbour, and nobody minded. "
PAGE = Page(prose([TEXT.strip()] * 5))


class Hostile(NamedTuple):
    """A file and what has to come of it."""

    name: str
    make: Callable[[], bytes]
    error: str | None = None
    """A pattern in the error's message; None where the file is read."""
    text: str | None = None
    """What the text that is read has to hold."""


def zipped(entries: Sequence[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data, zipfile.ZIP_STORED if name == "mimetype" else None)
    return made.getvalue()


CONTAINER = (
    b'<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
    b'<@s><@ full-path="%s" media-type="application/oebps-package+xml"/></@s></container>'
).replace(b"@", b"rootfile")


def epub(page: bytes, *, href: str = "a.xhtml", spine: str = '<itemref idref="a"/>', root: bytes = b"p.opf") -> bytes:
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/><manifest>'
        f'<item id="a" href="{href}" media-type="application/xhtml+xml"/></manifest><spine>{spine}</spine></package>'
    )
    return zipped(
        [
            ("mimetype", b"application/epub+zip"),
            ("META-INF/container.xml", CONTAINER % root),
            ("p.opf", package.encode()),
            ("a.xhtml", page),
        ]
    )


def xhtml(body: str, doctype: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>{doctype}<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{TEXT}</p>{body}</body></html>'
    ).encode()


LAUGHS = (
    '<!DOCTYPE html [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "]>"
)
OUTSIDE = f'<!DOCTYPE html [<!ENTITY x SYSTEM "{Path("/etc/passwd").as_uri()}">]>'


def docx(document: bytes | None) -> bytes:
    kinds = (
        b'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        b'<Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType='
        b'"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
    )
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r" Type="{office}" Target="word/document.xml"/></Relationships>'
    ).encode()
    parts = [("[Content_Types].xml", kinds), ("_rels/.rels", relations), ("word/styles.xml", b"<styles/>")]
    return zipped([*parts, ("word/document.xml" if document else "word/documents.xml", document or b"<x/>")])


def word(body: str, doctype: str = "") -> bytes:
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    paragraph = f"<w:p><w:r><w:t>{TEXT}</w:t></w:r></w:p>"
    inside = f"<w:body>{paragraph}{body}</w:body>"
    return f'<?xml version="1.0"?>{doctype}<w:document xmlns:w="{space}">{inside}</w:document>'.encode()


def nested_zip(depth: int) -> bytes:
    data = zipped([("a.txt", TEXT.encode())])
    for n in range(depth):
        data = zipped([(f"{n}.zip", data)])
    return data


def pdf_with(objects: Sequence[bytes]) -> bytes:
    """A PDF of these objects, the first one its catalog; without a table, so that the reader has to look for them."""
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (n, data) for n, data in enumerate(objects, 1))
    return b"%PDF-1.7\n" + body + b"trailer<</Root 1 0 R/Size %d>>\n%%%%EOF\n" % (len(objects) + 1)


CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
FONT = b"<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>"


def pdf_bomb() -> bytes:
    packer = zlib.compressobj(1)
    block = b" " * 1_000_000
    packed = b"".join(packer.compress(block) for _ in range(1500)) + packer.flush()
    stream = b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(packed), packed)
    return pdf_with(
        [CATALOG, b"<</Type/Pages/Count 1/Kids[3 0 R]>>", b"<</Type/Page/Parent 2 0 R/Contents 4 0 R>>", stream]
    )


def pdf_form_loop() -> bytes:
    resources = b"/Resources<</XObject<</X 4 0 R>>>>"
    form = b"<</Subtype/Form/BBox[0 0 612 792]" + resources + b"/Length 6>>stream\n/X Do \nendstream"
    page = (
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 5 0 R/Resources" + FONT + b"/XObject<</X 4 0 R>>>>>>"
    )
    text = b"BT /F 12 Tf 72 700 Td (It rained.) Tj ET /X Do"
    content = b"<</Length %d>>stream\n%s\nendstream" % (len(text), text)
    return pdf_with([CATALOG, b"<</Type/Pages/Count 1/Kids[3 0 R]>>", page, form, content])


def pdf_deep_tree(depth: int) -> bytes:
    trees = [b"<</Type/Pages/Count 1/Kids[%d 0 R]>>" % (n + 3) for n in range(depth)]
    return pdf_with([CATALOG, *trees, b"<</Type/Page/MediaBox[0 0 9 9]>>"])


HOSTILE = [
    Hostile("encrypted.pdf", lambda: pdf_file([PAGE], password=True), "encrypted PDF.*password"),
    Hostile("truncated.pdf", lambda: pdf_file([PAGE] * 9)[:700], "damaged PDF|no text"),
    Hostile("empty-pages.pdf", lambda: pdf_file([Page()] * 3), "pages hold no text"),
    Hostile("no-pages.pdf", lambda: pdf_file([]), "without pages|damaged PDF"),
    Hostile("pictures.pdf", lambda: pdf_file([Page(picture=True)]), "without a text layer"),
    Hostile("outline-loop.pdf", lambda: pdf_file([PAGE], outline=[Bookmark("A", 0)] * 3, looped=True), text="rained"),
    Hostile("page-tree-loop.pdf", lambda: pdf_with([CATALOG, b"<</Type/Pages/Count 9/Kids[2 0 R 2 0 R]>>"]), "PDF"),
    Hostile("page-tree-deep.pdf", lambda: pdf_deep_tree(20_000), "PDF"),
    Hostile("page-count-lies.pdf", lambda: pdf_with([CATALOG, b"<</Type/Pages/Count 99999999/Kids[]>>"]), "PDF|pages"),
    Hostile("stream-bomb.pdf", pdf_bomb, "more than 900 MB of memory|no text"),
    Hostile("form-loop.pdf", pdf_form_loop, text="It rained."),
    Hostile("arrays-deep.pdf", lambda: pdf_with([b"[" * 200_000]), "damaged PDF"),
    Hostile("garbage.pdf", lambda: b"%PDF-1.4\n" + bytes(range(256)) * 50, "damaged PDF"),
    Hostile("bomb.zip", lambda: zipped([("a.txt", b" " * 50_000_000)]), "times|ratio|unpack"),
    Hostile("many.zip", lambda: zipped([(f"{n}.txt", b"x") for n in range(600)]), "600|entries"),
    Hostile("traversal.zip", lambda: zipped([("../../etc/a.txt", TEXT.encode())]), "no file of text"),
    Hostile("absolute.zip", lambda: zipped([("/etc/a.txt", TEXT.encode())]), text="rained"),
    Hostile("nested.zip", lambda: nested_zip(150), "(?i)no file of text|deep|nested|archive"),
    Hostile("truncated.zip", lambda: zipped([("a.txt", TEXT.encode() * 99)])[:60], "(?i)damaged|cut|zip"),
    Hostile("no-container.epub", lambda: zipped([("mimetype", b"application/epub+zip")]), "(?i)epub|container"),
    Hostile("root-outside.epub", lambda: epub(xhtml(""), root=b"../../../../etc/passwd"), text="rained"),
    Hostile("item-outside.epub", lambda: epub(xhtml(""), href="../../../../etc/passwd"), text="rained"),
    Hostile("spine-repeats.epub", lambda: epub(xhtml(""), spine='<itemref idref="a"/>' * 5000), text="rained"),
    Hostile("laughs.epub", lambda: epub(xhtml("<p>&j;</p>", LAUGHS)), text="rained"),
    Hostile("outside-entity.epub", lambda: epub(xhtml("<p>&x;</p>", OUTSIDE)), text="rained"),
    Hostile("deep.epub", lambda: epub(xhtml("<div>" * 100_000 + "</div>" * 100_000)), "200 times its size"),
    Hostile("laughs.docx", lambda: docx(word("<w:p><w:r><w:t>&j;</w:t></w:r></w:p>", LAUGHS)), "(?i)entit|damaged"),
    Hostile("outside-entity.docx", lambda: docx(word("<w:p><w:r><w:t>&x;</w:t></w:r></w:p>", OUTSIDE)), text="rained"),
    Hostile("no-document.docx", lambda: docx(None), "(?i)word|docx|zip|text"),
    Hostile("deep.docx", lambda: docx(word("<w:tbl><w:tr><w:tc>" * 5000)), "(?i)deep|depth|damaged|nest"),
    Hostile("deep.html", f"<html><p>{TEXT}{'<div>' * 100_000}".encode, "nested too deeply"),
    Hostile("nul.html", f"<html><body><p>{TEXT * 20}\0</body></html>\0".encode, text="rained"),
    Hostile("declares.html", lambda: "<html><meta charset=utf-8><p>Schöner Tag".encode("latin-1"), text="Schöner"),
    Hostile("pdf-as.txt", lambda: pdf_file([PAGE]), text="rained"),
    Hostile("text-as.pdf", lambda: TEXT.encode() * 20, text="rained"),
    Hostile("epub-as.docx", lambda: epub(xhtml("")), text="rained"),
    Hostile("empty.epub", lambda: b"", "is empty"),
    Hostile("blank.txt", lambda: b" \n\t\r\n" * 1000, "nothing but white space"),
    Hostile("mark-only.txt", lambda: b"\xef\xbb\xbf", "white space|empty"),
    Hostile("nul.txt", lambda: (TEXT * 20).encode().replace(b"rained", b"rai\0ned", 1), text="rained"),
    Hostile("all-nul.txt", lambda: bytes(5000), "(?i)control|binary|white space|no text|utf-16"),
    Hostile("surrogates.txt", lambda: ("Käthe ging. " * 90).encode() + b"\xed\xa0\x80", text="\ufffd"),
    Hostile("mixed.txt", lambda: ("Käthe ging. " * 90).encode() + "für".encode("latin-1"), text="Käthe"),
    Hostile("odd-utf16.txt", lambda: TEXT.encode("utf-16-le") * 9 + b"x", "(?i)control|binary|encoding"),
    Hostile("one-word.txt", lambda: b"x" * 5_000_000, text="xxxx"),
    Hostile("quotes.txt", lambda: '"«“('.encode() * 300_000, text="«"),
    Hostile("gzip.txt", lambda: gzip.compress(TEXT.encode() * 99), "gzip archive"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _no_workers_left() -> Iterator[None]:
    yield
    end_workers()


@pytest.mark.parametrize(
    "hostile", [pytest.param(h, id=h.name, marks=[pytest.mark.slow] if "bomb.pdf" in h.name else []) for h in HOSTILE]
)
def test_a_hostile_file_gives_a_clear_error_or_the_right_text(hostile: Hostile) -> None:
    data = hostile.make()
    began = time.monotonic()
    try:
        document = read_document_isolated(data, name=hostile.name, limits=LIMITS)
    except DocumentError as exc:
        said, text = str(exc), ""
    else:
        said, text = "", document.text
    assert time.monotonic() - began < LIMITS.max_seconds + 10
    assert SECRET not in said + text
    assert len(text) < 10_000_000
    if hostile.error is None:
        assert hostile.text is not None
        assert hostile.text in text, said
    else:
        assert re.search(hostile.error, said), said or text[:200]
        assert hostile.name in said
        assert "reader failed" not in said
        assert "reader crash" not in said


def test_there_are_thirty_of_them() -> None:
    assert len({h.name for h in HOSTILE}) == len(HOSTILE) >= 30
