"""An engine that keeps slots and states in memory, and a prefix cache over it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coa.cache.blocks import root_hash
from coa.cache.index import IndexKind
from coa.cache.kv_cache import KvCache
from coa.cache.kv_stats import KvStats
from coa.cache.served_engines import ServedEngine
from coa.errors import CacheError
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment
from coa.llm.prefixes import Measured, Reservation
from coa.reading import Prompt
from coa.testing.memory_cache import InMemoryIndex, InMemoryStates, NothingLearned, OneAtATime

DECODING = Decoding(max_tokens=10)
PROMPT = Prompt(prefix="a chunk of the book " * 20, tail="Write notes.")


@dataclass
class Engine:
    """An engine whose tokens are characters."""

    folder: Path
    kind: IndexKind = "owned"
    n_slots: int = 1
    saves: bool = True
    granularity: int = 64
    slots: dict[int, list[int]] = field(default_factory=dict)
    computed: int = 0
    broken: set[str] = field(default_factory=set)
    """Names of methods that raise."""
    started: str = "first"
    hangs: bool = False
    """Takes a prefix and says nothing more."""

    async def open(self) -> None:
        self._may("open")

    async def prefix_tokens(self, prompt: Prompt) -> list[int]:
        self._may("prefix_tokens")
        return [ord(c) for c in prompt.system + prompt.prefix]

    async def prefill(self, tokens: Sequence[int], *, slot: int | None = None) -> int:
        self._may("prefill")
        await (asyncio.Event().wait() if self.hangs else asyncio.sleep(0))
        self.slots[slot or 0] = list(tokens)
        self.computed += len(tokens)
        return len(tokens)

    async def save(self, slot: int, file: str) -> int:
        self._may("save")
        (self.folder / file).write_bytes(bytes(self.slots[slot]))
        return len(self.slots[slot])

    async def restore(self, slot: int, file: str) -> int:
        self._may("restore")
        self.slots[slot] = list((self.folder / file).read_bytes())
        return len(self.slots[slot])

    async def epoch(self) -> str:
        self._may("epoch")
        return self.started

    async def close(self) -> None:
        pass

    def call(self, prompt: Prompt, body: dict[str, Any]) -> Measured:
        """As the engine would serve it, and what it tells."""
        tokens = [ord(c) for c in prompt.system + prompt.prefix + prompt.tail]
        held = self.slots.get(body.get("id_slot", 0), []) if body.get("cache_prompt", self.kind != "owned") else []
        common = next(
            (i for i, (a, b) in enumerate(zip(held, tokens, strict=False)) if a != b), min(len(held), len(tokens))
        )
        self.slots[body.get("id_slot", 0)] = tokens
        self.computed += len(tokens) - common
        return Measured(len(tokens), common, 5)

    def _may(self, name: str) -> None:
        if name in self.broken:
            raise CacheError(f"the engine's {name} is broken.")


@dataclass
class World:
    engines: dict[str, Engine]
    states: InMemoryStates
    index: InMemoryIndex
    stats: KvStats
    cache: KvCache

    async def call(self, prompt: Prompt = PROMPT, deployment: str = "a") -> tuple[Measured, int]:
        """One call from beginning to end: what the engine told, and what was prefilled for it."""
        reservation: Reservation | None = self.cache.reserve("m", prompt, DECODING)
        assert reservation is not None
        await reservation.seat(deployment)
        prepared = await reservation.prepare(deployment)
        measured = self.engines[deployment].call(prompt, dict(prepared.body))
        await reservation.done(measured)
        return measured, prepared.prefilled_tokens


def world(tmp_path: Path, *names: str, timeout_s: float | None = None, **engine: Any) -> World:
    names = names or ("a",)
    engines = {name: Engine(tmp_path, **engine) for name in names}
    served = [
        ServedEngine(Deployment(n, "openai/m", "llama_server"), "m", e, identity=lambda: root_hash("m"))
        for n, e in engines.items()
    ]
    states, index, stats = InMemoryStates(tmp_path), InMemoryIndex(), KvStats(tmp_path / "stats.jsonl")
    cache = KvCache(
        served,
        index=index,
        stores=dict.fromkeys(engines, states),
        flight=OneAtATime(),
        learned=NothingLearned(),
        stats=stats,
        timeout_s=timeout_s,
    )
    return World(engines, states, index, stats, cache)
