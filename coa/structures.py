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
from collections.abc import Sequence
from pathlib import Path

from coa.agents.keyphrases import phrase_title
from coa.agents.outline import Outline, build_outline
from coa.agents.segmentation import sentence_texts
from coa.agents.structure import Structure, plain_structure
from coa.agents.structure_steps import step_key, structures_of
from coa.agents.structurizer import Structurizer, StructurizerReply
from coa.llm.budget import Demand
from coa.run_files import write_atomically
from coa.runs import RunPlan, StoredStep
from coa.types import Chunk, Document, Usage

__all__ = ["StoredStructurizer", "StructureStore", "outline_of", "structure_key"]

_FORMAT = 1


def structure_key(chunk: Chunk, identity: str) -> str:
    """What names the structure of `chunk` by a structurizer of that identity: 64 hexadecimal digits."""
    borders = [s.start - chunk.span.start for s in chunk.sentences]
    digest = hashlib.sha256(json.dumps([_FORMAT, identity, borders]).encode())
    digest.update(chunk.text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def outline_of(document: Document, plan: RunPlan, steps: Sequence[StoredStep]) -> Outline:
    """The outline of a run's document by its steps; a chunk without a structure stands in it as one piece."""
    structures = structures_of(steps)
    found: list[tuple[Chunk, Structure]] = []
    for n, part in enumerate(plan.parts):
        for position, chunk in enumerate(part.chunks):
            texts = sentence_texts(chunk)
            made = structures.get(step_key(n, position))
            found.append((chunk, made or plain_structure(len(texts), phrase_title(texts, texts))))
    return build_outline(document, found)


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

    def has(self, chunk: Chunk, identity: str) -> bool:
        """True where `get` would find a structure. Blocking."""
        return self._read(chunk, identity) is not None

    def _read(self, chunk: Chunk, identity: str) -> Structure | None:
        try:
            raw = json.loads(self._path(chunk, identity).read_bytes())
            fits = raw["format"] == _FORMAT and raw["n_sentences"] == len(chunk.sentences)
            return Structure.from_json(raw) if fits else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def _path(self, chunk: Chunk, identity: str) -> Path:
        key = structure_key(chunk, identity)
        return self._folder / key[:2] / f"{key}.json"


class StoredStructurizer:
    """A structurizer that looks in a store before it asks its model, and keeps there what it made."""

    def __init__(self, structurizer: Structurizer, store: StructureStore) -> None:
        self._structurizer = structurizer
        self._store = store
        self._identity = structurizer.identity

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return self._structurizer.prompt_digests

    async def structurize(self, chunk: Chunk) -> StructurizerReply:
        """The structure of `chunk`, of the store or made now. Raises: ModelError, StorageError."""
        stored = await self._store.get(chunk, self._identity)
        if stored is not None:
            return StructurizerReply(stored, Usage(), "stored")
        reply = await self._structurizer.structurize(chunk)
        await self._store.put(chunk, self._identity, reply.structure)
        return reply

    def demand(self, chunk: Chunk) -> Demand:
        """The most that `structurize` can take; nothing where the structure is stored. Blocking."""
        return Demand(0) if self._store.has(chunk, self._identity) else self._structurizer.demand(chunk)
