"""Bootstraps, permutations and Holm's correction, where they can be worked out."""

from __future__ import annotations

import random

import pytest

from coa.evaluation.statistics import difference, estimated, holm


def test_a_mean_is_over_questions_and_its_interval_over_documents() -> None:
    found = estimated({"a": [1.0, 1.0, 1.0], "b": [0.0]}, seed=1, resamples=2000)
    assert (found.mean, found.n, found.documents) == (0.75, 4, 2)
    # Of two documents drawn twice: both a (1), both b (0) or one of each (0.75).
    assert (found.low, found.high) == (0.0, 1.0)


def test_one_document_has_no_interval() -> None:
    found = estimated({"a": [1.0, 0.0]}, seed=1, resamples=200)
    assert (found.mean, found.low, found.high) == (0.5, None, None)
    gap = difference({"a": {"q": 1.0}}, {"a": {"q": 0.0}}, seed=1, resamples=200)
    assert gap is not None
    assert (gap.mean, gap.p) == (1.0, None)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = random.Random(3)
    scores = {str(n): [rng.random() for _ in range(3)] for n in range(20)}
    one, two, other = (estimated(scores, seed=seed, resamples=500) for seed in (1, 1, 2))
    assert one == two
    assert one != other
    assert one.low is not None
    assert one.high is not None
    assert one.low < one.mean < one.high


def test_an_interval_of_many_documents_is_about_that_of_the_normal_distribution() -> None:
    scores = {str(n): [float(n % 2)] for n in range(400)}
    found = estimated(scores, seed=1, resamples=5000)
    assert found.low is not None
    assert found.high is not None
    half_width = 1.96 * 0.5 / 400**0.5
    assert found.high - 0.5 == pytest.approx(half_width, rel=0.08)
    assert 0.5 - found.low == pytest.approx(half_width, rel=0.08)


@pytest.mark.parametrize(
    ("n_documents", "p"),
    [(1, None), (2, 2 / 4), (3, 2 / 8), (5, 2 / 32), (6, 2 / 64)],
)
def test_a_permutation_test_of_few_documents_goes_through_all_signs(n_documents: int, p: float | None) -> None:
    """One arm is better in each document: of the 2^n patterns of signs, all + and all - are as far from 0."""
    one = {str(n): {"q": 1.0} for n in range(n_documents)}
    other = {str(n): {"q": 0.0} for n in range(n_documents)}
    gap = difference(one, other, seed=1, resamples=200)
    assert gap is not None
    assert gap.p == p


def test_arms_that_do_not_differ_have_p_1() -> None:
    one = {str(n): {"q": 0.5} for n in range(4)}
    gap = difference(one, one, seed=1, resamples=200)
    assert gap is not None
    assert (gap.mean, gap.p) == (0, 1)


def test_many_documents_are_tested_by_drawn_signs_and_no_p_is_0() -> None:
    one = {str(n): {"q": 1.0} for n in range(40)}
    other = {str(n): {"q": 0.0} for n in range(40)}
    gap = difference(one, other, seed=1, resamples=999)
    assert gap is not None
    assert gap.p == 1 / 1000
    noise = random.Random(5)
    level = {str(n): {"q": noise.random()} for n in range(40)}
    same = {str(n): {"q": noise.random()} for n in range(40)}
    chance = difference(level, same, seed=1, resamples=2000)
    assert chance is not None
    assert chance.p is not None
    assert chance.p > 0.05


def test_only_questions_that_both_have_are_compared() -> None:
    gap = difference({"a": {"1": 1.0, "2": 1.0}, "b": {"3": 1.0}}, {"a": {"1": 0.5}}, seed=1, resamples=200)
    assert gap is not None
    assert (gap.mean, gap.n, gap.documents) == (0.5, 1, 1)
    assert difference({"a": {"1": 1.0}}, {"b": {"1": 1.0}}, seed=1, resamples=200) is None


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []
