"""The seam between calls and the prefix cache: who holds a prompt's reading prefix, and how it gets there.

coa.llm makes calls and knows nothing of attention KV; `coa.cache` implements these protocols. Invariant: whatever a
cache does wrong costs time and never an answer, so nothing here raises for a cache's own troubles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from coa.llm.chat import Decoding
from coa.reading import Prompt

__all__ = ["Measured", "PrefixCache", "Prepared", "Reservation"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `Reservation.prepare` did."""

    body: Mapping[str, object]
    """What the request to the engine has to carry ("id_slot", "cache_prompt", …); laid over what it carries anyway."""
    prefilled_tokens: int = 0
    """Tokens of this prompt that were computed for this call before it: the engine will report them as cached."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an engine said of a finished call."""

    prompt_tokens: int
    cached_tokens: int
    """As the engine reports them, prefilled ones included."""
    completion_tokens: int
    prompt_s: float | None = None
    """Time that the engine took for the prompt; None where it does not tell."""
    completion_s: float | None = None


class Reservation(Protocol):
    """One attempt of one call. None of its methods raises but for cancellation."""

    async def choose(self, deployments: Sequence[str], fit: Callable[[str], bool] | None = None) -> str | None:
        """Which of these (ids, at least one) is to serve the call; None leaves it to the Router. May wait until the
        best of them has room, and then takes none that is not `fit` any more; None also where none is left. Called
        before the call's time limits begin."""
        ...

    async def seat(self, deployment: str) -> None:
        """Waits until the deployment has room; called before the call's time limits begin."""
        ...

    async def prepare(self, deployment: str) -> Prepared:
        """Restores or computes the prefix there; called within the call's time limits, right before it goes out."""
        ...

    async def done(self, measured: Measured | None) -> None:
        """Ends it; None for a call that failed or was given up. Called once, also where nothing was sent."""
        ...


class PrefixCache(Protocol):
    """The cache of one gateway's models."""

    def reserve(self, group: str, prompt: Prompt, decoding: Decoding) -> Reservation | None:
        """For one attempt; None where the cache has no part in the call."""
        ...

    async def prefill(self, group: str, prompt: Prompt, *, ahead: bool = True) -> int | None:
        """Has the reading prefix of `prompt` computed where it will be read, and kept; the tokens that it took, None
        where it could not be done. `ahead` books them on the next call that uses them, rather than on nobody."""
        ...

    def upcoming(self, group: str, prompts: Iterable[Prompt]) -> None:
        """The reading of a chunk begins, and the same path reads these after it, in order; their tails do not matter.
        Does not wait."""
        ...

    async def close(self) -> None:
        """Ends what runs in the background; waits for nothing."""
        ...
