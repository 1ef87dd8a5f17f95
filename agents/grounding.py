"""Citations: from ids that agents gave, from quotes that they wrote, or found by the words of the answer.

In each case the quote is copied from the source by code. An id that a worker gave is taken as it is (`origin`
"model"). What a model itself put in quotation marks is looked up (see `coa.agents.verification`): found, it becomes
a citation with its status; not found, it stays in the answer with a note that says so, and is no evidence. Where a
model gives neither, the sentences that share the rare words of question and answer are looked up (`origin`
"located", with a score), which shows a reader where to look but proves nothing; the support figure says how much of
the answer's own words those places hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coa.agents.claims import claims_of
from coa.agents.lexical import SentenceRanker, content_words
from coa.agents.places import Origin, sentence_at, sentence_citation
from coa.agents.quote_checks import CheckedQuotes, check_quotes
from coa.agents.references import Reference, references, renumbered, with_known, without_references
from coa.agents.verification import QuoteVerifier
from coa.types import Chunk, Citation, Claim, Document, Span

__all__ = ["Grounding", "ground"]

_CLAIM_WEIGHT = 2.0
_MIN_SCORE = 0.2
_LEAST_HELD = 0.5
"""Share of a sentence's rare words that a located citation has to hold to be named as what it rests on."""


@dataclass(frozen=True, slots=True)
class Grounding:
    """An answer with its places in the source."""

    text: str
    """The answer with `[1]`, `[2]` for its citations, counted from 1; without marks where they were located.
    Quotes that are not in the source have a note in brackets behind them."""
    citations: tuple[Citation, ...]
    support: float | None
    """Share of the answer's content words, weighted by rarity, that the cited sentences hold, 0..1.
    None when the answer has no content words."""
    claims: tuple[Claim, ...] = ()
    """The answer's sentences with their citations; for located ones those that hold most of its rare words."""
    quotes_not_found: tuple[str, ...] = ()
    """What stands in quotation marks in the answer and nowhere in the source."""


def ground(
    answer: str,
    *,
    document: Document,
    chunks: Sequence[Chunk],
    question: str | None,
    most: int = 3,
    first: int = 1,
    quoted: Sequence[Reference] | None = None,
    verify: bool = True,
    verifier: QuoteVerifier | None = None,
) -> Grounding:
    """`answer` with its citations: those it names or quotes, else up to `most` located ones.

    `chunks` are those that its notes came from; `first` is the number that its first citation gets. `quoted`
    says that code picked the sentences the answer names, and lists the other candidates, best first. `verify`
    looks up what the answer has in quotation marks; `verifier`, over the document's text, saves reading it again.
    """
    named = [r for r in references(answer) if sentence_at(r, chunks) is not None]
    answer = with_known(answer, frozenset(named))
    numbers = {reference: n for n, reference in enumerate(named, first)}
    origin: Origin = "model" if quoted is None else "located"
    citations = _of_sentences(named, document, chunks, origin=origin)
    quotes = CheckedQuotes()
    if verify and quoted is None:
        verifier = verifier or QuoteVerifier(document.text)
        quotes = check_quotes(
            answer, document=document, chunks=chunks, question=question, named=named, first=first, verifier=verifier
        )
        citations += quotes.citations
    text = renumbered(answer, numbers, quotes.inserted)
    sentences = [s for c in chunks for s in c.sentences]
    ranker = SentenceRanker([document.text[s.start : s.end] for s in sentences])
    if named:
        others = _of_sentences([r for r in quoted or () if r not in named], document, chunks, origin=origin)
        citations += others[: max(0, most - len(named))]
    else:
        found = _located(without_references(answer), question, most, document, sentences=sentences, ranker=ranker)
        free = [c for c in found if not any(_overlap(c, other) for other in citations)]
        citations += free[: max(0, most - len(citations))]
    claims = claims_of(text, numbers=range(first, first + len(citations)), language=document.language)
    return Grounding(
        text,
        tuple(citations),
        _support(answer, citations, ranker),
        tuple(_with_located(claim, citations, first, ranker) for claim in claims),
        tuple(quotes.not_found),
    )


def _support(answer: str, citations: Sequence[Citation], ranker: SentenceRanker) -> float | None:
    claim = content_words(without_references(answer))
    held = set().union(*(content_words(c.quote) for c in citations)) if citations else set()
    total = sum(ranker.rarity(w) for w in claim)
    return sum(ranker.rarity(w) for w in claim & held) / total if total else None


def _with_located(claim: Claim, citations: Sequence[Citation], first: int, ranker: SentenceRanker) -> Claim:
    """`claim`, where it names no citation, with the located ones that hold enough of its words."""
    if claim.citations:
        return claim
    words = content_words(claim.text)
    total = sum(ranker.rarity(w) for w in words)
    held = [
        n
        for n, citation in enumerate(citations, first)
        if citation.origin == "located"
        and total > 0
        and sum(ranker.rarity(w) for w in words & content_words(citation.quote)) >= total * _LEAST_HELD
    ]
    return Claim(claim.text, tuple(held))


def _of_sentences(
    wanted: Sequence[Reference], document: Document, chunks: Sequence[Chunk], *, origin: Origin
) -> list[Citation]:
    spans = (sentence_at(reference, chunks) for reference in wanted)
    return [sentence_citation(document, span, origin=origin) for span in spans if span is not None]


def _located(
    answer: str,
    question: str | None,
    most: int,
    document: Document,
    *,
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
        sentence_citation(document, sentences[at], origin="located", score=round(share, 3))
        for share, at in scored[:most]
    )


def _overlap(one: Citation, other: Citation) -> bool:
    return one.start < other.end and other.start < one.end
