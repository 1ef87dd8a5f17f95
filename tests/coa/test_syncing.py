"""Waiting for the disk, many at once."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from coa.blocking import short_work_at_once
from coa.errors import StorageError
from coa.run_notes import DiskNotes
from coa.runs import RunStore, StoredNote
from coa.syncing import synced
from coa.types import Usage


class _Disk:
    """In the place of `os.fsync`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.turns: list[int] = []
        """The thread of each wait."""
        self.broken: set[int] = set()
        """Inodes."""

    def fsync(self, file: int) -> None:
        self.turns.append(threading.get_ident())
        assert self.go.wait(10)
        if os.fstat(file).st_ino in self.broken:
            raise OSError(5, "Input/output error")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> _Disk:
    disk = _Disk()
    monkeypatch.setattr("coa.syncing.os.fsync", disk.fsync)
    return disk


async def test_those_who_come_while_one_waits_go_to_the_disk_together(tmp_path: Path, disk: _Disk) -> None:
    files = [(tmp_path / str(n)).open("w") for n in range(4)]
    waits = [asyncio.create_task(synced(file.fileno())) for file in files]
    await asyncio.sleep(0.05)
    assert len(disk.turns) == 1
    assert not any(wait.done() for wait in waits), "nobody goes on before the disk has it"
    for file in files:
        file.close()  # of whoever gives up
    disk.go.set()
    await asyncio.gather(*waits)
    assert len(disk.turns) == 4


async def test_a_slow_disk_is_given_more_to_do_at_the_same_time(tmp_path: Path, disk: _Disk) -> None:
    with (tmp_path / "file").open("w") as file:
        waits = [asyncio.create_task(synced(file.fileno())) for _ in range(9)]
        await asyncio.sleep(0.1)
        assert len(set(disk.turns)) == 3
        disk.go.set()
        await asyncio.gather(*waits)


async def test_each_is_told_of_its_own_failure(tmp_path: Path, disk: _Disk) -> None:
    files = [(tmp_path / str(n)).open("w") for n in range(4)]
    disk.broken.add(os.fstat(files[2].fileno()).st_ino)
    disk.go.set()
    found = await asyncio.gather(*(synced(file.fileno()) for file in files), return_exceptions=True)
    assert [type(one) for one in found] == [type(None), type(None), OSError, type(None)]
    for file in files:
        file.close()


async def test_a_note_that_the_disk_does_not_take_is_no_note(tmp_path: Path, disk: _Disk) -> None:
    runs = RunStore(tmp_path)
    folder = runs.path("r")
    folder.mkdir(parents=True)
    notes = DiskNotes(runs, "r")
    disk.go.set()
    with short_work_at_once():
        await notes.add_note(StoredNote(0, 0, "kept", 0, True, Usage()))
        disk.broken.add((folder / "notes.jsonl").stat().st_ino)
        with pytest.raises(StorageError):
            await notes.add_note(StoredNote(0, 1, "lost", 1, True, Usage()))
    assert [note.text for note in runs.stored_notes("r")] == ["kept"]
    assert [note.text for note in notes.all_notes()] == ["kept"]


async def test_a_note_is_there_only_when_it_is_on_the_disk(tmp_path: Path, disk: _Disk) -> None:
    runs = RunStore(tmp_path)
    runs.path("r").mkdir(parents=True)
    notes = DiskNotes(runs, "r")
    with short_work_at_once():
        adding = asyncio.create_task(notes.add_note(StoredNote(0, 0, "kept", 0, True, Usage())))
        await asyncio.sleep(0.05)
        assert not adding.done()
        assert not notes.all_notes()
        disk.go.set()
        await adding
    assert [note.text for note in runs.stored_notes("r")] == ["kept"]
