"""Statements about a document, as a run carries them, and the sentences that may decide them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coa.agents.evidence import Selected
from coa.agents.lexical import SentenceRanker
from coa.agents.preselection import PassageRanker, passages_of
from coa.agents.references import Reference
from coa.reading import render_text
from coa.types import Chunk

__all__ = ["Statement", "StatementRanker", "statements_from", "statements_to_text"]

_MOST_SENTENCES = 12
# A sentence that ranks high by itself says more of a statement than the passage that it stands in.
_PASSAGE_WEIGHT = 0.8


@dataclass(frozen=True, slots=True)
class Statement:
    """What is to be checked."""

    text: str
    """One line."""
    id: str | None = None
    """The caller's own name for it."""


def statements_to_text(statements: Iterable[str | Statement]) -> str:
    """The statements one a line, as a run's question: JSON where a statement has an id or would be misread."""
    lines = []
    for given_one in statements:
        statement = Statement(given_one) if isinstance(given_one, str) else given_one
        text = " ".join(statement.text.split())
        plain = statement.id is None and not text.startswith("{")
        given = {"claim": text} if statement.id is None else {"id": statement.id, "claim": text}
        lines.append(text if plain else json.dumps(given, ensure_ascii=False))
    return "\n".join(lines)


def statements_from(text: str) -> list[Statement]:
    """The statements of a run's question; any text can be given: one statement for each line that is not blank.

    A line that is a JSON object with "claim", "statement" or "text" is that statement, "id" its id.
    """
    found = []
    for line in text.split("\n"):  # ids may hold what other methods take for a line break
        statement = _statement(line.strip())
        if statement is not None:
            found.append(statement)
    return found


class StatementRanker:
    """Finds the sentences of a document that may decide a statement. No model."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """`chunks` are all chunks of the document."""
        self._places = [Reference(c.index + 1, n) for c in chunks for n in range(1, len(c.sentences) + 1)]
        self._sentences = SentenceRanker(
            [render_text(c.text[s.start - c.span.start : s.end - c.span.start]) for c in chunks for s in c.sentences]
        )
        self._passages = passages_of(chunks)
        self._ranker = PassageRanker(self._passages)

    def selected(self, statement: str, most_passages: int) -> list[Selected]:
        """The sentences of the passages that fit best, and the best sentences wherever they stand; best first."""
        relevance: dict[Reference, float] = {}
        best = self._ranker.best(statement, most_passages)
        for at, score in best:
            passage = self._passages[at]
            for n in range(passage.first, passage.last + 1):
                relevance[Reference(passage.chunk + 1, n)] = _PASSAGE_WEIGHT * score / best[0].score
        scores = self._sentences.scores(statement)
        top = sorted((at for at, s in enumerate(scores) if s > 0), key=lambda at: (-scores[at], at))[:_MOST_SENTENCES]
        for at in top:
            place = self._places[at]
            relevance[place] = max(relevance.get(place, 0.0), scores[at] / scores[top[0]])
        ordered = sorted(relevance.items(), key=lambda entry: (-entry[1], entry[0]))
        return [Selected(place, round(value, 3)) for place, value in ordered]


def _statement(line: str) -> Statement | None:
    if not line:
        return None
    if line.startswith("{"):
        try:
            given = json.loads(line)
        except ValueError:
            return Statement(line)
        text = next((given[key] for key in ("claim", "statement", "text") if isinstance(given.get(key), str)), None)
        if text is not None:
            named = given.get("id")
            return Statement(" ".join(text.split()), None if named is None else str(named)) if text.strip() else None
    return Statement(" ".join(line.split()))
