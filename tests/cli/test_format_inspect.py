"""`coa inspect` on formats that have places, chapters of their own and parts that are not read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coa.inspection import chapter_confidence, places_phrase
from coa.types import Document, LeftOut, Place, Section, Span

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

PROSE = "The cat sat on the mat and looked out of the window at the rain. " * 30


def _document(*chapters: Section, method: str = "nav", places: tuple[Place, ...] = ()) -> Document:
    return Document(
        text="x" * 1000, sha256="", name="x", sections=chapters, chapter_method=method, places=places,
        left_out=(LeftOut(Span(900, 1000), "licence"),),
    )  # fmt: skip


def _chapter(number: int | None, start: int, end: int) -> Section:
    return Section(f"Chapter {number}", Span(start, end), "chapter", 1, number)


def test_confidence_falls_with_the_method_the_numbers_and_the_sizes() -> None:
    sound = [_chapter(n, n * 100, n * 100 + 100) for n in range(1, 9)]
    assert chapter_confidence(_document(*sound)) == 0.97
    assert chapter_confidence(_document(*sound, method="headings:roman")) == 0.75
    assert chapter_confidence(_document(*sound[::2])) == 0.48
    assert chapter_confidence(_document(_chapter(1, 0, 100), _chapter(2, 100, 900))) == 0.68
    assert chapter_confidence(_document(Section("", Span(0, 900), "body"), method="none")) is None


def test_places_are_told_in_words() -> None:
    pages = tuple(Place(Span(n, n + 1), page=n + 1, page_label=("i", "1", "2")[n]) for n in range(3))
    assert places_phrase(_document(places=pages)) == "3 pages (i to 2)"
    items = tuple(Place(Span(n, n + 1), item=f"{n}.txt") for n in range(2))
    assert places_phrase(_document(places=items)) == "2 files (0.txt …)"
    assert places_phrase(_document(places=(Place(Span(0, 1), paragraph=7),))) == "7 paragraphs"
    assert places_phrase(_document()) == ""


def _page(folder: Path) -> Path:
    body = "".join(
        f"<p><span class='pagenum' id='p{n}'>{n}</span></p><h2>Chapter {n}</h2><p>{PROSE}</p><nav>Menu</nav>"
        for n in range(1, 6)
    )
    path = folder / "page.html"
    path.write_text(f"<html><body><h1>Cats</h1>{body}<img src='x'></body></html>")
    return path


@pytest.mark.slow
def test_a_page_is_shown_with_places_chapters_and_what_is_not_read(cli: Cli) -> None:
    out = cli("inspect", _page(cli.folder), "--estimate").out
    assert "type      text/html, utf-8" in out
    assert "chapters  5 (found by headings, confidence 90%)" in out
    assert "places    5 printed pages (1 to 5)" in out
    assert "not in the text: 1 picture" in out
    assert "5 stretches, 29 characters  markup: navigation" in out


@pytest.mark.slow
def test_json_has_the_place_of_each_chapter_and_the_confidence(cli: Cli) -> None:
    found = json.loads(cli("inspect", _page(cli.folder), "--estimate", "--json").out)
    assert found["chapter_confidence"] == 0.9
    assert found["places"] == "5 printed pages (1 to 5)"
    chapters = [c for c in found["chapters"] if c["kind"] == "chapter"]
    assert [c["place"] for c in chapters] == [{"page_label": str(n), "fragment": f"p{n}"} for n in range(1, 6)]
    assert {"start": 0, "end": 0, "cause": "markup", "detail": "1 picture"} in found["left_out"]
    assert "Menu" not in cli("inspect", cli.folder / "page.html", "--text").out


@pytest.mark.slow
def test_a_folder_and_an_archive_of_chapters_are_one_book(cli: Cli) -> None:
    book = cli.folder / "book"
    book.mkdir()
    with zipfile.ZipFile(cli.folder / "book.zip", "w") as archive:
        for n in (1, 2, 10):
            text = f"Chapter {n}\n\n{PROSE}"
            (book / f"{n}.txt").write_text(text)
            archive.writestr(f"{n}.txt", text)
    for name in ("book", "book.zip"):
        rows = cli("inspect", name, "--estimate", "--chapters").out.splitlines()
        assert [row.split("\t")[-1] for row in rows] == ["Chapter 1", "Chapter 2", "Chapter 10"]
        assert "places    3 files (1.txt …)" in cli("inspect", name, "--estimate").out
