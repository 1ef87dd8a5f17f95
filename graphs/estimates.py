"""What strategies take, worked out before the first call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coa.agents.quoting import QUOTE_ANSWER_TOKENS, QUOTES_ASKED
from coa.graphs.context import ReadOptions
from coa.limits import Limits
from coa.runs import RunPlan

__all__ = [
    "Estimate",
    "Estimating",
    "Forecast",
    "added",
    "bidirectional_estimate",
    "chain_estimate",
    "direct_estimate",
    "merge_estimate",
    "paths_estimate",
    "tree_estimate",
]

_BLOCK_TOKENS = 64
# Notes grow over the first chunks and then stay near their cap; replies of small models stay under it.
_NOTES_SHARE = 0.6
# Three sentences, the instruction and the chat template.
_SHORTEN_TOKENS = 120
_DEMONSTRATIONS = 3
_DEMONSTRATION_TOKENS = 120


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens of a plan."""

    calls: int
    prompt_tokens: int
    completion_tokens_max: int
    cacheable_tokens: int
    """Of `prompt_tokens`, those in reading prefixes, in whole blocks: what a prefix cache can save."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an estimate goes by."""

    plan: RunPlan
    limits: Limits
    options: ReadOptions
    question_tokens: int | None
    """None for a summary."""
    n_lines: int = 1
    """Of the question: statements to check stand one on each."""

    @property
    def tail_tokens(self) -> int:
        """Of a worker's prompt after the reading prefix."""
        notes = int(self.limits.note_tokens * _NOTES_SHARE)
        return self.limits.template_tokens + (self.question_tokens or 0) + notes

    @property
    def cacheable_tokens(self) -> int:
        """Of one reading of every chunk."""
        return sum(c.n_tokens - c.n_tokens % _BLOCK_TOKENS for p in self.plan.parts for c in p.chunks)

    def readings(self, times: int, *, out: int | None = None) -> Estimate:
        """Of reading every chunk so many times, each reply of at most `out` tokens (a note's where None)."""
        n_chunks = self.plan.n_chunks * times
        return Estimate(
            calls=n_chunks,
            prompt_tokens=self.plan.n_tokens * times + n_chunks * self.tail_tokens,
            completion_tokens_max=n_chunks * (self.limits.note_tokens if out is None else out),
            cacheable_tokens=self.cacheable_tokens * times,
        )

    def answers(self, times: int = 1) -> Estimate:
        """Of so many answers for each part, from notes."""
        calls = len(self.plan.parts) * times
        return Estimate(calls, calls * self.tail_tokens, calls * self.limits.answer_tokens, 0)


Estimating = Callable[[Forecast], Estimate]


def added(*estimates: Estimate) -> Estimate:
    """The sum."""
    return Estimate(
        sum(e.calls for e in estimates),
        sum(e.prompt_tokens for e in estimates),
        sum(e.completion_tokens_max for e in estimates),
        sum(e.cacheable_tokens for e in estimates),
    )


def chain_estimate(forecast: Forecast) -> Estimate:
    """Of the chain."""
    if forecast.options.quotes:
        return _quotes(forecast, 1)
    demonstrations = Estimate(0, 0, 0, 0)
    if forecast.options.demos != "none":
        n = min(_DEMONSTRATIONS, forecast.plan.n_chunks)
        per_chunk = forecast.plan.n_tokens // max(1, forecast.plan.n_chunks)
        demonstrations = Estimate(n, n * (per_chunk + forecast.limits.template_tokens), n * _DEMONSTRATION_TOKENS, 0)
    return added(demonstrations, forecast.readings(forecast.options.passes), forecast.answers())


def bidirectional_estimate(forecast: Forecast) -> Estimate:
    """Of two chains."""
    return _several(forecast, 2)


def paths_estimate(forecast: Forecast) -> Estimate:
    """Of as many chains as the options say."""
    return _several(forecast, forecast.options.paths)


def tree_estimate(forecast: Forecast) -> Estimate:
    """Of reading each chunk once and merging by twos at worst."""
    if forecast.options.quotes:
        return _quotes(forecast, 1)
    n_merges = sum(max(0, len(p.chunks) - 1) for p in forecast.plan.parts)
    limits = forecast.limits
    merging = limits.template_tokens + (forecast.question_tokens or 0) + 2 * limits.note_tokens
    merges = Estimate(n_merges, n_merges * merging, n_merges * limits.note_tokens, 0)
    return added(forecast.readings(1), merges, forecast.answers())


def merge_estimate(forecast: Forecast) -> Estimate:
    """Of answering from each chunk alone."""
    if forecast.options.quotes:
        return _quotes(forecast, 1)
    return forecast.readings(1, out=forecast.limits.answer_tokens)


def direct_estimate(forecast: Forecast) -> Estimate:
    """Of one call for each part."""
    if forecast.options.quotes:
        return _quotes(forecast, 1)
    calls = len(forecast.plan.parts)
    prompt = forecast.plan.n_tokens + calls * (forecast.limits.template_tokens + (forecast.question_tokens or 0))
    return Estimate(calls, prompt, calls * forecast.limits.answer_tokens, 0)


def _several(forecast: Forecast, paths: int) -> Estimate:
    if forecast.options.quotes:
        return _quotes(forecast, paths)
    answers = paths if forecast.options.choose == "vote" else 2  # the judge's call, then the manager's
    return added(forecast.readings(paths), forecast.answers(answers))


def _quotes(forecast: Forecast, paths: int) -> Estimate:
    """At most so many sentences of each part are asked about, however long it is."""
    if forecast.question_tokens is None:
        return Estimate(0, 0, 0, 0)
    calls = QUOTES_ASKED * len(forecast.plan.parts) * paths
    prompt = calls * (_SHORTEN_TOKENS + forecast.question_tokens)
    return Estimate(calls, prompt, calls * QUOTE_ANSWER_TOKENS, 0)
