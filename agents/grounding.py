"""Citations: from ids that agents gave, or found by the words of the answer.

Either way the quote is copied from the source by code. An id that a worker gave is taken as it is (`origin`
"model"). Where a model gives none, the sentences that share the rare words of question and answer are looked
up (`origin` "located", with a score), which shows a reader where to look but proves nothing; the support
figure says how much of the answer's own words those places hold.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coa.agents.references import Reference, references, without_references
from coa.types import Chunk, Citation, Document, Span

__all__ = ["Grounding", "ground"]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_CLAIM_WEIGHT = 2.0
_MIN_SCORE = 0.2
_MOST_QUOTE = 600


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
) -> Grounding:
    """`answer` with its citations: those it names, else up to `most` located ones.

    `chunks` are those that its notes came from; `first` is the number that its first citation gets.
    """
    named = [r for r in references(answer) if _exists(r, chunks)]
    index = _SentenceIndex(document, chunks)
    if named:
        citations = tuple(_citation(document, _span(r, chunks)) for r in named)
        text = _renumbered(answer, named, first)
    else:
        text = without_references(answer)
        citations = index.locate(text, question, most)
    claim = index.content(without_references(answer))
    held = set().union(*(index.content(c.quote) for c in citations)) if citations else set()
    total = sum(index.rarity(w) for w in claim)
    support = sum(index.rarity(w) for w in claim & held) / total if total else None
    return Grounding(text, citations, support)


def words_of(text: str) -> set[str]:
    """Case-folded words; runs of Chinese and Japanese characters as overlapping pairs."""
    found: set[str] = set()
    for run in _WIDE.findall(text):
        found.update(run[i : i + 2] for i in range(max(1, len(run) - 1)))
    for word in _WORD.findall(_WIDE.sub(" ", text)):
        folded = word.casefold().replace("’", "'").removesuffix("'s")
        found.add(folded)
    return found


class _SentenceIndex:
    """Which sentences hold which words."""

    def __init__(self, document: Document, chunks: Sequence[Chunk]) -> None:
        self._document = document
        self._sentences = [s for c in chunks for s in c.sentences]
        self._words: list[set[str]] = [words_of(document.text[s.start : s.end]) for s in self._sentences]
        self._n_holding = Counter(w for words in self._words for w in words)

    def rarity(self, word: str) -> float:
        """Inverse document frequency over sentences, 0 for words in more than one of twenty."""
        n, total = self._n_holding.get(word, 0), len(self._sentences) + 1
        if n * 20 > total and n > 3:
            return 0.0
        return math.log(total / (n + 0.5))

    def content(self, text: str) -> set[str]:
        """The words of `text` that say something: those with a rarity."""
        return {w for w in words_of(text) if self.rarity(w) > 0}

    def locate(self, answer: str, question: str | None, most: int) -> tuple[Citation, ...]:
        """The sentences that hold the most of what `answer` and `question` say, best first."""
        weights: dict[str, float] = {}
        for word in words_of(question or ""):
            weights[word] = self.rarity(word)
        for word in words_of(answer):
            weights[word] = weights.get(word, 0.0) + self.rarity(word) * _CLAIM_WEIGHT
        total = sum(weights.values())
        if total <= 0:
            return ()
        scored: list[tuple[float, int]] = []
        for at, words in enumerate(self._words):
            score = sum(weights[w] for w in words & weights.keys()) / total
            # A long sentence holds more words of everything.
            score /= 1.0 + max(0, len(words) - 40) / 80
            if score >= _MIN_SCORE:
                scored.append((score, at))
        scored.sort(key=lambda pair: (-pair[0], pair[1]))
        return tuple(_citation(self._document, self._sentences[at], origin_score=score) for score, at in scored[:most])


def _exists(reference: Reference, chunks: Sequence[Chunk]) -> bool:
    return 1 <= reference.chunk <= len(chunks) and 1 <= reference.sentence <= len(chunks[reference.chunk - 1].sentences)


def _span(reference: Reference, chunks: Sequence[Chunk]) -> Span:
    return chunks[reference.chunk - 1].sentences[reference.sentence - 1]


def _citation(document: Document, sentence: Span, *, origin_score: float | None = None) -> Citation:
    text = document.text[sentence.start : min(sentence.end, sentence.start + _MOST_QUOTE)]
    quote = text.strip()
    start = sentence.start + len(text) - len(text.lstrip())
    section = document.section_at(start)
    return Citation(
        quote=quote,
        start=start,
        end=start + len(quote),
        chapter=section.title if section is not None else None,
        status="exact",
        origin="model" if origin_score is None else "located",
        score=None if origin_score is None else round(origin_score, 3),
    )


def _renumbered(answer: str, named: Sequence[Reference], first: int) -> str:
    places = {reference: n for n, reference in enumerate(named, first)}

    def replace(match: re.Match[str]) -> str:
        numbers = [places[r] for r in references(match.group()) if r in places]
        return "".join(f"[{n}]" for n in numbers)

    return re.sub(r" +([.,;:!?])", r"\1", re.sub(r"[\[【][\d.,;\s–-]+[\]】]", replace, answer)).strip()
