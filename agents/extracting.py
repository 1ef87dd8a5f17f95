"""The words of one sentence that answer a question, picked by code, with a small model's reply as a second opinion.

Every span that could be a phrase gets a score, the sum of weights of what can be said of it (answer_spans.py). The
weights were fitted so that the expected token F1 of the picked span is highest, on questions of other texts
(tests/tools/fit_span_weights.py says which, and fits them again). Shown the right sentence (205 questions of XQuAD in
English, articles that no weight was fitted on; token F1 of 0.5 and more), a model of 135M parameters answers 8 %
itself, 35 % where a grammar lets it choose among the 8 best spans; this code alone answers 50 %, and 55 % where spans
that share words with the model's free reply count more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import takewhile

from coa.agents.answer_spans import Token, features, spans, tokens_of
from coa.agents.lexical import content_words, words_of
from coa.agents.questions import asked

__all__ = ["Extract", "convincing", "extract"]

_SECOND_OPINION = 4.0
"""Weight of the words shared with the model's reply, for the figure above: from 3 to 5 alike, at 1 nothing gained."""
_COMPARED = 20
_LEAST_CONFIDENCE = 0.33
_LONGEST_SENTENCE = 1200
_MOST_TOKENS = 250
"""Of a sentence that are looked at: time grows with their square."""
_NEGATION_WORDS = """
not no never nobody nothing none neither without
nicht kein keine keinen keiner nie niemals niemand nichts ohne
ne pas jamais rien personne aucun aucune sans
no nunca jamás nada nadie ningún ninguno ninguna sin
不 没 未 无 非
"""
_NEGATIONS = frozenset(_NEGATION_WORDS.split())
_BREAKS = frozenset({"conjunction", "clause", "cause", "mark"})


@dataclass(frozen=True, slots=True)
class Extract:
    """A span of a sentence."""

    text: str
    """Verbatim."""
    confidence: float
    """The token F1 that it is expected to have with the right answer, if the sentence holds it; 0..1."""


def extract(sentence: str, question: str, rarity: Callable[[str], float], *, said: str = "") -> Extract | None:
    """The span of `sentence` that answers `question`; None where it has no span that could.

    `said` is what a model answered: never taken itself, but spans that share its words are preferred.
    `rarity` is the inverse document frequency of a stem.
    """
    wanted = asked(question)
    tokens = tokens_of(sentence[:_LONGEST_SENTENCE], wanted, rarity)[:_MOST_TOKENS]
    weights = _weights("wide" if any(t.sort.startswith("wide") for t in tokens) else "spaced")
    scored = []
    for first, end in spans(tokens, wanted):
        text = sentence[tokens[first].start : tokens[end - 1].end]
        score = math.fsum(weights[n] * v for n, v in features(tokens, first, end, wanted) if n in weights)
        scored.append((score, first, end, text))
    new = content_words(said) - content_words(question)
    if new:
        scored = [(s + _SECOND_OPINION * _likeness(content_words(t), new), a, b, t) for s, a, b, t in scored]
    scored.sort(key=lambda one: (-one[0], one[1], one[2]))
    if not scored:
        return None
    return Extract(scored[0][3], _expected([(s, t) for s, _, _, t in scored[:_COMPARED]]))


def convincing(found: Extract | None, sentence: str, question: str) -> str:
    """The text of `found` if it can stand for the sentence; empty where the whole sentence should."""
    if found is None or found.confidence < _LEAST_CONFIDENCE:
        return ""
    return "" if not _negations(question) and _denied(found.text, sentence) else found.text


def _negations(text: str) -> frozenset[str]:
    """The words of `text` that turn it round."""
    spread = text.casefold().replace("n't", " not").replace("n’t", " not")
    return _NEGATIONS & {*spread.replace(".", " ").replace(",", " ").split(), *(c for c in spread if c > "\u3000")}


def _denied(text: str, sentence: str) -> bool:
    """True where a word that turns round stands in the clause of `text`, but not in `text`."""
    if not _negations(sentence):
        return False
    tokens = tokens_of(sentence, asked(""), lambda _: 0.0)
    start = sentence.find(text)
    before = list(takewhile(_goes_on, (t for t in reversed(tokens) if t.end <= start)))
    behind = list(takewhile(_goes_on, (t for t in tokens if t.start >= start + len(text))))
    return any(_negations(t.text) for t in (*before, *behind))


def _goes_on(token: Token) -> bool:
    return token.sort not in _BREAKS


def _expected(scored: Sequence[tuple[float, str]]) -> float:
    """How like the first of the spans is to all of them, each by its probability."""
    best = scored[0][0]
    chances = [math.exp(score - best) for score, _ in scored]
    first = set(words_of(scored[0][1]))
    likes = (_likeness(first, set(words_of(text))) for _, text in scored)
    return math.fsum(c * x for c, x in zip(chances, likes, strict=True)) / math.fsum(chances)


def _likeness(a: set[str], b: set[str]) -> float:
    """F1 of two sets of words."""
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0


@cache
def _weights(script: str) -> Mapping[str, float]:
    text = (resources.files("coa.agents") / "span_weights.json").read_text(encoding="utf-8")
    weights: dict[str, dict[str, float]] = json.loads(text)
    return weights[script]
