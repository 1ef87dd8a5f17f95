"""The quotes that a model wrote itself inside an answer: looked up, numbered, or marked as not found.

The words of an answer stay as they were written; what stands in the source is in the citation, with a status that
says how near it is. A quote that is not in the source keeps its marks too, so that everybody sees what the model
claimed, and gets a note in brackets right behind them: taking the marks away would make a false quote a plain
statement that nothing speaks against.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from coa.agents.normalising import normalised
from coa.agents.places import citation_at, sentence_at
from coa.agents.quotations import Quotation, quoted_parts
from coa.agents.references import Reference, references, without_references
from coa.agents.verification import QuoteVerifier, Verified
from coa.types import Chunk, Citation, CitationStatus, Document, Span

__all__ = ["CheckedQuotes", "check_quotes"]

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
# From a quotation to the ids that it was given: at most one sentence end lies between, and no other quotation.
_TO_IDS = re.compile(r"[^.!?。！？\n\[【\"“„«»「『]{0,200}[.!?。！？]?[\"'”’»」』)*]*\s*(?=[\[【])")
_IDS = re.compile(r"[^.!?。！？\n\[【]{0,200}[.!?。！？]?[\"'”’»」』)*]*\s*(?=[\[【])")
_IDS = re.compile(r"(?:\s*[\[【][^\]】\n]{1,80}[\]】])+")


@dataclass(frozen=True, slots=True)
class CheckedQuotes:
    """What became of the quotations in an answer."""

    citations: list[Citation] = field(default_factory=list)
    """Those that no sentence named by the answer holds, in order."""
    inserted: list[tuple[int, str]] = field(default_factory=list)
    """Numbers of citations and notes, with their offsets in the answer."""
    not_found: list[str] = field(default_factory=list)


def check_quotes(
    answer: str,
    *,
    document: Document,
    chunks: Sequence[Chunk],
    question: str | None,
    named: Sequence[Reference],
    first: int,
    verifier: QuoteVerifier,
) -> CheckedQuotes:
    """Looks up the quotations of `answer`; each one found gets the number of a citation behind it.

    `named` are the sentences that the answer names, all of them there, whose citations have the numbers from `first`
    on; a verbatim quote out of one of them shares its number. What repeats the question or the document's title is
    no quote from it.
    """
    known = [normalised(t).text for t in (question, document.title, document.name) if t]
    spans = [span for r in named if (span := sentence_at(r, chunks)) is not None]
    found = CheckedQuotes()
    own: dict[tuple[Span, CitationStatus], int] = {}
    for quotation in quoted_parts(answer):
        quote = without_references(quotation.text)
        if any(normalised(quote).text.strip(" .,;:!?…-") in text for text in known):
            continue
        given = [r for r in _ids_of(answer, quotation) if r in named]
        verified = _verified(quote, [chunks[r.chunk - 1].span for r in given], verifier)
        if verified.span is None:
            found.not_found.append(quote)
            found.inserted.append((quotation.end, _note(document.language)))
            continue
        number = _holder(verified, spans, first)
        if number is None:
            number = own.setdefault((verified.span, verified.status), first + len(named) + len(own))
            if len(own) > len(found.citations):
                score = round(verified.score, 3) if verified.match == "fuzzy" else None
                citation = citation_at(document, verified.span, origin="model", status=verified.status, score=score)
                found.citations.append(citation)
        if number not in {first + named.index(r) for r in given}:
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


def _holder(verified: Verified, sentences: Sequence[Span], first: int) -> int | None:
    """The number of a named sentence that has all of a quote which is its own words; None without one."""
    if verified.span is None or verified.status not in {"exact", "normalised"}:
        return None
    start, end = verified.span
    return next((n for n, s in enumerate(sentences, first) if s.start <= start and end <= s.end), None)


def _note(language: str | None) -> str:
    words = _NOT_FOUND.get(language or "en", _NOT_FOUND["en"])
    return f"（{words}）" if language in {"zh", "ja"} else f" ({words})"
