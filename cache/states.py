"""Saved attention KV of prefixes, by key.

A state is the one thing in the cache that could corrupt an answer, so it is known by everything that its numbers
depend on, and given out only whole: file first, manifest last, digest checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Manifest", "SingleFlight", "StateKey", "StateOrigin", "StateStore"]


@dataclass(frozen=True, slots=True)
class StateKey:
    """What a state is a state of."""

    identity: bytes
    """16 bytes: `coa.cache.blocks.root_hash` over model digest, runtime and its version, KV type, adapter, …"""
    hash: bytes
    """16 bytes: the chain's hash over all tokens (it starts from `identity`)."""
    n_tokens: int

    @property
    def name(self) -> str:
        """Fit for a file name: hexadecimal digits, dots and dashes."""
        return f"{self.identity.hex()[:16]}-{self.hash.hex()}-{self.n_tokens}"


@dataclass(frozen=True, slots=True)
class StateOrigin:
    """Where a state came from, for people."""

    model: str = ""
    document: str = ""
    """sha256 of the text; empty where unknown."""
    chunk: int | None = None
    """From 0."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store knows of a state that is whole."""

    key: StateKey
    file: str
    """Its name in the engine's folder; never written again under the same name."""
    n_bytes: int
    digest: str
    """blake2b-16 of the file, hexadecimal."""
    created: float
    """Unix time."""
    origin: StateOrigin = StateOrigin()


class StateStore(Protocol):
    """Keeps states within a budget of bytes; the ones not used for longest go first, pinned ones last.

    None of its methods raises: what goes wrong with a state is a miss, logged once and counted.
    """

    @property
    def folder(self) -> Path | None:
        """Where the engine writes and reads its files; None where this process cannot see it."""
        ...

    async def find(self, key: StateKey) -> Manifest | None:
        """The state, whole, checked and in the engine's folder, ready to be restored; counts as a use."""
        ...

    async def begin(self, key: StateKey) -> str:
        """A file name that nothing else has, for the engine to save to."""
        ...

    async def commit(self, key: StateKey, file: str, origin: StateOrigin = StateOrigin()) -> Manifest | None:
        """Takes in what the engine wrote to `file` and makes room for it; None where it cannot be kept."""
        ...

    async def discard(self, key: StateKey, cause: str) -> None:
        """Takes out a state that turned out to be of no use; in silence for an empty `cause`."""
        ...

    async def pin(self, keys: Sequence[StateKey], *, until: float) -> None:
        """Keeps states, also ones saved later, from being evicted before Unix time `until`, budget allowing."""
        ...


class SingleFlight(Protocol):
    """Lets one caller at a time, of all processes, compute a prefix."""

    def alone(self, key: StateKey) -> contextlib.AbstractAsyncContextManager[bool]:
        """Entered when nobody else computes it, who may have been through just before; whether there was no wait."""
        ...
