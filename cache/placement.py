"""Where documents are read when nothing else decides.

Rendezvous hashing: Thaler and Ravishankar 1998. A home that is busy is passed over by the policy's costs
(`coa.cache.router`), which bounds its load.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

__all__ = ["affinity", "rendezvous_order"]


def affinity(document: str, chunk: int, *, range_chunks: int = 0) -> str:
    """The key of what belongs together: a document, or a range of so many of its chunks; 0 is the whole document."""
    return f"{document}:{chunk // range_chunks}" if range_chunks > 0 else document


def rendezvous_order(key: str, replicas: Sequence[str]) -> list[str]:
    """All replicas, the key's home first. When one leaves, only the keys that it was the home of move."""
    return sorted(replicas, key=lambda name: (blake2b(f"{key}\0{name}".encode(), digest_size=8).digest(), name))
