"""PDF files made by the tests: order, paragraphs, running heads, chapters, places, errors."""

from __future__ import annotations

import pytest

from coa.chunking import chunk_document
from coa.documents import read_document
from coa.documents.formats.pdf import read
from coa.documents.limits import ReadingLimits
from coa.errors import DocumentEmpty, DocumentError, DocumentTooLarge
from coa.testing.pdf_files import Bookmark, Page, Text, pdf_file, prose
from coa.tokens import EstimatedTokens
from coa.types import Document

FILLER = "The tide came in over the flats and the boats turned on their chains while she"
ENDING = "counted the lamps on the far shore."


def document_of(pages: list[Page], **kwargs: object) -> Document:
    return read_document(pdf_file(pages, **kwargs), name="made.pdf")  # type: ignore[arg-type]


def read_text(document: Document) -> str:
    return "".join(document.text[s.start : s.end] for s in document.readable())


def full_page(n: int, *, heads: bool = True, lines: int = 40) -> Page:
    body = [f"{FILLER} {n}.{i:02}" for i in range(lines)]
    furniture = [Text(250, 760, "The Salt Road", 9), Text(300, 30, str(n + 1), 9)] if heads else []
    return Page([*furniture[:1], *prose(body), *furniture[1:]])


def test_lines_of_a_paragraph_are_joined_and_a_space_or_indent_begins_a_new_one() -> None:
    spaced = prose([f"{FILLER} waited,", f"{FILLER} sang, and", ENDING, "", f"{FILLER} left.", ENDING])
    indented = [Text(84, 640, f"{FILLER} came", 10), Text(72, 628, ENDING, 10)]
    document = document_of([Page([*spaced, *indented])])
    assert read_text(document).strip().split("\n\n") == [
        f"{FILLER} waited, {FILLER} sang, and {ENDING}",
        f"{FILLER} left. {ENDING}",
        f"{FILLER} came {ENDING}",
    ]


def column(x: float, words: str, *, n: int = 12) -> list[Text]:
    return prose([f"{words} goes on and on, line {i:02} of it" for i in range(n)], x=x)


@pytest.mark.parametrize("by_rows", [False, True])
def test_two_columns_are_read_one_after_the_other_whatever_the_order_in_the_file(by_rows: bool) -> None:
    left, right = column(72, "The left side"), column(330, "The right side")
    mixed = [t for pair in zip(left, right, strict=True) for t in pair] if by_rows else [*left, *right]
    title = Text(72, 752, "A title that spans both of the columns of this page, from edge to edge of it", 14)
    text = read_text(document_of([Page([title, *mixed])]))
    order = [text.index("A title"), text.index("left side goes on and on, line 00"), text.index("line 11 of it")]
    assert order == sorted(order)
    assert text.index("The left side goes on and on, line 11") < text.index("The right side goes on and on, line 00")


def test_a_table_is_read_by_rows() -> None:
    rows = [
        t
        for i in range(12)
        for t in (Text(72, 700 - 12 * i, f"Item {i}"), Text(330, 700 - 12 * i, f"{i * 7} shillings"))
    ]
    text = " ".join(read_text(document_of([Page(rows)])).split())
    assert "Item 3 21 shillings" in text


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (["the under-", "standing of it"], "understanding"),
        (["a well-", "known man, and well-known again"], "well-known"),
        (["the Half-", "Installed state"], "Half-Installed"),
        (["in 1990-", "1995 it was"], "1990-1995"),
        (["a state-of-the-", "art ship"], "state-of-the-art"),
        (["see https://example.org/doc/", "policy for more"], "https://example.org/doc/policy"),
    ],
)
def test_words_broken_at_line_ends(lines: list[str], joined: str) -> None:
    first, second = lines
    padded = [f"{FILLER} said {first}", second, "", "Understanding is understanding."]
    assert joined in read_text(document_of([Page(prose(padded))]))


def test_ligatures_are_letters() -> None:
    # WinAnsi has none: a font with its own encoding maps codes to them.
    made = pdf_file([Page(prose(["The •ne print was dif•cult."]))])
    made = made.replace(b"/Encoding/WinAnsiEncoding", b"/Encoding<</Differences[149/fi]>>".ljust(25))
    assert "The fine print was difficult." in read_text(read_document(made, name="made.pdf"))


def test_running_heads_and_page_numbers_are_kept_at_the_end_and_not_read() -> None:
    document = document_of([full_page(n) for n in range(6)])
    assert "Salt Road" not in read_text(document)
    causes = {part.cause for part in document.left_out}
    assert causes == {"running_head", "page_number"}
    assert document.text.count("The Salt Road") == 6
    head = document.text.rindex("The Salt Road")
    place = document.place_at(head)
    assert place is not None
    assert place.page == 6


def test_a_paragraph_runs_on_over_the_page_and_its_chunk_with_it() -> None:
    document = document_of([full_page(n) for n in range(6)])
    assert f"{FILLER} 0.39 {FILLER} 1.00" in read_text(document)
    chunks = chunk_document(document, budget=100_000, counter=EstimatedTokens())
    assert len(chunks) == 1
    before, after = document.text.index(" 0.39"), document.text.index(" 1.00")
    pages = [place.page for place in map(document.place_at, (before, after)) if place]
    assert pages == [1, 2]


def test_chapter_numbers_at_the_top_of_pages_are_no_page_numbers() -> None:
    pages = [Page([Text(72, 750, f"Chapter {n + 1}", 18), *full_page(n, heads=False).texts]) for n in range(8)]
    document = document_of(pages)
    assert [s.title for s in document.chapters()] == [f"Chapter {n}" for n in range(1, 9)]
    assert not document.left_out


