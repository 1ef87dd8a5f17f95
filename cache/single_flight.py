"""One at a time, over all processes, computes a prefix: the others wait and then find its state.

Where no Redis is shared, by locks on files, which the system lets go of when their holder dies; else by a lease in
Redis, which runs out. Waiting has an end as well: a holder that hangs costs the others time, and no run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from coa.cache.breaker import Breaker
from coa.cache.redis_links import ScriptRunner
from coa.cache.states import StateKey

__all__ = ["FileFlight", "RedisFlight", "remove_old_flights"]

_log = logging.getLogger(__name__)

_PATIENCE_S = 60.0
"""Less than calls have time: a holder that hangs must not fail those that wait for it."""
_FIRST_WAIT_S = 0.005
_LONGEST_WAIT_S = 0.1
_LEASE_S = 15.0
_BUDGET_S = 0.05
_PREFIX = "coa:{flight}:1:"

_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', tonumber(ARGV[2]))
return 1
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('EXPIRE', KEYS[1], tonumber(ARGV[2]))
"""
_LEAVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class FileFlight:
    """By files in a folder that all processes see.

    `async with flight.alone(key) as first`: entered when nobody else computes `key`; `first` is False after a wait.
    The state may be there by now in either case: whoever looked for it before entering has to look again. Never
    raises for a folder that cannot be used: then nobody waits.
    """

    def __init__(self, folder: Path, *, patience_s: float = _PATIENCE_S) -> None:
        """`patience_s`: how long to wait for another at most; then both compute."""
        self._folder = folder / "flights"
        self._patience_s = patience_s

    @contextlib.asynccontextmanager
    async def alone(self, key: StateKey) -> AsyncIterator[bool]:
        """See the class."""
        path = self._folder / key.name
        held: list[int] = []  # filled in the thread: a caller that is cancelled meanwhile still lets go

        def take() -> bool:
            handle = _locked(path)
            if handle is not None:
                held.append(handle)
            return handle is not None

        taking: asyncio.Future[bool] | None = None
        first = True
        deadline, pause = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        try:
            while True:
                taking = asyncio.ensure_future(asyncio.to_thread(take))
                try:
                    if await asyncio.shield(taking):
                        break
                except OSError as error:
                    _log.debug("%s cannot be locked: %s", path, error)
                    break
                first = False
                if time.monotonic() > deadline:
                    _log.warning("another process computes a prefix for over %.0f s; not waiting.", self._patience_s)
                    break
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_WAIT_S)
            yield first
        finally:
            if taking is not None and not taking.done():
                taking.add_done_callback(lambda _: _let_go(path, held))
            elif held:
                await asyncio.shield(asyncio.to_thread(_let_go, path, held))


class RedisFlight:
    """By a lease in Redis, for hosts that share no folder; the semantics of `FileFlight`.

    `beside` has the processes of this host take turns first, whether Redis answers or not.
    """

    def __init__(
        self,
        redis: ScriptRunner,
        *,
        beside: FileFlight | None = None,
        lease_s: float = _LEASE_S,
        patience_s: float = _PATIENCE_S,
        budget_s: float = _BUDGET_S,
    ) -> None:
        """`lease_s`: how long a holder that was killed keeps the others waiting; whole seconds. `budget_s` bounds each
        question to Redis."""
        self._redis = redis
        self._beside = beside
        self._lease_s = max(1, round(lease_s))
        self._patience_s = patience_s
        self._budget_s = budget_s
        self._breaker = Breaker()
        self._asking: set[asyncio.Future[object]] = set()

    @contextlib.asynccontextmanager
    async def alone(self, key: StateKey) -> AsyncIterator[bool]:
        """See `FileFlight`."""
        here = self._beside.alone(key) if self._beside else contextlib.nullcontext(True)
        async with here as first_here, self._leased(f"{_PREFIX}{key.name}", secrets.token_hex(8)) as first:
            yield first_here and first

    @contextlib.asynccontextmanager
    async def _leased(self, name: str, token: str) -> AsyncIterator[bool]:
        first = True
        deadline, pause = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        work: list[asyncio.Task[object]] = []
        try:
            while True:
                work = [asyncio.create_task(self._ask(_TAKE, name, token))]
                taken = await asyncio.shield(work[0])
                if taken is None:
                    break
                if taken:
                    work.append(asyncio.create_task(self._renew(name, token)))
                    break
                first = False
                if time.monotonic() > deadline:
                    _log.warning("another process computes a prefix for over %.0f s; not waiting.", self._patience_s)
                    break
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_WAIT_S)
            yield first
        finally:
            await asyncio.shield(asyncio.create_task(self._leave(name, token, work)))

    async def close(self) -> None:
        """Lets go of connections."""
        await self._redis.close()

    async def _renew(self, name: str, token: str) -> None:
        while await asyncio.sleep(self._lease_s / 3, result=True):
            await self._ask(_RENEW, name, token)

    async def _leave(self, name: str, token: str, work: Sequence[asyncio.Task[object]]) -> None:
        """After a question that is still out, which may be granted: leaving first would leave nobody's lease."""
        for renewing in work[1:]:
            renewing.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await self._ask(_LEAVE, name, token)

    async def _ask(self, script: str, name: str, token: str) -> int | None:
        """None where Redis does not answer."""
        from redis.exceptions import RedisError

        if self._breaker.open and not self._breaker.probe_due():
            return None
        # A task of its own: clients of Redis do not pass on every cancellation, and a new connection is kept.
        asking = asyncio.ensure_future(self._redis.run(script, [name], [token, str(self._lease_s)]))
        self._asking.add(asking)
        asking.add_done_callback(self._asked)
        done, _ = await asyncio.wait([asking], timeout=self._budget_s)
        try:
            told = int(asking.result()) if done else None
        except (RedisError, OSError):
            told = None
        if told is not None:
            self._breaker.succeeded()
        elif self._breaker.failed():
            _log.warning("Redis does not answer: processes may compute the same prefix.")
        return told

    def _asked(self, asking: asyncio.Future[object]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # whoever waited for it has seen it


def remove_old_flights(folder: Path, *, older_than_s: float, clock: Callable[[], float] = time.time) -> None:
    """Takes away the lock files that killed holders left below a folder of states."""
    for path in _files(folder / "flights"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < clock() - older_than_s and (handle := _locked(path)) is not None:
                _let_go(path, [handle])


def _files(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from list(folder.iterdir())


def _locked(path: Path) -> int | None:
    """The file, open and locked; None while another holds it. Raises: OSError."""
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass  # its holder took it away between the two: that lock is nobody's
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _let_go(path: Path, held: list[int]) -> None:
    while held:
        handle = held.pop()
        with contextlib.suppress(OSError):
            path.unlink()  # before the lock goes: whoever waits for this one finds that it is another file now
        os.close(handle)
