"""The outline of a book: every sentence once, in its chapter, linked to its place, in every form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coa.agents.outline import Outline, build_outline
from coa.agents.outline_html import outline_to_html
from coa.agents.outline_rendering import outline_to_json, outline_to_markdown, outline_to_text
from coa.agents.structure import Aspect, Description, Structure, plain_structure
from coa.agents.structure_rendering import render_structure
from coa.types import Chunk, Document, Place, Section, Span

Book = Callable[..., tuple[Document, list[Chunk]]]


def _structure(*lengths: int, scope: str = "Scope") -> Structure:
    aspects, at = [], 0
    for n, length in enumerate(lengths):
        aspects.append(Aspect(f"{scope} {n}", (Description(at, at + length),)))
        at += length
    return Structure(scope, tuple(aspects), at, "ids")


def _spans(outline: Outline) -> list[Span]:
    return sorted(s for node in outline.walk() for s in node.spans)


def _covers(outline: Outline, chunks: list[Chunk]) -> bool:
    spans = _spans(outline)
    apart = all(a.end <= b.start for a, b in pairwise(spans))
    sentences = [s for c in chunks for s in c.sentences]
    held = all(any(span.start <= s.start and s.end <= span.end for span in spans) for s in sentences)
    return apart and held and sum(s.length for s in spans) == sum(s.length for s in sentences)


def test_a_chapter_of_one_chunk_holds_its_aspects(book: Book) -> None:
    document, chunks = book(["One.", "Two.", "Three."], ["Four.", "Five."])
    outline = build_outline(document, [(chunks[0], _structure(2, 1, scope="A")), (chunks[1], _structure(2, scope="B"))])
    assert [(n.number, n.kind, n.title, n.n_sentences) for n in outline.walk()] == [
        ("1", "chapter", "Chapter 1", 3),
        ("1.1", "aspect", "A 0", 2),
        ("1.2", "aspect", "A 1", 1),
        ("2", "chapter", "Chapter 2", 2),
        ("2.1", "aspect", "B 0", 2),
    ]
    assert _covers(outline, chunks)


def test_a_chapter_of_several_chunks_has_a_part_for_each(book: Book) -> None:
    document, chunks = book(["One.", "Two."], ["Three.", "Four."])
    document = replace(document, sections=(Section("All", Span(0, len(document.text))),))
    outline = build_outline(document, [(c, _structure(1, 1, scope=s)) for c, s in zip(chunks, "AB", strict=True)])
    assert [(n.number, n.kind, n.title) for n in outline.walk()] == [
        ("1", "chapter", "All"),
        ("1.1", "part", "A"),
        ("1.1.1", "aspect", "A 0"),
        ("1.1.2", "aspect", "A 1"),
        ("1.2", "part", "B"),
        ("1.2.1", "aspect", "B 0"),
        ("1.2.2", "aspect", "B 1"),
    ]


def test_an_aspect_across_a_chapters_start_is_divided_there(book: Book) -> None:
    document, (chunk,) = book(["The harbour was grey.", "Boats lay there.", "The baker rose.", "Dough lay there."])
    border = chunk.sentences[2].start
    sections = (Section("First", Span(0, border)), Section("Second", Span(border, len(document.text))))
    document = replace(document, sections=sections)
    by_code = Structure("x", (Aspect("All of it", (Description(0, 4),), origin="code"),), 4, "code")
    outline = build_outline(document, [(chunk, by_code)])
    assert [(n.number, n.title) for n in outline.walk()][::2] == [("1", "First"), ("2", "Second")]
    harbour, baker = (n for n in outline.walk() if n.kind == "aspect")
    assert "harbour" in harbour.title.lower()
    assert "baker" in baker.title.lower(), "a title by code is of the sentences that are left"
    assert _covers(outline, [chunk])


def test_sections_in_sections_nest_and_text_outside_of_any_stands_on_top(book: Book) -> None:
    document, chunks = book(["Zero."], ["One."], ["Two."], ["Three."])
    at = [c.span.start for c in chunks] + [len(document.text)]
    sections = (
        Section("Part", Span(at[1], at[4]), kind="part", level=1),
        Section("Inner", Span(at[2], at[3]), level=2),
        Section("Other", Span(at[3], at[4]), level=2),
    )
    document = replace(document, sections=sections)
    outline = build_outline(document, [(c, _structure(1, scope=f"S{c.index}")) for c in chunks])
    assert [(n.number, n.title) for n in outline.walk()] == [
        ("1", "S0 0"), ("2", "Part"), ("2.1", "S1 0"), ("2.2", "Inner"), ("2.2.1", "S2 0"), ("2.3", "Other"),
        ("2.3.1", "S3 0"),
    ]  # fmt: skip


def test_sentences_of_an_aspect_that_lie_apart_are_spans_of_their_own(book: Book) -> None:
    document, (chunk,) = book(["One.", "Two.", "Three."])
    aspects = (Aspect("Odd", (Description(0, 1), Description(2, 3, "said"))), Aspect("Even", (Description(1, 2),)))
    outline = build_outline(document, [(chunk, Structure("x", aspects, 3, "free"))])
    odd = next(n for n in outline.walk() if n.title == "Odd")
    assert odd.spans == (Span(0, 5), Span(10, 17))
    assert odd.span == Span(0, 17)
    assert [(s.text, s.span) for s in odd.statements] == [("said", Span(10, 17))]


def test_a_heading_alone_is_the_chapters_own_text(book: Book) -> None:
    document, (chunk,) = book(["Chapter  1", "One fell.", "Two rose."])
    outline = build_outline(document, [(chunk, _structure(1, 2))])
    (chapter,) = outline.nodes
    assert (chapter.title, chapter.spans, chapter.n_sentences) == ("Chapter 1", (chunk.sentences[0],), 3)
    assert [n.title for n in chapter.nodes] == ["Scope 1"]
    assert _covers(outline, [chunk])


def test_a_structure_of_another_chunk_is_refused(book: Book) -> None:
    document, (chunk,) = book(["One.", "Two."])
    with pytest.raises(ValueError, match="chunk 0"):
        build_outline(document, [(chunk, _structure(3))])


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_chapters_and_structures_make_an_outline_with_each_sentence_once(book: Book, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    document, chunks = book(*[[f"Word{n}{i} stood." for i in range(n)] for n in lengths])
    borders = sorted(data.draw(st.sets(st.sampled_from([s.start for c in chunks for s in c.sentences]), max_size=5)))
    ends = [*borders, len(document.text)][1:]
    levels = data.draw(st.lists(st.integers(1, 2), min_size=len(borders), max_size=len(borders)))
    sections = [Section(f"S{a}", Span(a, b), level=lv) for a, b, lv in zip(borders, ends, levels, strict=True)]
    document = replace(document, sections=tuple(sections))
    structures = []
    for n in lengths:
        cut = data.draw(st.integers(0, n))
        structures.append(_structure(cut, n - cut) if 0 < cut < n else plain_structure(n, "Plain"))
    outline = build_outline(document, list(zip(chunks, structures, strict=True)))
    assert _covers(outline, chunks)
    ids = [n.id for n in outline.walk()]
    assert len(ids) == len(set(ids))
    assert sum(n.n_sentences for n in outline.nodes) == sum(lengths) == outline.n_sentences
    for node in outline.walk():
        assert all(node.span.start <= s.start and s.end <= node.span.end for s in node.spans)


NASTY = '<script>alert(1)</script> & "quotes" [link](x) *bold* \x1b[31m'


@pytest.fixture
def nasty(book: Book) -> tuple[Outline, Document, list[Chunk]]:
    """Everything that forms could choke on, in titles and text."""
    document, chunks = book([f"One {NASTY}.", "Two."], ["Three."])
    document = replace(document, name="my book <b>.txt", title=f"T {NASTY}")
    structures = [(c, _structure(*[1] * len(c.sentences), scope=f"Aspect {NASTY}")) for c in chunks]
    return build_outline(document, structures), document, chunks


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in {"meta"}:
            self.open.append(tag)
        self.scripts += tag == "script"
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag == "a":
            self.links.append(found.get("href") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "p":
            self.text.append(data)


def test_html_is_well_formed_escaped_and_linked_to_every_node(nasty: tuple[Outline, Document, list[Chunk]]) -> None:
    outline, document, _ = nasty
    page = outline_to_html(outline, document)
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.scripts == 1
    assert len(reader.ids) == len(set(reader.ids))
    assert sorted(link.removeprefix("#") for link in reader.links) == sorted(n.id for n in outline.walk())
    assert set(reader.ids) == {n.id for n in outline.walk()}
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert not re.search(r"(?:src|href)=\"(?!#)", page), "nothing is loaded from anywhere"


def test_html_holds_the_whole_text_once(nasty: tuple[Outline, Document, list[Chunk]]) -> None:
    outline, document, _ = nasty
    reader = _Reader()
    reader.feed(outline_to_html(outline, document))
    assert document.text.split() == " ".join(reader.text[1:]).split()


def test_json_gives_every_node_its_place(nasty: tuple[Outline, Document, list[Chunk]]) -> None:
    outline, document, chunks = nasty
    raw = json.loads(json.dumps(outline_to_json(outline, document)))
    found: list[tuple[int, int]] = []

    def walk(nodes: list[dict[str, object]]) -> None:
        for node in nodes:
            found.extend(tuple(span) for span in node["spans"])  # type: ignore[attr-defined]
            walk(node["nodes"])  # type: ignore[arg-type]

    walk(raw["nodes"])
    assert sorted(found) == [tuple(s) for c in chunks for s in c.sentences]


def test_text_and_markdown_carry_no_control_characters_and_no_live_markup(
    nasty: tuple[Outline, Document, list[Chunk]],
) -> None:
    outline, document, _ = nasty
    text, markdown = outline_to_text(outline, document), outline_to_markdown(outline, document)
    assert "\x1b" not in text + markdown
    assert "[link](x)" not in markdown
    assert "<script>" not in markdown
    assert "(my%20book%20%3Cb%3E.txt#char=" in markdown


def test_markdown_links_go_by_page_or_by_file_where_the_source_has_them(book: Book) -> None:
    document, chunks = book(["One."], ["Two."])
    places = (Place(chunks[0].span, page=3), Place(chunks[1].span, item="ch 2.xhtml", fragment="p2"))
    document = replace(document, places=places, media_type="application/pdf")
    markdown = outline_to_markdown(build_outline(document, [(c, _structure(1)) for c in chunks]), document)
    assert "(book.txt#page=3)" in markdown
    assert "(book.txt#ch%202.xhtml#p2)" in markdown


def test_renderings_copy_the_sentences_under_their_aspects(book: Book) -> None:
    _, (chunk,) = book(["One fell.", "Two rose.", "Three stayed."])
    inner = Aspect("Inner", (Description(1, 2),))
    structure = Structure(
        "Some events", (Aspect("Outer", (Description(0, 1),), (inner,)), Aspect("End", (Description(2, 3),))), 3, "ids"
    )
    assert render_structure(structure, chunk) == (
        "This passage talks about Some events:\n1. **Outer**: One fell.\n1.1. **Inner**: Two rose.\n"
        "2. **End**: Three stayed."
    )
    assert render_structure(structure, chunk, "checking") == (
        "Some events can be deconstructed as:\n1. **Outer**\n  - One fell.\n1.1. **Inner**\n  - Two rose.\n"
        "2. **End**\n  - Three stayed."
    )
    assert render_structure(structure, chunk, "retrieval") == (
        "Some events.\n**Outer**: One fell.\n**Inner**: Two rose.\n**End**: Three stayed."
    )
    assert render_structure(structure, chunk, ids=True, only={1}) == (
        "This passage talks about Some events:\n2. **End**: [1.3] Three stayed."
    )
