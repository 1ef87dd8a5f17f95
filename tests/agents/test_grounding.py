"""Citations: quotes are the document's own bytes, wherever they come from."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents import Reference, ground
from coa.chunking import chunk_document
from coa.tokens import EstimatedTokens
from coa.types import Chunk, Document

Book = Callable[..., tuple[Document, list[Chunk]]]

CHAPTERS = (
    ["Ada came to the harbour.", "She carried a brass telescope."],
    ["The lamp was lit at seven.", "Nobody slept."],
)


def test_named_sentences_become_numbered_citations_with_their_chapters(book: Book) -> None:
    document, chunks = book(*CHAPTERS)
    made = ground("The lamp [2.1], and a telescope [1.2].", document=document, chunks=chunks, question="What?", first=4)
    assert made.text == "The lamp [4], and a telescope [5]."
    assert [(c.quote, c.chapter, c.origin) for c in made.citations] == [
        ("The lamp was lit at seven.", "Chapter 2", "model"),
        ("She carried a brass telescope.", "Chapter 1", "model"),
    ]
    assert made.support == pytest.approx(1.0)


def test_ids_of_sentences_that_are_not_there_are_dropped(book: Book) -> None:
    document, chunks = book(*CHAPTERS)
    made = ground("The lamp [2.1] [2.9] [7.1] [...].", document=document, chunks=chunks, question=None)
    assert made.text == "The lamp [1] [...]."
    assert len(made.citations) == 1


def test_without_ids_sentences_are_located_by_their_words_and_say_so(book: Book) -> None:
    document, chunks = book(*CHAPTERS)
    made = ground("A brass telescope.", document=document, chunks=chunks, question="What did Ada carry?")
    assert made.text == "A brass telescope."
    best = made.citations[0]
    assert best.quote == "She carried a brass telescope."
    assert best.origin == "located"
    assert best.score is not None
    assert 0.2 <= best.score <= 1.0
    assert made.support == pytest.approx(1.0)


def test_an_answer_that_the_text_does_not_hold_has_little_support(book: Book) -> None:
    document, chunks = book(*CHAPTERS)
    invented = ground("Dragons burned Paris [2.1].", document=document, chunks=chunks, question="What burned?")
    assert invented.support == pytest.approx(0.0)
    assert [c.quote for c in invented.citations] == ["The lamp was lit at seven."]
    located = ground("Dragons burned Paris.", document=document, chunks=chunks, question="What burned?")
    assert located.citations == ()
    assert located.support == pytest.approx(0.0)


def test_an_answer_without_content_words_has_no_support_figure(book: Book) -> None:
    document, chunks = book(*CHAPTERS)
    assert ground("It is.", document=document, chunks=chunks, question=None).support is None


def test_sentences_that_code_picked_count_as_located_and_bring_the_runners_up(book: Book) -> None:
    document, chunks = book(*CHAPTERS)
    picked = [Reference(1, 2), Reference(2, 1), Reference(1, 1), Reference(2, 2)]
    made = ground("A telescope [1.2].", document=document, chunks=chunks, question="What?", quoted=picked, most=3)
    assert made.text == "A telescope [1]."
    assert [c.origin for c in made.citations] == ["located"] * 3
    assert [c.quote for c in made.citations][1:] == ["The lamp was lit at seven.", "Ada came to the harbour."]


@settings(deadline=None, max_examples=150)
@given(
    text=st.text(
        st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), min_size=1, max_size=400
    ).filter(lambda t: t.strip()),
    answer=st.lists(st.sampled_from(["[1.1]", "[1.2]", "[2.1]", "word", "[9.9]", " "]), max_size=6).map("".join),
)
def test_every_quote_is_the_text_between_its_offsets(text: str, answer: str) -> None:
    document = Document(unicodedata.normalize("NFC", text), "ab" * 32, "made up")
    chunks = chunk_document(document, budget=200, counter=EstimatedTokens())
    made = ground(answer + document.text[:80], document=document, chunks=chunks, question=document.text[-40:])
    for citation in made.citations:
        assert citation.quote == document.text[citation.start : citation.end]
        assert citation.quote == citation.quote.strip()
    assert made.support is None or 0.0 <= made.support <= 1.0 + 1e-9
