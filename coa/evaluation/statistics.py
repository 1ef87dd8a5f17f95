"""How sure a mean and a difference are: bootstraps and permutations over documents, corrected for being several.

Questions about one document stand and fall together, so documents are what is drawn (a cluster bootstrap). With fewer
than two documents nothing can be said, and nothing is. Sources: Efron and Tibshirani 1993, chapters 13 and 15; Dror et
al. 2018 ("The Hitchhiker's Guide to Testing Statistical Significance in NLP"); Holm 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "Estimate", "difference", "estimated", "holm"]

_Floats = npt.NDArray[np.float64]
_LEVEL = 0.95
_EXACT_DOCUMENTS = 14
"""Up to so many documents all sign patterns are gone through."""


class Estimate(NamedTuple):
    """A mean over questions and its interval."""

    mean: float
    low: float | None
    """Of the 95 % percentile interval; None with fewer than two documents."""
    high: float | None
    n: int
    """Questions, or pairs of claims."""
    documents: int


class Difference(NamedTuple):
    """How much higher one arm's mean is than another's, over the questions that both have."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    """Two-sided, of a paired permutation test over documents; None with fewer than two."""
    n: int
    documents: int


def estimated(scores: Mapping[str, Sequence[float]], *, seed: int, resamples: int) -> Estimate:
    """The mean of all scores, by document, with its bootstrap interval. Raises: ValueError without a score."""
    sums, counts = _by_document(scores)
    total = float(sums.sum() / counts.sum())
    low, high = _interval(sums, counts, seed, resamples)
    return Estimate(total, low, high, int(counts.sum()), len(sums))


def difference(
    one: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]], *, seed: int, resamples: int
) -> Difference | None:
    """How much higher `one` is than `other`, scores by document and question; None where they share no question."""
    gaps = {
        doc: [scores[q] - other[doc][q] for q in scores if q in other[doc]]
        for doc, scores in one.items()
        if doc in other
    }
    gaps = {doc: found for doc, found in gaps.items() if found}
    if not gaps:
        return None
    sums, counts = _by_document(gaps)
    low, high = _interval(sums, counts, seed, resamples)
    p = _permuted(sums, seed, resamples) if len(sums) > 1 else None
    return Difference(float(sums.sum() / counts.sum()), low, high, p, int(counts.sum()), len(sums))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values, in the order of `ps`; those that are None stay so and do not count."""
    known = sorted((p, at) for at, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, at) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[at] = highest
    return adjusted


def _by_document(scores: Mapping[str, Sequence[float]]) -> tuple[_Floats, _Floats]:
    filled = [np.asarray(found, dtype=np.float64) for found in scores.values() if len(found)]
    if not filled:
        raise ValueError("there is no score")
    return np.array([f.sum() for f in filled]), np.array([float(len(f)) for f in filled])


def _interval(sums: _Floats, counts: _Floats, seed: int, resamples: int) -> tuple[float | None, float | None]:
    if len(sums) < 2:
        return None, None
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _permuted(sums: _Floats, seed: int, resamples: int) -> float:
    """The share of sign patterns over documents that give a difference as far from 0 as the one seen."""
    seen = abs(sums.sum())
    n = len(sums)
    exact = n <= _EXACT_DOCUMENTS
    if exact:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        patterns = np.random.default_rng(seed).integers(0, 2, size=(resamples, n))
    totals = np.abs((patterns * 2.0 - 1.0) @ sums)
    as_far = int((totals >= seen - 1e-12).sum())
    # With drawn patterns the one that was seen counts among them, so that no p is 0.
    return as_far / len(totals) if exact else (as_far + 1) / (len(totals) + 1)
