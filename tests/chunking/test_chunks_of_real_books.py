"""Chunks of whole books in five languages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from coa.chunking import chunk_document
from coa.documents import read_document
from coa.reading import reading_prefix
from coa.tokens import EstimatedTokens, TokenCounter
from coa.types import Document
from tests.tools.growth import growth

ROOT = Path(__file__).resolve().parents[2]
BOOKS = Path(os.environ.get("COA_TEST_DATA", ROOT.parent / "shared" / "data")) / "books" / "docs"
NAMES = [
    "de-die-verwandlung-latin1.txt",
    "en-alice.txt",
    "en-pride-and-prejudice.txt",
    "es-marianela-latin1.txt",
    "fr-tour-du-monde-latin1.txt",
    "zh-xiyouji.txt",
]
LONG = {"en-pride-and-prejudice.txt", "fr-tour-du-monde-latin1.txt", "zh-xiyouji.txt"}
CASES = [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n in NAMES]


class LetterTokens:
    """Runs of four letters and single signs, each Chinese character one."""

    name = "letters"
    exact = True
    _token = re.compile(r"[\u3400-\u9fff]|\d|[^\W\d\u3400-\u9fff]{1,4}|[^\w\s]|\n")

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self._token.findall(text)) for text in texts]


def _book(name: str) -> Document:
    if not (BOOKS / name).exists():
        pytest.skip(f"no {name} in COA_TEST_DATA")
    return read_document(BOOKS / name)


@pytest.mark.data
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("budget", [400, 1500, 6000])
@pytest.mark.parametrize("counter", [LetterTokens(), EstimatedTokens()], ids=lambda c: c.name)
def test_books_are_chunked_without_loss(name: str, budget: int, counter: TokenCounter) -> None:
    document = _book(name)
    chunks = chunk_document(document, budget=budget, counter=counter)
    parts = [(c.span, c.text) for c in chunks]
    parts += [(p.span, document.text[p.span.start : p.span.end]) for p in document.left_out]
    assert "".join(text for _, text in sorted(parts)) == document.text
    for chunk in chunks:
        prefix = reading_prefix(chunk.text, chunk.sentences, offset=chunk.span.start)
        assert chunk.n_tokens == counter.count([prefix])[0] <= budget
        assert [chunk.span.start, *(s.end for s in chunk.sentences)] == [
            *(s.start for s in chunk.sentences),
            chunk.span.end,
        ]
    mean = sum(c.n_tokens for c in chunks) / len(chunks)
    assert mean > 0.75 * budget
    assert min(c.n_tokens for c in chunks) > 0.25 * budget


@pytest.mark.data
@pytest.mark.parametrize("name", CASES)
def test_sentences_of_books_do_not_cross_paragraphs_and_have_a_sane_length(name: str) -> None:
    document = _book(name)
    spans = [s for c in chunk_document(document, budget=3000, counter=LetterTokens()) for s in c.sentences]
    texts = [document.text[s.start : s.end].strip() for s in spans]
    assert not any(re.search(r"\n\s*\n", t) for t in texts)
    lengths = sorted(len(t) for t in texts)
    wide = name.startswith("zh")
    assert (8 if wide else 30) < lengths[len(lengths) // 2] < (60 if wide else 200)


@pytest.mark.data
@pytest.mark.parametrize("name", ["en-alice.txt", "fr-tour-du-monde-latin1.txt"])
def test_more_chapters_open_a_chunk_than_by_chance(name: str) -> None:
    document = _book(name)
    chunks = chunk_document(document, budget=1500, counter=LetterTokens())
    starts = {c.span.start for c in chunks}
    chapter_starts = [s.span.start for s in document.sections if s.kind == "chapter"]
    aligned = sum(1 for at in chapter_starts if at in starts)
    assert aligned >= 0.4 * len(chapter_starts)
    # Chapters cost few chunks: a reading without regard to them would take as many as the tokens need.
    total = sum(c.n_tokens for c in chunks)
    assert len(chunks) <= 1.25 * total / 1500


@pytest.mark.data
@pytest.mark.slow
def test_chunking_time_is_linear_in_the_book() -> None:
    text = _book("zh-xiyouji.txt").text
    documents = {share: read_document(text[: share * len(text) // 4].encode()) for share in (1, 4)}

    def chunked(share: int) -> None:
        chunk_document(documents[share], budget=1500, counter=LetterTokens())

    # Were it the square, 16.
    assert growth(chunked, 1, 4, enough=7) < 7
