"""What the statistics, and the log, are told of a call's prefix."""

from __future__ import annotations

import logging
from typing import NamedTuple

from coa.cache.kv_stats import Counts, KvStats
from coa.cache.served_engines import Prefix
from coa.llm.call_labels import call_labels
from coa.llm.prefixes import Measured

__all__ = ["Placed", "count_ahead", "count_call"]

_log = logging.getLogger(__name__)


class Placed(NamedTuple):
    """How a prefix came to its place, in tokens."""

    prefilled: int
    """Computed for the call, or charged to it."""
    charged: int
    """Of these, computed ahead of any call, and counted then."""
    predicted: int
    restored: int


def count_ahead(stats: KvStats, engine: str, computed: int) -> None:
    """Tokens of a prefix that was computed without a call."""
    counts = Counts(computed_tokens=computed, ahead_tokens=computed)
    stats.add(counts, document=call_labels().get("document", ""), replica=engine)


def count_call(stats: KvStats, engine: str, prefix: Prefix, measured: Measured, placed: Placed, *, cause: str) -> None:
    """A finished call, and why its prefix was not there, if it was not; an empty `cause`: nobody knows."""
    cached = max(0, measured.cached_tokens - placed.prefilled)
    counts = Counts(
        calls=1,
        prompt_tokens=measured.prompt_tokens,
        predicted_tokens=max(0, placed.predicted - placed.charged),
        cached_tokens=cached,
        computed_tokens=measured.prompt_tokens - cached - placed.charged,
        restored_tokens=placed.restored,
        restored=int(placed.restored > 0),
    )
    stats.add(counts, document=call_labels().get("document", ""), replica=engine)
    if cached < prefix.state.n_tokens and not placed.charged:
        cause = cause or "the engine did not hold it"
        stats.missed(cause)
        n = prefix.state.n_tokens
        _log.info("%s: %d of %d tokens of a chunk were in place: %s.", engine, min(cached, n), n, cause)
