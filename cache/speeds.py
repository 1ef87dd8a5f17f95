"""How fast replicas are and how far their predicted hits are to be believed, learned from what engines report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from coa.cache.index import IndexKind, Replica
from coa.cache.router import LEAST_SPEED
from coa.llm.prefixes import Measured

__all__ = ["Facts", "Speeds"]

_TRUST_KEEP = 0.8
"""What an earlier prediction still counts, after the next one: an average over about five."""
_RISE, _FALL = 0.3, 0.1
"""How much of the way up a faster call takes a speed, and a slower one down."""
_HOLD_KEEP = 0.8
"""What earlier calls' time in a slot still counts, after the next one."""
_OWN_FROM = 8
"""Calls after which a replica's own speed counts as much as the mean of its group. Equal replicas are the rule, and one
that looks slow after a bad first call would be sent no other that could mend its name."""
_WORK_KEEP = 0.99
"""What the work of earlier calls still counts, after the next one: a replica that is new is not made to catch up on
days."""
_LEAST_COMPUTED = 16
_WHOLE = 256
"""Prompt tokens below which a time says more of the request than of the speed, and from which on it counts in full."""
_TRUST: Mapping[IndexKind, float] = {"events": 1.0, "owned": 0.9, "approx": 0.6}


@runtime_checkable
class Facts(Protocol):
    """Where what was learned outlives this process; `coa.cache.redis_index.RedisIndex` is one."""

    async def recall(self, replica: str) -> dict[str, str]:
        """What was last remembered of it; empty for nothing."""
        ...

    async def remember(self, replica: str, facts: Mapping[str, str]) -> None:
        """Keeps it."""
        ...


@dataclass(frozen=True, slots=True)
class _Learned:
    """Tokens a second, near the fastest that was seen: what a replica computes at the same time slows a call down, and
    that is counted as its queue, not as its speed."""

    prefill_tps: float | None = None
    decode_tps: float | None = None
    confidence: float | None = None
    hold_s: float | None = None
    n_seen: int = 0
    """Calls that speeds were learned from."""

    def split(self, computed: int, reply: int, wall_s: float, replica: Replica) -> tuple[float, float]:
        """The parts of a whole time that prompt and reply probably took, by what is known of the speeds."""
        prompt_s = computed / (self.prefill_tps or max(LEAST_SPEED, replica.prefill_tps))
        reply_s = reply / (self.decode_tps or max(LEAST_SPEED, replica.decode_tps))
        share = wall_s / (prompt_s + reply_s) if prompt_s + reply_s > 0 else 0.0
        return prompt_s * share, reply_s * share


class Speeds:
    """Implements `coa.cache.kv_cache.Learning`. A replica that has not been measured yet is taken to be like the mean
    of those that have, so that being new is neither an advantage nor a fault; the more calls it has had, the more its
    own figures count."""

    def __init__(self) -> None:
        self._learned: dict[str, _Learned] = {}
        self._work: dict[str, float] = {}

    def view(self, replica: Replica) -> Replica:
        """The replica with what has been learned; its own figures where nothing has been of any."""
        known = self._learned.get(replica.id, _Learned())
        prefill_tps = _mean([k.prefill_tps for k in self._learned.values()], replica.prefill_tps)
        decode_tps = _mean([k.decode_tps for k in self._learned.values()], replica.decode_tps)
        return replace(
            replica,
            prefill_tps=_shrunk(known.prefill_tps, prefill_tps, known.n_seen),
            decode_tps=_shrunk(known.decode_tps, decode_tps, known.n_seen),
            confidence=_TRUST[replica.kind] if known.confidence is None else known.confidence,
            hold_s=known.hold_s or _mean([k.hold_s for k in self._learned.values()], replica.hold_s),
            work_tokens=self._work.get(replica.id, 0.0),
        )

    def observe(
        self,
        replica: Replica,
        measured: Measured,
        *,
        predicted: int,
        wall_s: float | None = None,
        held_s: float | None = None,
    ) -> None:
        """One finished call; `predicted` tokens were expected to be cached, 0 where nothing was. Of an engine that
        tells no times, `wall_s` is the whole call's; `held_s` is how long it had its slot, where there are slots."""
        known = self._learned.get(replica.id, _Learned())
        computed = max(0, measured.prompt_tokens - measured.cached_tokens)
        self._work = {name: _WORK_KEEP * tokens for name, tokens in self._work.items()}
        self._work[replica.id] = self._work.get(replica.id, 0.0) + computed
        if measured.prompt_s is None and measured.completion_s is None and wall_s is not None:
            prompt_s, reply_s = known.split(computed, measured.completion_tokens, wall_s, replica)
            measured = replace(measured, prompt_s=prompt_s, completion_s=reply_s)
        if measured.prompt_s is not None and measured.prompt_s > 0 and computed >= _LEAST_COMPUTED:
            weight = min(1.0, computed / _WHOLE)
            known = replace(known, prefill_tps=_moved(known.prefill_tps, computed / measured.prompt_s, weight))
        if measured.completion_s is not None and measured.completion_s > 0 and measured.completion_tokens > 0:
            speed = measured.completion_tokens / measured.completion_s
            known = replace(known, decode_tps=_moved(known.decode_tps, speed, 1.0))
        known = replace(
            known, n_seen=known.n_seen + (measured.prompt_s is not None or measured.completion_s is not None)
        )
        if predicted > 0:
            true = min(1.0, max(0, measured.cached_tokens) / predicted)
            before = _TRUST[replica.kind] if known.confidence is None else known.confidence
            known = replace(known, confidence=_TRUST_KEEP * before + (1.0 - _TRUST_KEEP) * true)
        if held_s is not None:
            held = held_s if known.hold_s is None else _HOLD_KEEP * known.hold_s + (1.0 - _HOLD_KEEP) * held_s
            known = replace(known, hold_s=held)
        self._learned[replica.id] = known

    def figures(self, replica: str) -> dict[str, str]:
        """What was learned of it, for `Facts.remember`."""
        known = self._learned.get(replica, _Learned())
        told = {"prefill_tps": known.prefill_tps, "decode_tps": known.decode_tps}
        told |= {"confidence": known.confidence, "hold_s": known.hold_s}
        return {name: repr(value) for name, value in told.items() if value is not None}

    async def load(self, facts: Facts, replica: str) -> None:
        """Takes over what is remembered of a replica that has not been measured here yet; figures that are none, or
        make no sense, count as nothing."""
        told = await facts.recall(replica)
        if replica in self._learned or not told:
            return
        values = {name: _figure(text) for name, text in told.items()}
        trust = values.get("confidence")
        self._learned[replica] = _Learned(
            prefill_tps=values.get("prefill_tps") or None,
            decode_tps=values.get("decode_tps") or None,
            confidence=None if trust is None else min(1.0, trust),
            hold_s=values.get("hold_s") or None,
            n_seen=_OWN_FROM,
        )

    async def save(self, facts: Facts, replica: str) -> None:
        """Has it remembered."""
        figures = self.figures(replica)
        if figures:
            await facts.remember(replica, figures)


def _moved(known: float | None, seen: float, weight: float) -> float:
    if known is None:
        return seen
    return known + weight * (_RISE if seen > known else _FALL) * (seen - known)


def _shrunk(own: float | None, mean: float, n_seen: int) -> float:
    """Between the mean of all and the replica's own."""
    return mean if own is None else (n_seen * own + _OWN_FROM * mean) / (n_seen + _OWN_FROM)


def _mean(values: list[float | None], otherwise: float) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else otherwise


def _figure(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 <= value < 1e12 else None
