"""Structures on disk: found again by content, never another's, and no trouble from damage or company."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from coa.agents.structure import Aspect, Description, Structure
from coa.agents.structurizer import Structurizer
from coa.limits import FULL, Limits
from coa.llm.scripted import ScriptedModel
from coa.structures import StoredStructurizer, StructureStore, structure_key
from coa.types import Chunk, Span

LIMITS = Limits(4096, 2000, 256, 400, 300, 500)
TEXT = "The ferry crossed. Its master slept. Nobody spoke. "
ENDS = (19, 37, len(TEXT))
SPANS = tuple(Span(a, b) for a, b in zip((0, *ENDS), ENDS, strict=False))
CHUNK = Chunk(0, TEXT, Span(0, len(TEXT)), SPANS, 20, "x", False)
STRUCTURE = Structure("a ferry", (Aspect("All", (Description(0, 3, "said"),)),), 3, "free")
REPLY = "Scope: a ferry\n1. Its crossing [1-1]\n2. Silence [2-3]"


async def test_what_was_put_is_found_again_by_another_store(tmp_path: Path) -> None:
    await StructureStore(tmp_path).put(CHUNK, "me", STRUCTURE)
    assert await StructureStore(tmp_path).get(CHUNK, "me") == STRUCTURE


def test_a_key_is_of_the_text_its_sentences_and_the_maker_and_of_nothing_else() -> None:
    moved = Chunk(
        7, TEXT, Span(100, 100 + len(TEXT)), tuple(Span(a + 100, b + 100) for a, b in SPANS), 99, "other", True
    )
    assert structure_key(moved, "me") == structure_key(CHUNK, "me")
    others = [
        replace(CHUNK, text=TEXT.replace("slept", "sleeps")),
        replace(CHUNK, sentences=(Span(0, 37), SPANS[2])),
    ]
    keys = {structure_key(CHUNK, "me"), structure_key(CHUNK, "you"), *(structure_key(c, "me") for c in others)}
    assert len(keys) == 4


def _overwrite(home: Path, content: bytes) -> None:
    (file,) = home.rglob("*.json")
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        json.dumps({**STRUCTURE.to_json(), "format": 99}).encode(),
        json.dumps({"format": 1, **STRUCTURE.to_json(), "n_sentences": 2}).encode(),
        json.dumps({"format": 1, **STRUCTURE.to_json(), "aspects": []}).encode(),
        json.dumps({"format": 1, **STRUCTURE.to_json(), "aspects": None}).encode(),
        json.dumps({"format": 1, **STRUCTURE.to_json(), "made_by": "magic"}).encode(),
        json.dumps({"format": 1, **STRUCTURE.to_json(), "n_sentences": 10**12}).encode(),
        json.dumps({"format": 1, **STRUCTURE.to_json()}).replace("[0, 3,", "[0, 1000000000000,").encode(),
    ],
    ids=["empty", "torn", "null", "list", "text", "binary", "deep", "newer", "too few", "none", "null aspects",
         "maker", "absurd", "absurd range"],
)  # fmt: skip
async def test_a_damaged_entry_counts_as_absent_and_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    store = StructureStore(tmp_path)
    model = ScriptedModel([REPLY])
    structurizer = Structurizer(model, LIMITS, FULL)
    await store.put(CHUNK, structurizer.identity, STRUCTURE)
    _overwrite(tmp_path, damage)
    assert await store.get(CHUNK, structurizer.identity) is None
    made = await StoredStructurizer(structurizer, store).structurize(CHUNK)
    assert (made.how, len(model.calls)) == ("strict", 1)
    assert await store.get(CHUNK, structurizer.identity) == made.structure


async def test_a_structure_of_another_number_of_sentences_is_not_taken(tmp_path: Path) -> None:
    store = StructureStore(tmp_path)
    await store.put(CHUNK, "me", Structure("x", (Aspect("All", (Description(0, 2),)),), 2, "ids"))
    assert await store.get(CHUNK, "me") is None


async def test_a_stored_structure_takes_no_call_and_nothing_of_the_budget(tmp_path: Path) -> None:
    model = ScriptedModel([REPLY])
    for n in range(3):
        structurizer = StoredStructurizer(Structurizer(model, LIMITS, FULL), StructureStore(tmp_path))
        assert structurizer.demand(CHUNK).calls == (2 if n == 0 else 0)
        made = await structurizer.structurize(CHUNK)
        assert [a.title for a in made.structure.aspects] == ["Its crossing", "Silence"]
        assert made.usage.calls == (1 if n == 0 else 0)
    assert len(model.calls) == 1


async def test_the_plain_text_of_a_reply_that_could_not_be_used_is_kept_too(tmp_path: Path) -> None:
    model = ScriptedModel(respond=lambda *_: "no")
    for _ in range(2):
        made = await StoredStructurizer(Structurizer(model, LIMITS, FULL), StructureStore(tmp_path)).structurize(CHUNK)
        assert made.structure.made_by == "plain"
    assert len(model.calls) == 2


async def test_another_model_has_structures_of_its_own(tmp_path: Path) -> None:
    models = [ScriptedModel([REPLY], name=name) for name in ("a", "b")]
    for model in models:
        await StoredStructurizer(Structurizer(model, LIMITS, FULL), StructureStore(tmp_path)).structurize(CHUNK)
    assert [len(m.calls) for m in models] == [1, 1]


def _put_many(home: Path, start: int) -> None:
    async def put() -> None:
        for n in range(40):
            await StructureStore(home).put(CHUNK, f"maker {(start + n) % 10}", STRUCTURE)

    asyncio.run(put())


@pytest.mark.slow
def test_several_processes_share_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put_many, args=(tmp_path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert len([f for f in tmp_path.rglob("*") if f.is_file()]) == 10
    found = [asyncio.run(StructureStore(tmp_path).get(CHUNK, f"maker {n}")) for n in range(10)]
    assert found == [STRUCTURE] * 10
