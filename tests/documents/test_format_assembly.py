"""How blocks become one text with sections, places and left-out spans."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.chunking import chunk_document
from coa.documents import canonical, read_document
from coa.documents.formats import registry
from coa.documents.formats.assembly import assemble
from coa.documents.formats.raw import Block, OutlineEntry, PlaceRef, RawText
from coa.documents.reader import parse_document
from coa.errors import ConfigError, DocumentEmpty
from coa.tokens import EstimatedTokens
from coa.types import Document

PROSE = "The lamp was lit at dusk, and the ships that passed were written into the book of the tower. " * 6


def _raw(*blocks: Block, outline: tuple[OutlineEntry, ...] = (), title: str | None = None) -> RawText:
    return RawText(blocks=blocks, media_type="text/x-test", outline=outline, title=title, method="outline")


def _document(*blocks: Block, outline: tuple[OutlineEntry, ...] = ()) -> Document:
    return assemble(_raw(*blocks, outline=outline), name="x")


def _heading(text: str, level: int = 1) -> Block:
    return Block(text, "heading", level)


def _listed(document: Document) -> list[tuple[str, str, int, int | None]]:
    return [(s.kind, s.title, s.level, s.number) for s in document.sections]


def test_blocks_are_parted_by_blank_lines_and_tight_ones_by_a_break() -> None:
    document = _document(Block(" a \n"), Block("\n  b\n", "preformatted"), Block("  "), Block("c", tight=True))
    assert document.text == "a\n\n  b\nc\n"


def test_nothing_to_read_is_document_empty() -> None:
    with pytest.raises(DocumentEmpty, match="x holds no text"):
        _document(Block(" \u200b\n"), Block(""))


def test_running_heads_and_page_numbers_stay_and_are_not_read() -> None:
    document = _document(
        Block("HEAD", "running_head"), Block("One."), Block("7", "page_number"),
        Block("HEAD", "running_head"), Block("Two."),
        Block("ad", left_out="markup", detail="banner"), Block("ad 2", left_out="markup", detail="banner"),
    )  # fmt: skip
    parts = [(p.cause, p.detail, document.text[p.span.start : p.span.end]) for p in document.left_out]
    assert parts == [
        ("running_head", "", "HEAD\n\n"),
        ("page_number", "", "7\n\n"),
        ("running_head", "", "HEAD\n\n"),
        ("markup", "banner", "ad\n\nad 2\n"),
    ]
    assert [document.text[s.start : s.end] for s in document.readable()] == ["One.\n\n", "Two.\n\n"]


def test_what_is_in_no_block_is_told_without_a_span() -> None:
    document = assemble(replace(_raw(Block("One.")), left_out=("2 pictures",)), name="x")
    assert [(p.span, p.cause, p.detail) for p in document.left_out] == [((0, 0), "markup", "2 pictures")]
    assert [tuple(s) for s in document.readable()] == [(0, len(document.text))]


def test_places_follow_the_text_also_where_it_is_changed_and_inside_of_blocks() -> None:
    text = "  cafe\u0301 und Tee, immer weiter"
    document = _document(
        Block("first", place=PlaceRef(page=1)),
        Block(text, place=PlaceRef(page=2), breaks=((text.index("immer"), PlaceRef(page=3, page_label="iii")),)),
        Block("last"),
    )
    assert [(p.page, document.text[p.span.start : p.span.end]) for p in document.places] == [
        (1, "first\n\n"),
        (2, "café und Tee, "),
        (3, "immer weiter\n\nlast\n"),
    ]
    assert document.places[2].page_label == "iii"


def test_places_that_repeat_are_one() -> None:
    document = _document(*(Block(word, place=PlaceRef(page=1)) for word in "abc"))
    assert [(p.span.start, p.span.end) for p in document.places] == [(0, len(document.text))]


def test_an_outline_gives_nested_sections_with_fuller_titles_from_the_headings() -> None:
    blocks = [Block("Half title"), _heading("1. Scope"), Block(PROSE), Block("1.1. Terms"), Block(PROSE)]
    blocks += [_heading("2. Use"), Block(PROSE)]
    outline = (OutlineEntry("Scope", 1, 1), OutlineEntry("Terms", 2, 3), OutlineEntry("Use", 1, 5))
    document = _document(*blocks, outline=outline)
    assert _listed(document) == [
        ("front", "", 1, None),
        ("chapter", "1. Scope", 1, 1),
        ("section", "1.1. Terms", 2, None),
        ("chapter", "2. Use", 1, 2),
    ]
    assert document.chapter_method == "outline"


def test_entries_twice_or_past_the_end_are_no_sections() -> None:
    blocks = [_heading("One"), Block(PROSE), _heading("Two"), Block(PROSE)]
    outline = tuple(OutlineEntry(title, 1, at) for title, at in (("One", 0), ("One", 0), ("Two", 2), ("Gone", 9)))
    assert [s.title for s in _document(*blocks, outline=outline).sections] == ["One", "Two"]


def test_an_outline_that_misses_most_chapters_gives_way_to_the_headings() -> None:
    blocks: list[Block] = []
    for n in range(1, 8):
        blocks += [_heading(f"Chapter {n}"), Block(PROSE)]
    outline = (OutlineEntry("Start", 1, 0), OutlineEntry("End", 1, 13))
    document = _document(*blocks, outline=outline)
    assert document.chapter_method == "headings"
    assert [c.number for c in document.chapters()] == list(range(1, 8))


def test_the_title_above_all_headings_is_no_chapter() -> None:
    document = _document(_heading("The Tower"), *(b for n in "abc" for b in (_heading(f"Part {n}x", 2), Block(PROSE))))
    assert document.title == "The Tower"
    assert [c.title for c in document.chapters()] == ["Part ax", "Part bx", "Part cx"]


def test_front_and_back_matter_and_appendices_are_no_chapters() -> None:
    names = [
        "Copyright",
        "Preface",
        "1. One",
        "2. Two",
        "3. Three",
        "Epilogue",
        "1. About these appendices",
        "2. Tables",
        "Index",
    ]
    document = _document(*(b for name in names for b in (_heading(name), Block(PROSE))))
    assert [(s.kind, s.title) for s in document.sections] == [
        ("front", "Copyright"), ("front", "Preface"), ("chapter", "1. One"), ("chapter", "2. Two"),
        ("chapter", "3. Three"), ("chapter", "Epilogue"), ("back", "1. About these appendices"), ("back", "2. Tables"),
        ("back", "Index"),
    ]  # fmt: skip


def test_letters_before_sections_are_no_roman_chapter_numbers() -> None:
    blocks: list[Block] = []
    for n in (1, 2):
        blocks.append(_heading(f"Chapter {n}"))
        blocks += [b for x in "ABCD" for b in (_heading(f"{x}. Terms", 2), Block(PROSE))]
    document = _document(*blocks)
    assert [(s.number, s.kind) for s in document.sections if s.level == 2] == [(None, "section")] * 8


def test_without_headings_chapters_are_found_in_the_text() -> None:
    document = _document(*(Block(part) for n in range(1, 6) for part in (f"CHAPTER {n}", PROSE)))
    assert document.chapter_method == "headings:chapter"
    assert len(document.chapters()) == 5


def test_gutenberg_boilerplate_is_marked_in_any_format() -> None:
    body = "".join(f"<p>{PROSE}</p>" for _ in range(3))
    page = (
        "<html><body><pre>The Project Gutenberg EBook of X\n\nTitle: The Tower\n\nLanguage: English\n\n"
        f"*** START OF THIS PROJECT GUTENBERG EBOOK X ***</pre>{body}"
        "<pre>*** END OF THIS PROJECT GUTENBERG EBOOK X ***\nlicence</pre></body></html>"
    )
    document = parse_document(page.encode(), name="x")
    readable = "".join(document.text[s.start : s.end] for s in document.readable())
    assert "GUTENBERG" not in readable
    assert "licence" not in readable
    assert (document.title, document.language) == ("The Tower", "en")
    assert [p.cause for p in document.left_out] == ["boilerplate", "boilerplate"]


def test_a_plug_in_is_found_by_content_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader:
        def __call__(self, data: bytes, *, name: str, limits: object) -> RawText:
            return _raw(Block(data[4:].decode()))

        def recognises(self, data: bytes, *, name: str) -> bool:
            return data.startswith(b"QQQ:")

    point = SimpleNamespace(name="quux", load=Reader)
    broken = SimpleNamespace(name="broken", load=lambda: 1 / 0)

    def entry_points(*, group: str, name: str | None = None) -> list[SimpleNamespace]:
        assert group == "coa.readers"
        return [p for p in (point,) if name in (None, p.name)] + ([broken] if name == "broken" else [])

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert read_document(b"QQQ:hello").text == "hello\n"
    assert read_document(b"____hello", reader="quux").text == "hello\n"
    assert read_document(b"hello").media_type == "text/plain"
    with pytest.raises(ConfigError, match=r"no reader 'nope'.*docx, epub, html, pdf, quux, zip"):
        read_document(b"hello", reader="nope")
    with pytest.raises(ConfigError, match="cannot be loaded: ZeroDivisionError"):
        read_document(b"hello", reader="broken")


_TEXT = st.text(
    st.characters(codec="utf-16", categories=["L", "M", "N", "P", "Z", "C"]) | st.sampled_from(" \n\r\t\x85e\u0301"),
    max_size=40,
)
_BLOCKS = st.builds(
    Block,
    _TEXT,
    st.sampled_from(["paragraph", "heading", "list_item", "table", "preformatted", "running_head", "page_number"]),
    st.integers(1, 4),
    st.none() | st.builds(PlaceRef, page=st.integers(1, 9)),
    breaks=st.lists(st.tuples(st.integers(0, 50), st.builds(PlaceRef, page=st.integers(1, 9))), max_size=2).map(
        lambda found: tuple(sorted(found, key=lambda b: b[0]))
    ),
    tight=st.booleans(),
)


@given(
    st.lists(_BLOCKS, max_size=12),
    st.lists(st.builds(OutlineEntry, st.text(max_size=9), st.integers(1, 5), st.integers(0, 14)), max_size=4),
)
def test_whatever_the_blocks_are_spans_are_valid_and_chunks_rejoin(
    blocks: list[Block], outline: list[OutlineEntry]
) -> None:
    try:
        document = _document(*blocks, outline=tuple(sorted(outline, key=lambda e: e.block)))
    except DocumentEmpty:
        return
    assert_sound(document)


def assert_sound(document: Document) -> None:
    """Spans are valid and in order, the outermost sections cover what is read, chunks rejoin to the text."""
    text = document.text
    assert canonical(text) == text
    size = len(text)
    for spans in (
        [p.span for p in document.left_out if p.span.length],
        [p.span for p in document.places],
        [s.span for s in document.sections if s.level == 1],
    ):
        assert all(0 <= a.start < a.end <= size for a in spans)
        assert all(a.end <= b.start for a, b in pairwise(spans))
    readable = document.readable()
    outermost = [s.span for s in document.sections if s.level == 1]
    if outermost and readable:
        assert all(a.end == b.start for a, b in pairwise(outermost))
        assert outermost[0].start <= readable[0].start
        assert outermost[-1].end >= readable[-1].end
    for section in document.sections:
        assert 0 <= section.span.start < section.span.end <= size
    chunks = chunk_document(document, budget=400, counter=EstimatedTokens())
    pieces = sorted(
        [(c.span, c.text) for c in chunks] + [(p.span, text[p.span.start : p.span.end]) for p in document.left_out]
    )
    at = 0
    for span, piece in pieces:
        assert not text[at : span.start].strip()
        assert text[span.start : span.end] == piece
        at = span.end
    assert not text[at:].strip()
