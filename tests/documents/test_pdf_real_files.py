"""Real PDF files: the words of the reference in order, and the chapters a reader counts."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from coa.documents import read_document
from coa.types import Document

DATA = Path(os.environ.get("COA_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

pytestmark = [pytest.mark.data, pytest.mark.slow]


@cache
def document(path: str) -> Document:
    if not (DATA / path).is_file():
        pytest.skip(f"no {path} in COA_TEST_DATA")
    return read_document(DATA / path)


@cache
def parity_tool() -> ModuleType:
    path = Path(__file__).parents[1] / "tools" / "reader_parity.py"
    spec = importlib.util.spec_from_file_location("reader_parity", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def readable(document: Document) -> str:
    return "".join(document.text[s.start : s.end] for s in document.readable())


def ratio(text: str, reference: str) -> float:
    """As the tool has it, but a PDF's headings in capitals are the same words."""
    return float(parity_tool().parity(text.casefold(), reference.casefold()).ratio)


def test_the_manual_has_97_percent_of_its_reference_text() -> None:
    reference = DATA / "formats" / "debian-policy.reference.txt"
    manual = document("formats/debian-policy.pdf")
    assert ratio(readable(manual), reference.read_text(encoding="utf-8")) >= 0.97


def test_the_novel_has_99_percent_of_the_text_file() -> None:
    novel = document("formats/pride-and-prejudice.pdf")
    assert ratio(readable(novel), readable(document("books/docs/en-pride-and-prejudice.txt"))) >= 0.99


def test_the_manual_has_23_chapters_and_an_index() -> None:
    manual = document("formats/debian-policy.pdf")
    assert manual.title == "Debian Policy Manual"
    assert manual.chapter_method == "outline"
    outermost = [s for s in manual.sections if s.level == 1]
    assert [s.number for s in outermost if s.kind == "chapter"] == list(range(1, 24))
    assert [s.title for s in outermost if s.kind == "back"] == ["INDEX"]
    scope = next(s for s in manual.sections if s.title == "1.1 Scope")
    place = manual.place_at(scope.span.start)
    assert place is not None
    assert (place.page, place.page_label) == (13, "3")


def test_the_manual_is_not_read_with_its_running_heads() -> None:
    manual = document("formats/debian-policy.pdf")
    assert {part.cause for part in manual.left_out} == {"running_head", "page_number"}
    assert readable(manual).count("Debian Policy Manual, Release 4.6.2.0") == 0
    assert manual.text.count("Debian Policy Manual, Release 4.6.2.0") > 150


def test_the_novel_has_61_chapters() -> None:
    novel = document("formats/pride-and-prejudice.pdf")
    assert [s.number for s in novel.chapters()] == list(range(1, 62))
    assert [s.title for s in novel.chapters()] == [f"Chapter {n}" for n in range(1, 62)]


def test_places_cover_every_page_of_the_novel_in_order() -> None:
    novel = document("formats/pride-and-prejudice.pdf")
    pages = [place.page or 0 for place in novel.places]
    assert pages == sorted(set(pages))
    assert len(pages) == 234
