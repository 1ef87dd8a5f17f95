"""Real files of every format against what they hold, counted by eye or given as a reference."""

from __future__ import annotations

import os
import re
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from coa.chunking import chunk_document
from coa.documents import canonical, read_document
from coa.tokens import EstimatedTokens
from coa.types import Document

ROOT = Path(__file__).resolve().parents[2]
FORMATS = Path(os.environ.get("COA_TEST_DATA", ROOT.parent / "shared" / "data")) / "formats"
NAMES = (
    "debian-policy.epub",
    "die-verwandlung-latin1.html",
    "handbook-chapter13-trustees.docx",
    "live-manual.fr.epub",
    "pride-and-prejudice.html",
    "winter-sports-in-switzerland.epub",
)
pytestmark = [pytest.mark.data, pytest.mark.slow]


def _document(name: str) -> Document:
    path = FORMATS / name
    if not path.exists():
        pytest.skip(f"no {name} in COA_TEST_DATA")
    return read_document(path)


def _readable(document: Document) -> str:
    return "".join(document.text[s.start : s.end] for s in document.readable())


def _chapters(document: Document) -> list[int | None]:
    return [c.number for c in document.chapters()]


def _parity(text: str, reference: str) -> float:
    # The script is no module of a package: it is run by hand, too.
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("reader_parity", ROOT / "tests" / "tools" / "reader_parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.longest_common_subsequence("abcbdab", "bdcaba") == 4
    return float(module.parity(text, reference).ratio)


def test_99_percent_of_the_references_words_are_in_the_epub_in_order() -> None:
    document = _document("debian-policy.epub")
    reference = (FORMATS / "debian-policy.reference.txt").read_text(encoding="utf-8")
    assert _parity(_readable(document), reference) >= 0.998


def test_chapters_of_the_policy_manual() -> None:
    document = _document("debian-policy.epub")
    assert (document.title, document.language, document.chapter_method) == ("Debian Policy Manual", "en", "nav")
    assert _chapters(document) == list(range(1, 13))
    assert document.chapters()[0].title == "1. About this manual"
    assert document.chapters()[-1].title == "12. Documentation"
    assert [s.number for s in document.sections if s.kind == "back"] == list(range(1, 12))
    assert "[1] Informally, the criteria used for inclusion" in document.text
    place = document.place_at(document.text.index("1.5. Definitions\n\nThe following"))
    assert place is not None
    assert (place.item, place.fragment) == ("ch-scope.xhtml", "definitions")


def test_chapters_of_winter_sports() -> None:
    document = _document("winter-sports-in-switzerland.epub")
    assert _chapters(document) == list(range(1, 9))
    assert document.chapters()[0].title == "CHAPTER I THE SUN-SEEKER"
    assert document.chapters()[-1].title == "CHAPTER VIII FOR PARENTS AND GUARDIANS"
    assert (document.chapter_method, document.language) == ("ncx", "en")
    assert "Gutenberg" not in _readable(document)
    assert [p.cause for p in document.left_out] == ["markup", "boilerplate", "boilerplate"]
    place = document.place_at(document.text.index("CHAPTER VIII", 300_000) + 4000)
    assert place is not None
    assert place.page_label in {"192", "193", "194"}
    assert not re.search(r"\{\d+\}", document.text)


def test_the_french_manual() -> None:
    document = _document("live-manual.fr.epub")
    assert (document.title, document.language, document.chapter_method) == ("Manuel Live Systems", "fr", "ncx")
    assert _chapters(document) == list(range(1, 20))
    assert document.chapters()[0].title == "1. À propos de ce manuel"
    assert document.chapters()[-1].title == "19. Guide de style"
    assert (
        "L'objectif principal de ce manuel est de servir de point d'accès unique à tous les documents" in document.text
    )
    assert "«l'Installateur Debian»" in document.text
    assert "\ufffd" not in document.text
    assert "Ã" not in document.text
    # The numbers that stand beside its paragraphs are no text.
    assert not re.search(r"^\d+$", document.text, re.MULTILINE)


def test_the_german_page_in_latin_1() -> None:
    document = _document("die-verwandlung-latin1.html")
    assert (document.title, document.language, document.encoding) == ("DIE VERWANDLUNG", "de", "iso8859-1")
    assert _chapters(document) == [1, 2, 3]
    text = _readable(document)
    assert "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte" in text
    assert "sich erhob und ihren jungen Körper dehnte." in text
    assert "Gutenberg" not in text
    assert "\ufffd" not in text
    labels = [p.page_label for p in document.places if p.page_label]
    assert (labels[0], labels[-1]) == ("5", "75")


def test_chapters_of_pride_and_prejudice() -> None:
    document = _document("pride-and-prejudice.html")
    assert document.title == "PRIDE AND PREJUDICE"
    assert _chapters(document) == list(range(1, 62))
    text = _readable(document)
    assert "It is a truth universally acknowledged" in text
    assert text.rstrip().endswith("had been the means of uniting them.")
    assert "gutenberg" not in text.lower()
    place = document.place_at(document.chapters()[60].span.start + 10)
    assert place is not None
    assert place.fragment == "link2HCH0061"


def test_the_same_novel_as_page_and_as_text_has_the_same_words() -> None:
    document = _document("pride-and-prejudice.html")
    path = FORMATS.parent / "books" / "docs" / "en-pride-and-prejudice.txt"
    if not path.exists():
        pytest.skip("no text of the novel in COA_TEST_DATA")
    assert _parity(_readable(document), _readable(read_document(path))) > 0.995


def test_the_handbook_is_read_whole() -> None:
    document = _document("handbook-chapter13-trustees.docx")
    with zipfile.ZipFile(FORMATS / "handbook-chapter13-trustees.docx") as archive:
        source = archive.read("word/document.xml").decode()
    # By a second way: the characters of all text runs, white space apart, without notes and list numbers.
    runs = "".join(re.findall(r"<w:t(?: [^>]*)?>([^<]*)</w:t>", source))
    for entity, sign in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&")):
        runs = runs.replace(entity, sign)
    n_source = len("".join(runs.split()))
    n_read = len("".join(document.text.split()))
    assert n_source == 679_816
    assert n_source <= n_read < 1.01 * n_source
    assert max(p.paragraph or 0 for p in document.places) in range(
        source.count("<w:p ") - 20, source.count("<w:p ") + 1
    )
    assert _chapters(document) == [1, 2, 3, 4, 5, 6, 7] * 2  # the file holds the handbook's headings twice
    assert document.text.count("[6] ") >= 1
    assert document.language == "en"


@pytest.mark.parametrize("name", NAMES)
def test_spans_are_sound_and_chunks_rejoin(name: str) -> None:
    document = _document(name)
    text = document.text
    assert canonical(text) == text
    for spans in ([p.span for p in document.places], [p.span for p in document.left_out if p.span.length]):
        assert all(0 <= a.start < a.end <= len(text) for a in spans)
        assert all(a.end <= b.start for a, b in pairwise(spans))
    chunks = chunk_document(document, budget=1200, counter=EstimatedTokens())
    pieces = sorted([c.span for c in chunks] + [p.span for p in document.left_out])
    at = 0
    for span in pieces:
        assert not text[at : span.start].strip()
        at = span.end
    assert not text[at:].strip()
    assert all(c.text == text[c.span.start : c.span.end] for c in chunks)
