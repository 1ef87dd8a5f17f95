"""Replies in a SQLite file: several processes at once, a budget of bytes, and no damage that a crash can do.

All work is done in a thread of its own. The file is advice like every cache: one that is damaged is set aside and
begun anew, one that is locked for long is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from coa.errors import CacheError
from coa.llm.response_store import ENTRY_OVERHEAD, Dropped, ModelShare, StoreStats

__all__ = ["FileResponses", "responses_file"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_VERSION = 1
_BUSY_TIMEOUT_S = 0.25
"""How long a reply waits for another process's write before it is not kept."""
_MAX_WAL_BYTES = 4_000_000
_KEEPS = 0.95
"""Of the budget, what is left after it was reached: so that not every new reply removes an old one."""
_TOUCHES = 64
"""Uses that are remembered before they are written: a look-up writes nothing."""
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WAITING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_SCHEMA = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS replies (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, reply BLOB NOT NULL, size INTEGER NOT NULL, used REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS replies_by_use ON replies (used);
CREATE TABLE IF NOT EXISTS models (model TEXT PRIMARY KEY, hits INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS held (bytes INTEGER NOT NULL);
INSERT INTO held SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM held);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON replies BEGIN UPDATE held SET bytes = bytes + NEW.size; END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON replies BEGIN UPDATE held SET bytes = bytes - OLD.size; END;
CREATE TRIGGER IF NOT EXISTS changed AFTER UPDATE OF size ON replies
  BEGIN UPDATE held SET bytes = bytes + NEW.size - OLD.size; END;
PRAGMA user_version = 1;
COMMIT;
"""


def responses_file(home: Path) -> Path:
    """Where replies are kept below coa's folder."""
    return home / "cache" / "responses.sqlite"


class FileResponses:
    """A store in one file; see `ResponseStore`. Made without touching the disk."""

    def __init__(self, path: Path, max_bytes: int, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._touched: dict[str, float] = {}
        self._hits: dict[str, int] = {}

    async def get(self, key: str) -> bytes | None:
        """See `ResponseStore`."""
        return await self._run(lambda: self._get(key), busy=None)

    async def put(self, key: str, reply: bytes, *, model: str) -> None:
        """See `ResponseStore`."""
        if len(reply) + ENTRY_OVERHEAD <= self._max_bytes:
            await self._run(lambda: self._put(key, reply, model), busy=None)

    async def stats(self) -> StoreStats:
        """See `ResponseStore`."""
        return await self._run(self._stats)

    async def prune(self, max_bytes: int, *, unused_s: float | None = None) -> Dropped:
        """See `ResponseStore`."""
        return await self._run(lambda: self._prune(max_bytes, unused_s))

    async def close(self) -> None:
        """See `ResponseStore`."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], _T], **otherwise: _T) -> _T:
        """`work` in the store's thread; `busy` is what it gives where another process holds the file for long."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="coa-replies")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work, otherwise)

    def _guarded(self, work: Callable[[], _T], otherwise: dict[str, _T]) -> _T:
        for last in (False, True):
            try:
                return work()
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in _WAITING and "busy" in otherwise:
                    return otherwise["busy"]
                if code not in _DAMAGED or last:
                    self._let_go()
                    raise CacheError(f"the file of replies cannot be used ({error}).", hint=str(self.path)) from error
                self._set_aside()
            except OSError as error:
                raise CacheError(
                    f"the file of replies cannot be used ({error.strerror}).", hint=str(self.path)
                ) from error
        raise AssertionError("unreachable")

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.path.touch(mode=0o600, exist_ok=False)  # replies hold what documents say
        self._inode = self.path.stat().st_ino
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise CacheError(f"the file of replies is a newer coa's (version {version}).", hint=str(self.path))
            if version < _VERSION:
                connection.executescript(_SCHEMA)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {_MAX_WAL_BYTES}")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _get(self, key: str) -> bytes | None:
        row = self._open().execute("SELECT reply, model FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        self._touched[key] = self._clock()
        self._hits[row[1]] = self._hits.get(row[1], 0) + 1
        if len(self._touched) >= _TOUCHES:
            with contextlib.suppress(sqlite3.OperationalError), self._writing():
                pass
            self._touched.clear()  # where the file is locked, that they were used is forgotten
        return bytes(row[0])

    def _put(self, key: str, reply: bytes, model: str) -> None:
        size = len(reply) + ENTRY_OVERHEAD
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO replies VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
                " SET model = excluded.model, reply = excluded.reply, size = excluded.size, used = excluded.used",
                (key, model, reply, size, self._clock()),
            )
            full = _held(connection) > self._max_bytes
            if full:
                _remove_oldest(connection, int(self._max_bytes * _KEEPS), besides=key)
        if full:
            self._shrink()

    def _stats(self) -> StoreStats:
        if not self.path.exists():
            return StoreStats(str(self.path), self._max_bytes, {})
        with contextlib.suppress(sqlite3.OperationalError), self._writing():
            pass
        rows = self._open().execute(
            "SELECT model, COUNT(*), SUM(size), COALESCE((SELECT hits FROM models m WHERE m.model = r.model), 0)"
            " FROM replies r GROUP BY model ORDER BY model"
        )
        return StoreStats(str(self.path), self._max_bytes, {row[0]: ModelShare(*row[1:]) for row in rows})

    def _prune(self, max_bytes: int, unused_s: float | None) -> Dropped:
        if not self.path.exists():
            return Dropped(0, 0)
        with self._writing() as connection:
            entries, size = _entries(connection), _held(connection)
            if unused_s is not None:
                connection.execute("DELETE FROM replies WHERE used < ?", (self._clock() - unused_s,))
            _remove_oldest(connection, max_bytes)
            dropped = Dropped(entries - _entries(connection), size - _held(connection))
            if _entries(connection) == 0:
                connection.execute("DELETE FROM models")
        self._shrink()
        with contextlib.suppress(sqlite3.OperationalError):
            self._open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return dropped

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that also writes down what was used since the last one."""
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            touched, hits = list(self._touched.items()), list(self._hits.items())
            connection.executemany("UPDATE replies SET used = MAX(used, ?) WHERE key = ?", [(t, k) for k, t in touched])
            connection.executemany(
                "INSERT INTO models VALUES (?, ?) ON CONFLICT (model) DO UPDATE SET hits = hits + excluded.hits", hits
            )
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._touched.clear()
        self._hits.clear()

    def _shrink(self) -> None:
        """Gives freed pages back to the file system."""
        with contextlib.suppress(sqlite3.OperationalError):
            self._open().executescript("PRAGMA incremental_vacuum")  # execute would free one page

    def _set_aside(self) -> None:
        """Moves a damaged file out of the way, unless another process has done so already."""
        self._let_go()
        with (self.path.parent / "responses.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.path.exists() and self.path.stat().st_ino == self._inode:
                aside = self.path.with_name(f"{self.path.name}.damaged")
                for ending in ("-wal", "-shm"):
                    self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
                self.path.replace(aside)
                _log.warning("the file of replies was damaged: it is kept as %s, and a new one is begun.", aside)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _close(self) -> None:
        if self._connection is not None and (self._touched or self._hits):
            with contextlib.suppress(sqlite3.Error), self._writing():
                pass
        self._let_go()


def _held(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT bytes FROM held").fetchone()[0])


def _entries(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM replies").fetchone()[0])


def _remove_oldest(connection: sqlite3.Connection, max_bytes: int, *, besides: str = "") -> None:
    """Removes the longest unused replies until `max_bytes` are held."""
    surplus = _held(connection) - max_bytes
    if surplus <= 0:
        return
    doomed: list[tuple[str]] = []
    for key, size in connection.execute("SELECT key, size FROM replies WHERE key <> ? ORDER BY used", (besides,)):
        if surplus <= 0:
            break
        doomed.append((key,))
        surplus -= size
    connection.executemany("DELETE FROM replies WHERE key = ?", doomed)
