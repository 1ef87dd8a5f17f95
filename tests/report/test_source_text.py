"""A document's text as markup: all of it, in order, with its marks where they belong."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coa.report.source import Mark, anchor_id, source_html
from coa.types import Document, LeftOut, Section, Span

Read = Callable[[str], Any]

_SAMPLES = ["", "  ", "A line.", "<b>&amp;</b>", "x" * 60, "long words " * 30, "列車は駅に着いた。" * 3, "a\tb"]
_LINES = st.lists(st.sampled_from(_SAMPLES), max_size=30)
_OFFSETS = st.lists(st.integers(0, 2000), max_size=8)


def _document(text: str, **changes: Any) -> Document:
    return Document(text=text, sha256="0" * 64, name="a", **changes)


def _mark(n: int, span: Span) -> Mark:
    return Mark(f"c{n}", span, str(n), f"q{n}", f"Citation {n}: back")


@settings(max_examples=80)
@given(_LINES, _OFFSETS, _OFFSETS, _OFFSETS)
def test_all_of_the_text_is_there_once_and_each_mark_holds_what_it_marks(
    read_page: Read, lines: list[str], places: list[int], anchors: list[int], borders: list[int]
) -> None:
    text = "\n".join([*lines, "the end"])
    there = [offset % len(text) for offset in places]
    spans = [Span(min(a, b), max(a, b)) for a, b in pairwise(there) if text[min(a, b) : max(a, b)].strip()]
    anchors = [offset % len(text) for offset in anchors]
    source = source_html(
        _document(text),
        marks=[_mark(n, span) for n, span in enumerate(spans)],
        anchors=anchors,
        cuts=dict.fromkeys((offset % len(text) for offset in borders), ""),
    )
    page = read_page(f"<main>{source.body}</main>")
    assert "".join(page.elements[0].text.split()) == "".join(text.split())
    assert len(page.ids) == len(set(page.ids))
    assert set(page.ids) == {f"c{n}" for n in range(len(spans))} | {anchor_id(a) for a in anchors}
    for n, span in enumerate(spans):
        marked = "".join(e.text for e in page.find("mark", data_c=f"c{n}"))
        assert "".join(marked.split()) == "".join(text[span.start : span.end].split())
        assert page.find("a", kind="back", href=f"#q{n}")


def test_a_mark_over_two_paragraphs_begins_once_and_ends_once(read_page: Read) -> None:
    source = source_html(_document("One two.\n\nThree four."), marks=[_mark(1, Span(4, 15))])
    page = read_page(source.body)
    assert [e.text for e in page.find("mark", data_c="c1")] == ["two.", "Three"]
    assert page.ids == ["c1"]
    assert [e.attributes["data-n"] for e in page.find("a", kind="back")] == ["1"]


def test_lines_of_prose_flow_and_verse_and_columns_keep_their_breaks(read_page: Read) -> None:
    prose = "\n".join(["words that a typesetter has broken at about seventy signs"] * 3 + ["the end."])
    page = read_page(source_html(_document(f"{prose}\n\nA rose\nis a rose\n\nname{' ' * 40}value and more\nb")).body)
    looks = {e.text[:4]: e.attributes.get("class") for e in page.find("p")}
    assert looks == {"word": None, "A ro": "lines", "name": "lines"}


def test_sections_begin_with_headings_and_what_was_left_out_is_told_apart(read_page: Read) -> None:
    text = "LICENCE TEXT\n\nCHAPTER I.\n\nIt began.\n\nA part.\n\nIt went on."
    sections = (
        Section("CHAPTER I.", Span(14, len(text))),
        Section("A part.", Span(text.index("A part"), len(text)), "section", level=2),
    )
    left_out = (LeftOut(Span(0, 14), "licence"),)
    page = read_page(source_html(_document(text, sections=sections, left_out=left_out)).body)
    assert [(e.tag, e.text) for e in page.elements if e.tag in {"h3", "h4"}] == [
        ("h3", "CHAPTER I."),
        ("h4", "A part."),
    ]
    assert [e.text for e in page.find("p", kind="out")] == ["LICENCE TEXT"]
    assert {"s14", anchor_id(text.index("A part"))} == set(page.ids)


def test_chunks_begin_with_their_line_even_inside_a_paragraph(read_page: Read) -> None:
    page = read_page(source_html(_document("One. Two."), cuts={0: "<b>chunk 1</b>", 5: "<b>chunk 2</b>"}).body)
    assert [e.text for e in page.find("p")] == ["chunk 1", "One.", "chunk 2", "Two."]


def test_a_text_without_line_breaks_is_cut_into_pieces_that_can_be_laid_out_one_by_one(read_page: Read) -> None:
    sentences = "".join(f"Sentence {n} of a very long line. " for n in range(20_000))
    for text in (sentences, "x" * 300_000):
        source = source_html(_document(text))
        page = read_page(f"<main>{source.body}</main>")
        assert "".join(page.elements[0].text.split()) == "".join(text.split())
        assert max(len(e.text) for e in page.find("div", kind="block")) < 10_000
    assert "contain-intrinsic-block-size" in source.style


def test_a_document_without_text_says_so(read_page: Read) -> None:
    assert "no text" in source_html(_document(" \n ")).body


def test_three_megabytes_take_little_time_and_little_more_room() -> None:
    text = "\n\n".join("word and word & word, " * 20 for _ in range(7_000))
    marks = [_mark(n, Span(n * 10_000 + 5, n * 10_000 + 200)) for n in range(300)]
    started = time.process_time()
    source = source_html(_document(text), marks=marks, anchors=range(0, len(text), 2_000))
    assert time.process_time() - started < 6
    assert len(text) > 3_000_000
    assert len(source.body) < 1.3 * len(text)
