"""Project Gutenberg's header and footer."""

from __future__ import annotations

import pytest

from coa.documents import read_document
from coa.types import Document

STORY = "It was a long day and nobody knew what to do.\n\nThen it rained.\n"


def _read(text: str) -> tuple[Document, str]:
    document = read_document(text.encode())
    return document, "".join(document.text[s.start : s.end] for s in document.readable())


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "*** END OF THIS PROJECT GUTENBERG EBOOK X ***"),
        ("***START OF THE PROJECT GUTENBERG EBOOK X***", "***END OF THE PROJECT GUTENBERG EBOOK X***"),
        ("*** START OF THE PROJECT GUTENBERG EBOOK A LONG\nTITLE ***", "*** END OF THE PROJECT GUTENBERG EBOOK X ***"),
        (
            "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is this here?\n\n"
            "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
            "End of the Project Gutenberg Etext of X",
        ),
        ("*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "Ende dieses Projekt Gutenberg Etextes X"),
    ],
)
def test_header_and_footer_are_left_out_but_kept(start: str, end: str) -> None:
    text = (
        f"The Project Gutenberg EBook of X\n\nTitle: X\nLanguage: German\n\n{start}\n\n\n{STORY}\n\n{end}\n\nLicence.\n"
    )
    document, readable = _read(text)
    assert document.text == text
    assert readable.strip() == STORY.strip()
    assert readable[0] == "I"  # no blank lines in front
    assert {p.cause for p in document.left_out} == {"boilerplate"}
    assert (document.title, document.language) == ("X", "de")


def test_the_sentence_before_the_end_line_belongs_to_the_footer() -> None:
    _, readable = _read(
        "*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n" + STORY + "\n\nEnd of Project Gutenberg's X, by Y\n\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK X ***\n\nLicence."
    )
    assert readable.strip() == STORY.strip()


def test_between_two_books_in_one_file_both_licences_are_left_out() -> None:
    book = "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n{}\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n\nLaw\n"
    document, readable = _read(book.format("First.") + "Title: Y\n" + book.format("Second."))
    assert readable.split() == ["First.", "Second."]
    assert [p.span.start for p in document.left_out] == sorted(p.span.start for p in document.left_out)
    assert len(document.left_out) == 3


def test_a_book_about_the_project_keeps_its_text() -> None:
    text = "She read of Project Gutenberg.\n\nEnd of the Project Gutenberg talk, he said.\n\n" + STORY * 20
    assert read_document(text.encode()).left_out == ()


def test_long_titles_are_put_on_one_line() -> None:
    document, _ = _read(
        "Title: A Tale\n       of Two Halves\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n" + STORY
    )
    assert document.title == "A Tale of Two Halves"
