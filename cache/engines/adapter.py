"""What the prefix cache asks of an engine, whatever its make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from coa.cache.index import IndexKind
from coa.reading import Prompt

__all__ = ["EngineAdapter", "TellsWeights"]


class EngineAdapter(Protocol):
    """One deployment. Methods raise `coa.errors.CacheError` for whatever the engine does or does not do."""

    @property
    def kind(self) -> IndexKind:
        """How the index learns what it holds."""
        ...

    @property
    def n_slots(self) -> int:
        """Calls that it computes at once; known after `open`."""
        ...

    @property
    def saves(self) -> bool:
        """Whether states can be saved and restored; known after `open`."""
        ...

    @property
    def granularity(self) -> int:
        """Tokens that a prefix has to be a multiple of for it to be reused bit for bit (micro-batch, block size)."""
        ...

    async def open(self) -> None:
        """Finds out what it can do."""
        ...

    async def prefix_tokens(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt up to the end of its reading prefix, chat template included."""
        ...

    async def prefill(self, tokens: Sequence[int], *, slot: int | None = None) -> int:
        """Computes a prefix and writes nothing; the tokens that it had to compute."""
        ...

    async def save(self, slot: int, file: str) -> int:
        """Writes the slot's state; the tokens in it."""
        ...

    async def restore(self, slot: int, file: str) -> int:
        """Reads a state into the slot; the tokens in it, 0 where the engine does not take it."""
        ...

    async def epoch(self) -> str:
        """Changes when the engine was restarted."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...


@runtime_checkable
class TellsWeights(Protocol):
    """An adapter that can find out by itself which weights its engine has."""

    async def recognise(self, slot: int) -> None:
        """Finds it out, with a short prompt in a slot that nobody else uses meanwhile; after `open`. An engine that
        does not tell does not save from then on. Raises: CacheError."""
        ...
