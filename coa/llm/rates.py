"""Calls and tokens per minute: who may send when, so that a provider never has to say 429.

A window of a minute is counted in 60 slots. A call books the first slot from which the minute before it, and the
slot at its edge, hold less than the limit; bookings are in order of arrival, so nobody is passed over and nobody
has to ask twice. Where a slot begins, calls of the slot that leaves the window are all more than a minute old.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

__all__ = [
    "FARTHEST_SLOTS",
    "N_SLOTS",
    "Grant",
    "LocalRates",
    "RateLimit",
    "RateLimiter",
    "local_limiter",
    "rate_limits",
    "set_local_limiter",
]

N_SLOTS = 60
"""Of a window; a call counts for one slot more than the window has, since it may come at the end of its own."""

FARTHEST_SLOTS = 20 * N_SLOTS
"""What is booked further ahead than this comes of a clock that is wrong, and is struck out."""

_KEYS_OF_DEPLOYMENT = ("rpm", "tpm")
_KEYS_OF_GROUP = ("group_rpm", "group_tpm")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What one account at one endpoint, or a group of them, may take in a window (a minute)."""

    key: str
    """Names what is limited, alike in all processes that share it; holds no secret in the clear."""
    rpm: int | None = None
    tpm: int | None = None
    """Prompt and completion tokens together."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A booking: the call may go when `wait_s` seconds are over."""

    limits: tuple[RateLimit, ...]
    tokens: int
    """As booked; at most the smallest tpm among the limits, so that a huge call is late but not lost."""
    slot: int
    wait_s: float


class RateLimiter(Protocol):
    """Books calls under limits. Implementations raise nothing: a limiter that fails must not fail an answer."""

    async def book(self, limits: Sequence[RateLimit], tokens: int) -> Grant:
        """The earliest time for a call of about `tokens` tokens that all of `limits` allow; does not wait for it."""
        ...

    async def settle(self, grant: Grant, tokens: int | None) -> None:
        """Puts what the call really took in place of what was booked; None takes back a call that was not made."""
        ...

    async def close(self) -> None:
        """Lets go of connections; may be called again."""
        ...


@dataclass(slots=True)
class _Ledger:
    """What is booked under one limit, by slot."""

    calls: dict[int, int] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    last: int = 0

    def tidy(self, now: int) -> None:
        """Forgets what is older than the window of slot `now`, or impossibly far ahead."""
        for booked in (self.calls, self.tokens):
            for slot in [s for s in booked if not now - N_SLOTS <= s <= now + FARTHEST_SLOTS]:
                del booked[slot]
        if self.last > now + FARTHEST_SLOTS:
            self.last = max(self.calls, default=0)


class LocalRates:
    """The limiter of one process; safe to use from several threads."""

    def __init__(self, *, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._ledgers: dict[str, _Ledger] = {}

    async def book(self, limits: Sequence[RateLimit], tokens: int) -> Grant:
        """See `RateLimiter.book`."""
        return self.book_now(limits, tokens)

    def book_now(self, limits: Sequence[RateLimit], tokens: int, *, earliest: int = 0) -> Grant:
        """`book` without an event loop; not before slot `earliest`."""
        limits = tuple(limits)
        tokens = held_to(limits, tokens)
        now = self._clock()
        with self._lock:
            slot = self._first_free(limits, tokens, slot_of(now, self.window_s), earliest)
            for limit in limits:
                ledger = self._ledgers[limit.key]
                ledger.calls[slot] = ledger.calls.get(slot, 0) + 1
                ledger.tokens[slot] = ledger.tokens.get(slot, 0) + tokens
                ledger.last = slot
        return Grant(limits, tokens, slot, wait_until(slot, now, self.window_s))

    def _first_free(self, limits: tuple[RateLimit, ...], tokens: int, now: int, earliest: int) -> int:
        ledgers = [self._ledgers.setdefault(limit.key, _Ledger()) for limit in limits]
        for ledger in ledgers:
            ledger.tidy(now)
        slot = max(now, earliest)
        while True:
            pairs = zip(limits, ledgers, strict=True)
            later = max((_first_free(limit, ledger, slot, tokens) for limit, ledger in pairs), default=slot)
            if later == slot:
                return slot
            slot = later

    async def settle(self, grant: Grant, tokens: int | None) -> None:
        """See `RateLimiter.settle`."""
        self.settle_now(grant, tokens)

    def settle_now(self, grant: Grant, tokens: int | None) -> None:
        """`settle` without an event loop."""
        with self._lock:
            for limit in grant.limits:
                ledger = self._ledgers.get(limit.key)
                if ledger is None or grant.slot not in ledger.calls:
                    continue  # older than the window: it counts for nothing any more
                ledger.tokens[grant.slot] += (tokens or 0) - grant.tokens
                if tokens is None:
                    ledger.calls[grant.slot] -= 1

    async def close(self) -> None:
        """Nothing is held."""


_process: RateLimiter = LocalRates()


def local_limiter() -> RateLimiter:
    """The limiter that all models of this process share where no other one is given."""
    return _process


def set_local_limiter(limiter: RateLimiter) -> None:
    """Has models that are opened from here on share `limiter`: for a process that keeps to rates with others."""
    global _process  # noqa: PLW0603 - there is one for each process
    _process = limiter


def rate_limits(group: str, endpoint: str, deployment: Mapping[str, object]) -> tuple[RateLimit, ...]:
    """The limits that an entry of litellm's model_list sets; empty for none.

    `deployment` is its litellm_params and model_info in one: rpm and tpm limit the `endpoint` (model, address
    and key, of which only a digest is kept), group_rpm and group_tpm all entries of the `group` together.
    """
    digest = blake2b(endpoint.encode(), digest_size=8).hexdigest()
    named = ((f"endpoint:{digest}", _KEYS_OF_DEPLOYMENT), (f"group:{group}", _KEYS_OF_GROUP))
    found = (RateLimit(key, *(_count(deployment.get(name)) for name in names)) for key, names in named)
    return tuple(limit for limit in found if limit.rpm is not None or limit.tpm is not None)


def held_to(limits: Sequence[RateLimit], tokens: int) -> int:
    """`tokens`, at most what an empty window takes: a larger call goes into one of its own."""
    return max(0, min([tokens, *(limit.tpm for limit in limits if limit.tpm is not None)]))


def slot_of(now: float, window_s: float) -> int:
    """The slot that a time in seconds falls in."""
    return math.floor(now * N_SLOTS / window_s)


def wait_until(slot: int, now: float, window_s: float) -> float:
    """Seconds until the slot begins; 0.0 when it has begun."""
    return max(0.0, slot * window_s / N_SLOTS - now)


def _first_free(limit: RateLimit, ledger: _Ledger, slot: int, tokens: int) -> int:
    """The first slot from `slot` on, and from the last booked one on, that has room for one more call."""
    slot = max(slot, ledger.last)
    while True:
        window = [s for s in ledger.calls if slot - N_SLOTS <= s <= slot and ledger.calls[s] > 0]
        n_calls = sum(ledger.calls[s] for s in window)
        n_tokens = sum(ledger.tokens[s] for s in window)
        full = limit.rpm is not None and n_calls >= limit.rpm
        if not full and (limit.tpm is None or n_tokens + tokens <= limit.tpm or not window):
            return slot
        slot = min(window, default=slot) + N_SLOTS + 1


def _count(value: object) -> int | None:
    """A limit as configured, also as text out of os.environ; None for what is no number above 0."""
    try:
        number = int(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None
