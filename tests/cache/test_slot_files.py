"""Saved states on disk: what a crash, a full disk or another process can do to them."""

from __future__ import annotations

import errno
import json
import logging
import os
import struct
import time
from pathlib import Path

import pytest

from coa.cache.blocks import root_hash, segment_hash
from coa.cache.kv_stats import KvStats
from coa.cache.slot_files import SlotFiles
from coa.cache.state_folder import StateFolder, saved_tokens
from coa.cache.states import Manifest, StateKey

IDENTITY = root_hash("model", "runtime 1", "f16")
DATA = bytes(range(256)) * 40


def key(n: int = 1) -> StateKey:
    return StateKey(IDENTITY, segment_hash([n], IDENTITY), 128)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kv"


@pytest.fixture
def stats(tmp_path: Path) -> KvStats:
    return KvStats(tmp_path / "stats.jsonl")


def opened(folder: Path, stats: KvStats | None = None, max_bytes: int = 1_000_000) -> SlotFiles:
    """As another process would."""
    return SlotFiles(StateFolder(folder, min_free_bytes=0), max_bytes, stats=stats)


async def saved(store: SlotFiles, k: StateKey, data: bytes = DATA) -> Manifest:
    file = await store.begin(k)
    (store.folder / file).write_bytes(data)
    manifest = await store.commit(k, file)
    assert manifest is not None
    return manifest


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "room.lock")


