"""Replies in Redis, shared by processes and hosts: compressed, with a lifetime and a budget of bytes.

Redis is advice: no look-up takes longer than 50 ms, and a server that is gone is told as `CacheError`, which the
model before it turns into an ordinary call. All keys carry one hash tag, so that a cluster keeps them together; the
scripts use only commands that every embedded Redis has, and take the time as an argument.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

from coa.cache.connection import connect_async
from coa.config import Settings, resolve_environment
from coa.errors import CacheError
from coa.llm.response_store import ENTRY_OVERHEAD, Dropped, ModelShare, StoreSlow, StoreStats

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisResponses", "responses_for", "shown_address"]

_T = TypeVar("_T")

_PREFIX = "coa:{responses}:1:"
_TIMEOUT_S = 0.05
_PATIENT_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 1.0
_LIFETIME_S = 30 * 86_400
_BATCH = 500

# Of every entry: its reply under <prefix>r:<key>, when it was used in <prefix>used, its size and model in
# <prefix>held, and the sum of the sizes in <prefix>bytes. An entry whose lifetime is over is found by its last use.
_FORGET = """
local function forget(key)
  local told = redis.call('HGET', KEYS[2], key)
  if told then
    redis.call('DECRBY', KEYS[3], tonumber(string.match(told, '^%d+')))
    redis.call('HDEL', KEYS[2], key)
  end
  redis.call('ZREM', KEYS[1], key)
  redis.call('DEL', ARGV[1] .. key)
end
local function held() return tonumber(redis.call('GET', KEYS[3]) or '0') end
"""

_GET = """
local reply = redis.call('GET', KEYS[1])
if reply then
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[1])
  local told = redis.call('HGET', KEYS[3], ARGV[1])
  if told then redis.call('HINCRBY', KEYS[4], string.match(told, '^%d+ (.*)$'), 1) end
end
return reply
"""

_PUT = (
    _FORGET
    + """
local key, reply, size, model = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local now, lifetime, limit = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
forget(key)
redis.call('SET', ARGV[1] .. key, reply, 'EX', lifetime)
redis.call('ZADD', KEYS[1], now, key)
redis.call('HSET', KEYS[2], key, size .. ' ' .. model)
redis.call('INCRBY', KEYS[3], size)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - lifetime, 'LIMIT', 0, 100)) do forget(old) end
for _ = 1, 20 do
  if held() <= limit then break end
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 49)
  if #oldest == 0 then redis.call('DEL', KEYS[3]) break end
  for _, old in ipairs(oldest) do
    if held() <= limit then break end
    forget(old)
  end
end
return 1
"""
)

_PRUNE = (
    _FORGET
    + """
local before, now, limit, batch = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local was, count = held(), 0
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. before, 'LIMIT', 0, batch)) do
  forget(old)
  count = count + 1
end
if count < batch and held() > limit then
  for _, old in ipairs(redis.call('ZRANGE', KEYS[1], 0, batch - count - 1)) do
    if held() <= limit then break end
    forget(old)
    count = count + 1
  end
