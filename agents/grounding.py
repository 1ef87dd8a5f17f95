"""Citations: from ids that agents gave, from quotes that they wrote, or found by the words of the answer.

In each case the quote is copied from the source by code. An id that a worker gave is taken as it is (`origin`
"model"). What a model itself put in quotation marks is looked up (see `coa.agents.verification`): found, it becomes
a citation with its status; not found, it stays in the answer with a note that says so, and is no evidence. Where a
model gives neither, the sentences that share the rare words of question and answer are looked up (`origin`
"located", with a score), which shows a reader where to look but proves nothing; the support figure says how much of
the answer's own words those places hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from coa.agents.claims import claims_of
from coa.agents.lexical import SentenceRanker, content_words
from coa.agents.normalising import normalised
from coa.agents.quotations import Quotation, quoted_parts
from coa.agents.references import Reference, references, renumbered, with_known, without_references
from coa.agents.verification import QuoteVerifier, Verified
from coa.types import Chunk, Citation, CitationStatus, Claim, Document, Span

__all__ = ["Grounding", "ground", "sentence_citation"]

_CLAIM_WEIGHT = 2.0
_MIN_SCORE = 0.2
_MOST_QUOTE = 600
_LEAST_HELD = 0.5
"""Share of a sentence's rare words that a located citation has to hold to be named as what it rests on."""

_NOT_FOUND = {
    "de": "steht nicht im Text",
    "en": "not found in the source",
    "es": "no está en el texto",
    "fr": "introuvable dans le texte",
    "it": "non è nel testo",
    "ja": "原文に見当たりません",
    "nl": "staat niet in de tekst",
    "pt": "não está no texto",
    "zh": "原文中未找到",
}
# From a quotation to the ids that it was given: at most one sentence end lies between.
_TO_IDS = re.compile(r"[^.!?。！？\n\[【]{0,200}[.!?。！？]?[\"'”’»」』)*]*\s*(?=[\[【])")
_IDS = re.compile(r"(?:\s*[\[【][^\]】\n]{1,80}[\]】])+")

Origin = Literal["model", "located"]


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


class _Quotes(NamedTuple):
    """What became of the quotations in an answer."""

    citations: list[Citation]
    inserted: list[tuple[int, str]]
    """Marks and notes, with their offsets in the answer."""
    not_found: list[str]


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
    named = [r for r in references(answer) if _exists(r, chunks)]
    answer = with_known(answer, frozenset(named))
    numbers = {reference: n for n, reference in enumerate(named, first)}
    origin: Origin = "model" if quoted is None else "located"
    citations = [sentence_citation(document, _span(r, chunks), origin=origin) for r in named]
    quotes = _Quotes([], [], [])
    if verify and quoted is None:
        quotes = _checked(
            answer,
            document,
            chunks,
            question=question,
            cited=citations,
            numbers=numbers,
            first=first,
            verifier=verifier or QuoteVerifier(document.text),
        )
        citations += quotes.citations
    text = renumbered(answer, numbers, quotes.inserted)
    sentences = [s for c in chunks for s in c.sentences]
    ranker = SentenceRanker([document.text[s.start : s.end] for s in sentences])
    if named:
        others = [r for r in quoted or () if r not in named and _exists(r, chunks)][: max(0, most - len(named))]
        citations += [sentence_citation(document, _span(r, chunks), origin=origin) for r in others]
    else:
        bare = without_references(answer)
        located = _located(bare, question, most, document=document, sentences=sentences, ranker=ranker)
        free = [c for c in located if not any(_overlap(c, other) for other in citations)]
        citations += free[: max(0, most - len(citations))]
    claims = claims_of(text, numbers=range(first, first + len(citations)), language=document.language)
    return Grounding(
        text,
        tuple(citations),
        _support(answer, citations, ranker),
        tuple(_with_located(claim, citations, first, ranker) for claim in claims),
        tuple(quotes.not_found),
    )