@pytest.mark.parametrize("left", [0, 1, 100, len(DATA) // 2, len(DATA) - 1])
async def test_a_truncated_file_is_a_miss_and_goes(folder: Path, stats: KvStats, left: int) -> None:
    manifest = await saved(opened(folder), key())
    os.truncate(folder / manifest.file, left)
    assert await opened(folder, stats).find(key()) is None
    assert names(folder) == []
    assert stats.totals().top("discarded") == [("truncated", 1)]


@pytest.mark.parametrize("at", [0, 5000, len(DATA) - 1])
async def test_an_altered_byte_is_a_miss(folder: Path, stats: KvStats, at: int) -> None:
    manifest = await saved(opened(folder), key())
    data = bytearray(DATA)
    data[at] ^= 1
    (folder / manifest.file).write_bytes(data)
    assert await opened(folder, stats).find(key()) is None
    assert names(folder) == []
    assert stats.totals().top("discarded") == [("altered", 1)]


async def test_a_file_changed_after_it_was_checked_is_checked_again(folder: Path) -> None:
    store = opened(folder)
    manifest = await saved(store, key())
    assert await store.find(key()) == manifest
    (folder / manifest.file).write_bytes(DATA[:-1] + b"?")
    assert await store.find(key()) is None


async def test_a_file_is_read_once_as_long_as_nobody_changes_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await saved(opened(folder), key())
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return digest(path)

    from coa.cache.state_folder import file_digest as digest

    monkeypatch.setattr("coa.cache.slot_files.file_digest", counted)
    store = opened(folder)
    for _ in range(5):
        assert await store.find(key()) is not None
    assert len(read) == 1


async def test_what_is_wrong_is_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(folder)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            (folder / (await saved(opened(folder), key())).file).write_bytes(b"short")
            assert await store.find(key()) is None
    assert [r.getMessage() for r in caplog.records] == ["a state of 128 tokens is discarded: truncated."]


async def test_a_file_that_vanished_is_a_miss_and_takes_its_manifest_along(folder: Path, stats: KvStats) -> None:
    manifest = await saved(opened(folder), key())
    (folder / manifest.file).unlink()
    assert await opened(folder, stats).find(key()) is None
    assert stats.totals().top("discarded") == []  # not a state, so nobody looks at it
    manifest = await saved(opened(folder), key())
    store = opened(folder, stats)
    assert await store.find(key()) is not None
    (folder / manifest.file).unlink()
    assert await store.find(key()) is None
    assert stats.totals().top("discarded") == [("vanished", 1)]


async def test_a_state_that_another_process_evicted_is_no_news(
    folder: Path, stats: KvStats, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(folder, stats)
    await saved(store, key())
    await opened(folder).prune(0)
    with caplog.at_level(logging.WARNING):
        assert await store.find(key()) is None
    assert caplog.records == []
    assert stats.totals().top("discarded") == []


async def test_two_look_ups_that_meet_an_eviction_are_both_a_miss(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(folder)
    manifest = await saved(store, key())
    read = StateFolder.read

    def evicted(states: StateFolder, stem: str) -> Manifest:
        monkeypatch.setattr(StateFolder, "read", read)
        StateFolder(folder).remove(stem)
        assert store._find(key(2)) is None  # in another thread: it has the folder listed anew
        return read(states, stem)

    monkeypatch.setattr(StateFolder, "read", evicted)
    assert await store.find(key()) is None
    assert not (folder / manifest.file).exists()
    assert await saved(store, key())


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "00" * 16},
        {"n_tokens": 64},
        {"hash": "11" * 16},
        {"file": "../elsewhere.kv"},
        {"format": 2},
        {"unknown": 1},
        {"n_bytes": -1},
        {"digest": None},
    ],
)
async def test_a_manifest_that_says_anything_else_is_a_miss(folder: Path, change: dict[str, object]) -> None:
    manifest = await saved(opened(folder), key())
    path = (folder / manifest.file).with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert await opened(folder).find(key()) is None
    assert names(folder) == []


async def test_a_manifest_cut_off_at_any_byte_is_a_miss(folder: Path) -> None:
    store = opened(folder)
    manifest = await saved(store, key())
    path = (folder / manifest.file).with_suffix(".json")
    whole = path.read_bytes()
    for left in range(0, len(whole), 7):
        (folder / manifest.file).write_bytes(DATA)
        path.write_bytes(whole[:left])
        assert await opened(folder).find(key()) is None
    (folder / manifest.file).write_bytes(DATA)
    path.write_bytes(whole)
    assert await opened(folder).find(key()) == manifest


async def test_the_disk_that_fills_up_at_the_manifest_leaves_nothing(
    folder: Path, stats: KvStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(folder, stats)
    await saved(store, key(1))
    file = await store.begin(key(2))
    (folder / file).write_bytes(DATA)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("coa.cache.state_folder.os.fsync", full)
    assert await store.commit(key(2), file) is None
    monkeypatch.undo()
    assert all(key(1).name in name for name in names(folder))
    assert await store.find(key(1)) is not None
    assert stats.totals().top("refused") == [("disk full", 1)]


async def test_a_save_that_the_engine_gave_up_is_taken_away(folder: Path) -> None:
    store = opened(folder)
    (folder / await store.begin(key(1))).write_bytes(b"partial")
    await store.discard(key(1), "it could not be saved")
    assert names(folder) == []
    (folder / await store.begin(key(2))).write_bytes(b"partial")
    await store.close()
    assert names(folder) == []


async def test_a_file_that_grows_while_it_is_taken_in_is_not_kept(
    folder: Path, stats: KvStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(folder, stats)
    file = await store.begin(key())
    (folder / file).write_bytes(DATA)
    real = StateFolder.make_room

    def written_meanwhile(self: StateFolder, max_bytes: int, **told: object) -> object:
        with (folder / file).open("ab") as more:
            more.write(b"more")
        return real(self, max_bytes, **told)  # type: ignore[arg-type]

    monkeypatch.setattr(StateFolder, "make_room", written_meanwhile)
    assert await store.commit(key(), file) is None
    assert stats.totals().top("refused") == [("still written to", 1)]


async def test_leftovers_go_after_a_grace_and_not_what_is_being_written(folder: Path) -> None:
    ahead = 0.0
    store = SlotFiles(StateFolder(folder, clock=lambda: time.time() + ahead, grace_s=60, min_free_bytes=0), 1_000_000)
    await saved(store, key(1))
    left = await store.begin(key(2))
    (folder / left).write_bytes(b"half")
    (folder / left).with_suffix(".new").write_bytes(b'{"format"')
    ahead = 50
    assert (await store.prune()).bytes == 0
    ahead = 70
    being_written = await store.begin(key(3))
    (folder / being_written).write_bytes(b"some")
    os.utime(folder / being_written, (time.time() + 65,) * 2)
    (folder / "somebody's.txt").write_text("not ours")
    assert (await store.prune()).states == 0
    assert not (folder / left).exists()
    assert (folder / being_written).exists()
    assert (folder / "somebody's.txt").exists()
    assert await store.find(key(1)) is not None


async def test_leftovers_count_against_the_budget(folder: Path) -> None:
    store = opened(folder, max_bytes=30_000)
    await saved(store, key(1))
    (folder / await store.begin(key(2))).write_bytes(bytes(15_000))
    await saved(store, key(3))
    assert [n for n in (1, 3) if await store.find(key(n)) is not None] == [3]


async def test_pruning_keeps_to_a_budget_or_to_what_was_used(folder: Path) -> None:
    ahead = 0.0
    store = SlotFiles(StateFolder(folder, clock=lambda: time.time() + ahead, min_free_bytes=0), 1_000_000)
    for n in range(6):
        ahead += 100
        await saved(store, key(n))
    assert (await store.prune(unused_s=450)).states == 1
    before = total(folder)
    removed = await store.prune(25_000)
    assert (removed.states, removed.bytes) == (3, before - total(folder))
    assert [m.key for m in await store.manifests()] == [key(4), key(5)]
    assert (await store.prune(0)).states == 2
    assert names(folder) == []


def total(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in names(folder))


async def test_who_reads_a_state_that_goes_reads_it_to_the_end(folder: Path) -> None:
    store = opened(folder)
    manifest = await saved(store, key())
    with (folder / manifest.file).open("rb") as reader:
        first = reader.read(100)
        await opened(folder).prune(0)
        assert first + reader.read() == DATA
    assert await store.find(key()) is None


async def test_a_disk_that_others_filled_gets_room_from_older_states(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = StateFolder(folder, min_free_bytes=50_000)
    store = SlotFiles(made, 1_000_000)
    free = 1_000_000
    monkeypatch.setattr(StateFolder, "_free", lambda _: free)
    for n in range(4):
        file = (await saved(store, key(n))).file
        os.utime((folder / file).with_suffix(".json"), (n, n))
    free = 35_000
    await saved(store, key(9))
    assert [n for n in (0, 1, 2, 3, 9) if await store.find(key(n)) is not None] == [2, 3, 9]


def state_of_llama(tokens: list[int], *, packed: bool) -> bytes:
    """The head of a state file, as the embedded engine (packed) and older servers write it."""
    words = [0xFFFFFFFF, 1, len(tokens), *tokens, 0] if packed else tokens
    return b"qsgg" + struct.pack(f"<{2 + len(words)}I", 4 if packed else 2, len(words), *words) + bytes(500)


@pytest.mark.parametrize("packed", [True, False])
async def test_a_file_that_holds_other_tokens_than_its_key_is_not_kept(
    folder: Path, stats: KvStats, packed: bool
) -> None:
    tokens = list(range(1000, 1128))
    right = StateKey(IDENTITY, segment_hash(tokens, IDENTITY), len(tokens))
    store = opened(folder, stats)
    await saved(store, right, state_of_llama(tokens, packed=packed))
    assert saved_tokens(folder / (await store.manifests())[0].file) == tokens
    await store.discard(right, "test")
    for wrong in ([*tokens[:-1], 7], tokens[:64], []):
        file = await store.begin(right)
        (folder / file).write_bytes(state_of_llama(wrong, packed=packed))
        assert await store.commit(right, file) is None
    assert stats.totals().top("refused") == [("holds other tokens", 3)]
    assert names(folder) == []


async def test_thousands_of_states_are_listed_in_little_time(folder: Path) -> None:
    store = opened(folder, max_bytes=1 << 40)
    manifest = await saved(store, key())
    for n in range(3000):
        name = f"{IDENTITY.hex()[:16]}-{n:032x}-128.{n:016x}"
        for ending in ("kv", "json"):
            os.link((folder / manifest.file).with_suffix(f".{ending}"), folder / f"{name}.{ending}")
    started = time.perf_counter()
    again = opened(folder, max_bytes=1 << 40)
    assert await again.find(key()) == manifest
    assert time.perf_counter() - started < 2
