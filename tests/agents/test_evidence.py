"""Evidence: what exists, in order, each sentence once, copied from the chunks."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from coa.agents import Reference
from coa.agents.evidence import Selected, rendered, verified
from coa.types import Chunk, Document, Span

Book = Callable[..., tuple[Document, list[Chunk]]]


def _chunk(index: int, n: int, *, start: int = 0) -> Chunk:
    sentences = [f"Sentence {index}.{k} says so.\n" for k in range(1, n + 1)]
    text, spans = "", []
    for sentence in sentences:
        spans.append(Span(start + len(text), start + len(text) + len(sentence)))
        text += sentence
    return Chunk(index, text, Span(start, start + len(text)), tuple(spans), 1, "chars", False)


CHUNKS = [_chunk(0, 9), _chunk(1, 9, start=1000), _chunk(2, 4, start=2000)]


def test_sentences_that_do_not_exist_are_dropped_and_counted() -> None:
    checked = verified([Selected(Reference(*r), 1.0) for r in ((1, 2), (1, 10), (4, 1), (2, 0), (4, 1))], CHUNKS)
    assert [line.references for line in checked.lines] == [(Reference(1, 2),)]
    assert checked.lines[0].texts == ("Sentence 0.2 says so.",)
    assert checked.dropped == 3


def test_neighbours_become_one_line_with_the_sentence_between_them() -> None:
    selected = [Selected(Reference(2, n), n / 10) for n in (7, 1, 3, 2, 9)]
    lines = verified(selected, CHUNKS).lines
    assert [[r.sentence for r in line.references] for line in lines] == [[1, 2, 3], [7, 8, 9]]
    assert [line.relevance for line in lines] == [0.3, 0.9]
    assert str(lines[1]) == "[2.7] Sentence 1.7 says so. [2.8] Sentence 1.8 says so. [2.9] Sentence 1.9 says so."


def test_a_struck_sentence_does_not_come_back_between_two_others() -> None:
    selected = [Selected(Reference(1, n), 1.0) for n in (6, 8)]
    lines = verified(selected, CHUNKS, without={Reference(1, 7)}).lines
    assert [[r.sentence for r in line.references] for line in lines] == [[6], [8]]
    assert verified(selected, CHUNKS, without={Reference(1, 6), Reference(1, 8)}).lines == ()


def test_lines_of_two_chunks_never_join() -> None:
    lines = verified([Selected(Reference(1, 9), 1.0), Selected(Reference(2, 1), 1.0)], CHUNKS).lines
    assert len(lines) == 2


def test_chapters_stand_above_their_lines_once(book: Book) -> None:
    document, chunks = book(["Ada left.", "It rained.", "The mill stood.", "Nobody came."], ["She came back."])
    selected = [Selected(Reference(*r), 1.0) for r in ((2, 1), (1, 4), (1, 1))]
    assert rendered(verified(selected, chunks, document=document).lines) == (
        "(Chapter 1)\n[1.1] Ada left.\n[1.4] Nobody came.\n(Chapter 2)\n[2.1] She came back."
    )


def test_brackets_of_the_source_do_not_read_as_ids(book: Book) -> None:
    document, chunks = book(["As the note [1.2] says, she left."], ["Another."])
    line = verified([Selected(Reference(1, 1), 1.0)], chunks, document=document).lines[0]
    assert str(line) == "[1.1] As the note says, she left."
    assert line.texts == ("As the note [1.2] says, she left.",)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12), st.floats(0, 1)), max_size=30))
def test_every_existing_sentence_that_was_named_is_shown_exactly_once(named: list[tuple[int, int, float]]) -> None:
    selected = [Selected(Reference(chunk, sentence), relevance) for chunk, sentence, relevance in named]
    checked = verified(selected, CHUNKS)
    shown = [r for line in checked.lines for r in line.references]
    assert shown == sorted(set(shown))
    exist = {r for r, _ in selected if 1 <= r.chunk <= 3 and 1 <= r.sentence <= len(CHUNKS[r.chunk - 1].sentences)}
    assert exist <= set(shown)
    assert checked.dropped == len({r for r, _ in selected} - exist)