def _checked(
    answer: str,
    document: Document,
    chunks: Sequence[Chunk],
    *,
    question: str | None,
    cited: Sequence[Citation],
    numbers: dict[Reference, int],
    first: int,
    verifier: QuoteVerifier,
) -> _Quotes:
    """Looks up the quotations of `answer`; those found get the number of a citation, their own or one that has them.

    What repeats the question or the document's title is no quote from it.
    """
    known = [normalised(t).text for t in (question, document.title, document.name) if t]
    found = _Quotes([], [], [])
    own: dict[tuple[Span, CitationStatus], int] = {}
    for quotation in quoted_parts(answer):
        quote = without_references(quotation.text)
        bare = normalised(quote).text.strip(" .,;:!?…-")
        if any(bare in text for text in known):
            continue
        given = [r for r in _ids_of(answer, quotation) if r in numbers]
        verified = _verified(quote, [chunks[r.chunk - 1].span for r in given], verifier)
        if verified.span is None:
            found.not_found.append(quote)
            found.inserted.append((quotation.end, _not_found_note(document.language)))
            continue
        number = _holder(verified.span, cited, first) if verified.status in {"exact", "normalised"} else None
        if number is None:
            key = (verified.span, verified.status)
            if key not in own:
                own[key] = first + len(cited) + len(found.citations)
                score = round(verified.score, 3) if verified.match == "fuzzy" else None
                citation = _citation(document, verified.span, origin="model", score=score)
                found.citations.append(replace(citation, status=verified.status))
            number = own[key]
        if number not in {numbers[r] for r in given}:
            found.inserted.append((quotation.end, f" [{number}]"))
    return found


def _verified(quote: str, places: Sequence[Span], verifier: QuoteVerifier) -> Verified:
    """What becomes of a quote that was said to stand in one of `places`; anywhere, where there is none."""
    verified = verifier.verify(quote, places[0] if places else None)
    for place in places[1:]:
        if verified.status != "moved":
            break
        verified = verifier.verify(quote, place)
    return verified


def _ids_of(answer: str, quotation: Quotation) -> list[Reference]:
    """The ids that the answer gives for a quotation: inside it, or next after it."""
    inside = references(answer[quotation.start : quotation.end])
    to_ids = _TO_IDS.match(answer, quotation.end)
    ids = _IDS.match(answer, to_ids.end()) if to_ids is not None else None
    return inside + (references(ids.group()) if ids is not None else [])


def _holder(span: Span, cited: Sequence[Citation], first: int) -> int | None:
    """The number of a citation that has all of `span`."""
    return next((n for n, c in enumerate(cited, first) if c.start <= span.start and span.end <= c.end), None)


def _not_found_note(language: str | None) -> str:
    words = _NOT_FOUND.get(language or "en", _NOT_FOUND["en"])
    return f"（{words}）" if language in {"zh", "ja"} else f" ({words})"


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
        sentence_citation(document, sentences[at], origin="located", score=round(share, 3))
        for share, at in scored[:most]
    )


def _exists(reference: Reference, chunks: Sequence[Chunk]) -> bool:
    return 1 <= reference.chunk <= len(chunks) and 1 <= reference.sentence <= len(chunks[reference.chunk - 1].sentences)


def _span(reference: Reference, chunks: Sequence[Chunk]) -> Span:
    return chunks[reference.chunk - 1].sentences[reference.sentence - 1]


def _overlap(one: Citation, other: Citation) -> bool:
    return one.start < other.end and other.start < one.end


def sentence_citation(document: Document, sentence: Span, *, origin: Origin, score: float | None = None) -> Citation:
    """A sentence, or the beginning of a very long one."""
    text = document.text[sentence.start : min(sentence.end, sentence.start + _MOST_QUOTE)]
    start = sentence.start + len(text) - len(text.lstrip())
    return _citation(document, Span(start, start + len(text.strip())), origin=origin, score=score)


def _citation(document: Document, span: Span, *, origin: Origin, score: float | None = None) -> Citation:
    section = document.section_at(span.start)
    place = document.place_at(span.start)
    return Citation(
        quote=document.text[span.start : span.end],
        start=span.start,
        end=span.end,
        chapter=section.title if section is not None else None,
        page=place.page if place is not None else None,
        status="exact",
        origin=origin,
        score=score,
    )
