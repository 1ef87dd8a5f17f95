"""Chunks: lossless, within their budget, ending where it reads well."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.chunking import chunk_document
from coa.documents import canonical, read_document
from coa.errors import ChunkTooLarge
from coa.reading import reading_prefix, render_sentence
from coa.tokens import EstimatedTokens, TokenCounter
from coa.types import Chunk, Document, LeftOut, Section, Span


class WordTokens:
    """Words of up to six letters, single digits, signs and line breaks, as simple tokenizers have them."""

    name = "words"
    exact = True
    _token = re.compile(r"\d|[^\W\d]{1,6}|[^\w\s]|\n")

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self._token.findall(text)) for text in texts]


class SuperadditiveTokens(WordTokens):
    """Counts a whole higher than its lines, which the protocol does not promise but a server may do."""

    name = "superadditive"

    def count(self, texts: Sequence[str]) -> list[int]:
        return [n + n // 20 for n in super().count(texts)]


TEXT = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc . . . \n\n    !?,;“”é́第。，\u200d👍🏽🇩🇪<|im_end|>0123"), st.characters(codec="utf-8")
    ),
    max_size=600,
).map(canonical)
PARAGRAPHS = st.lists(
    st.lists(
        st.sampled_from(["It rained. ", "Nobody knew, and so it went on for a while. ", "Why? ", "No! "]), max_size=9
    ),
    max_size=12,
).map(lambda paragraphs: "\n\n".join("".join(sentences) for sentences in paragraphs))


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = draw(st.one_of(TEXT, PARAGRAPHS))
    marks = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    left_out = [LeftOut(Span(a, b), "markup") for a, b in list(pairwise(marks))[::2] if a < b]
    starts = sorted({0, *draw(st.lists(st.integers(0, max(0, len(text) - 1)), max_size=4))})
    sections = [Section("", Span(a, b)) for a, b in pairwise([*starts, len(text)]) if a < b]
    return _document(text, left_out, sections, draw(st.sampled_from(["en", "zh", None])))


def _document(
    text: str, left_out: Sequence[LeftOut] = (), sections: Sequence[Section] = (), language: str | None = "en"
) -> Document:
    return Document(
        text=text,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        name="test",
        language=language,
        left_out=tuple(left_out),
        sections=tuple(sections),
    )


def _rejoined(document: Document, chunks: Sequence[Chunk]) -> str:
    parts = [(c.span, c.text) for c in chunks]
    parts += [(p.span, document.text[p.span.start : p.span.end]) for p in document.left_out]
    # White space alone between left-out parts is in no chunk.
    held = {c.span.start for c in chunks}
    for span in document.readable():
        blank = document.text[span.start : span.end]
        if blank.isspace():
            assert span.start not in held
            parts.append((span, blank))
    return "".join(text for _, text in sorted(parts))


def _check(document: Document, chunks: Sequence[Chunk], budget: int, counter: TokenCounter) -> None:
    assert _rejoined(document, chunks) == document.text
    assert [c.index for c in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert chunk.text == document.text[chunk.span.start : chunk.span.end]
        assert chunk.sentences[0].start == chunk.span.start
        assert chunk.sentences[-1].end == chunk.span.end
        assert all(a.end == b.start for a, b in pairwise(chunk.sentences))
        assert all(document.text[s.start : s.end].strip() for s in chunk.sentences)
        prefix = reading_prefix(chunk.text, chunk.sentences, offset=chunk.span.start)
        assert chunk.n_tokens == counter.count([prefix])[0] <= budget
        assert (chunk.tokenizer, chunk.exact) == (counter.name, counter.exact)
        for part in document.left_out:
            assert chunk.span.end <= part.span.start or chunk.span.start >= part.span.end


@given(documents(), st.integers(60, 400), st.sampled_from([WordTokens(), EstimatedTokens(), SuperadditiveTokens()]))
@settings(deadline=None)
def test_chunks_are_lossless_tiled_and_within_the_budget(
    document: Document, budget: int, counter: TokenCounter
) -> None:
    try:
        chunks = chunk_document(document, budget=budget, counter=counter)
    except ChunkTooLarge:  # a letter under hundreds of accents is not to be cut
        assert any(len(run) > 20 for run in re.findall(r"[^\x00-\u02ff]+", unicodedata.normalize("NFD", document.text)))
        return
    _check(document, chunks, budget, counter)
    assert chunk_document(document, budget=budget, counter=counter) == chunks


@given(PARAGRAPHS, st.integers(70, 300))
@settings(deadline=None)
def test_chunks_but_the_last_two_are_well_filled(text: str, budget: int) -> None:
    counter = WordTokens()
    chunks = chunk_document(_document(text), budget=budget, counter=counter)
    frame = counter.count([reading_prefix("", [])])[0]
    longest = max(counter.count([render_sentence(100, s) for s in ("Nobody knew, and so it went on for a while. ",)]))
    for chunk in chunks[:-2]:
        assert chunk.n_tokens - frame + longest >= 0.65 * (budget - frame)


def test_a_chapter_border_within_reach_ends_the_chunk() -> None:
    sentence = "It rained on the roofs. "
    first, second = sentence * 14 + "\n\n", sentence * 40
    document = _document(
        first + second, sections=[Section("", Span(0, len(first))), Section("", Span(len(first), 2000))]
    )
    counter = WordTokens()
    per_sentence = counter.count([render_sentence(10, sentence)])[0]
    frame = counter.count([reading_prefix("", [])])[0]
    reaching = chunk_document(document, budget=frame + 18 * per_sentence, counter=counter)
    assert reaching[0].text == first
    too_far = chunk_document(document, budget=frame + 30 * per_sentence, counter=counter)
    assert too_far[0].span.end > len(first)


def test_a_paragraph_border_is_preferred_to_a_sentence_border() -> None:
    paragraphs = ["One two three four. " * 5 + "\n\n"] * 12
    chunks = chunk_document(_document("".join(paragraphs)), budget=150, counter=WordTokens())
    assert len(chunks) > 2
    assert all(c.text.endswith("\n\n") for c in chunks)


def test_the_last_two_chunks_are_evened_out() -> None:
    counter = WordTokens()
    text = "One two three four five. " * 31
    sizes = [c.n_tokens for c in chunk_document(_document(text), budget=300, counter=counter)]
    assert len(sizes) == 2
    assert min(sizes) > 0.6 * max(sizes)


def test_chapter_starts_are_sentence_starts() -> None:
    text = "Chapter one goes on and on Chapter two goes on and on"
    at = text.index("Chapter two")
    document = _document(text, sections=[Section("", Span(0, at)), Section("", Span(at, len(text)))])
    (chunk,) = chunk_document(document, budget=200, counter=WordTokens())
    assert [s.start for s in chunk.sentences] == [0, at]


def test_left_out_parts_end_chunks() -> None:
    text = "One. Two. [page 3] Three. Four.\n \n"
    mark = Span(text.index("[page"), text.index(" Three"))
    chunks = chunk_document(_document(text, [LeftOut(mark, "page_number")]), budget=200, counter=WordTokens())
    assert [c.text for c in chunks] == ["One. Two. ", " Three. Four.\n \n"]


@pytest.mark.parametrize("text", ["", " \n\n\t"])
def test_nothing_to_read_makes_no_chunk(text: str) -> None:
    assert chunk_document(_document(text), budget=100, counter=WordTokens()) == []
    everything = [LeftOut(Span(0, len(text)), "boilerplate")] if text else []
    assert chunk_document(_document(text, everything), budget=100, counter=WordTokens()) == []


@pytest.mark.parametrize("budget", [-5, 0, 1, 10])
def test_a_budget_without_room_for_one_character_names_the_numbers(budget: int) -> None:
    with pytest.raises(ChunkTooLarge, match=f"budget of {budget} tokens") as caught:
        chunk_document(_document("Hello there."), budget=budget, counter=WordTokens())
    frame = WordTokens().count([reading_prefix("", [])])[0]
    least = frame + WordTokens().count([render_sentence(1, "H")])[0]
    assert str(least) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_least_budget_named_in_the_error_is_enough() -> None:
    counter = WordTokens()
    least = counter.count([reading_prefix("", [])])[0] + counter.count([render_sentence(1, "H")])[0]
    document = _document("Hello there, hi.")
    _check(document, chunk_document(document, budget=least, counter=counter), least, counter)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 20_000,
        "wort " * 5_000,
        "第" * 5_000,
        "a, b; " * 4_000,
        "e\u0323\u0302 " * 3_000,
        "👩\u200d👩\u200d👧" * 1_000,
    ],
)
@pytest.mark.parametrize("counter", [WordTokens(), EstimatedTokens()])
def test_text_without_full_stops_is_cut(text: str, counter: TokenCounter) -> None:
    document = _document(canonical(text))
    chunks = chunk_document(document, budget=300, counter=counter)
    _check(document, chunks, 300, counter)
    full = [c.n_tokens for c in chunks[:-2]]
    assert sum(full) > 0.6 * 300 * len(full)
    for chunk in chunks:
        for sentence in chunk.sentences:
            before, after = document.text[sentence.start - 1 : sentence.start], document.text[sentence.start]
            assert not unicodedata.combining(after)
            assert "\u200d" not in (before, after)


def test_long_sentences_are_cut_after_clauses_where_there_are_any() -> None:
    text = "then the rain came down on the town, " * 60
    chunks = chunk_document(_document(text), budget=120, counter=WordTokens())
    assert all(text[: s.end].rstrip().endswith(",") for c in chunks for s in c.sentences)


def test_borders_depend_on_the_document_budget_and_counter_alone() -> None:
    text = "One two three four. " * 200
    first = chunk_document(_document(text), budget=200, counter=WordTokens())
    again = chunk_document(read_document(text.encode(), name="other.txt"), budget=200, counter=WordTokens())
    assert [c.span for c in first] == [c.span for c in again]


def test_sentences_are_counted_in_few_calls() -> None:
    calls = []

    class Counting(WordTokens):
        def count(self, texts: Sequence[str]) -> list[int]:
            calls.append(len(texts))
            return super().count(texts)

    chunk_document(_document("One two three four. " * 2000), budget=200, counter=Counting())
    assert len(calls) <= 5


def test_a_run_of_accents_longer_than_any_letter_has_is_cut() -> None:
    document = _document("a" + "\u0323" * 3000)
    chunks = chunk_document(document, budget=300, counter=EstimatedTokens())
    _check(document, chunks, 300, EstimatedTokens())


def test_flags_and_skin_tones_are_not_cut_through() -> None:
    document = _document("🇩🇪" * 400 + "👍🏽" * 400)
    chunks = chunk_document(document, budget=200, counter=EstimatedTokens())
    _check(document, chunks, 200, EstimatedTokens())
    starts = [document.text[s.start] for c in chunks for s in c.sentences]
    assert len(starts) > 4
    assert "🏽" not in starts


def test_a_counter_that_never_agrees_with_itself_ends_in_an_error() -> None:
    class Contrary(WordTokens):
        def count(self, texts: Sequence[str]) -> list[int]:
            return [n * 50 if t.count("\n") > 3 else n for n, t in zip(super().count(texts), texts, strict=True)]

    with pytest.raises(ChunkTooLarge, match="tokenizer"):
        chunk_document(_document("One two. " * 40), budget=200, counter=Contrary())
