"""Saved states in Redis, for hosts that share no folder: a second tier behind `SlotFiles`.

Engines read files, so a state that only Redis has is first fetched into the folder, and what was committed there is
sent to Redis in the background. A state lies there in parts, with its manifest written last; parts without one expire
in minutes. All keys carry one hash tag; the scripts use only commands that every embedded Redis has, and take the time
as an argument.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict

from coa.cache.breaker import Breaker
from coa.cache.connection import connect_async
from coa.cache.redis_links import ScriptRunner
from coa.cache.slot_files import SlotFiles
from coa.cache.state_folder import StateRemoved, Unusable
from coa.cache.state_scripts import ADMIT, DROP, FETCH, HELD, PART, PIN, PRUNE, PUBLISH, SEND
from coa.cache.states import Manifest, StateKey, StateOrigin

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["MAX_PART_BYTES", "RedisScripts", "RedisStates", "SharedStates"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_PART_BYTES = 4 << 20
"""Of one value: a server that sends or takes it is busy for a few milliseconds and not for a second."""
_MAX_STATE_BYTES = 256_000_000
_PREFIX = "coa:{kvstates}:1:"
_TABLES = [f"{_PREFIX}{name}" for name in ("used", "held", "sums", "pins")]
_LOOK_S = 0.05
_PART_S = 3.0
_TRANSFER_S = 10.0
_AGAIN_S = 60.0
"""How long a state is left alone that could not be fetched, and all of them after two in a row: each try costs a call
its time, however soon Redis answers what is small."""
_PENDING_S = 120
_LIFETIME_S = 7 * 86_400
_UNKNOWN = StateOrigin()
_BATCH = 100


class RedisScripts:
    """`ScriptRunner` over a server; connections belong to the event loop that they are made in."""

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        """Raises: CacheError for a bad address."""
        self._connect: Callable[[], Redis] = lambda: connect_async(url, timeout_s=timeout_s)
        self._connect()
        self._client: Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scripts: dict[str, Any] = {}

    async def run(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:
        """See `ScriptRunner.run`."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop, self._scripts = self._connect(), loop, {}
        if script not in self._scripts:
            self._scripts[script] = self._client.register_script(script)
        return await self._scripts[script](keys=list(keys), args=list(args))

    async def close(self) -> None:
        """May be used again after it."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()


class _SilentError(Exception):
    """Redis did not answer."""


class _Told(BaseModel):
    """The manifest in Redis."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    hash: str
    digest: str
    parts: int
    nonce: str
    origin: StateOrigin


@dataclass(frozen=True, slots=True)
class SharedStates:
    """What Redis holds."""

    states: int
    bytes: int


