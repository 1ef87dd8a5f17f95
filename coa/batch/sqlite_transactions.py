"""What a ledger in SQLite does inside its transactions."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from coa.batch.ledger import (
    MAX_LOST,
    N_SLOWEST,
    STATES,
    Entry,
    ItemState,
    Lease,
    LeasedItem,
    LedgerStatus,
    Outcome,
    Reservation,
    Slow,
    Spending,
    SpendingLimits,
)
from coa.batch.sqlite_schema import DOCUMENT, N_OF_STATE, ROW_COLUMNS, SPENT, numbers, spending

__all__ = [
    "PAGE",
    "add_entry",
    "expire_leases",
    "fact_of",
    "held_by",
    "lease_next",
    "let_go",
    "limits_of",
    "page_of",
    "record_outcomes",
    "reopen_items",
    "reserve_share",
    "sources_of",
    "status_of",
    "transaction",
]

PAGE = 500
"""Rows of a page, at most."""

_COLUMNS = ", ".join(SPENT)
_ADD_SPENT = ", ".join(f"{name} = {name} + ?" for name in SPENT)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def fact_of(db: sqlite3.Connection, name: str) -> Any:
    return db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]


def limits_of(db: sqlite3.Connection) -> SpendingLimits:
    return SpendingLimits(*json.loads(fact_of(db, "limits")))


def sources_of(db: sqlite3.Connection, document: int) -> tuple[str, ...]:
    rows = db.execute("SELECT source FROM sources WHERE document = ? ORDER BY id", (document,))
    return tuple(source for (source,) in rows)


def held_by(db: sqlite3.Connection, lease: Lease) -> int | None:
    """The leased document's row; None where the lease is lost."""
    query = "SELECT id FROM documents WHERE digest = ? AND token = ? AND state = 2"
    row = db.execute(query, (lease.digest, lease.token)).fetchone()
    return None if row is None else int(row[0])


def add_entry(db: sqlite3.Connection, entry: Entry) -> int:
    row = db.execute("SELECT id FROM documents WHERE digest = ?", (entry.digest,)).fetchone()
    if row is None:
        place = _next_place(db)
        made = db.execute(
            "INSERT INTO documents (digest, n_bytes, place) VALUES (?, ?, ?)", (entry.digest, entry.n_bytes, place)
        )
        document = int(made.lastrowid or 0)
    else:
        document = int(row[0])
    before = db.execute("SELECT id, document FROM sources WHERE source = ?", (entry.source,)).fetchone()
    if before is None:
        insert = "INSERT INTO sources (source, document, stamp) VALUES (?, ?, ?)"
        db.execute(insert, (entry.source, document, entry.stamp))
    else:
        db.execute("UPDATE sources SET document = ?, stamp = ? WHERE id = ?", (document, entry.stamp, before[0]))
        if before[1] != document and not sources_of(db, before[1]):
            _drop(db, before[1])
    n_before = db.total_changes
    added = 0
    for item in entry.items:
        n_before = db.total_changes
        db.execute(
            "INSERT OR IGNORE INTO items (key, document, payload, config) VALUES (?, ?, ?, ?)",
            (item.key, document, item.payload, item.config),
        )
        added += db.total_changes > n_before
    if added:
        db.execute("UPDATE documents SET state = 1 WHERE id = ? AND state = 0", (document,))
    return added


def _next_place(db: sqlite3.Connection) -> int:
    """A place of the queue behind all others."""
    db.execute("INSERT INTO facts VALUES ('place', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")
    return int(fact_of(db, "place"))


def _drop(db: sqlite3.Connection, document: int) -> None:
    _set_reserved(db, document, Spending())
    db.execute("DELETE FROM items WHERE document = ?", (document,))
    db.execute("DELETE FROM documents WHERE id = ?", (document,))


