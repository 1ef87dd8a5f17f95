"""Where a graph's checkpoints lie: a sqlite file, PostgreSQL, or a Redis with JSON and search.

A checkpoint holds positions and notes, never the text. All three go on the same way, since what was paid for lies
in the run's note store: a checkpoint that is lost costs no call.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from coa.errors import CoaError, ConfigError, StorageError

if TYPE_CHECKING:  # extras
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg import AsyncConnection
    from psycopg.rows import DictRow

__all__ = ["checkpointer"]

Saver = BaseCheckpointSaver[str]

_POSTGRES = ("postgresql", "postgres")
_REDIS = ("redis", "rediss")
_SETUP_LOCK = 0x636F61  # "coa"
_SETUP_TRIES = 300
_SETUP_WAIT_S = 0.1
_CONNECT_TIMEOUT_S = 10


@contextlib.asynccontextmanager
async def checkpointer(where: Path | str) -> AsyncIterator[Saver]:
    """An open saver for `where`: a file's path, `postgresql://…` or `redis://…`; its tables are made where missing.

    Not for many event loops at once: open one for each run. What the database raises while it is open comes out as
    StorageError, a password in the URL left out. Raises: ConfigError for another kind of URL, or one whose extra
    ("postgres", "redis") is not installed.
    """
    scheme = urlsplit(where).scheme if isinstance(where, str) and "://" in where else ""
    if scheme in _POSTGRES:
        opened = _postgres(str(where))
    elif scheme in _REDIS:
        opened = _redis(str(where))
    elif scheme:
        raise ConfigError(
            f"checkpoints cannot be kept at {scheme}://.", hint="Give a path, postgresql://… or redis://…."
        )
    else:
        opened = _sqlite(Path(where))
    async with opened as saver:
        yield saver


@contextlib.asynccontextmanager
async def _sqlite(path: Path) -> AsyncIterator[Saver]:
    with _translated(
        sqlite3.Error, str(path), "Free some space or check the folder, then `coa resume`; notes are kept."
    ):
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            yield saver


@contextlib.asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[Saver]:
    psycopg = _imported("psycopg", "postgres")
    savers = _imported("langgraph.checkpoint.postgres.aio", "postgres")
    rows = _imported("psycopg.rows", "postgres")
    hint = "See that PostgreSQL is there and lets coa in, then `coa resume`; notes are kept."
    with _translated(psycopg.Error, _without_login(url), hint):
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, prepare_threshold=0, row_factory=rows.dict_row, connect_timeout=_CONNECT_TIMEOUT_S
        )
        async with connection:
            saver = savers.AsyncPostgresSaver(conn=connection)
            await _set_up(saver, connection)
            yield saver


async def _set_up(saver: AsyncPostgresSaver, connection: AsyncConnection[DictRow]) -> None:
    """Makes the tables, one process at a time.

    Its migrations build indexes concurrently, which waits for everybody who waits for it: so the lock is tried for,
    not waited on.
    """
    for _ in range(_SETUP_TRIES):
        if await _newest_migration(connection) >= len(saver.MIGRATIONS) - 1:
            return
        tried = await connection.execute("SELECT pg_try_advisory_lock(%s) AS got", (_SETUP_LOCK,))
        row = await tried.fetchone()
        if row is not None and row["got"]:
            break
        await asyncio.sleep(_SETUP_WAIT_S)
    else:
        raise StorageError("somebody else has been setting up the tables of the checkpoints for half a minute.")
    try:
        await saver.setup()
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (_SETUP_LOCK,))


async def _newest_migration(connection: AsyncConnection[DictRow]) -> int:
    """-1 where there is none."""
    found = await connection.execute("SELECT to_regclass('checkpoint_migrations') IS NOT NULL AS there")
    row = await found.fetchone()
    if row is None or not row["there"]:
        return -1
    newest = await (await connection.execute("SELECT max(v) AS newest FROM checkpoint_migrations")).fetchone()
    return -1 if newest is None or newest["newest"] is None else int(newest["newest"])


@contextlib.asynccontextmanager
async def _redis(url: str) -> AsyncIterator[Saver]:
    savers = _imported("langgraph.checkpoint.redis.aio", "redis")
    errors = (_imported("redis.exceptions", "redis").RedisError, _imported("redisvl.exceptions", "redis").RedisVLError)
    hint = "It has to be Redis 8 or Redis Stack (JSON and search); then `coa resume`; notes are kept."
    with _translated(errors, _without_login(url), hint):
        clients = _imported("redis.asyncio", "redis").Redis
        # A client of the saver's own would stay open where the search is missing.
        async with clients.from_url(url) as client, savers.AsyncRedisSaver(redis_client=client) as saver:
            yield saver


def _imported(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"keeping checkpoints there needs {error.name}, which is not installed.",
            hint=f"pip install 'coa-orchestrator[{extra}]'",
        ) from error


@contextlib.contextmanager
def _translated(kinds: type[Exception] | tuple[type[Exception], ...], shown: str, hint: str) -> Iterator[None]:
    try:
        yield
    except CoaError:
        raise
    except kinds as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise StorageError(f"{shown}: {told.rstrip('.?')}.", hint=hint) from error


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
