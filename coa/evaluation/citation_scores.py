"""How well an answer's citations point at what it rests on.

Sources: ALCE's and L-CiteEval's citation recall and precision (eval_citation.py): sentences of the reply, the first
three citations of each; recall is the share of sentences that their citations bear out together, precision the share of
citations that are needed for that. Whether a text bears a sentence out is for an `Entailment` to say; where there is
none the gold evidence stands in for it: a citation is right where it touches a piece of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coa.evaluation.questions import Gold
from coa.types import Span

__all__ = ["CitationScores", "CitedSentence", "Entailment", "entailed_citations", "evidence_recall", "gold_citations"]

MOST_CITATIONS = 3
"""Of a sentence that count."""
_LEAST_OVERLAP = 0.5
"""Of the shorter one, that a citation has to share with a piece of evidence."""


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence of a reply, without marks, and what it cites."""

    text: str
    citations: tuple[Span, ...]
    """In the order of the marks."""


class CitationScores(NamedTuple):
    """Each between 0 and 1."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Their harmonic mean; 0 where both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


class Entailment(Protocol):
    """Says whether a text bears a sentence out: an NLI model, or a language model as judge."""

    @property
    def name(self) -> str:
        """For the record."""
        ...

    async def entails(self, premise: str, hypothesis: str) -> bool:
        """True where `hypothesis` follows from `premise`. Raises: ModelError."""
        ...


def evidence_recall(citations: Sequence[Span], gold: Sequence[Gold]) -> float | None:
    """The share of the pieces of evidence that some citation touches; None where the set tells of none."""
    if not gold:
        return None
    return sum(any(_touches(c, piece) for c in citations) for piece in gold) / len(gold)


def gold_citations(
    sentences: Sequence[CitedSentence], gold: Sequence[Gold], *, loose: Sequence[Span] = ()
) -> CitationScores | None:
    """Scores against the gold evidence; None where there is none, or no sentence.

    Recall: sentences of which one citation touches a piece. Precision: citations that do, `loose` ones (of the reply,
    but of none of its sentences) among them. Both 0 without a citation.
    """
    if not gold or not sentences:
        return None

    def right(citation: Span) -> bool:
        return any(_touches(citation, piece) for piece in gold)

    counted = [sentence.citations[:MOST_CITATIONS] for sentence in sentences]
    cited = [*(c for citations in counted for c in citations), *loose]
    precision = sum(map(right, cited)) / len(cited) if cited else 0.0
    return CitationScores(precision, sum(any(map(right, citations)) for citations in counted) / len(sentences))


async def entailed_citations(sentences: Sequence[CitedSentence], text: str, judge: Entailment) -> CitationScores | None:
    """Scores by what follows from the cited places of `text`; None for a reply without a sentence.

    A citation is needed where it bears the sentence out alone, or the others do not without it. Raises: ModelError.
    """
    if not sentences:
        return None
    n_citations = n_needed = n_borne_out = 0
    for sentence in sentences:
        cited = [text[span.start : span.end] for span in sentence.citations[:MOST_CITATIONS]]
        n_citations += len(cited)
        if not cited or not await judge.entails("\n".join(cited), sentence.text):
            continue
        n_borne_out += 1
        n_needed += await _needed(cited, sentence.text, judge)
    return CitationScores(n_needed / n_citations if n_citations else 0.0, n_borne_out / len(sentences))


async def _needed(cited: list[str], sentence: str, judge: Entailment) -> int:
    if len(cited) == 1:
        return 1
    needed = 0
    for at, quote in enumerate(cited):
        others = "\n".join(cited[:at] + cited[at + 1 :])
        if await judge.entails(quote, sentence) or not await judge.entails(others, sentence):
            needed += 1
    return needed


def _touches(citation: Span, piece: Gold) -> bool:
    return any(_overlap(citation, place) for place in piece)


def _overlap(one: Span, other: Span) -> bool:
    shared = min(one.end, other.end) - max(one.start, other.start)
    return shared > 0 and shared >= _LEAST_OVERLAP * min(one.length, other.length)