def lease_next(db: sqlite3.Connection, owner: str, now: float, seconds: float) -> Lease | None:
    if fact_of(db, "control") != "run":
        return None
    expire_leases(db, now)
    db.execute("UPDATE documents SET state = 1 WHERE state = 3 AND until <= ?", (now,))
    row = db.execute(
        "SELECT id, digest, n_bytes, lost FROM documents WHERE state = 1 ORDER BY place LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    document, digest, n_bytes, lost = row
    token = int(fact_of(db, "token")) + 1
    db.execute("UPDATE facts SET value = ? WHERE name = 'token'", (token,))
    db.execute(
        "UPDATE documents SET state = 2, owner = ?, token = ?, until = ?, progress = 0 WHERE id = ?",
        (owner, token, now + seconds, document),
    )
    db.execute("UPDATE items SET state = 1 WHERE document = ? AND state = 0", (document,))
    columns = f"key, payload, config, tries, generation, {_COLUMNS}"
    found = db.execute(f"SELECT {columns} FROM items WHERE document = ? AND state = 1 ORDER BY id", (document,))  # noqa: S608
    items = tuple(LeasedItem(r[0], r[1], r[2], r[3], r[4], spending(r[5:])) for r in found)
    return Lease(owner, token, digest, sources_of(db, document), n_bytes, items, lost)


def let_go(db: sqlite3.Connection, document: int, *, state: int, until: float = 0.0) -> None:
    """Ends the document's lease, as somebody who is alive does."""
    _set_reserved(db, document, Spending())
    db.execute(
        "UPDATE documents SET state = ?, until = ?, owner = NULL, progress = 0, lost = 0 WHERE id = ?",
        (state, until, document),
    )


def _set_reserved(db: sqlite3.Connection, document: int, wanted: Spending) -> None:
    row = db.execute(f"SELECT {_COLUMNS} FROM documents WHERE id = ?", (document,)).fetchone()  # noqa: S608
    new = numbers(wanted)
    if tuple(row) == tuple(new):
        return
    change = [after - before for after, before in zip(new, row, strict=True)]
    db.execute(f"UPDATE sums SET {_ADD_SPENT} WHERE what = 'reserved'", change)  # noqa: S608
    columns = ", ".join(f"{name} = ?" for name in SPENT)
    db.execute(f"UPDATE documents SET {columns} WHERE id = ?", (*new, document))  # noqa: S608
    if not db.execute("SELECT 1 FROM documents WHERE state = 2 AND calls + prompt + completion > 0").fetchone():
        nothing = ", ".join(f"{name} = 0" for name in SPENT)  # what rounding has left of sums in dollars
        db.execute(f"UPDATE sums SET {nothing} WHERE what = 'reserved'")  # noqa: S608


def _sum(db: sqlite3.Connection, what: str) -> Spending:
    return spending(db.execute(f"SELECT {_COLUMNS} FROM sums WHERE what = ?", (what,)).fetchone())  # noqa: S608


def reserve_share(db: sqlite3.Connection, lease: Lease, wanted: Spending, now: float) -> Reservation:
    document = held_by(db, lease)
    if document is None:
        return "never"
    _set_reserved(db, document, Spending())
    spent, reserved = _sum(db, "spent"), _sum(db, "reserved")
    reservation: Reservation = "granted"
    limits = limits_of(db)
    for limit, asked, gone, others in (
        (limits.max_calls, wanted.calls, spent.calls, reserved.calls),
        (limits.max_tokens, wanted.tokens, spent.tokens, reserved.tokens),
        (limits.max_cost_usd, wanted.cost_usd, spent.cost_usd, reserved.cost_usd),
    ):
        if limit is not None and gone + asked > limit:
            return "never"
        if limit is not None and gone + others + asked > limit:
            reservation = "later"
    if reservation == "granted":
        _set_reserved(db, document, wanted)
    else:
        expire_leases(db, now)
    return reservation


def record_outcomes(db: sqlite3.Connection, lease: Lease, outcomes: Sequence[Outcome]) -> bool:
    document = held_by(db, lease)
    if document is None:
        return False
    for outcome in outcomes:
        changed = db.execute(
            f"UPDATE items SET cause = ?, kind = ?, seconds = ?, reported = 0, {_ADD_SPENT}, state = ?"  # noqa: S608
            " WHERE key = ? AND document = ? AND state = 1",
            (
                outcome.cause,
                outcome.kind,
                outcome.seconds,
                *numbers(outcome.spent),
                N_OF_STATE[outcome.state],
                outcome.key,
                document,
            ),
        )
        if changed.rowcount == 0:
            continue  # told before: a holder that did not learn of it tells again
        db.execute(f"UPDATE sums SET {_ADD_SPENT} WHERE what = 'spent'", numbers(outcome.spent))  # noqa: S608
        db.execute("UPDATE documents SET progress = 1 WHERE id = ?", (document,))
        if outcome.seconds > 0:
            _keep_slowest(db, outcome, lease.sources[0])
    if not db.execute("SELECT 1 FROM items WHERE document = ? AND state = 1", (document,)).fetchone():
        more = db.execute("SELECT 1 FROM items WHERE document = ? AND state = 0", (document,)).fetchone()
        let_go(db, document, state=DOCUMENT["queued" if more else "idle"])
    return True


def _keep_slowest(db: sqlite3.Connection, outcome: Outcome, source: str) -> None:
    db.execute("INSERT OR REPLACE INTO slow VALUES (?, ?, ?)", (outcome.key, outcome.seconds, source))
    db.execute("DELETE FROM slow WHERE key NOT IN (SELECT key FROM slow ORDER BY seconds DESC LIMIT ?)", (N_SLOWEST,))


def expire_leases(db: sqlite3.Connection, now: float, *, owner: str | None = None) -> int:
    found = db.execute(
        f"SELECT id, progress, lost FROM documents WHERE state = 2 AND {'until <=' if owner is None else 'owner ='} ?",  # noqa: S608
        (now if owner is None else owner,),
    ).fetchall()
    # Ordered here: by ORDER BY the table would be gone through by its ids, and not the index.
    for document, progress, lost_before in sorted(found):
        _set_reserved(db, document, Spending())
        lost = 0 if progress else lost_before + 1
        if lost >= MAX_LOST:
            cause = f"whoever worked on it died {lost} times before anything was done."
            db.execute(
                "UPDATE items SET cause = ?, kind = 'lost', reported = 0, state = 4 WHERE document = ? AND state = 1",
                (cause, document),
            )
        db.execute("UPDATE items SET state = 0 WHERE document = ? AND state = 1", (document,))
        more = db.execute("SELECT 1 FROM items WHERE document = ? AND state = 0", (document,)).fetchone()
        db.execute(
            "UPDATE documents SET state = ?, owner = NULL, lost = ?, progress = 0 WHERE id = ?",
            (DOCUMENT["queued" if more else "idle"], 0 if lost >= MAX_LOST else lost, document),
        )
        if lost:
            db.execute("UPDATE documents SET place = ? WHERE id = ?", (_next_place(db), document))
    return len(found)


def status_of(db: sqlite3.Connection) -> LedgerStatus:
    db.execute("BEGIN")  # one moment for all counters
    try:
        counts = {STATES[state]: n for state, n in db.execute("SELECT state, n FROM counts")}
        causes = dict(db.execute("SELECT kind, n FROM causes WHERE n > 0 ORDER BY n DESC, kind"))
        slow = [Slow(*row) for row in db.execute("SELECT seconds, key, source FROM slow ORDER BY seconds DESC")]
        owners = dict(db.execute("SELECT owner, COUNT(*) FROM documents WHERE state = 2 GROUP BY owner"))
        return LedgerStatus(
            counts, fact_of(db, "documents"), _sum(db, "spent"), _sum(db, "reserved"), causes, slow, owners,
            fact_of(db, "control"),
        )  # fmt: skip
    finally:
        db.execute("COMMIT")


def page_of(
    db: sqlite3.Connection, after: tuple[int, int], states: Collection[ItemState] | None
) -> list[tuple[tuple[Any, ...], tuple[str, ...]]]:
    wanted = sorted(N_OF_STATE[state] for state in (STATES if states is None else states))
    # Said so that the index of the few items that went wrong is taken where only those are wanted.
    only = "i.state >= 3 AND " if wanted and wanted[0] >= 3 else ""
    found = db.execute(
        f"SELECT {ROW_COLUMNS} FROM items i JOIN documents d ON d.id = i.document WHERE {only}"  # noqa: S608
        f"i.state IN ({', '.join(map(str, wanted))}) AND (i.document, i.id) > (?, ?)"
        " ORDER BY i.document, i.id LIMIT ?",
        (*after, PAGE),
    ).fetchall()
    sources: dict[int, tuple[str, ...]] = {}
    return [(row, sources.setdefault(row[2], sources_of(db, row[2]))) for row in found]


def reopen_items(
    db: sqlite3.Connection,
    states: Collection[ItemState],
    kinds: Collection[str] | None,
    config: str | None,
    *,
    fresh: bool,
) -> int:
    wanted = [N_OF_STATE[state] for state in states if N_OF_STATE[state] >= N_OF_STATE["done"]]
    where, values = f"state IN ({', '.join(map(str, wanted))})", []
    if kinds is not None:
        where += f" AND kind IN ({', '.join('?' * len(kinds))})"
        values = list(kinds)
    db.execute("CREATE TEMP TABLE IF NOT EXISTS opened (document INTEGER PRIMARY KEY)")
    db.execute("DELETE FROM opened")
    db.execute(f"INSERT OR IGNORE INTO opened SELECT document FROM items WHERE {where}", values)  # noqa: S608
    new = ", ".join(["generation = generation + 1", *(f"{name} = 0" for name in SPENT)]) if fresh else "seconds = 0"
    changed = db.execute(
        f"UPDATE items SET state = 0, tries = 0, cause = NULL, kind = NULL, reported = 1, seconds = 0,"  # noqa: S608
        f" config = COALESCE(?, config), {new} WHERE {where}",
        (config, *values),
    )
    db.execute("UPDATE documents SET state = 1, lost = 0 WHERE state = 0 AND id IN (SELECT document FROM opened)")
    return changed.rowcount
