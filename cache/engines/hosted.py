"""A provider's model: what it keeps of a prompt is its own affair.

Providers cache prompts by themselves or where a message is marked (`coa.llm.cache_marks`), for minutes, and by
account and region; so of several deployments the one that saw a prefix last is likely to have it still. Nothing is
asked of a provider, and nothing computed ahead: each token is paid for.
"""

from __future__ import annotations

from collections.abc import Sequence

from coa.cache.engines.text_pieces import text_pieces
from coa.cache.index import IndexKind
from coa.errors import CacheError
from coa.llm.deployments import Deployment
from coa.reading import Prompt

__all__ = ["Hosted"]

_MANY = 256


class Hosted:
    """See `EngineAdapter`."""

    kind: IndexKind = "approx"
    saves = False
    granularity = 1
    tells_cached = True

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        given = {**(deployment.info or {}), **(deployment.params or {})}.get("max_parallel_requests")
        self.n_slots = given if isinstance(given, int) and given > 0 else _MANY

    async def open(self) -> None:
        """Nothing to find out."""

    async def prefix_tokens(self, prompt: Prompt) -> list[int]:
        """Pieces of the text."""
        return text_pieces(prompt)

    async def prefill(self, tokens: Sequence[int], *, slot: int | None = None) -> int:
        """Not with a provider; see `EngineAdapter`."""
        raise CacheError(f"{self.deployment.id} is paid by the token: nothing is computed ahead.")

    async def save(self, slot: int, file: str) -> int:
        """Not with a provider; see `EngineAdapter`."""
        raise CacheError(f"{self.deployment.id} does not save states.")

    async def restore(self, slot: int, file: str) -> int:
        """Not with a provider; see `EngineAdapter`."""
        raise CacheError(f"{self.deployment.id} does not restore states.")

    async def epoch(self) -> str:
        """Never changes."""
        return ""

    async def close(self) -> None:
        """See `EngineAdapter`."""
