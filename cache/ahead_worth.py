"""Whether computing ahead helps: the time that it spared calls, against the time by which it slowed others down."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AheadWorth"]

_KEEP = 0.85
"""What an earlier call still counts, after the next one."""
_LEAST_REPLY = 8
"""Tokens of a reply below which its time says more of the request than of the speed."""
_LEAST_BESIDE = 3
_ALONE, _BESIDE = 0.1, 0.5
"""Shares of a reply's time: below the one it was written alone, above the other beside work ahead."""
_LOOK_AGAIN = 32
"""Calls after which one is left alone for comparison; and after which, once switched off, it is tried again."""


@dataclass(slots=True)
class _Mean:
    """A mean that older values fade out of."""

    total: float = 0.0
    weight: float = 0.0
    n: int = 0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.total = _KEEP * self.total + value
        self.weight = _KEEP * self.weight + weight
        self.n += 1

    @property
    def value(self) -> float:
        return self.total / self.weight if self.weight else 0.0


class AheadWorth:
    """The measurement for one model group.

    Engines that time their replies are judged by the seconds a token takes alone and beside work ahead; others by
    whole calls, those that found their prefix computed against those that did not.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._off_until = 0
        self._reset()

    @property
    def helps(self) -> bool:
        """Whether to go on. False at first, until a call has shown how long one takes without."""
        measured = self._alone.n or self._unhelped.n
        return bool(measured) and self._calls >= self._off_until and self._calls % _LOOK_AGAIN != 0

    def call(
        self,
        *,
        seconds: float,
        completion_s: float | None,
        completion_tokens: int,
        beside: float,
        helped_s: float,
        computed: bool,
    ) -> None:
        """One call: its whole time, that of its reply where the engine tells, the share of that in which something was
        computed ahead, the seconds that work ahead had spared it, and whether it computed its prefix itself."""
        self._calls += 1
        lost_s = 0.0
        if completion_s is None:
            if helped_s > 0:
                self._helped.add(seconds)
            elif computed:
                self._unhelped.add(seconds)
        elif completion_tokens >= _LEAST_REPLY:
            if beside <= _ALONE:
                self._alone.add(completion_s, completion_tokens)
            elif beside >= _BESIDE:
                self._beside.add(completion_s, completion_tokens)
                lost_s = max(0.0, completion_s - self._alone.value * completion_tokens) if self._alone.n else 0.0
        self._lost.add(lost_s)
        self._spared.add(helped_s)
        if self._useless():
            self._off_until = self._calls + _LOOK_AGAIN
            self._reset()

    def _useless(self) -> bool:
        if self._beside.n >= _LEAST_BESIDE and self._alone.n:
            return self._lost.total >= self._spared.total
        enough = self._helped.n >= _LEAST_BESIDE and self._unhelped.n
        return bool(enough) and self._helped.value >= self._unhelped.value

    def _reset(self) -> None:
        self._alone, self._beside, self._lost = _Mean(), _Mean(), _Mean()
        self._helped, self._unhelped, self._spared = _Mean(), _Mean(), _Mean()
