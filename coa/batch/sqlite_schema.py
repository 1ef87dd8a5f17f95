"""The tables of a ledger in SQLite.

Counters are kept by triggers, so that nothing has to be counted; what is looked for (the next document, leases that
ran out, items to be reported) is found by indexes that hold only what may be found.
"""

from __future__ import annotations

from typing import Any

from coa.batch.ledger import STATES, ItemState, Row, Spending

__all__ = [
    "DOCUMENT",
    "N_OF_STATE",
    "ROW_COLUMNS",
    "SCHEMA",
    "SPENT",
    "VERSION",
    "numbers",
    "row_of",
    "spending",
]

VERSION = 1

N_OF_STATE: dict[ItemState, int] = {state: n for n, state in enumerate(STATES)}
"""Items: pending 0, leased 1, done 2, partial 3, failed 4."""

DOCUMENT = {"idle": 0, "queued": 1, "leased": 2, "waiting": 3}
"""States of documents. Idle ones have no pending item; waiting ones come back at `until`."""

SPENT = ("calls", "prompt", "completion", "cached", "cost", "unpriced", "reused")
"""Columns of `Spending`, in the order of its fields."""

_SPENT_COLUMNS = ", ".join(f"{name} {'REAL' if name == 'cost' else 'INTEGER'} NOT NULL DEFAULT 0" for name in SPENT)

SCHEMA = f"""
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS documents (
  id INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, n_bytes INTEGER NOT NULL,
  state INTEGER NOT NULL DEFAULT 0, place INTEGER NOT NULL, owner TEXT, token INTEGER NOT NULL DEFAULT 0,
  until REAL NOT NULL DEFAULT 0, progress INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0,
  {_SPENT_COLUMNS}
);
CREATE INDEX IF NOT EXISTS documents_queued ON documents (place) WHERE state = 1;
CREATE INDEX IF NOT EXISTS documents_leased ON documents (until) WHERE state = 2;
CREATE INDEX IF NOT EXISTS documents_waiting ON documents (until) WHERE state = 3;
CREATE TABLE IF NOT EXISTS sources (
  id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, document INTEGER NOT NULL, stamp TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sources_of_documents ON sources (document);
CREATE TABLE IF NOT EXISTS items (
  id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, document INTEGER NOT NULL, payload TEXT NOT NULL,
  config TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0,
  generation INTEGER NOT NULL DEFAULT 0, cause TEXT, kind TEXT, seconds REAL NOT NULL DEFAULT 0,
  reported INTEGER NOT NULL DEFAULT 1, {_SPENT_COLUMNS}
);
CREATE INDEX IF NOT EXISTS items_of_documents ON items (document);
CREATE INDEX IF NOT EXISTS items_gone_wrong ON items (document) WHERE state >= 3;
CREATE INDEX IF NOT EXISTS items_unreported ON items (id) WHERE reported = 0;
CREATE TABLE IF NOT EXISTS counts (state INTEGER PRIMARY KEY, n INTEGER NOT NULL);
INSERT OR IGNORE INTO counts VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0);
CREATE TABLE IF NOT EXISTS causes (kind TEXT PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS slow (key TEXT PRIMARY KEY, seconds REAL NOT NULL, source TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sums (what TEXT PRIMARY KEY, {_SPENT_COLUMNS});
INSERT OR IGNORE INTO sums (what) VALUES ('spent'), ('reserved');
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value);
INSERT OR IGNORE INTO facts VALUES ('token', 0), ('documents', 0), ('control', 'run'), ('limits', '[null, null, null]');
CREATE TRIGGER IF NOT EXISTS item_added AFTER INSERT ON items BEGIN
  UPDATE counts SET n = n + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER IF NOT EXISTS item_moved AFTER UPDATE OF state ON items WHEN OLD.state <> NEW.state BEGIN
  UPDATE counts SET n = n + CASE state WHEN NEW.state THEN 1 ELSE -1 END WHERE state IN (OLD.state, NEW.state);
END;
CREATE TRIGGER IF NOT EXISTS item_removed AFTER DELETE ON items BEGIN
  UPDATE counts SET n = n - 1 WHERE state = OLD.state;
END;
CREATE TRIGGER IF NOT EXISTS went_wrong AFTER UPDATE OF state ON items WHEN NEW.state >= 3 BEGIN
  INSERT INTO causes VALUES (COALESCE(NEW.kind, 'unknown'), 1) ON CONFLICT (kind) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER IF NOT EXISTS mended AFTER UPDATE OF state ON items WHEN OLD.state >= 3 BEGIN
  UPDATE causes SET n = n - 1 WHERE kind = COALESCE(OLD.kind, 'unknown');
END;
CREATE TRIGGER IF NOT EXISTS removed_wrong AFTER DELETE ON items WHEN OLD.state >= 3 BEGIN
  UPDATE causes SET n = n - 1 WHERE kind = COALESCE(OLD.kind, 'unknown');
END;
CREATE TRIGGER IF NOT EXISTS document_added AFTER INSERT ON documents BEGIN
  UPDATE facts SET value = value + 1 WHERE name = 'documents';
END;
CREATE TRIGGER IF NOT EXISTS document_removed AFTER DELETE ON documents BEGIN
  UPDATE facts SET value = value - 1 WHERE name = 'documents';
END;
PRAGMA user_version = {VERSION};
COMMIT;
"""  # noqa: S608 - names of ours

ROW_COLUMNS = (
    "i.id, i.key, d.id, d.digest, i.payload, i.config, i.state, i.tries, i.generation, i.cause, i.kind, i.seconds, "
    + "CASE WHEN d.state = 2 AND i.state = 1 THEN d.owner END, "
    + ", ".join(f"i.{name}" for name in SPENT)
)
"""What `row_of` takes."""


def spending(columns: tuple[Any, ...]) -> Spending:
    """From the columns `SPENT`."""
    return Spending(*columns)


def numbers(spent: Spending) -> tuple[float, ...]:
    """For the columns `SPENT`."""
    return (
        spent.calls,
        spent.prompt_tokens,
        spent.completion_tokens,
        spent.cached_tokens,
        spent.cost_usd,
        spent.unpriced,
        spent.reused,
    )


def row_of(columns: tuple[Any, ...], sources: tuple[str, ...]) -> Row:
    """From the columns `ROW_COLUMNS`."""
    _, key, _, digest, payload, config, state, tries, generation, cause, kind, seconds, owner, *spent = columns
    return Row(
        key=key,
        digest=digest,
        sources=sources,
        payload=payload,
        config=config,
        state=STATES[state],
        tries=tries,
        generation=generation,
        spent=spending(tuple(spent)),
        cause=cause,
        kind=kind,
        seconds=seconds,
        owner=owner,
    )
