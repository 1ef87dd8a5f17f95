"""The official scores of answers, each between 0 and 1; written anew after the published definitions.

Sources: SQuAD v1.1's evaluate script (EM, F1), LongBench metrics.py (Chinese F1, classification), L-Eval auto_eval.py
(exams, ROUGE), RULER's string matches, Lost in the Middle's best_subspan_em, BABILong's label rule, NoCha's pairs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from coa.errors import ConfigError
from coa.evaluation.normalising import (
    WIDE_LANGUAGES,
    normalised,
    normalised_wide,
    plain_tokens,
    squad_tokens,
    wide_characters,
    wide_words,
)

__all__ = [
    "Rouge",
    "best_subspan_em",
    "exact_match",
    "label_found",
    "match_all",
    "match_part",
    "pair_accuracy",
    "rouge",
    "token_f1",
    "word_f1_zh",
]


def exact_match(reply: str, answers: Iterable[str], *, language: str | None = None) -> float:
    """1 where the normalised reply is one of the normalised answers."""
    same = normalised_wide if language in WIDE_LANGUAGES else normalised
    return float(any(same(reply) == same(answer) for answer in answers))


def token_f1(reply: str, answers: Iterable[str], *, language: str | None = None) -> float:
    """F1 over the bags of tokens, the best over the answers: words, or characters in Chinese and Japanese.

    No tokens on either side gives 1 (both have none) or 0.
    """
    tokens = wide_characters if language in WIDE_LANGUAGES else squad_tokens
    return _best_f1(tokens, reply, answers)


def word_f1_zh(reply: str, answers: Iterable[str]) -> float:
    """LongBench's F1 of Chinese replies, over jieba's words. Raises: ConfigError without jieba."""
    return _best_f1(wide_words, reply, answers)


def best_subspan_em(reply: str, answers: Iterable[str], *, language: str | None = None) -> float:
    """1 where one of the normalised answers occurs in the normalised reply."""
    same = normalised_wide if language in WIDE_LANGUAGES else normalised
    return float(any(same(answer) in same(reply) for answer in answers if same(answer)))


def match_all(reply: str, answers: Sequence[str]) -> float:
    """The share of the answers that occur in the reply, case aside (RULER: niah, tracing, common words)."""
    return sum(answer.lower() in reply.lower() for answer in answers) / len(answers) if answers else 0.0


def match_part(reply: str, answers: Sequence[str]) -> float:
    """1 where any of the answers occurs in the reply, case aside (RULER: qa)."""
    return float(any(answer.lower() in reply.lower() for answer in answers))


_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s|\n")


def label_found(reply: str, answer: str, labels: Iterable[str], question: str) -> float:
    """BABILong's rule: 1 where the first sentence of the reply names the answer and no other of the task's labels.

    Labels that the question itself names do not count, except the answer.
    """
    first = _SENTENCE_END.split(reply.strip().lower(), maxsplit=1)[0]
    wanted, asked = answer.lower(), question.lower()
    possible = {label.lower() for label in labels} | {wanted}
    named = {label for label in possible if _names(first, label)}
    return float({label for label in named if label == wanted or not _names(asked, label)} == {wanted})


def _names(text: str, label: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text) is not None


def pair_accuracy(right: Iterable[tuple[str, bool]]) -> float | None:
    """The share of pairs whose claims were all judged rightly (NoCha); None without a pair.

    `right` are pairs' names and whether one of their claims was judged rightly, in any order.
    """
    pairs: dict[str, bool] = {}
    for name, was_right in right:
        pairs[name] = pairs.get(name, True) and was_right
    return sum(pairs.values()) / len(pairs) if pairs else None


class Rouge(NamedTuple):
    """F-measures."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - the measure's name

    @property
    def geometric_mean(self) -> float:
        """Of the three, as SCROLLS and L-Eval sum them up."""
        product = self.rouge1 * self.rouge2 * self.rougeL
        return float(product ** (1 / 3))


def rouge(reply: str, references: Sequence[str], *, language: str | None = "en", jieba: bool = False) -> Rouge:
    """ROUGE-1, -2 and -L without stemming, each the best over the references; 0 without a reference.

    English words are cut as rouge-score cuts them; other languages by `plain_tokens`, since rouge-score drops every
    letter beyond ASCII; with `jieba` by its Chinese words, as LongBench has it. Raises: ConfigError where rouge-score
    (or jieba) is not installed.
    """
    scorer = _scorer("jieba" if jieba else "plain" if language not in {None, "en"} else "english")
    best = {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}
    for reference in references:
        for name, score in scorer.score(reference, reply).items():
            best[name] = max(best[name], float(score.fmeasure))
    return Rouge(**best)


class _Tokenizer:
    def __init__(self, tokens: Callable[[str], list[str]]) -> None:
        self.tokenize = tokens


@cache
def _scorer(words: str) -> Any:
    try:
        rouge_scorer = import_module("rouge_score.rouge_scorer")
    except ImportError as error:
        raise ConfigError(
            "ROUGE needs rouge-score, which is not installed.", hint="pip install 'coa-orchestrator[eval]'"
        ) from error
    tokenizer = None if words == "english" else _Tokenizer(wide_words if words == "jieba" else plain_tokens)
    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False, tokenizer=tokenizer)


def _best_f1(tokens: Callable[[str], list[str]], reply: str, answers: Iterable[str]) -> float:
    said = tokens(reply)
    return max((_f1(said, tokens(answer)) for answer in answers), default=0.0)


def _f1(said: Sequence[str], gold: Sequence[str]) -> float:
    if not said or not gold:
        return float(not said and not gold)
    shared = (Counter(said) & Counter(gold)).total()
    return 2 * shared / (len(said) + len(gold))