end
local freed = was - held()
if redis.call('ZCARD', KEYS[1]) == 0 then redis.call('DEL', KEYS[2], KEYS[3], KEYS[4]) end
return {count, freed}
"""
)


def responses_for(settings: Settings, *, patient: bool = False) -> RedisResponses | None:
    """The store at `settings.redis_url`; None without one. `patient` waits longer than a call may: for commands.

    Raises: CacheError for a bad address.
    """
    url = resolve_environment(settings.redis_url)
    if url is None:
        return None
    timeout_s = _PATIENT_TIMEOUT_S if patient else _TIMEOUT_S
    return RedisResponses(url, settings.response_cache_bytes, timeout_s=timeout_s)


class RedisResponses:
    """A store in Redis; see `ResponseStore`. Made without a connection; what it takes is the replies' and nobody
    else's, so one Redis may serve the prefix index as well."""

    def __init__(
        self,
        url: str,
        max_bytes: int,
        *,
        lifetime_s: float = _LIFETIME_S,
        timeout_s: float = _TIMEOUT_S,
        clock: Callable[[], float] = time.time,
        connect: Callable[[], Redis] | None = None,
    ) -> None:
        """A reply that was not used for `lifetime_s` seconds is gone; `timeout_s` is of one look-up.

        Raises: CacheError for a bad address.
        """
        self._url = url
        self._connect = connect or (lambda: connect_async(url, timeout_s=max(timeout_s, _CONNECT_TIMEOUT_S)))
        self._connect()  # a bad address is told here
        self._max_bytes = max_bytes
        self._lifetime_s = max(1, int(lifetime_s))
        self._timeout_s = timeout_s
        self._clock = clock
        self._client: Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._connecting: asyncio.Task[None] | None = None
        self._tables = [f"{_PREFIX}{name}" for name in ("used", "held", "bytes", "hits")]

    async def get(self, key: str) -> bytes | None:
        """See `ResponseStore`."""
        used, held, _, hits = self._tables
        found = await self._run(_GET, [f"{_PREFIX}r:{key}", used, held, hits], [key, self._clock(), self._lifetime_s])
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, reply: bytes, *, model: str) -> None:
        """See `ResponseStore`."""
        size = len(reply) + ENTRY_OVERHEAD
        if size <= self._max_bytes:
            told: list[Any] = [key, reply, size, model, self._clock(), self._lifetime_s, self._max_bytes]
            await self._run(_PUT, self._tables, [f"{_PREFIX}r:", *told])

    async def stats(self) -> StoreStats:
        """See `ResponseStore`."""
        used, held, _, hits = self._tables

        async def look(client: Redis) -> StoreStats:
            oldest = self._clock() - self._lifetime_s
            over = {key async for key, at in client.zscan_iter(used, count=_BATCH) if at < oldest}
            times_used = await cast("Awaitable[dict[bytes, bytes]]", client.hgetall(hits))
            models: dict[str, ModelShare] = {}
            async for key, told in client.hscan_iter(held, count=_BATCH):
                size, _, model = told.partition(b" ")
                share = models.get(model.decode(), ModelShare(0, 0, int(times_used.get(model, 0))))
                if key not in over:
                    models[model.decode()] = ModelShare(share.entries + 1, share.bytes + int(size), share.hits)
            return StoreStats(shown_address(self._url), self._max_bytes, dict(sorted(models.items())))

        return await self._answer(look, None)

    async def prune(self, max_bytes: int, *, unused_s: float | None = None) -> Dropped:
        """See `ResponseStore`."""
        now = self._clock()
        before = now - min(self._lifetime_s, unused_s if unused_s is not None else self._lifetime_s)
        entries = freed = 0
        while True:
            told = [f"{_PREFIX}r:", before, now, max_bytes, _BATCH]
            count, size = await self._run(_PRUNE, self._tables, told)
            entries, freed = entries + count, freed + size
            if count < _BATCH:
                return Dropped(entries, freed)

    async def close(self) -> None:
        """See `ResponseStore`."""
        client, self._client = self._client, None
        connecting, self._connecting = self._connecting, None
        if client is not None and self._loop is asyncio.get_running_loop():
            if connecting is not None:
                connecting.cancel()
                await asyncio.wait([connecting])
            await client.aclose()

    async def _run(self, script: str, keys: list[str], told: list[Any]) -> Any:
        async def evaluate(client: Redis) -> Any:
            return await client.register_script(script)(keys=keys, args=told)

        return await self._answer(evaluate, self._timeout_s)

    async def _answer(self, ask: Callable[[Redis], Awaitable[_T]], timeout_s: float | None) -> _T:
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(timeout_s):
                client, lock = await self._connected()
                async with lock:  # one connection: another would have to be made while a call waits
                    return await ask(client)
        except TimeoutError as error:
            if self._connecting is not None and self._connecting.done():
                self._connecting = None  # what was cut off in the middle is closed
            raise StoreSlow("Redis did not answer in time.", hint=_HINT) from error
        except (RedisError, OSError) as error:
            self._connecting = None
            raise CacheError(f"Redis does not answer ({type(error).__name__}).", hint=_HINT) from error

    async def _connected(self) -> tuple[Redis, asyncio.Lock]:
        """The client with a connection; it is made apart from the call that first waits for it, and not given up
        with it."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to the loop that they were made in
            self._client, self._loop, self._lock, self._connecting = self._connect(), loop, asyncio.Lock(), None
        if self._connecting is None:
            self._connecting = loop.create_task(_pinged(self._client))
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())  # maybe nobody waits
        await asyncio.shield(self._connecting)
        return self._client, self._lock


async def _pinged(client: Redis) -> None:
    await client.ping()


_HINT = "Check COA_REDIS_URL; coa goes on without it."


def shown_address(url: str) -> str:
    """The address without its login and its options, which may hold a password too."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
