"""Which replica holds which prefix, how loaded it is, and which one takes the next call.

The index is advice: wrong data costs time, never an answer. No operation raises, and none delays a call by more than
50 ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Choice", "IndexKind", "PrefixIndex", "Replica", "Wanted"]

IndexKind = Literal["owned", "events", "approx"]
"""How its entries come about: coa itself places states in slots; the engine tells; guessed from the calls made."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A deployment as the routing policy sees it."""

    id: str
    epoch: str
    """A nonce of its process: entries of another epoch are never read."""
    kind: IndexKind
    slots: int
    """Calls that it computes at once."""
    prefill_tps: float
    """Tokens a second, learned from its timings."""
    decode_tps: float
    confidence: float
    """0..1: what share of predicted hits came true."""
    capacity_tokens: int = 0
    """Tokens that its memory holds; 0: unknown."""
    hold_s: float = 0.0
    """How long a call has one of its slots, learned; 0: unknown."""
    work_tokens: float = 0.0
    """Prompt tokens that it computed lately, in whatever measure all replicas share."""
    server: str = ""
    """What serves it, where that may have other names too: replicas of one server and epoch have the same slots, the
    same calls and the same contents. Empty: nothing but this replica."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that looks for a replica."""

    request: str
    """Unique."""
    hashes: tuple[bytes, ...]
    """Chain hashes of the prompt's prefix blocks, in order; then possibly the segment's own, unaligned one."""
    tokens: tuple[int, ...]
    """Tokens up to and including each hash; ascending, as long as `hashes`."""
    n_prompt: int
    """Tokens of the whole prompt, tail included (an estimate will do)."""
    n_out: int
    """Tokens of the reply, as expected."""
    state_tokens: int = 0
    """Tokens that a saved state would give back on a replica that can restore it."""
    restore_s: float = 0.0
    affinity: str = ""
    """What belongs together (document and chunk range); breaks ties by rendezvous hashing."""
    shared: bool = False
    """What one replica computes of it any other one restores, and what is in a replica's own memory is not used:
    then no replica is the better place for it, and ties go to the one that has worked least."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The replica that was reserved."""

    replica: str
    hit_tokens: int
    """Predicted."""
    seconds: float
    """The policy's estimate."""
    runner_up: str | None = None
    regret_tokens: int = 0
    """What the replica with the longest hit has more than the one chosen."""
    held_tokens: int = 0
    """Of the hit, what the replica held already; the rest is being computed by a call in flight."""
    shared: bool = True
    """False where the answer came from this process's own mirror, Redis being out of reach."""


class PrefixIndex(Protocol):
    """See the module."""

    async def reserve(self, wanted: Wanted, replicas: Sequence[Replica]) -> Choice | None:
        """Picks one of `replicas` and books the call's work on it, in one round trip; None without replicas."""
        ...

    async def release(self, request: str, replica: Replica) -> None:
        """Ends a booking."""
        ...

    async def renew(self, request: str, replica: Replica, slot: int | None = None) -> None:
        """Its booking there, if it has one, and the slot that it has do not run out yet; to be called every few
        seconds."""
        ...

    async def held(self, replica: Replica, hashes: Sequence[bytes]) -> None:
        """The replica holds these now."""
        ...

    async def dropped(self, replica: Replica, hashes: Sequence[bytes] | None) -> None:
        """It does not hold these any more; None: nothing at all."""
        ...

    async def scored(self, wanted: Wanted, replica: Replica, *, predicted: int, actual: int) -> None:
        """What came of a prediction, in tokens: what the engine did not have any more is dropped."""
        ...

    async def pin(self, prefixes: Mapping[bytes, int], *, until: float) -> None:
        """Prefixes, by their last hash, with their tokens, are going to be read before Unix time `until`."""
        ...

    async def seat(
        self, request: str, replica: Replica, prefer: bytes | None = None, *, patient: bool = False
    ) -> int | None:
        """A free slot of the replica, leased to the request until `unseat` (or for 20 s, if not renewed): the one
        that holds `prefer` where that is free, else the one not used for longest; None where all are taken, and for
        a `patient` request also while the one that holds `prefer` is. Asked again, the same request gets the same."""
        ...

    async def unseat(self, request: str, replica: Replica, slot: int, holds: bytes | None = None) -> None:
        """Gives the slot back, with what it holds now."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...
