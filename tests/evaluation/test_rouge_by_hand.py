"""ROUGE-1, -2 and -L against F-measures worked out by hand; each figure is 2 * shared / (of reply + of reference)."""

from __future__ import annotations

from fractions import Fraction

import pytest

from coa.evaluation.metrics import rouge

CASES = [
    ("the cat sat", ["the cat sat"], Fraction(1), Fraction(1), Fraction(1)),
    ("the cat", ["the cat sat"], Fraction(4, 5), Fraction(2, 3), Fraction(4, 5)),
    ("cat the", ["the cat"], Fraction(1), Fraction(0), Fraction(1, 2)),
    ("dog", ["cat"], Fraction(0), Fraction(0), Fraction(0)),
    ("a b c d", ["a c b d"], Fraction(1), Fraction(0), Fraction(6, 8)),
    ("a a b", ["a b b"], Fraction(4, 6), Fraction(2, 4), Fraction(4, 6)),
    ("police killed the gunman", ["police kill the gunman"], Fraction(6, 8), Fraction(2, 6), Fraction(6, 8)),
    ("the gunman kill police", ["police kill the gunman"], Fraction(1), Fraction(2, 6), Fraction(4, 8)),
    ("one two three", ["one two three four five six"], Fraction(6, 9), Fraction(4, 7), Fraction(6, 9)),
    ("One, two; THREE!", ["one two three"], Fraction(1), Fraction(1), Fraction(1)),
    ("", ["x"], Fraction(0), Fraction(0), Fraction(0)),
    ("well-known", ["well known"], Fraction(1), Fraction(1), Fraction(1)),
    ("running", ["runs"], Fraction(0), Fraction(0), Fraction(0)),  # no stemming
    ("a b", ["a b c d", "b a"], Fraction(1), Fraction(2, 4), Fraction(4, 6)),  # each measure by its own best reference
    ("x y z", ["x z"], Fraction(4, 5), Fraction(0), Fraction(4, 5)),
    ("a", ["a"], Fraction(1), Fraction(0), Fraction(1)),  # no bigrams, no score for them
    ("a b a b", ["a b"], Fraction(4, 6), Fraction(2, 4), Fraction(4, 6)),
    ("2019 and 2020", ["2019 2020"], Fraction(4, 5), Fraction(0), Fraction(4, 5)),
    ("a b c d e", ["e d c b a"], Fraction(1), Fraction(0), Fraction(2, 10)),
    ("to be or not to be", ["not to be"], Fraction(6, 9), Fraction(4, 7), Fraction(6, 9)),
]


@pytest.mark.parametrize(("reply", "references", "one", "two", "longest"), CASES)
def test_rouge_is_that_of_rouge_score_without_stemming(
    reply: str, references: list[str], one: Fraction, two: Fraction, longest: Fraction
) -> None:
    found = rouge(reply, references)
    assert found.rouge1 == pytest.approx(float(one))
    assert found.rouge2 == pytest.approx(float(two))
    assert found.rougeL == pytest.approx(float(longest))


def test_letters_beyond_ascii_are_kept_outside_of_english() -> None:
    assert rouge("Fräulein Müller", ["fräulein müller"], language="de").rouge2 == 1
    assert rouge("Fräulein Möller", ["Fräulein Müller"], language="de").rouge1 == pytest.approx(1 / 2)


def test_chinese_is_scored_by_characters_or_by_jieba_words() -> None:
    assert rouge("我爱北京", ["我爱上海"], language="zh").rouge1 == pytest.approx(2 * 2 / 8)
    assert rouge("我爱北京", ["我爱上海"], jieba=True).rouge1 == pytest.approx(2 * 2 / 6)


def test_the_geometric_mean_is_of_the_three() -> None:
    found = rouge("the cat", ["the cat sat"])
    assert found.geometric_mean == pytest.approx((4 / 5 * 2 / 3 * 4 / 5) ** (1 / 3))
