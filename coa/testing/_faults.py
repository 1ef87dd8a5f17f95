"""Which calls of a fault server go wrong, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from coa.testing._completions import ChatRequest

__all__ = ["FaultKind", "Faults"]

FaultKind = Literal[
    "400-context",  # the prompt is said not to fit: OpenAI's code context_length_exceeded
    "400-policy",  # the prompt is refused: OpenAI's code content_policy_violation
    "401",
    "429",
    "429-retry-after",  # with the header
    "500",
    "503",
    "broken-stream",  # half of the reply, then the connection closes
    "content-filter",  # an empty reply that a filter stopped
    "drip",  # the reply byte by byte, drip_s apart: no read ever times out
    "empty",
    "half-close",  # half of the reply, then FIN while the server goes on listening
    "hang",  # no byte until the client gives up or hang_s is over
    "length",  # half of the reply, finish_reason "length"
    "no-usage",
    "reset",  # TCP reset in place of a reply
    "slow-first-token",
    "stall",  # half of the reply, then silence until the client gives up or hang_s is over
    "wrong-json",  # status 200, a body that is cut JSON
    "wrong-usage",  # negative and contradictory counts
]

_KINDS: tuple[str, ...] = get_args(FaultKind)


def _no_fault(request: ChatRequest) -> FaultKind | None:
    return None


@dataclass(frozen=True, slots=True)
class Faults:
    """A plan of faults. The script goes first, then `when`, then the rates."""

    rates: Mapping[FaultKind, float] = field(default_factory=dict)
    """Probability of each kind; they add up to 1 or less.

    Drawn from (seed, prompt, how often this prompt came before), not from the order of arrival: the same
    prompts meet the same faults however they are interleaved, and a retry draws anew.
    """
    script: Sequence[FaultKind | None] = ()
    """One entry for each call in order of arrival; None is a call that goes well."""
    when: Callable[[ChatRequest], FaultKind | None] = _no_fault
    """Decides by the request. Runs in the server's thread: must not block."""
    latency_s: float = 0.0
    """Before the first byte of every reply, faults included."""
    jitter_s: float = 0.0
    """At most this much more, drawn evenly from (seed, prompt, attempt)."""
    token_s: float = 0.0
    """Between two tokens of a stream; as a sum before a reply that is not streamed."""
    slow_s: float = 2.0
    """How much later the first token comes with "slow-first-token"."""
    hang_s: float = 3600.0
    drip_s: float = 0.5
    """Between two bytes of "drip"."""
    retry_after_s: float = 1.0

    def __post_init__(self) -> None:
        for kind in [*self.rates, *(k for k in self.script if k is not None)]:
            if kind not in _KINDS:
                raise ValueError(f"unknown fault {kind!r}; known: {', '.join(_KINDS)}")
        if any(rate < 0 for rate in self.rates.values()) or sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError(f"rates are probabilities that add up to 1 or less: {dict(self.rates)!r}")

    @staticmethod
    def parse_rates(text: str) -> dict[FaultKind, float]:
        """Rates from "429:0.1,500:0.05"; empty text is no faults.

        Raises ValueError for an unknown kind or a rate that is not a number.
        """
        rates: dict[FaultKind, float] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            name, _, rate = part.partition(":")
            kind = next((k for k in get_args(FaultKind) if k == name), None)
            if kind is None:
                raise ValueError(f"unknown fault {name!r}; known: {', '.join(_KINDS)}")
            rates[kind] = float(rate)
        return rates

    def pick(self, request: ChatRequest, *, seed: int, script_at: int) -> FaultKind | None:
        """The fault of this call; `script_at` counts calls since the plan was set."""
        if script_at < len(self.script):
            return self.script[script_at]
        chosen = self.when(request)
        if chosen is not None or not self.rates:
            return chosen
        at = _fraction(seed, request, "fault")
        for kind, rate in self.rates.items():
            if at < rate:
                return kind
            at -= rate
        return None

    def delay_s(self, request: ChatRequest, *, seed: int) -> float:
        """Seconds before the first byte."""
        if not self.jitter_s:
            return self.latency_s
        return self.latency_s + self.jitter_s * _fraction(seed, request, "jitter")


def _fraction(seed: int, request: ChatRequest, purpose: str) -> float:
    """Evenly spread in [0, 1) over prompts and attempts."""
    key = f"{seed}:{purpose}:{request.digest}:{request.attempt}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=7).digest()) / 2**56
