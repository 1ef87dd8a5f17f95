"""Structures on disk, by what they were made from: a chunk is structured once, for every run and question.

One file each, `<home>/structures/<first two digits>/<key>.json`. The key is the digest of the chunk's text with its
sentence borders and of the structurizer's identity (model, prompts, form), so another model's or prompt's structure
is never taken for this one's. Files are replaced whole, so several processes may work on one folder; a file that
cannot be read, or does not fit its chunk, counts as absent and is written anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

from coa.agents.structure import Structure
from coa.run_files import write_atomically
from coa.types import Chunk

__all__ = ["StructureStore", "structure_key"]

_FORMAT = 1


def structure_key(chunk: Chunk, identity: str) -> str:
    """What names the structure of `chunk` by a structurizer of that identity: 64 hexadecimal digits."""
    borders = [s.start - chunk.span.start for s in chunk.sentences]
    digest = hashlib.sha256(json.dumps([_FORMAT, identity, borders]).encode())
    digest.update(chunk.text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


class StructureStore:
    """The structures under one home folder."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "structures"

    async def get(self, chunk: Chunk, identity: str) -> Structure | None:
        """The stored structure of `chunk`; None where there is none that can be used."""
        return await asyncio.to_thread(self._read, chunk, identity)

    async def put(self, chunk: Chunk, identity: str, structure: Structure) -> None:
        """Stores the structure of `chunk`; on the disk when it returns. Raises: StorageError."""
        text = json.dumps({"format": _FORMAT, **structure.to_json()}, ensure_ascii=False, separators=(",", ":"))
        await asyncio.to_thread(write_atomically, self._path(chunk, identity), text)

    def _read(self, chunk: Chunk, identity: str) -> Structure | None:
        try:
            raw = json.loads(self._path(chunk, identity).read_bytes())
            structure = Structure.from_json(raw) if raw["format"] == _FORMAT else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        if structure is None or structure.n_sentences != len(chunk.sentences):
            return None
        return structure

    def _path(self, chunk: Chunk, identity: str) -> Path:
        key = structure_key(chunk, identity)
        return self._folder / key[:2] / f"{key}.json"
