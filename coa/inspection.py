"""What a document holds, without calling a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coa.chunking import chunk_document
from coa.tokens import TokenCounter
from coa.types import Chunk, Document, LeftOut, Section

__all__ = ["Inspection", "SectionShare", "inspect_document"]

# A run of letters and digits, apostrophes and hyphens inside included; in scripts without spaces each sign.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
    r"(?:['’\-][^\W_]+)*"
)


@dataclass(frozen=True, slots=True)
class SectionShare:
    """A section and how much of the document it takes."""

    section: Section
    words: int
    ratio: float
    """Of the document's characters, 0..1."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A document in figures; counts of words and characters are of the readable text, `left_out` apart."""

    document: Document
    characters: int
    words: int
    """In Chinese and Japanese each character counts as one."""
    tokens: int
    """Of all chunks, as rendered for the model."""
    tokenizer: str
    exact: bool
    """False where `tokens` is an estimate."""
    chunk_tokens: int
    """The budget that the chunks were packed to."""
    chunks: tuple[Chunk, ...]
    sections: tuple[SectionShare, ...]
    left_out: tuple[LeftOut, ...]


def inspect_document(document: Document, *, counter: TokenCounter, chunk_tokens: int) -> Inspection:
    """Figures of `document`, its sections, and its chunks at a budget of `chunk_tokens` tokens of `counter`.

    Raises:
        ChunkTooLarge: the budget cannot hold even one character.
    """
    chunks = tuple(chunk_document(document, budget=chunk_tokens, counter=counter))
    readable = [document.text[span.start : span.end] for span in document.readable()]
    size = max(1, len(document.text))
    return Inspection(
        document=document,
        characters=sum(map(len, readable)),
        words=sum(map(count_words, readable)),
        tokens=sum(chunk.n_tokens for chunk in chunks),
        tokenizer=counter.name,
        exact=counter.exact,
        chunk_tokens=chunk_tokens,
        chunks=chunks,
        sections=tuple(
            SectionShare(
                section,
                words=count_words(document.text[section.span.start : section.span.end]),
                ratio=section.span.length / size,
            )
            for section in document.sections
        ),
        left_out=document.left_out,
    )


def count_words(text: str) -> int:
    """Words of `text`; each character of scripts without spaces counts as one."""
    return sum(1 for _ in _WORD.finditer(text))
