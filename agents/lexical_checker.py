"""Statements checked by words alone, for models too small to judge."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coa.agents.checker import CheckReport
from coa.agents.contradiction import DENIALS, clash, may_differ, said_in_order, stretch_of
from coa.agents.evidence import EvidenceLine
from coa.agents.lexical import SentenceRanker, content_words
from coa.agents.quantities import Token, tokens_of
from coa.agents.references import Reference
from coa.llm.budget import Demand
from coa.reading import render_text
from coa.types import Chunk, Usage

__all__ = ["LexicalChecker"]

# Clauses may have changed places, but names and numbers have to stand in the same order: who gave, who got.
_LEAST_IN_ORDER = 0.5
_LEAST_WORDS = 3
_LONGER = 1.5
_CAPITALISED = re.compile(r"\b[^\W\d_a-zß-ÿ][^\W\d_]*")
_OPEN_WORDS = "if whether perhaps maybe might could would wenn ob vielleicht si peut-être quizás 如果 也许"
_OPEN = frozenset(_OPEN_WORDS.split())
"""What leaves open whether it is so."""


class LexicalChecker:
    """Checks by words, for models too small to judge; asks no model.

    Conservative: "true" only where one sentence, or two in a row, hold the statement's words in their order,
    "false" only where they do but for a number, a denial or an opposite. A statement in other words than the text's is
    "not_in_text", and so is one that takes two places of the text together. What a character says counts as said by
    the text.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """`chunks` are all chunks of the document: the rarity of words is counted over them."""
        sentences = [c.text[s.start - c.span.start : s.end - c.span.start] for c in chunks for s in c.sentences]
        self._ranker = SentenceRanker(sentences)

    @property
    def prompt_digests(self) -> dict[str, str]:
        """No prompt."""
        return {}

    async def check(self, statement: str, evidence: Sequence[EvidenceLine]) -> CheckReport:
        """Whether `statement` is true by the words of `evidence`."""
        return await asyncio.to_thread(self._check, statement, evidence)

    def _check(self, statement: str, evidence: Sequence[EvidenceLine]) -> CheckReport:
        words = tokens_of(statement)
        if len({t.stem for t in words if t.content}) < _LEAST_WORDS:
            return CheckReport("not_in_text", (), "it has too few words to be found by them", Usage())
        readings = _readings(evidence)
        against: CheckReport | None = None
        for reading in readings:
            if _bears_out(statement, words, reading):
                return CheckReport("true", reading.references, "all of its words stand there", Usage())
            found = clash(statement, reading.text) if against is None and len(reading.references) == 1 else None
            if found is not None:
                told = f"it says {found.one!r}" if found.one else "it says so"
                there = f"the text says {found.other!r}" if found.other else "the text does not deny it"
                against = CheckReport("false", reading.references, f"{told}, {there}", Usage())
        if against is not None:
            return against
        share = max((self._held(words, r.words) for r in readings), default=0.0)
        reason = f"no sentence says it in its words (the nearest holds {share:.0%} of them)"
        if share == 1.0:
            reason = "its words stand together, but the text does not clearly say so"
        return CheckReport("not_in_text", (), reason, Usage())

    def demand(self, statement: str) -> Demand:
        """Nothing."""
        return Demand(0)

    def _held(self, words: Sequence[Token], there: Sequence[Token]) -> float:
        """Share of the statement's content words, by rarity, that stand there, 0..1."""
        weights = {t.stem: self._ranker.rarity(t.stem) for t in words if t.content}
        stems = {t.stem for t in there}
        total = sum(weights.values())
        return sum(w for stem, w in weights.items() if stem in stems) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """One sentence of the evidence, or two in a row."""

    text: str
    references: tuple[Reference, ...]
    words: Sequence[Token]


def _readings(evidence: Sequence[EvidenceLine]) -> list[_Reading]:
    """Single sentences first, the most relevant lines first."""
    lines = sorted(evidence, key=lambda line: -line.relevance)
    found = []
    for n in (1, 2):
        for line in lines:
            for at in range(len(line.texts) - n + 1):
                text = " ".join(render_text(t) for t in line.texts[at : at + n])
                found.append(_Reading(text, line.references[at : at + n], tokens_of(text)))
    return found


def _bears_out(statement: str, words: Sequence[Token], reading: _Reading) -> bool:
    """True where the reading asserts what the statement does: all its words, in its order where that tells anything,
    no other denial or doubt, and no question."""
    if not {t.stem for t in words if t.content} <= {t.stem for t in reading.words}:
        return False
    if reading.text.rstrip("\"'”’»」』) ").endswith(("?", "？")):
        return False
    # A denial in another clause of a long sentence is of something else.
    longer = len(reading.words) > _LONGER * len(words)
    near = stretch_of(statement, reading.text) if longer else reading.words
    denials = [_count(words, DENIALS), _count(near, DENIALS)]
    # Of two sentences it does not show which of them is denied.
    if denials[0] != denials[1] or (denials[0] and len(reading.references) > 1):
        return False
    if _count(near, _OPEN) > _count(words, _OPEN) or said_in_order(statement, reading.text) < _LEAST_IN_ORDER:
        return False
    names = {m.group().casefold() for m in _CAPITALISED.finditer(statement) if m.start() or content_words(m.group())}
    if not _is_within(_ordered(words, names), _ordered(reading.words, names)):
        return False
    compared = [t.stem for t in words if may_differ(t)]
    there = [t.stem for t in reading.words]
    if len(reading.references) > 1:  # words of both sentences must not make up a third
        if not _is_within(compared, there):
            return False
    elif Counter(compared) - Counter(there):
        return False
    return clash(statement, reading.text) is None


def _ordered(words: Sequence[Token], names: set[str]) -> list[str]:
    """The words whose order tells who did what to whom, and how many of what."""
    return [t.stem for t in words if t.number is not None or t.word in names]


def _is_within(words: Sequence[str], there: Sequence[str]) -> bool:
    """True where `words` stand `there` in this order, others between them."""
    rest = iter(there)
    return all(word in rest for word in words)


def _count(words: Sequence[Token], among: frozenset[str]) -> int:
    return sum(t.word in among for t in words)
