"""Citations: quotes are the document's own bytes, wherever they come from."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents import Grounding, Reference, ground
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


QUOTED = (
    ["Ada came to the harbour in 1815.", "“I carry a brass telescope,” said she, “wherever I go.”"],
    ["The lamp was lit at seven by the old keeper, who never slept.", "Nobody slept in the town."],
)


def _ground(book: Book, answer: str, **options: Any) -> Grounding:
    document, chunks = book(*QUOTED)
    question = options.pop("question", "What happened?")
    return ground(answer, document=document, chunks=chunks, question=question, **options)


def test_a_quote_of_the_models_own_becomes_a_citation_in_the_words_of_the_source(book: Book) -> None:
    made = _ground(book, 'The text says "the LAMP was lit at seven".')
    assert made.text == 'The text says "the LAMP was lit at seven" [1].'
    first = made.citations[0]
    assert (first.quote, first.status, first.origin) == ("The lamp was lit at seven", "normalised", "model")
    assert first.chapter == "Chapter 2"
    assert made.quotes_not_found == ()
    assert made.claims[0].citations == (1,)


def test_a_quote_that_a_named_sentence_holds_needs_no_second_citation(book: Book) -> None:
    made = _ground(book, "It was lit “at seven by the old keeper” [2.1]. Then “Nobody slept in the town.”")
    assert made.text == "It was lit “at seven by the old keeper” [1]. Then “Nobody slept in the town.” [2]"
    assert [c.status for c in made.citations] == ["exact", "exact"]
    assert made.citations[1].quote == "Nobody slept in the town."


def test_a_damaged_quote_has_its_own_citation_beside_the_named_sentence(book: Book) -> None:
    made = _ground(book, "“The lamp was lit at seven by the keeper, who never slept” [2.1].")
    assert made.text == "“The lamp was lit at seven by the keeper, who never slept” [2] [1]."
    assert [c.status for c in made.citations] == ["exact", "fuzzy"]
    assert made.citations[1].quote == "The lamp was lit at seven by the old keeper, who never slept"
    assert made.citations[1].score is not None


def test_a_quote_put_down_to_another_chunk_has_moved(book: Book) -> None:
    made = _ground(book, "“The lamp was lit at seven” [1.1], and “nobody slept in the town.” [1.2][2.2]")
    assert [(c.status, c.quote) for c in made.citations[3:]] == [("moved", "The lamp was lit at seven")]
    assert made.text == "“The lamp was lit at seven” [4] [1], and “nobody slept in the town.” [2][3]"


def test_the_id_of_the_next_quote_is_not_taken_for_this_ones(book: Book) -> None:
    made = _ground(book, "“Nobody slept in the town” and “I carry a brass telescope” [1.2].")
    assert made.text == "“Nobody slept in the town” [2] and “I carry a brass telescope” [1]."
    assert [c.status for c in made.citations] == ["exact", "exact"]


def test_a_quote_that_is_not_in_the_source_is_no_evidence_and_says_so(book: Book) -> None:
    made = _ground(book, "She said “the lamp was lit at eight” [2.1], and “dragons burned all of Paris”.")
    assert made.text == (
        "She said “the lamp was lit at eight” (not found in the source) [1], "
        "and “dragons burned all of Paris” (not found in the source)."
    )
    assert made.quotes_not_found == ("the lamp was lit at eight", "dragons burned all of Paris")
    assert [c.quote for c in made.citations] == [QUOTED[1][0]]


def test_the_note_is_in_the_languages_of_the_document(book: Book) -> None:
    document, chunks = book(["灯在七点钟点亮了。"])
    document = replace(document, language="zh")
    made = ground("他说“灯在八点钟点亮了”。", document=document, chunks=chunks, question=None)
    assert made.text == "他说“灯在八点钟点亮了”（原文中未找到）。"


def test_the_question_and_the_title_in_quotation_marks_are_no_quotes(book: Book) -> None:
    answer = 'You ask "who carried the golden harp?"; "The Winter of Our Lamps" does not say.'
    document, chunks = book(*QUOTED)
    document = replace(document, title="The Winter of Our Lamps")
    made = ground(answer, document=document, chunks=chunks, question="Who carried the golden harp?")
    assert made.quotes_not_found == ()
    assert made.text == answer


@pytest.mark.parametrize("options", [{"verify": False}, {"quoted": [Reference(2, 1)]}], ids=["told not to", "by code"])
def test_quotes_are_left_alone_where_nobody_asked_or_code_picked_them(book: Book, options: dict[str, Any]) -> None:
    made = _ground(book, "“Dragons burned all of Paris” [2.1].", **options)
    assert made.text == "“Dragons burned all of Paris” [1]."
    assert made.quotes_not_found == ()


def test_located_citations_are_named_by_the_sentences_whose_words_they_hold(book: Book) -> None:
    made = _ground(book, "The lamp was lit at seven. Dragons burned Paris.", question="When was the lamp lit?")
    assert made.citations[0].origin == "located"
    assert [c.citations for c in made.claims] == [(1,), ()]


def test_an_id_left_over_from_a_dropped_one_is_no_citation(book: Book) -> None:
    assert _ground(book, "The lamp [[2.1]9.9] [1[7]].").text == "The lamp [[1]9.9]."


@settings(deadline=None, max_examples=100)
@given(
    text=st.text(
        st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), min_size=1, max_size=400
    ).filter(lambda t: t.strip()),
    answer=st.lists(
        st.sampled_from(["[1.1]", "[1.2]", "[2.1]", "word", "[9.9]", " ", ". ", "“", "”", '"', "[1", "]"]), max_size=9
    ).map("".join),
    cut=st.tuples(st.integers(0, 400), st.integers(0, 60)),
)
def test_every_quote_is_the_text_between_its_offsets(text: str, answer: str, cut: tuple[int, int]) -> None:
    document = Document(unicodedata.normalize("NFC", text), "ab" * 32, "made up")
    chunks = chunk_document(document, budget=200, counter=EstimatedTokens())
    answer += f" “{document.text[cut[0] : sum(cut)]}” {document.text[:80]}"
    made = ground(answer, document=document, chunks=chunks, question=document.text[-40:])
    for citation in made.citations:
        assert citation.quote == document.text[citation.start : citation.end]
        assert citation.quote == citation.quote.strip()
    for claim in made.claims:
        assert all(1 <= n <= len(made.citations) for n in claim.citations)
    assert made.support is None or 0.0 <= made.support <= 1.0 + 1e-9
