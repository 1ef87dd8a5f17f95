"""A ledger in a SQLite file: for one machine, any number of processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

from coa.batch.ledger import (
    Control,
    Entry,
    ItemState,
    Known,
    Lease,
    LedgerStatus,
    Outcome,
    Reservation,
    Row,
    Spending,
    SpendingLimits,
)
from coa.batch.sqlite_schema import DOCUMENT, ROW_COLUMNS, SCHEMA, VERSION, row_of
from coa.batch.sqlite_transactions import (
    PAGE,
    add_entry,
    expire_leases,
    fact_of,
    held_by,
    lease_next,
    let_go,
    limits_of,
    page_of,
    record_outcomes,
    reopen_items,
    reserve_share,
    sources_of,
    status_of,
    transaction,
)
from coa.errors import StorageError

__all__ = ["SQLiteLedger"]

_T = TypeVar("_T")

_BUSY_TIMEOUT_S = 30.0
_MAX_WAL_BYTES = 8_000_000
_CACHE_KB = 32_000
_SMALL_CACHE_KB = 8_000
_PRIMARY = 0xFF
"""The bits of an error's code that tell its kind."""
_TIDIED_EVERY = 200
"""Short works after which the log of what was written is put into the file: some 5 MB of it."""
_MOST_UNTIDIED = 4 * _TIDIED_EVERY
"""After which none is done until that has been."""


