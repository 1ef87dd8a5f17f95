"""Where replies are kept between runs: the protocol, and a store that lives in memory.

Keys are digests of everything that a reply depends on (`coa.llm.response_cache`), values are opaque bytes. A store
may lose any entry at any time; it never gives bytes under a key that they were not put under.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coa.errors import CacheError

__all__ = ["ENTRY_OVERHEAD", "Dropped", "InMemoryResponses", "ModelShare", "ResponseStore", "StoreSlow", "StoreStats"]

ENTRY_OVERHEAD = 200
"""Bytes that an entry is counted with beside its reply: key, times and index."""


class ModelShare(NamedTuple):
    """What a store holds of one model's replies."""

    entries: int
    bytes: int
    hits: int


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds."""

    place: str
    """A file, or a server's address without its login."""
    limit_bytes: int
    models: Mapping[str, ModelShare]
    """By the name of the group that replied."""

    @property
    def total(self) -> ModelShare:
        """Of all models together."""
        shares = self.models.values()
        return ModelShare(sum(s.entries for s in shares), sum(s.bytes for s in shares), sum(s.hits for s in shares))


class Dropped(NamedTuple):
    """What was removed from a store."""

    entries: int
    bytes: int


class StoreSlow(CacheError):
    """A store did not answer in time, as happens on a busy machine as well; the next time it may."""


class ResponseStore(Protocol):
    """Replies by key, within a budget of bytes; those that were not used for longest go first.

    Raises only `CacheError`, and none of its methods takes longer than a call can be held up by a cache: stores give
    up instead.
    """

    async def get(self, key: str) -> bytes | None:
        """The reply, which counts as used now; None where there is none."""
        ...

    async def put(self, key: str, reply: bytes, *, model: str) -> None:
        """Keeps `reply`, unless it is larger than the whole budget; takes the place of what the key had."""
        ...

    async def stats(self) -> StoreStats:
        """What is held; hits may lag behind by those of processes that run now."""
        ...

    async def prune(self, max_bytes: int, *, unused_s: float | None = None) -> Dropped:
        """Removes what was not used for `unused_s` seconds, then the longest unused until `max_bytes` are held."""
        ...

    async def close(self) -> None:
        """Lets go of files and connections; a store may be used again after it."""
        ...


@dataclass
class _Entry:
    reply: bytes
    model: str
    used: float

    @property
    def size(self) -> int:
        return len(self.reply) + ENTRY_OVERHEAD


class InMemoryResponses:
    """A store of this process: for tests, and for hosts that keep replies no longer than they run."""

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.time) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._hits: dict[str, int] = {}
        self._bytes = 0

    async def get(self, key: str) -> bytes | None:
        """See `ResponseStore`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.used = self._clock()
        self._entries.move_to_end(key)
        self._hits[entry.model] = self._hits.get(entry.model, 0) + 1
        return entry.reply

    async def put(self, key: str, reply: bytes, *, model: str) -> None:
        """See `ResponseStore`."""
        entry = _Entry(reply, model, self._clock())
        if entry.size > self._max_bytes:
            return
        self._drop(key)
        self._entries[key] = entry
        self._bytes += entry.size
        await self.prune(self._max_bytes)

    async def stats(self) -> StoreStats:
        """See `ResponseStore`."""
        models: dict[str, ModelShare] = {}
        for entry in self._entries.values():
            share = models.get(entry.model, ModelShare(0, 0, self._hits.get(entry.model, 0)))
            models[entry.model] = ModelShare(share.entries + 1, share.bytes + entry.size, share.hits)
        return StoreStats("memory", self._max_bytes, models)

    async def prune(self, max_bytes: int, *, unused_s: float | None = None) -> Dropped:
        """See `ResponseStore`."""
        entries, size = len(self._entries), self._bytes
        oldest = self._clock() - unused_s if unused_s is not None else float("-inf")
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if self._bytes <= max_bytes and entry.used >= oldest:
                break
            self._drop(key)
        return Dropped(entries - len(self._entries), size - self._bytes)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
