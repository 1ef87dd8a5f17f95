"""Fits the weights by which coa.agents.extracting picks answers, and prints how well they do on held-out articles.

    python tests/tools/fit_span_weights.py [--write]

Fitted on the "dev" articles of XQuAD in English, German and Spanish ("spaced") and of XQuAD in Chinese and CMRC
("wide"), each question with the one of its right sentences that shares most with it. What is raised is the mean
logarithm of the expected token F1, with the spans' probabilities the softmax of their scores, by Adam over all
questions at once; the same figures come out at every run. `--write` replaces agents/span_weights.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coa.agents.answer_spans import Feature, features, spans, tokens_of
from coa.agents.lexical import SentenceRanker
from coa.agents.questions import asked
from coa.reading import render_text
from coa.sentences import split_sentences
from tests.tools.question_sets import REPOSITORY, QuestionSet, cmrc, token_f1, xquad

Floats = npt.NDArray[np.float64]

_LONGEST_SENTENCE = 700
_LEAST_QUESTIONS = 8
"""With a feature among their spans, for it to get a weight."""
_SHRINK = 5.0
_STEPS = 300
_RATE = 0.1
_SMALLEST_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class Example:
    """The spans of one question's right sentence."""

    described: list[list[Feature]]
    f1: Floats


def examples(questions: QuestionSet) -> list[Example]:
    """One for each question that has a right sentence."""
    bounds = split_sentences(questions.text, questions.language)
    sentences = [render_text(questions.text[a:b]) for a, b in bounds]
    ranker = SentenceRanker(sentences)
    found = []
    for question in questions.questions:
        right = [i for i, (a, b) in enumerate(bounds) if any(x < b and a < y for x, y in question.places)]
        scores = ranker.scores(question.text)
        best = max(right, key=lambda i: (scores[i], -i), default=None)
        if best is None or len(sentences[best]) > _LONGEST_SENTENCE:
            continue
        wanted = asked(question.text)
        tokens = tokens_of(sentences[best], wanted, ranker.rarity)
        ranges = list(spans(tokens, wanted))
        texts = [sentences[best][tokens[a].start : tokens[b - 1].end] for a, b in ranges]
        f1 = np.array([token_f1(text, question.answers) for text in texts])
        found.append(Example([features(tokens, a, b, wanted) for a, b in ranges], f1))
    return found


def fit(given: Sequence[Example]) -> dict[str, float]:
    """Weights by feature, those near 0 left out; learned from the examples with a span that is right at all."""
    given = [e for e in given if e.f1.any()]
    held: Counter[str] = Counter()
    for example in given:
        held.update({name for span in example.described for name, _ in span})
    names = sorted(name for name, n in held.items() if n >= _LEAST_QUESTIONS)
    column = {name: at for at, name in enumerate(names)}
    entries = [
        (row, column[name], value)
        for row, span in enumerate(s for e in given for s in e.described)
        for name, value in span
        if name in column
    ]
    rows, columns = (np.array([e[i] for e in entries], dtype=np.int64) for i in (0, 1))
    values = np.array([e[2] for e in entries])
    f1 = np.concatenate([e.f1 for e in given])
    group = np.repeat(np.arange(len(given)), [len(e.f1) for e in given])
    weights, mean, square = np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names))
    for step in range(1, _STEPS + 1):
        scores: Floats = np.bincount(rows, values * weights[columns], len(f1)).astype(np.float64)
        slope = _slope(scores, f1, group, len(given))
        gradient = (np.bincount(columns, values * slope[rows], len(names)) - _SHRINK * weights) / len(given)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        weights = weights + _RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return {n: round(float(w), 2) for n, w in zip(names, weights, strict=True) if abs(w) >= _SMALLEST_WEIGHT}


def _slope(scores: Floats, f1: Floats, group: npt.NDArray[Any], n: int) -> Floats:
    """The derivative of the summed log expected F1 by each span's score."""
    highest = np.full(n, -np.inf)
    np.maximum.at(highest, group, scores)
    raised = np.exp(scores - highest[group])
    chance = raised / np.bincount(group, raised, n)[group]
    expected = np.bincount(group, chance * f1, n)
    slope: Floats = chance * (f1 - expected[group]) / (expected[group] + 0.05)
    return slope


def right_share(weights: dict[str, float], given: Sequence[Example]) -> tuple[float, float]:
    """Share of the examples whose best span has a token F1 of 0.5, and the mean F1; no span counts as wrong."""
    picked = []
    for example in given:
        scores = [sum(weights.get(name, 0.0) * value for name, value in span) for span in example.described]
        picked.append(float(example.f1[int(np.argmax(scores))]) if scores else 0.0)
    return float(np.mean(np.array(picked) >= 0.5)), float(np.mean(picked))


def main() -> None:
    """Fits, prints and, where asked to, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    fitted = {}
    for script, languages in (("spaced", ("en", "de", "es")), ("wide", ("zh",))):
        given = [e for code in languages for e in examples(xquad(code, "dev"))]
        given += examples(cmrc("dev")) if script == "wide" else []
        fitted[script] = fit(given)
        held = {code: examples(xquad(code, "held")) for code in languages}
        held |= {"cmrc": examples(cmrc("held"))} if script == "wide" else {}
        print(f"{script}: {len(fitted[script])} weights, {len(given)} questions")
        for name, of in (("fitted on", given), *held.items()):
            share, mean = right_share(fitted[script], of)
            print(f"  {name}: {len(of)} questions, F1 >= 0.5 for {share:.3f}, mean F1 {mean:.3f}")
    if options.write:
        path = REPOSITORY / "agents" / "span_weights.json"
        path.write_text(json.dumps(fitted, ensure_ascii=False, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