class SQLiteLedger:
    """A ledger in one file; see `Ledger`. Made without touching the disk.

    What concerns one document is done at once, on the event loop's thread: that takes a tenth of a millisecond, and
    never waits, neither for the disk nor for another writer. All else is done in a thread of the ledger's own.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._quick: sqlite3.Connection | None = None
        """For the event loop's thread: one that waits for nobody."""
        self._untidied = 0
        self._tidying: asyncio.Task[None] | None = None

    async def add(self, entries: Sequence[Entry]) -> int:
        """See `Ledger`."""
        return await self._writing(lambda db: sum(add_entry(db, entry) for entry in entries))

    async def known(self, source: str) -> Known | None:
        """See `Ledger`."""
        query = "SELECT d.digest, s.stamp FROM sources s JOIN documents d ON d.id = s.document WHERE s.source = ?"
        row = await self._at_once(lambda db: db.execute(query, (source,)).fetchone())
        return None if row is None else Known(*row)

    async def lease(self, owner: str, *, seconds: float) -> Lease | None:
        """See `Ledger`."""
        return await self._writing_at_once(lambda db: lease_next(db, owner, self._clock(), seconds))

    async def heartbeat(self, lease: Lease, *, seconds: float, progress: bool = False) -> bool:
        """See `Ledger`."""

        def work(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE documents SET until = ?, progress = MAX(progress, ?)"
                " WHERE digest = ? AND token = ? AND state = 2",
                (self._clock() + seconds, int(progress), lease.digest, lease.token),
            )
            return changed.rowcount == 1

        return await self._writing_at_once(work)

    async def reserve(self, lease: Lease, wanted: Spending) -> Reservation:
        """See `Ledger`."""
        return await self._writing_at_once(lambda db: reserve_share(db, lease, wanted, self._clock()))

    async def record(self, lease: Lease, outcomes: Sequence[Outcome]) -> bool:
        """See `Ledger`."""
        return await self._writing_at_once(lambda db: record_outcomes(db, lease, outcomes))

    async def release(
        self, lease: Lease, *, cause: str | None = None, kind: str | None = None, wait_s: float = 0.0
    ) -> None:
        """See `Ledger`."""

        def work(db: sqlite3.Connection) -> None:
            document = held_by(db, lease)
            if document is None:
                return
            db.execute(
                "UPDATE items SET state = 0, tries = tries + ?, cause = COALESCE(?, cause), kind = COALESCE(?, kind)"
                " WHERE document = ? AND state = 1",
                (int(cause is not None), cause, kind, document),
            )
            state = DOCUMENT["waiting" if wait_s > 0 else "queued"]
            let_go(db, document, state=state, until=self._clock() + wait_s)

        await self._writing_at_once(work)

    async def expire(self, *, everyone: bool = False, owner: str | None = None) -> int:
        """See `Ledger`."""
        return await self._writing(
            lambda db: expire_leases(db, float("inf") if everyone else self._clock(), owner=owner)
        )

    async def status(self) -> LedgerStatus:
        """See `Ledger`."""
        return await self._run(status_of)

    async def rows(self, states: Collection[ItemState] | None = None) -> AsyncIterator[Row]:
        """See `Ledger`."""
        after = (-1, -1)
        while True:
            page = await self._run(lambda db, after=after: page_of(db, after, states))  # type: ignore[misc]
            for columns, sources in page:
                yield row_of(columns, sources)
                after = (columns[2], columns[0])
            if len(page) < PAGE:
                return

    async def reopen(
        self,
        states: Collection[ItemState],
        *,
        kinds: Collection[str] | None = None,
        config: str | None = None,
        fresh: bool = False,
    ) -> int:
        """See `Ledger`."""
        return await self._writing(lambda db: reopen_items(db, states, kinds, config, fresh=fresh))

    async def unreported(self, most: int = 1000) -> Sequence[Row]:
        """See `Ledger`."""

        def work(db: sqlite3.Connection) -> list[Row]:
            query = f"SELECT {ROW_COLUMNS} FROM items i JOIN documents d ON d.id = i.document"  # noqa: S608
            found = db.execute(
                f"{query} WHERE i.reported = 0 AND i.state >= 2 ORDER BY i.id LIMIT ?", (most,)
            ).fetchall()
            return [row_of(columns, sources_of(db, columns[2])) for columns in found]

        return await self._run(work)

    async def reported(self, keys: Sequence[str]) -> None:
        """See `Ledger`."""

        def work(db: sqlite3.Connection) -> None:
            db.executemany("UPDATE items SET reported = 1 WHERE key = ?", [(key,) for key in keys])

        await self._writing_at_once(work)

    async def set_limits(self, limits: SpendingLimits) -> None:
        """See `Ledger`."""
        await self._set("limits", json.dumps(limits))

    async def limits(self) -> SpendingLimits:
        """See `Ledger`."""
        return await self._at_once(limits_of)

    async def set_control(self, control: Control) -> None:
        """See `Ledger`."""
        await self._set("control", control)

    async def control(self) -> Control:
        """See `Ledger`."""
        return cast("Control", await self._at_once(lambda db: fact_of(db, "control")))

    async def close(self) -> None:
        """See `Ledger`."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    async def _set(self, name: str, value: str) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE facts SET value = ? WHERE name = ?", (value, name))

        await self._writing(work)

    async def _at_once(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """What short `work` gives, done now; on the ledger's thread where it has to wait for another writer."""
        if self._quick is None:
            return await self._run(work)
        self._untidied += 1
        if self._untidied >= _TIDIED_EVERY and (self._tidying is None or self._tidying.done()):
            self._untidied = 0
            self._tidying = asyncio.create_task(self._run(_tidied))
        elif self._untidied >= _MOST_UNTIDIED and self._tidying is not None:
            await asyncio.wait([self._tidying])
        try:
            return self._guarded(work, self._quick)
        except _Busy:
            return await self._run(work)

    async def _writing_at_once(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._at_once(_whole(work))

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `work` gives, on the ledger's thread. No cursor may leave it: when that is freed elsewhere it resets
        its statement, which the connection keeps and may be running again."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="coa-ledger")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    async def _writing(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return await self._run(_whole(work))

    def _guarded(self, work: Callable[[sqlite3.Connection], _T], quick: sqlite3.Connection | None = None) -> _T:
        try:
            return work(quick or self._open())
        except sqlite3.Error as error:
            if quick is not None and getattr(error, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_BUSY:
                raise _Busy from error
            raise StorageError(
                f"the batch's ledger cannot be used ({error}).", hint=f"It is {self.path}; results are kept."
            ) from error
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}.") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connected(_BUSY_TIMEOUT_S, _CACHE_KB)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StorageError(f"{self.path} is a newer coa's (version {version}).", hint="Use that one.")
            if version < VERSION:
                connection.executescript(SCHEMA)
            self._quick = self._connected(0, _SMALL_CACHE_KB)
            self._quick.execute("PRAGMA wal_autocheckpoint = 0")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _connected(self, timeout_s: float, cache_kb: int) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{cache_kb}")
        connection.execute(f"PRAGMA journal_size_limit = {_MAX_WAL_BYTES}")
        return connection

    def _close(self) -> None:
        quick, self._quick = self._quick, None
        connection, self._connection = self._connection, None
        for opened in (quick, connection):
            if opened is not None:
                opened.close()


class _Busy(Exception):
    """Another writer is at work."""


def _whole(work: Callable[[sqlite3.Connection], _T]) -> Callable[[sqlite3.Connection], _T]:
    """`work` in a transaction."""

    def whole(db: sqlite3.Connection) -> _T:
        with transaction(db):
            return work(db)

    return whole


def _tidied(db: sqlite3.Connection) -> None:
    """Puts the log into the file, so that it is begun anew; who writes meanwhile waits in a thread."""
    with contextlib.suppress(sqlite3.Error):  # nothing is lost, and the next one may come through
        db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
