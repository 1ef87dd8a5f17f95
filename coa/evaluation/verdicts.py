"""Whether an evaluation is good enough: scores that may not fall short, and an earlier evaluation to keep up with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coa.errors import ConfigError
from coa.evaluation.statistics import Difference, difference
from coa.evaluation.summary import Summary, values_of

__all__ = ["Change", "Threshold", "changes", "fallen_back", "fallen_short", "threshold"]

_THRESHOLD = re.compile(r"(?:(?P<where>.+)(?P<kind>[:/]))?(?P<metric>\w+)=(?P<least>[\d.]+%?)")
_LESS_IS_BETTER = frozenset({"wrong_refusal"})


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least that a score has to be, of one set or arm, or of all that have it."""

    metric: str
    least: float
    set: str | None = None
    arm: str | None = None
    """An arm's name, or a set's and an arm's with "/" between them (arms' names may hold a "/" of their own)."""

    def means(self, set_name: str, arm: str) -> bool:
        """Whether it is for the scores of that arm over that set."""
        return self.set in {None, set_name} and self.arm in {None, arm, f"{set_name}/{arm}"}


@dataclass(frozen=True, slots=True)
class Change:
    """How a score of an arm over a set differs from an earlier evaluation's, over the questions that both have."""

    set: str
    arm: str
    metric: str
    before: float
    after: float
    difference: Difference


def threshold(text: str) -> Threshold:
    """What "f1=0.3", "hotpot/f1=30%", "chain:f1=0.3" or "hotpot/chain:f1=0.3" says. Raises: ConfigError."""
    match = _THRESHOLD.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        told = match["least"]
        least = float(told.removesuffix("%")) / (100 if told.endswith("%") else 1)
    except ValueError:
        raise ConfigError(f"--fail-under {text!r}: expected [SET/][ARM:]SCORE=VALUE, as in f1=0.3.") from None
    if not 0 <= least <= 1:
        raise ConfigError(f"--fail-under {text!r}: scores are between 0 and 1 (or 0% and 100%).")
    where = match["where"]
    return Threshold(match["metric"], least, *((where, None) if match["kind"] == "/" else (None, where)))


def fallen_short(summary: Summary, thresholds: Sequence[Threshold]) -> list[str]:
    """One line for each score that is below what was asked for; for "wrong_refusal" above it.

    Raises: ConfigError for a threshold that no score of the evaluation is meant by: a typing error would pass.
    """
    told = []
    for wanted in thresholds:
        cells = [c for c in summary.cells if c.metric == wanted.metric and wanted.means(c.set, c.arm)]
        if not cells:
            where = f"{wanted.set or 'any set'}, {wanted.arm or 'any arm'}"
            raise ConfigError(f"--fail-under: there is no score {wanted.metric!r} of {where}.")
        for cell in cells:
            mean = cell.estimate.mean
            short = mean > wanted.least if wanted.metric in _LESS_IS_BETTER else mean < wanted.least
            if short:
                told.append(f"{cell.set}/{cell.arm}: {cell.metric} is {mean:.3f}, not {wanted.least:.3f}")
    return told


def changes(summary: Summary, baseline: Summary) -> list[Change]:
    """Every score that both evaluations have, compared question by question.

    Arms and sets are the same where their names are; a question where its id and its document's name are.
    """
    seed, resamples = int(summary.suite["seed"]), int(summary.suite["resamples"])
    found = []
    for cell in summary.cells:
        before = baseline.cell(cell.set, cell.arm, cell.metric)
        if before is None or cell.metric == "rouge_gm":
            continue
        now_values, then_values = (
            values_of((s for s in one.scored if (s.told.set, s.arm) == (cell.set, cell.arm)), cell.metric)
            for one in (summary, baseline)
        )
        gap = difference(now_values, then_values, seed=seed, resamples=resamples)
        if gap is not None:
            shared = [(doc, q) for doc in now_values for q in now_values[doc] if q in then_values.get(doc, {})]
            after = sum(now_values[doc][q] for doc, q in shared) / len(shared)
            found.append(Change(cell.set, cell.arm, cell.metric, after - gap.mean, after, gap))
    return found


def fallen_back(found: Sequence[Change], most: float) -> list[str]:
    """One line for each score that is worse by more than `most`."""
    told = []
    for change in found:
        loss = change.difference.mean if change.metric in _LESS_IS_BETTER else -change.difference.mean
        if loss > most + 1e-12:
            told.append(
                f"{change.set}/{change.arm}: {change.metric} went from {change.before:.3f} to {change.after:.3f}"
            )
    return told
