"""What the EPUB reader makes of books, whole and broken."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from coa.documents.limits import ReadingLimits
from coa.documents.reader import parse_document
from coa.errors import DocumentError, DocumentTooLarge
from coa.types import Document

CONTAINER = '<container><rootfile full-path="OPS/book.opf"/></container>'
PROSE = "The keeper lit the lamp and wrote the hour into the book, as he had done for forty years. " * 12


def page(body: str, head: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml" '
        f'xmlns:epub="http://www.idpf.org/2007/ops"><head><title>t</title>{head}</head><body>{body}</body></html>'
    )


def package(items: dict[str, str], spine: list[str], *, toc: str = "", extra: str = "") -> str:
    manifest = "".join(f'<item id="{i}" href="{href}" {extra_of(href)}/>' for i, href in items.items())
    refs = "".join(f'<itemref idref="{i}"/>' for i in spine)
    return (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>The Lamp</dc:title><dc:language>en</dc:language></metadata><manifest>{manifest}</manifest>"
        f"<spine {toc}>{refs}</spine>{extra}</package>"
    )


def extra_of(href: str) -> str:
    if href.endswith(".ncx"):
        return 'media-type="application/x-dtbncx+xml"'
    nav = ' properties="nav"' if href.startswith("nav") else ""
    return f'media-type="application/xhtml+xml"{nav}'


def book(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def chapters_book(**more: str | bytes) -> dict[str, str | bytes]:
    """Three chapters in two files, the spine not in the order of the names."""
    nav = (
        '<nav epub:type="toc"><ol><li><a href="z.xhtml">One</a></li>'
        '<li><a href="a%20b.xhtml#two">Two</a><ol><li><a href="a%20b.xhtml#in">Inside</a></li></ol></li>'
        '<li><a href="a%20b.xhtml#three">Three</a></li></ol></nav>'
    )
    return {
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": package(
            {"n": "nav.xhtml", "b": "a%20b.xhtml", "z": "z.xhtml", "c": "c.xhtml"}, ["c", "n", "z", "b", "z"]
        ),
        "OPS/nav.xhtml": page(nav),
        "OPS/c.xhtml": page('<img src="cover.jpg" alt="Cover"/>'),
        "OPS/z.xhtml": page(f"<h1>1. One</h1><p>{PROSE}</p>", "<style>p{color:red}</style>"),
        "OPS/a b.xhtml": page(
            f'<section id="two"><h1>2. Two</h1><p>{PROSE}</p><h2 id="in">Inside</h2><p>{PROSE}</p></section>'
            f'<p>end</p><h1><span id="three"/>3. Three</h1><p>{PROSE}</p><aside epub:type="footnote">1 A note.</aside>'
        ),
        **more,
    }


def sections(document: Document) -> list[tuple[str, str, int, int | None]]:
    return [(s.kind, s.title, s.level, s.number) for s in document.sections]


def test_pages_are_read_once_in_the_order_of_the_spine_with_chapters_by_fragment() -> None:
    document = parse_document(book(chapters_book()), name="lamp.epub")
    assert (document.title, document.language, document.media_type) == ("The Lamp", "en", "application/epub+zip")
    assert document.chapter_method == "nav"
    assert sections(document) == [
        ("chapter", "1. One", 1, 1),
        ("chapter", "2. Two", 1, 2),
        ("section", "Inside", 2, None),
        ("chapter", "3. Three", 1, 3),
    ]
    for section in document.sections[1:]:
        assert document.text[section.span.start :].startswith(section.title)
    assert document.text.count("forty years") == 12 * 4
    assert "color" not in document.text


def test_the_navigation_page_in_the_spine_is_kept_and_not_read() -> None:
    document = parse_document(book(chapters_book()), name="lamp.epub")
    parts = [(p.cause, p.detail) for p in document.left_out]
    assert parts == [("markup", "1 picture"), ("markup", "table of contents")]
    readable = "".join(document.text[s.start : s.end] for s in document.readable())
    assert readable.startswith("1. One")


def test_places_say_item_and_fragment() -> None:
    document = parse_document(book(chapters_book()), name="lamp.epub")
    place = document.place_at(document.text.rindex("Inside") + 20)
    assert place is not None
    assert (place.item, place.fragment) == ("OPS/a b.xhtml", "in")
    note = document.text.index("A note")
    assert document.text[note - 2 : note] == "1 "
    assert [p.span.start for p in document.places] == sorted({p.span.start for p in document.places})


NCX = (
    '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>Part I</text></navLabel>'
    '<content src="z.xhtml"/><navPoint><navLabel><text>Chapter 1</text></navLabel><content src="z.xhtml#one"/>'
    "</navPoint></navPoint><navPoint><navLabel><text>Part II</text></navLabel><content src='y.xhtml'/>"
    '<navPoint><navLabel><text>Chapter 2</text></navLabel><content src="y.xhtml#two"/>'
    "</navPoint></navPoint></navMap></ncx>"
)


def ncx_book(ncx: str = NCX) -> dict[str, str | bytes]:
    return {
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": package({"t": "toc.ncx", "z": "z.xhtml", "y": "y.xhtml"}, ["z", "y"], toc='toc="t"'),
        "OPS/toc.ncx": ncx,
        "OPS/z.xhtml": page(f"<p>Part I</p><p id='one'>Chapter 1</p><p>{PROSE}</p>"),
        "OPS/y.xhtml": page(f"<p>Part II</p><p id='two'>Chapter 2</p><p>{PROSE}</p>"),
    }


def test_epub_2_has_its_chapters_from_the_ncx_under_their_parts() -> None:
    document = parse_document(book(ncx_book()), name="x.epub")
    assert document.chapter_method == "ncx"
    assert sections(document) == [
        ("part", "Part I", 1, 1),
        ("chapter", "Chapter 1", 2, 1),
        ("part", "Part II", 1, 2),
        ("chapter", "Chapter 2", 2, 2),
    ]


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"META-INF/container.xml": "<oops"}, None),
        ({"OPS/book.opf": "<package><manifest><item id='"}, "in which order"),
        ({"OPS/book.opf": "", "META-INF/container.xml": ""}, "in which order"),
        ({"OPS/toc.ncx": "<ncx><navMap><navPoint>"}, None),
        ({"OPS/z.xhtml": page(f"<p>Part I &nbsp;&hellip; <b>unclosed</p><p>Chapter 1</p><p>{PROSE}</p>")}, None),
    ],
)
def test_a_broken_book_is_read_where_its_pages_can_be(change: dict[str, str | bytes], warning: str | None) -> None:
    document = parse_document(book({**ncx_book(), **change}), name="x.epub")
    assert "Part I" in document.text
    assert document.text.count("forty years") == 24
    assert any(warning in w for w in document.warnings) if warning else not document.warnings


def test_lone_surrogates_in_a_damaged_table_of_contents_do_no_harm() -> None:
    document = parse_document(book(ncx_book(NCX.replace("Part I<", "Part &#xD800;I<") + "<oops")), name="x.epub")
    assert "Part I" in document.text


def test_a_page_that_is_missing_is_told() -> None:
    files = ncx_book()
    del files["OPS/y.xhtml"]
    document = parse_document(book(files), name="x.epub")
    assert any("1 page that it lists: OPS/y.xhtml" in w for w in document.warnings)


def test_pages_outside_of_the_reading_order_are_told() -> None:
    files = ncx_book()
    files["OPS/book.opf"] = package({"t": "toc.ncx", "z": "z.xhtml", "y": "y.xhtml"}, ["z"], toc='toc="t"')
    document = parse_document(book(files), name="x.epub")
    assert "Part II" not in document.text
    assert [p.detail for p in document.left_out] == ["1 page outside of the reading order: OPS/y.xhtml"]


def _encryption(*names: str, method: str = "http://www.w3.org/2001/04/xmlenc#aes128-cbc") -> str:
    data = "".join(
        f'<EncryptedData><EncryptionMethod Algorithm="{method}"/><CipherData><CipherReference URI="{n}"/></CipherData>'
        "</EncryptedData>"
        for n in names
    )
    return f'<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container">{data}</encryption>'


def test_a_locked_book_says_by_what() -> None:
    files = ncx_book()
    files["META-INF/encryption.xml"] = _encryption("OPS/z.xhtml", "OPS/y.xhtml")
    files["META-INF/rights.xml"] = "<rights/>"
    with pytest.raises(DocumentError, match="locked by Adobe DRM"):
        parse_document(book(files), name="x.epub")


def test_a_locked_page_is_told_and_garbled_fonts_are_none() -> None:
    files = ncx_book()
    files["META-INF/encryption.xml"] = _encryption("OPS/y.xhtml")
    document = parse_document(book(files), name="x.epub")
    assert any("1 page, locked: OPS/y.xhtml" in w for w in document.warnings)
    files["META-INF/encryption.xml"] = _encryption("OPS/y.xhtml", method="http://www.idpf.org/2008/embedding")
    assert parse_document(book(files), name="x.epub").warnings == ()


def test_entities_of_a_page_are_neither_expanded_nor_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret words")
    bomb = (
        '<!DOCTYPE html [<!ENTITY a "'
        + "ha" * 50
        + f'"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY f SYSTEM "{secret.as_uri()}">]>'
    )
    body = f"<html><body><p>Part I</p><p title='&b;'>&b;&f;</p><p>{PROSE}</p></body></html>"
    document = parse_document(book({**ncx_book(), "OPS/z.xhtml": bomb + body}), name="x.epub")
    assert "hahaha" not in document.text
    assert "secret" not in document.text


def test_a_bomb_is_refused_while_it_unpacks() -> None:
    files = {**ncx_book(), "OPS/z.xhtml": "<html><body><p>" + "a " * 20_000_000}
    with pytest.raises(DocumentTooLarge, match="times its size"):
        parse_document(book(files), name="bomb.epub")
    limits = ReadingLimits(max_unpacked_bytes=5000)
    with pytest.raises(DocumentTooLarge, match="unpacks to over"):
        parse_document(book(chapters_book()), name="big.epub", limits=limits)
    with pytest.raises(DocumentTooLarge, match="entries"):
        parse_document(book(chapters_book()), name="many.epub", limits=ReadingLimits(max_archive_entries=3))


@pytest.mark.parametrize("size", [100, 400, -30])
def test_a_truncated_book_says_that_it_is_damaged(size: int) -> None:
    with pytest.raises(DocumentError, match="damaged"):
        parse_document(book(chapters_book())[:size], name="cut.epub")


def test_a_damaged_page_is_told_and_the_others_are_read() -> None:
    data = bytearray(book(ncx_book()))
    at = data.index(b"OPS/z.xhtml") + len("OPS/z.xhtml") + 4
    data[at : at + 8] = b"\xff" * 8
    document = parse_document(bytes(data), name="x.epub")
    assert "Part II" in document.text
    assert any("1 page, damaged: OPS/z.xhtml" in w for w in document.warnings)
