"""Chapters, language and boilerplate of whole books, counted by eye."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coa.documents import read_document
from coa.types import Section

ROOT = Path(__file__).resolve().parents[2]
BOOKS = Path(os.environ.get("COA_TEST_DATA", ROOT.parent / "shared" / "data")) / "books" / "docs"

EXPECTED = {
    "en-alice.txt": ("en", "utf-8", 12, "CHAPTER I. Down the Rabbit-Hole", "CHAPTER XII. Alice’s Evidence"),
    "en-pride-and-prejudice.txt": ("en", "utf-8", 61, "Chapter 1", "Chapter 61"),
    "de-die-verwandlung-latin1.txt": ("de", "iso8859-1", 3, "I.", "III."),
    "es-marianela-latin1.txt": ("es", "iso8859-1", 22, "I. Perdido", "XXII. Adiós"),
    "fr-tour-du-monde-latin1.txt": (
        "fr",
        "iso8859-1",
        37,
        "I. DANS LEQUEL PHILEAS FOGG ET PASSEPARTOUT S'ACCEPTENT RÉCIPROQUEMENT L'UN COMME MAÎTRE, L'AUTRE COMME"
        " DOMESTIQUE",
        "XXXVII. DANS LEQUEL IL EST PROUVÉ QUE PHILEAS FOGG N'A RIEN GAGNÉ À FAIRE CE TOUR DU MONDE, SI CE N'EST LE"
        " BONHEUR",
    ),
    "zh-xiyouji.txt": ("zh", "utf-8", 100, "第1章 灵根育孕源流出 心性修持大道生", "第100章 径回东土 五圣成真"),
}


@pytest.mark.data
@pytest.mark.parametrize("name", EXPECTED)
def test_chapters_of(name: str) -> None:
    path = BOOKS / name
    if not path.exists():
        pytest.skip(f"no {name} in COA_TEST_DATA")
    language, encoding, n_chapters, first, last = EXPECTED[name]
    document = read_document(path)
    chapters = [s for s in document.sections if s.kind == "chapter"]
    assert (document.language, document.encoding) == (language, encoding)
    assert [c.number for c in chapters] == list(range(1, n_chapters + 1))
    assert (chapters[0].title, chapters[-1].title) == (first, last)
    assert document.warnings == ()
    readable = "".join(document.text[s.start : s.end] for s in document.readable())
    assert "gutenberg" not in readable.lower()
    assert len(document.left_out) == (0 if name.startswith("zh") else 2)
    _assert_cover(document.sections, document.readable()[0].start, document.readable()[-1].end)


def test_chapters_of_the_example_novel() -> None:
    document = read_document(ROOT / "examples" / "novel" / "the-salt-ledger.txt")
    chapters = [s for s in document.sections if s.kind == "chapter"]
    assert [c.number for c in chapters] == list(range(1, 16))
    assert all(c.title.startswith("CHAPTER ") and ". " in c.title for c in chapters)
    assert document.title == "THE SALT LEDGER"
    assert document.language == "en"


def _assert_cover(sections: tuple[Section, ...], start: int, end: int) -> None:
    outermost = [s.span for s in sections if s.level == 1]
    assert (outermost[0].start, outermost[-1].end) == (start, end)
    assert [s.end for s in outermost[:-1]] == [s.start for s in outermost[1:]]