class RedisStates:
    """See `StateStore`: states of `files`, and those that other hosts sent. For one event loop.

    A look-up takes 50 ms more at most; fetching a state takes as long as it takes to transfer, and is given up after
    ten seconds: then it is computed, and not fetched for a minute. A server that does not answer is left alone, but for
    a probe every second.
    """

    def __init__(
        self,
        files: SlotFiles,
        redis: ScriptRunner,
        max_bytes: int,
        *,
        max_state_bytes: int = _MAX_STATE_BYTES,
        part_bytes: int = MAX_PART_BYTES,
        lifetime_s: int = _LIFETIME_S,
        look_s: float = _LOOK_S,
        transfer_s: float = _TRANSFER_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Larger states than `max_state_bytes` stay where they were made. A state that was not used for `lifetime_s`
        seconds is gone."""
        self.files = files
        self._redis = redis
        self._max_bytes = max_bytes
        self._max_state_bytes = min(max_state_bytes, max_bytes)
        self._part_bytes = min(part_bytes, MAX_PART_BYTES)
        self._lifetime_s = lifetime_s
        self._look_s = look_s
        self._transfer_s = transfer_s
        self._clock = clock
        self._breaker = Breaker()
        self._fetches = Breaker(failures=2, retry_s=_AGAIN_S, clock=clock)
        self._again_at: dict[StateKey, float] = {}
        """When a state may be fetched again that could not be."""
        self._fetching = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._background: set[asyncio.Future[Any]] = set()
        self._sends: set[asyncio.Future[Any]] = set()
        self._unkept: set[StateKey] = set()
        """Fetched in vain: the folder has no room for them."""

    @property
    def folder(self) -> Path:
        """See `StateStore`."""
        return self.files.folder

    async def find(self, key: StateKey) -> Manifest | None:
        """See `StateStore`; fetched into the folder where only Redis has it."""
        found = await self.files.find(key)
        if self._out() or key in self._unkept:
            return found
        if found is not None:
            self._spawn(self._guarded(self._told(key)))
            return found
        if self._failed_lately(key) or (self._fetches.open and not self._fetches.probe_due()):
            return None
        probes, told = self._fetches.open, await self._guarded(self._told(key))
        if told is None:
            return None
        async with self._fetching:  # who waited finds what the other fetched, or that it could not
            if (there := await self.files.find(key)) is not None:
                return there
            if self._failed_lately(key) or (self._fetches.open and not probes):
                return None
            return await self._fetched(key, told)

    async def begin(self, key: StateKey) -> str:
        """See `StateStore`."""
        return await self.files.begin(key)

    async def commit(self, key: StateKey, file: str, origin: StateOrigin = _UNKNOWN) -> Manifest | None:
        """See `StateStore`; `settled` waits until it is in Redis, too."""
        manifest = await self.files.commit(key, file, origin)
        if manifest is not None and manifest.n_bytes <= self._max_state_bytes and not self._out():
            self._sends.add(sending := self._spawn(self._guarded(self._send(manifest))))
            sending.add_done_callback(self._sends.discard)
        return manifest

    async def discard(self, key: StateKey, cause: str) -> None:
        """See `StateStore`; for all hosts."""
        await self.files.discard(key, cause)
        if not self._out():
            await self._guarded(self._run(DROP, [_PREFIX, key.name]))

    async def pin(self, keys: Sequence[StateKey], *, until: float) -> None:
        """See `StateStore`."""
        await self.files.pin(keys, until=until)
        if keys and not self._out():
            names = [key.name for key in keys]
            await self._guarded(self._run(PIN, [repr(until), repr(self._clock()), *names]))

    async def shared(self) -> SharedStates | None:
        """What Redis holds; None where it does not answer."""
        told = await self._guarded(self._run(HELD, [], timeout_s=_PART_S))
        return None if told is None else SharedStates(int(told[0]), int(told[1]))

    async def prune_shared(self, max_bytes: int | None = None, *, unused_s: float | None = None) -> StateRemoved | None:
        """As `SlotFiles.prune`, in Redis; None where it does not answer."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        removed = StateRemoved(0, 0)
        while True:
            now = self._clock()
            before = now - min(self._lifetime_s, self._lifetime_s if unused_s is None else unused_s)
            args = [_PREFIX, repr(now), str(limit), repr(before), str(_BATCH)]
            told = await self._guarded(self._run(PRUNE, args, timeout_s=_PART_S))
            if told is None:
                return None
            removed = StateRemoved(removed.states + told[0], removed.bytes + told[1])
            if told[0] < _BATCH:
                return removed

    async def settled(self) -> None:
        """Waits until everything that was committed is sent, or given up."""
        while self._background:
            await asyncio.wait(list(self._background))

    async def close(self, *, wait_s: float = 5.0) -> None:
        """Sends what it can for `wait_s` seconds, and lets go of connections."""
        if self._sends and not self._breaker.open:
            await asyncio.wait(list(self._sends), timeout=wait_s)
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._redis.close()
        await self.files.close()

    async def _told(self, key: StateKey) -> _Told | None:
        """What Redis knows of a state; counts as a use."""
        args = [_PREFIX, key.name, repr(self._clock()), str(self._lifetime_s)]
        told = await self._run(FETCH, args)
        if told is None:
            return None
        value = _Told.model_validate_json(told)
        return value if (value.identity, value.hash) == (key.identity.hex(), key.hash.hex()) else None

    def _failed_lately(self, key: StateKey) -> bool:
        return self._clock() < self._again_at.get(key, 0.0)

    async def _fetched(self, key: StateKey, told: _Told) -> Manifest | None:
        """As `_fetch`; None, for a while, where it does not come through."""
        try:
            manifest = await self._fetch(key, told)
        except (_SilentError, OSError) as error:
            now = self._clock()
            self._again_at = {k: at for k, at in self._again_at.items() if at > now} | {key: now + _AGAIN_S}
            if self._fetches.failed():
                cause = "it takes too long" if isinstance(error, TimeoutError) else error
                _log.warning("a state could not be fetched from Redis (%s): it is computed here.", cause)
            return None
        self._fetches.succeeded()
        return manifest

    async def _fetch(self, key: StateKey, told: _Told) -> Manifest | None:
        """The state in the folder; None where it is not whole. Raises: _SilentError, OSError."""
        file = await self.files.begin(key)
        path = self.folder / file
        digest = blake2b(digest_size=16)
        try:
            with await asyncio.to_thread(path.open, "xb") as target:
                async with asyncio.timeout(self._transfer_s):  # a TimeoutError is an OSError
                    for part in range(told.parts):
                        data = await self._run(PART, [_PREFIX, key.name, told.nonce, str(part)], timeout_s=_PART_S)
                        if not data:
                            raise Unusable("a part is missing in Redis")
                        digest.update(data)
                        await asyncio.to_thread(target.write, data)
            if digest.hexdigest() != told.digest:
                raise Unusable("altered in Redis")
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))
            if isinstance(error, Unusable):
                _log.warning("a state of %d tokens is discarded: %s.", key.n_tokens, error)
                await self._run(DROP, [_PREFIX, key.name])
                return None
            raise
        manifest = await self.files.commit(key, file, told.origin)
        if manifest is None:
            self._unkept.add(key)
        return manifest

    async def _send(self, manifest: Manifest) -> None:
        key, nonce = manifest.key, manifest.file.split(".")[1]
        n_parts = -(-manifest.n_bytes // self._part_bytes)
        async with self._sending:
            booked = [key.name, nonce, str(manifest.n_bytes), str(n_parts), repr(self._clock()), str(self._max_bytes)]
            if not await self._run(
                ADMIT, [_PREFIX, *booked, str(_PENDING_S), str(self._lifetime_s)], timeout_s=_PART_S
            ):
                return
            with await asyncio.to_thread((self.folder / manifest.file).open, "rb") as file:
                for part in range(n_parts):
                    data = await asyncio.to_thread(file.read, self._part_bytes)
                    args: list[str | bytes] = [_PREFIX, key.name, nonce, str(part), data, str(_PENDING_S)]
                    await self._run(SEND, args, timeout_s=_PART_S)
            told = _Told(
                identity=key.identity.hex(),
                hash=key.hash.hex(),
                digest=manifest.digest,
                parts=n_parts,
                nonce=nonce,
                origin=manifest.origin,
            )
            args = [_PREFIX, key.name, nonce, told.model_dump_json(), repr(self._clock()), str(self._lifetime_s)]
            await self._run(PUBLISH, args, timeout_s=_PART_S)

    async def _run(self, script: str, args: Sequence[str | bytes], *, timeout_s: float | None = None) -> Any:
        """A script's answer. One that comes late still makes the connection for the next. Raises: _SilentError."""
        from redis.exceptions import RedisError

        running = self._spawn(self._redis.run(script, _TABLES, args))
        done, _ = await asyncio.wait([running], timeout=timeout_s or self._look_s)
        if not done:
            raise _SilentError("too slow")
        try:
            return running.result()
        except (RedisError, OSError) as error:
            raise _SilentError(type(error).__name__) from error

    async def _guarded(self, work: Awaitable[_T]) -> _T | None:
        """What `work` gives; None where Redis, or the folder, fails."""
        try:
            result = await work
        except _SilentError as error:
            if self._breaker.failed():
                _log.warning("Redis does not answer (%s): saved states are this host's own.", error)
            return None
        except OSError as error:
            _log.debug("a state is not shared: %s", error)
            return None
        except ValueError:
            _log.warning("a state in Redis is not what coa writes there.", exc_info=True)
            return None
        if self._breaker.succeeded():
            _log.warning("Redis answers again: saved states are shared.")
        return result

    def _out(self) -> bool:
        """Whether Redis is to be left alone."""
        if not self._breaker.open:
            return False
        if self._breaker.probe_due():
            self._spawn(self._guarded(self._run(HELD, [], timeout_s=_PART_S)))
        return True

    def _spawn(self, work: Any) -> asyncio.Future[Any]:
        task: asyncio.Future[Any] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: asyncio.Future[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has seen it
