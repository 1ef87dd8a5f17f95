"""A majority over short answers.

Answers are compared as the question-answering benchmarks compare them (SQuAD, Rajpurkar et al. 2016: lower case,
no punctuation, no articles). Long ones hardly ever agree to the letter: CoA (Zhang et al. 2024, Table 8) loses half
its score on summaries and code by voting, so a vote on them is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from coa.agents.references import without_references

__all__ = ["LONGEST_VOTED_WORDS", "majority", "normalised_answer"]

LONGEST_VOTED_WORDS = 12
_WIDE_CHARS_PER_WORD = 2
_ARTICLES = re.compile(r"\b(?:a|an|the|der|die|das|ein|eine|le|la|les|un|une|el|los|las|una)\b")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


def normalised_answer(text: str) -> str:
    """`text` as it is compared: without ids, case, punctuation, articles and repeated space."""
    bare = unicodedata.normalize("NFKC", without_references(text)).casefold()
    bare = "".join(" " if unicodedata.category(c)[0] in "PSZ" else c for c in bare)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def majority(answers: Sequence[str]) -> int | None:
    """The index of the first of the answers that are given most often; None where most of them are too long to vote
    on. Empty ones (no answer) count only where all are empty; of equal counts the earliest wins."""
    normalised = [normalised_answer(a) for a in answers]
    given = [n for n in normalised if n]
    if not given:
        return 0 if answers else None
    if sum(_is_long(n) for n in given) * 2 > len(given):
        return None
    counts = Counter(given)
    best = max(counts.values())
    return next(at for at, n in enumerate(normalised) if n and counts[n] == best)


def _is_long(answer: str) -> bool:
    wide = len(_WIDE.findall(answer))
    return len(answer.split()) + wide / _WIDE_CHARS_PER_WORD > LONGEST_VOTED_WORDS
