"""Parts of the prefix cache that keep everything in memory, for tests and for looking at one part alone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coa.cache.index import Choice, Replica, Wanted
from coa.cache.speeds import Facts
from coa.cache.states import Manifest, StateKey, StateOrigin
from coa.llm.prefixes import Measured

__all__ = ["InMemoryIndex", "InMemoryStates", "NothingLearned", "OneAtATime"]


_UNKNOWN = StateOrigin()


@dataclass
class InMemoryIndex:
    """A `PrefixIndex` that takes the replica with the longest hit, of these the one with the least to do."""

    held_by: dict[tuple[str, str], set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """Hashes by replica and epoch."""
    booked: dict[tuple[str, str], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """Uncached tokens by request, by replica and epoch."""
    seats: dict[tuple[str, int], str] = field(default_factory=dict)
    """Requests by replica and slot."""

    async def reserve(self, wanted: Wanted, replicas: Sequence[Replica]) -> Choice | None:
        """See `PrefixIndex`."""
        if not replicas:
            return None
        hits = {r.id: self._hit(wanted, r) for r in replicas}
        best = min(replicas, key=lambda r: (-hits[r.id], sum(self.booked[r.id, r.epoch].values()), r.id))
        self.booked[best.id, best.epoch][wanted.request] = wanted.n_prompt - hits[best.id]
        return Choice(best.id, hits[best.id], 0.0, held_tokens=hits[best.id])

    async def release(self, request: str, replica: Replica) -> None:
        """See `PrefixIndex`."""
        self.booked[replica.id, replica.epoch].pop(request, None)

    async def renew(self, request: str, replica: Replica, slot: int | None = None) -> None:
        """See `PrefixIndex`; nothing runs out here."""

    async def held(self, replica: Replica, hashes: Sequence[bytes]) -> None:
        """See `PrefixIndex`."""
        self.held_by[replica.id, replica.epoch].update(hashes)

    async def dropped(self, replica: Replica, hashes: Sequence[bytes] | None) -> None:
        """See `PrefixIndex`."""
        if hashes is None:
            self.held_by.pop((replica.id, replica.epoch), None)
        else:
            self.held_by[replica.id, replica.epoch].difference_update(hashes)

    async def scored(self, wanted: Wanted, replica: Replica, *, predicted: int, actual: int) -> None:
        """See `PrefixIndex`."""
        gone = [h for h, end in zip(wanted.hashes, wanted.tokens, strict=True) if end > actual]
        if actual < predicted:
            await self.dropped(replica, gone)

    async def pin(self, prefixes: Mapping[bytes, int], *, until: float) -> None:
        """See `PrefixIndex`; nothing is given away here."""

    async def seat(
        self, request: str, replica: Replica, prefer: bytes | None = None, *, patient: bool = False
    ) -> int | None:
        """See `PrefixIndex`."""
        for slot in range(replica.slots):
            if self.seats.setdefault((replica.id, slot), request) == request:
                return slot
        return None

    async def unseat(self, request: str, replica: Replica, slot: int, holds: bytes | None = None) -> None:
        """See `PrefixIndex`."""
        if self.seats.get((replica.id, slot)) == request:
            del self.seats[replica.id, slot]

    async def close(self) -> None:
        """See `PrefixIndex`."""

    def _hit(self, wanted: Wanted, replica: Replica) -> int:
        held, hit = self.held_by[replica.id, replica.epoch], 0
        for hash_, end in zip(wanted.hashes, wanted.tokens, strict=True):
            if hash_ not in held:
                break
            hit = end
        return hit


@dataclass(eq=False)
class InMemoryStates:
    """A `StateStore` over a folder of an engine's, its manifests in memory, without a budget."""

    folder: Path
    manifests: dict[StateKey, Manifest] = field(default_factory=dict)
    discarded: list[tuple[StateKey, str]] = field(default_factory=list)

    async def find(self, key: StateKey) -> Manifest | None:
        """See `StateStore`."""
        found = self.manifests.get(key)
        return found if found is not None and (self.folder / found.file).exists() else None

    async def begin(self, key: StateKey) -> str:
        """See `StateStore`."""
        return f"{key.name}.{secrets.token_hex(4)}"

    async def commit(self, key: StateKey, file: str, origin: StateOrigin = _UNKNOWN) -> Manifest | None:
        """See `StateStore`."""
        size = (self.folder / file).stat().st_size
        self.manifests[key] = Manifest(key, file, size, "", time.time(), origin)
        return self.manifests[key]

    async def discard(self, key: StateKey, cause: str) -> None:
        """See `StateStore`."""
        self.manifests.pop(key, None)
        self.discarded.append((key, cause))

    async def pin(self, keys: Sequence[StateKey], *, until: float) -> None:
        """See `StateStore`; nothing is evicted anyway."""


class OneAtATime:
    """Single flight within one process."""

    def __init__(self) -> None:
        self._locks: dict[StateKey, asyncio.Lock] = defaultdict(asyncio.Lock)

    @contextlib.asynccontextmanager
    async def alone(self, key: StateKey) -> AsyncIterator[bool]:
        """True for the one that did not have to wait."""
        first = not self._locks[key].locked()
        async with self._locks[key]:
            yield first


class NothingLearned:
    """Replicas as they were described."""

    def view(self, replica: Replica) -> Replica:
        """The replica itself."""
        return replica

    def observe(
        self,
        replica: Replica,
        measured: Measured,
        *,
        predicted: int,
        wall_s: float | None = None,
        held_s: float | None = None,
    ) -> None:
        """Forgets it."""

    async def load(self, facts: Facts, replica: str) -> None:
        """Nothing."""

    async def save(self, facts: Facts, replica: str) -> None:
        """Nothing."""