def test_the_outline_gives_the_chapters() -> None:
    pages = [Page([Text(72, 750, f"{n + 1}  The {what}", 10), *full_page(n, heads=False).texts]) for n, what in
             enumerate(("Harbour", "Road", "Ledger"))]  # fmt: skip
    outline = [
        Bookmark("The Harbour", 0, y=762), Bookmark("On the quay", 0, level=2, y=400), Bookmark("The Road", 1, y=762),
        Bookmark("The Ledger", 2, y=762),
    ]  # fmt: skip
    document = document_of(pages, outline=outline, title="The Salt Road")
    assert document.title == "The Salt Road"
    assert document.chapter_method == "outline"
    titles = [(s.level, s.title.split()[-1]) for s in document.sections]
    assert titles == [(1, "Harbour"), (2, "quay"), (1, "Road"), (1, "Ledger")]
    assert all(document.text[s.span.start :].startswith(f"{n} The") for n, s in enumerate(document.chapters(), 1))


def test_an_outline_that_loops_is_read_once() -> None:
    outline = [Bookmark(f"Part {n}", n, y=740) for n in range(3)]
    document = document_of([full_page(n, heads=False) for n in range(3)], outline=outline, looped=True)
    assert len(document.sections) == 3


def test_large_type_gives_the_chapters_where_there_is_no_outline() -> None:
    pages = [
        Page([Text(72, 750, title, 16), *full_page(n, heads=False).texts])
        for n, title in enumerate(("Arrival", "The long night", "Departure"))
    ]
    document = document_of(pages)
    assert [s.title for s in document.sections] == ["Arrival", "The long night", "Departure"]
    assert document.chapter_method == "headings"


def test_pages_carry_their_labels() -> None:
    document = document_of([full_page(n, heads=False) for n in range(3)], labels="0<</S/r>>1<</S/D>>")
    places = [(p.page, p.page_label) for p in document.places]
    assert places == [(1, "i"), (2, "1"), (3, "2")]


def test_notes_at_the_foot_of_a_page_come_after_the_paragraph_that_runs_on() -> None:
    note = [Text(72, 60, "1 Of salt, see the appendix.", 7), Text(72, 50, "It is long.", 7)]
    first = Page([*full_page(0, heads=False).texts, *note])
    document = document_of([first, full_page(1, heads=False)])
    text = read_text(document)
    assert f"0.39 {FILLER} 1.00" in text
    assert text.rstrip().endswith("1 Of salt, see the appendix. It is long.")


def test_turned_pages_are_read_as_they_are_shown() -> None:
    # Text drawn along the other axis on a page that is turned: lines run up the sheet.
    document = document_of([Page(prose([f"{FILLER} waited,", ENDING]), rotate=180)])
    assert set(read_text(document).split()) == set(f"{FILLER} waited, {ENDING}".split())


def test_code_keeps_its_lines_and_indents() -> None:
    code = [Text(72, 600, "def f():", 10, "Courier"), Text(96, 588, "return 1", 10, "Courier")]
    document = document_of([Page([*prose([f"{FILLER} x" for _ in range(8)]), *code])])
    assert "def f():\n    return 1" in document.text


def test_a_pdf_with_a_password_says_so() -> None:
    with pytest.raises(DocumentError, match=r"made\.pdf is an encrypted PDF.*password"):
        document_of([full_page(0)], password=True)


def test_pictures_without_text_are_told_from_empty_pages() -> None:
    with pytest.raises(DocumentEmpty, match=r"pictures \(2 of 2 pages\) without a text layer.*ocrmypdf"):
        document_of([Page(picture=True), Page(picture=True)])
    with pytest.raises(DocumentEmpty, match="pages hold no text"):
        document_of([Page(), Page()])


def test_some_pages_of_pictures_are_a_warning() -> None:
    document = document_of([full_page(0), Page(picture=True), full_page(2)])
    assert document.warnings == ("1 pages are pictures without text: 2.",)


def test_a_pdf_without_pages_says_so() -> None:
    with pytest.raises(DocumentError, match=r"made\.pdf is a (?:PDF without pages|damaged PDF)"):
        document_of([])


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_cut_off_pdf_is_read_as_far_as_it_goes_with_a_warning_or_refused(share: float) -> None:
    data = pdf_file([full_page(n) for n in range(6)])
    try:
        document = read_document(data[: int(len(data) * share)], name="made.pdf")
    except DocumentError as exc:
        said = str(exc)
    else:
        said = " ".join(document.warnings)
    assert "made.pdf is a damaged PDF" in said or "cut off" in said


def test_more_pages_than_the_limit_are_refused() -> None:
    with pytest.raises(DocumentTooLarge, match="6 pages where at most 5 are read"):
        read(pdf_file([full_page(n) for n in range(6)]), name="made.pdf", limits=ReadingLimits(max_pages=5))


def test_reading_stops_at_the_limit_for_seconds() -> None:
    with pytest.raises(DocumentTooLarge, match="takes more than 1e-09 seconds"):
        read(pdf_file([full_page(0)]), name="made.pdf", limits=ReadingLimits(max_seconds=1e-9))


def test_more_text_than_the_limit_is_refused() -> None:
    with pytest.raises(DocumentTooLarge, match="MB of text"):
        read(pdf_file([full_page(0)]), name="made.pdf", limits=ReadingLimits(max_unpacked_bytes=1000))
