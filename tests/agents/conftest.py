"""Documents cut into chunks by hand, so that a test can say which sentence is where."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import pytest

from coa.limits import Limits
from coa.types import Chunk, Document, Section, Span

MakeBook = Callable[..., tuple[Document, list[Chunk]]]


def make_book(*chunks: Sequence[str]) -> tuple[Document, list[Chunk]]:
    """A document of the sentences of `chunks`, each chunk a chapter, and its chunks."""
    text = ""
    made: list[Chunk] = []
    sections: list[Section] = []
    for index, sentences in enumerate(chunks):
        start, spans = len(text), []
        for sentence in sentences:
            spans.append(Span(len(text), len(text) + len(sentence) + 1))
            text += sentence + " "
        span = Span(start, len(text))
        made.append(Chunk(index, text[start:], span, tuple(spans), len(text) - start, "chars", False))
        sections.append(Section(f"Chapter {index + 1}", span, number=index + 1))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Document(text, digest, "book.txt", sections=tuple(sections)), made


@pytest.fixture
def book() -> MakeBook:
    """`make_book`."""
    return make_book


@pytest.fixture
def limits() -> Limits:
    """Of a window of 4,096."""
    return Limits(4096, 2000, 256, 400, 300, 500)
