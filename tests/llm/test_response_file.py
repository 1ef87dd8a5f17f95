"""The file of replies under what files meet: crashes, damage, other processes, full and locked disks."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coa.errors import CacheError
from coa.llm.response_file import FileResponses, responses_file

pytestmark = pytest.mark.slow

BUDGET = 1_000_000


def key(n: int) -> str:
    return f"{n:064x}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return responses_file(tmp_path)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _size(path: Path) -> int:
    return path.stat().st_size


def _spoil(path: Path, damage: str) -> None:
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))


async def _kept(path: Path, n: int = 1) -> None:
    store = FileResponses(path, BUDGET)
    await store.put(key(n), b"one", model="m")
    await store.close()


async def test_nothing_is_written_before_it_is_used_and_only_its_owner_may_read_it(path: Path) -> None:
    store = FileResponses(path, BUDGET)
    assert not path.parent.exists()
    await store.put(key(1), b"one", model="m")
    assert _mode(path) == 0o600
    await store.close()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "no database": lambda _: b"this is a letter, and no database" * 100,
    "zeros in the middle": lambda whole: whole[:100] + b"\0" * (len(whole) - 200) + whole[-100:],
    "cut in half": lambda whole: whole[: len(whole) // 2],
    "header alone": lambda _: b"SQLite format 3\0" + b"\xff" * 200,
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_file_is_set_aside_once_and_a_new_one_begun(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileResponses(path, BUDGET)
    for n in range(200):
        await store.put(key(n), b"x" * 500, model="m")
    await store.close()
    _spoil(path, damage)
    store = FileResponses(path, BUDGET)
    assert await store.get(key(1)) is None
    await store.put(key(1), b"one", model="m")
    assert await store.get(key(1)) == b"one"
    await store.close()
    assert path.with_name("responses.sqlite.damaged").exists()
    assert len([r for r in caplog.records if "damaged" in r.message]) == 1


async def test_a_file_that_another_process_has_replaced_already_is_not_set_aside(path: Path) -> None:
    store = FileResponses(path, BUDGET)
    await store.put(key(1), b"one", model="m")
    _spoil(path, "no database")
    other = FileResponses(path, BUDGET)
    await other.put(key(2), b"two", model="m")
    for n in (3, 4):
        await store.get(key(n))
        await store.put(key(n), b"more", model="m")
    await store.close()
    await other.close()
    fresh = FileResponses(path, BUDGET)
    assert await fresh.get(key(2)) == b"two"
    await fresh.close()


async def test_a_newer_coas_file_is_left_alone(path: Path) -> None:
    await _kept(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = FileResponses(path, BUDGET)
    with pytest.raises(CacheError, match="newer"):
        await store.get(key(1))
    await store.close()


async def test_a_folder_that_cannot_be_made_is_told_as_a_cache_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the folder's place")
    store = FileResponses(responses_file(tmp_path), BUDGET)
    with pytest.raises(CacheError, match="cannot be used"):
        await store.get(key(1))
    await store.close()


async def test_a_full_disk_is_told_as_a_cache_error_and_reading_goes_on(path: Path) -> None:
    await _kept(path)
    store = FileResponses(path, BUDGET)
    assert await store.get(key(1)) == b"one"
    connection = store._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")  # what SQLite says then is what it says of a full disk
    with pytest.raises(CacheError, match="full"):
        await store.put(key(2), b"x" * 100_000, model="m")
    assert await store.get(key(1)) == b"one"
    await store.close()


async def test_a_reply_does_not_wait_long_for_another_process_that_writes(path: Path) -> None:
    await _kept(path)
    store = FileResponses(path, BUDGET)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.perf_counter()
    await store.put(key(2), b"two", model="m")
    assert time.perf_counter() - started < 5
    assert await store.get(key(1)) == b"one", "reading goes on meanwhile"
    assert await store.get(key(2)) is None
    with pytest.raises(CacheError, match="locked"):
        await store.prune(0)
    other.execute("ROLLBACK")
    other.close()
    await store.put(key(2), b"two", model="m")
    assert await store.get(key(2)) == b"two"
    await store.close()


async def test_the_event_loop_is_never_held_up(path: Path) -> None:
    """Also while the file is locked: all of it happens in a thread."""
    await _kept(path)
    store = FileResponses(path, BUDGET)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await store.put(key(2), b"two", model="m")
    ticking.cancel()
    other.execute("ROLLBACK")
    other.close()
    assert ticks >= 5
    await store.close()


async def test_the_file_shrinks_when_it_is_cleared(path: Path) -> None:
    store = FileResponses(path, 10_000_000)
    for n in range(100):
        await store.put(key(n), os.urandom(10_000), model="m")
    assert (await store.prune(0)).entries == 100
    await store.close()
    assert _size(path) < 100_000
    assert not path.with_name("responses.sqlite-wal").exists()


_WRITER = """
import asyncio, sys
from pathlib import Path
from coa.llm.response_file import FileResponses

async def main(path, first, budget):
    store = FileResponses(Path(path), int(budget))
    print("ready", flush=True)
    n = int(first)
    while True:
        await store.put(f"{n:064x}", bytes([n % 251]) * (n % 3000), model=f"m{n % 3}")
        await store.get(f"{n - 7:064x}")
        n += 1

asyncio.run(main(*sys.argv[1:]))
"""


def _writer(path: Path, first: int, budget: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _WRITER, str(path), str(first), str(budget)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.slow
async def test_processes_killed_at_any_moment_leave_a_sound_file_within_its_budget(path: Path) -> None:
    budget = 500_000
    for round_ in range(6):
        writers = [_writer(path, 1_000_000 * n + 1000 * round_, budget) for n in range(1, 3)]
        await asyncio.sleep(0.15 + 0.07 * round_)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            writer.communicate()
        store = FileResponses(path, budget)
        stats = await store.stats()
        held = sqlite3.connect(path).execute("SELECT bytes, (SELECT SUM(size) FROM replies) FROM held").fetchone()
        assert held[0] == held[1] == stats.total.bytes <= budget
        for row_key, reply in sqlite3.connect(path).execute("SELECT key, reply FROM replies").fetchall():
            n = int(row_key, 16)
            assert reply == bytes([n % 251]) * (n % 3000)
        await store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert stats.total.entries > 50
    assert not path.with_name("responses.sqlite.damaged").exists()
