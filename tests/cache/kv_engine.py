"""A model of an engine's prefix cache, written after vLLM's block pool, that tells its events as engines do.

Blocks are physical: two requests that compute the same prompt at once keep a copy each, and a removal is of one copy.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

Shape = Literal["arrays", "maps", "array of maps"]
Hash = int | bytes


@dataclass
class PoolEngine:
    """Holds at most `n_blocks`; the ones not used for longest go first, from the end of a prompt."""

    block_size: int
    n_blocks: int
    shape: Shape = "array of maps"
    bytes_hashes: bool = False
    seq: int = 0
    clock: float = 1000.0
    pool: OrderedDict[int, Hash] = field(default_factory=OrderedDict)
    """Hash by physical block; the ones to go first stand first."""
    events: list[dict[str, Any]] = field(default_factory=list)
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    _ids: int = 0

    def hashes(self, tokens: list[int]) -> list[Hash]:
        """Of the prompt's full blocks, chained."""
        found: list[Hash] = []
        state = b"seed"
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            state = hashlib.sha256(state + repr(tokens[start : start + self.block_size]).encode()).digest()
            found.append(state if self.bytes_hashes else int.from_bytes(state[:8], "big"))
        return found

    def cached(self, tokens: list[int]) -> int:
        """Tokens that a prompt would find."""
        n, there = 0, set(self.pool.values())
        for h in self.hashes(tokens):
            if h not in there:
                break
            n += self.block_size
        return n

    def run(self, tokens: list[int], *, twins: int = 1) -> None:
        """Computes a prompt; `twins` requests at once all miss what none of them has yet."""
        hashes = self.hashes(tokens)
        n_hit = self.cached(tokens) // self.block_size
        wanted = set(hashes[:n_hit])
        for physical in reversed([p for p, h in self.pool.items() if h in wanted]):
            self.pool.move_to_end(physical)
        for _ in range(twins):
            new = hashes[n_hit:]
            for _ in new:
                if len(self.pool) >= self.n_blocks:
                    self.evict(next(iter(self.pool)))
            stored = new[: max(0, self.n_blocks - len(self.pool))]
            for at in range(len(stored) - 1, -1, -1):  # a prompt's end goes first
                self._ids += 1
                self.pool[self._ids] = stored[at]
            if stored:
                first, last = n_hit * self.block_size, (n_hit + len(stored)) * self.block_size
                event: dict[str, object] = {
                    "type": "BlockStored",
                    "block_hashes": stored,
                    "token_ids": tokens[first:last],
                }
                parent = hashes[n_hit - 1] if n_hit else None
                event |= {"parent_block_hash": parent, "block_size": self.block_size, "lora_id": None, "medium": "GPU"}
                if self.shape != "arrays":
                    event |= {"lora_name": None, "extra_keys": [None] * len(stored), "group_idx": 0}
                self.events.append(event)

    def evict(self, physical: int) -> None:
        """Takes out one block."""
        self.events.append({"type": "BlockRemoved", "block_hashes": [self.pool.pop(physical)], "medium": "GPU"})

    def reset(self) -> None:
        """Takes out everything."""
        self.pool.clear()
        self.events.append({"type": "AllBlocksCleared"})

    def step(self) -> tuple[int, bytes] | None:
        """Publishes what happened, if anything did."""
        if not self.events:
            return None
        self.clock += 1.0
        events: list[Any] = self.events
        if self.shape == "arrays":
            events = [list(event.values()) for event in map(_in_order, events)]
        batch: Any = [self.clock, events, 0]
        if self.shape == "maps":
            batch = {"ts": self.clock, "events": events, "data_parallel_rank": 0}
        message = self.seq, msgspec.msgpack.encode(batch)
        self.events, self.seq = [], self.seq + 1
        self.sent.append(message)
        return message

    def restart(self) -> None:
        """Another process, later."""
        self.pool.clear()
        self.events, self.sent, self.seq = [], [], 0
        self.clock += 10.0


def _in_order(event: dict[str, Any]) -> dict[str, Any]:
    names = ["type", "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium"]
    return {name: event[name] for name in names if name in event}
