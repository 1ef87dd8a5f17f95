"""Citations: from ids that agents gave, or found by the words of the answer.

Either way the quote is copied from the source by code. An id that a worker gave is taken as it is (`origin`
"model"). Where a model gives none, the sentences that share the rare words of question and answer are looked
up (`origin` "located", with a score), which shows a reader where to look but proves nothing; the support
figure says how much of the answer's own words those places hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coa.agents.lexical import SentenceRanker, content_words
from coa.agents.references import Reference, references, renumbered, without_references
from coa.types import Chunk, Citation, Document, Span

__all__ = ["Grounding", "ground"]

_CLAIM_WEIGHT = 2.0
_MIN_SCORE = 0.2
_MOST_QUOTE = 600

Origin = Literal["model", "located"]


@dataclass(frozen=True, slots=True)
class Grounding:
    """An answer with its places in the source."""

    text: str
    """The answer with `[1]`, `[2]` for its citations, counted from 1; without marks where they were located."""
    citations: tuple[Citation, ...]
    support: float | None
    """Share of the answer's content words, weighted by rarity, that the cited sentences hold, 0..1.
    None when the answer has no content words."""


def ground(
    answer: str,
    *,
    document: Document,
    chunks: Sequence[Chunk],
    question: str | None,
    most: int = 3,
    first: int = 1,
    quoted: Sequence[Reference] | None = None,
) -> Grounding:
    """`answer` with its citations: those it names, else up to `most` located ones.

    `chunks` are those that its notes came from; `first` is the number that its first citation gets. `quoted`
    says that code picked the sentences the answer names, and lists the other candidates, best first.
    """
    named = [r for r in references(answer) if _exists(r, chunks)]
    sentences = [s for c in chunks for s in c.sentences]
    ranker = SentenceRanker([document.text[s.start : s.end] for s in sentences])
    if named:
        text = renumbered(answer, {reference: n for n, reference in enumerate(named, first)})
        others = [r for r in quoted or () if r not in named and _exists(r, chunks)][: max(0, most - len(named))]
        origin: Origin = "model" if quoted is None else "located"
        citations = tuple(_citation(document, _span(r, chunks), origin=origin) for r in [*named, *others])
    else:
        text = without_references(answer)
        citations = _located(text, question, most, document=document, sentences=sentences, ranker=ranker)
    claim = content_words(without_references(answer))
    held = set().union(*(content_words(c.quote) for c in citations)) if citations else set()
    total = sum(ranker.rarity(w) for w in claim)
    support = sum(ranker.rarity(w) for w in claim & held) / total if total else None
    return Grounding(text, citations, support)


def _located(
    answer: str,
    question: str | None,
    most: int,
    *,
    document: Document,
    sentences: Sequence[Span],
    ranker: SentenceRanker,
) -> tuple[Citation, ...]:
    """The sentences that hold the most of what `answer` and `question` say, best first."""
    weights = {w: ranker.rarity(w) for w in content_words(question or "")}
    for word in content_words(answer):
        weights[word] = weights.get(word, 0.0) + ranker.rarity(word) * _CLAIM_WEIGHT
    total = sum(weights.values())
    if total <= 0:
        return ()
    scored = [(share, at) for at in range(len(ranker)) if (share := ranker.share(weights, at) / total) >= _MIN_SCORE]
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return tuple(
        _citation(document, sentences[at], origin="located", score=round(share, 3)) for share, at in scored[:most]
    )


def _exists(reference: Reference, chunks: Sequence[Chunk]) -> bool:
    return 1 <= reference.chunk <= len(chunks) and 1 <= reference.sentence <= len(chunks[reference.chunk - 1].sentences)


def _span(reference: Reference, chunks: Sequence[Chunk]) -> Span:
    return chunks[reference.chunk - 1].sentences[reference.sentence - 1]


def _citation(document: Document, sentence: Span, *, origin: Origin, score: float | None = None) -> Citation:
    text = document.text[sentence.start : min(sentence.end, sentence.start + _MOST_QUOTE)]
    quote = text.strip()
    start = sentence.start + len(text) - len(text.lstrip())
    section = document.section_at(start)
    place = document.place_at(start)
    return Citation(
        quote=quote,
        start=start,
        end=start + len(quote),
        chapter=section.title if section is not None else None,
        page=place.page if place is not None else None,
        status="exact",
        origin=origin,
        score=score,
    )
