"""Where documents are read when nothing else decides, and what is known to be read soon.

Rendezvous hashing: Thaler and Ravishankar 1998; the bound on a replica's share after Mirrokni, Thorup and
Zadimoghaddam 2018 (consistent hashing with bounded loads), here over rendezvous order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

__all__ = ["Pending", "Work", "affinity", "place", "rendezvous_order"]


def affinity(document: str, chunk: int, *, range_chunks: int = 0) -> str:
    """The key of what belongs together: a document, or a range of so many of its chunks; 0 is the whole document."""
    return f"{document}:{chunk // range_chunks}" if range_chunks > 0 else document


def rendezvous_order(key: str, replicas: Sequence[str]) -> list[str]:
    """All replicas, the key's home first. When one leaves, only the keys that it was the home of move."""
    return sorted(replicas, key=lambda name: (blake2b(f"{key}\0{name}".encode(), digest_size=8).digest(), name))


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be read of a document."""

    key: str
    """Its affinity."""
    tokens: int


def place(work: Iterable[Work], replicas: Sequence[str], *, bound: float = 1.25) -> dict[str, str]:
    """A replica for each affinity: the first in its rendezvous order that stays below `bound` times the mean load.

    The largest work is placed first, so that what has to move is small; work that is larger than the bound allows
    anywhere goes where least is. Empty without replicas.
    """
    if not replicas:
        return {}
    sizes: Counter[str] = Counter()
    for each in work:
        sizes[each.key] += each.tokens
    limit = bound * sum(sizes.values()) / len(replicas)
    loads = dict.fromkeys(replicas, 0)
    places: dict[str, str] = {}
    for key, tokens in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        order = rendezvous_order(key, replicas)
        chosen = next((name for name in order if loads[name] + tokens <= limit), None)
        if chosen is None:
            chosen = min(order, key=lambda name: loads[name])
        places[key] = chosen
        loads[chosen] += tokens
    return places


class Pending:
    """(document, chunk) pairs that questions have still to read, counted.

    A question adds its chunks when it begins and takes each away as it has read it; what is left says which prefixes
    are worth keeping.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int]] = Counter()

    def add(self, document: str, chunks: Iterable[int]) -> None:
        """One more question will read these."""
        self._counts.update((document, chunk) for chunk in chunks)

    def read(self, document: str, chunks: Iterable[int]) -> None:
        """A question has read these, or has been given up. More often than added counts as not at all."""
        for chunk in chunks:
            key = (document, chunk)
            if self._counts[key] > 1:
                self._counts[key] -= 1
            else:
                del self._counts[key]

    def times(self, document: str, chunk: int) -> int:
        """How often it will be read yet."""
        return self._counts[(document, chunk)]

    def left(self) -> Mapping[tuple[str, int], int]:
        """All that is pending, with counts above 0."""
        return {key: count for key, count in self._counts.items() if count > 0}

    def work(self, tokens: Mapping[tuple[str, int], int], *, range_chunks: int = 0) -> list[Work]:
        """For `place`: each pending chunk once, by affinity; `tokens` says how long chunks are."""
        return [
            Work(affinity(document, chunk, range_chunks=range_chunks), tokens.get((document, chunk), 0))
            for document, chunk in self.left()
        ]
