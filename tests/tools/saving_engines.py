"""Engines that save and restore states, for `kill_saves.py`: llama.cpp's server, and a slow writer of known bytes."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from hashlib import shake_128
from pathlib import Path
from typing import Any, Protocol

from coa.cache.blocks import root_hash, segment_hash
from coa.cache.states import StateKey

__all__ = ["LlamaEngine", "SavingEngine", "StandIn", "key_of"]

_TAIL = [28, 198, 504, 338]
_REPLY_TOKENS = 8
_IDENTITY = root_hash("kill_saves")


def tokens_of(prefix: int, n_tokens: int) -> list[int]:
    """Any tokens, the same for the same number."""
    rng = random.Random(prefix)
    return [rng.randrange(100, 40_000) for _ in range(n_tokens)]


def key_of(prefix: int, n_tokens: int) -> StateKey:
    """Of a prefix."""
    return StateKey(_IDENTITY, segment_hash(tokens_of(prefix, n_tokens), _IDENTITY), n_tokens)


class SavingEngine(Protocol):
    """What saves and restores."""

    async def save(self, slot: int, prefix: int, file: str) -> bool:
        """Computes a prefix and writes its state."""
        ...

    async def reply(self, slot: int, prefix: int, file: str | None) -> list[int] | None:
        """What follows the prefix, restored from a file, or computed; None where the file is not taken."""
        ...


@dataclass(frozen=True)
class LlamaEngine:
    """llama.cpp's server."""

    url: str
    api_key: str
    n_tokens: int

    async def save(self, slot: int, prefix: int, file: str) -> bool:
        await self._compute(slot, tokens_of(prefix, self.n_tokens), cached=False)
        return (await self._call(f"/slots/{slot}?action=save", {"filename": file})).get("n_saved") == self.n_tokens

    async def reply(self, slot: int, prefix: int, file: str | None) -> list[int] | None:
        tokens = tokens_of(prefix, self.n_tokens)
        if file is None:
            await self._compute(slot, tokens, cached=False)
        else:
            restored = await self._call(f"/slots/{slot}?action=restore", {"filename": file})
            if restored.get("n_restored") != self.n_tokens:
                return None
        told = await self._compute(slot, [*tokens, *_TAIL], cached=True, n_predict=_REPLY_TOKENS)
        if told["timings"]["cache_n"] != self.n_tokens:
            return None
        return [int(token) for token in told["tokens"]]

    async def _compute(self, slot: int, tokens: list[int], *, cached: bool, n_predict: int = 0) -> dict[str, Any]:
        body = {"prompt": tokens, "n_predict": n_predict, "id_slot": slot, "cache_prompt": cached}
        return await self._call("/completion", {**body, "temperature": 0, "return_tokens": True})

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import httpx

        headers = {"Authorization": f"Bearer {self.api_key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False) as client:
            found: dict[str, Any] = (await client.post(path, json=body)).json()
            return found


@dataclass(frozen=True)
class StandIn:
    """Writes known bytes slowly; what it replies tells whether it was given the very same ones."""

    folder: Path
    n_bytes: int = 400_000

    async def save(self, slot: int, prefix: int, file: str) -> bool:
        data = self._data(prefix)
        with (self.folder / file).open("wb", buffering=0) as target:
            for start in range(0, len(data), 40_000):
                target.write(data[start : start + 40_000])
                await asyncio.sleep(0.0005)
        return True

    async def reply(self, slot: int, prefix: int, file: str | None) -> list[int] | None:
        try:
            data = self._data(prefix) if file is None else (self.folder / file).read_bytes()
        except FileNotFoundError:
            return None
        return list(shake_128(data).digest(4))

    def _data(self, prefix: int) -> bytes:
        return shake_128(prefix.to_bytes(4, "little")).digest(self.n_bytes)
