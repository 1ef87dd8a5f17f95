"""Rate limits that all processes at one Redis keep to together.

A booking is one round trip (one Lua script, which uses only what every embedded Redis knows, with the time as an
argument). Redis is advice here as everywhere: when it is dead or slow this process books by itself, over the same
ledger that it has kept all along, so its own calls of the last minute are never forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from coa.cache.breaker import Breaker
from coa.cache.connection import connect
from coa.config import Settings, resolve_environment
from coa.llm.rates import FARTHEST_SLOTS, N_SLOTS, Grant, LocalRates, RateLimit, RateLimiter, held_to, slot_of

if TYPE_CHECKING:
    from redis import Redis
    from redis.commands.core import Script

__all__ = ["SharedRates", "limiter_for", "shared_limiter"]

_log = logging.getLogger(__name__)

_TIMEOUT_S = 0.05
# One hash tag: the limits of a call lie in one cluster slot, as a script needs them.
_PREFIX = "coa:{rates}:"

_BOOK = """
local now, tokens, n_slots, farthest, ttl =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local books = {}
for i, key in ipairs(KEYS) do
  local flat, book, old = redis.call('HGETALL', key), {calls = {}, tokens = {}, last = 0}, {}
  for j = 1, #flat, 2 do
    local kind, at, count = string.sub(flat[j], 1, 1), tonumber(string.sub(flat[j], 2)), tonumber(flat[j + 1])
    if kind == 'l' then
      book.last = count
    elseif at < now - n_slots or at > now + farthest then
      old[#old + 1] = flat[j]
    elseif kind == 'c' then
      book.calls[at] = count
    else
      book.tokens[at] = count
    end
  end
  for j = 1, #old do redis.call('HDEL', key, old[j]) end
  if book.last > now + farthest then
    book.last = 0
    for at, _ in pairs(book.calls) do book.last = math.max(book.last, at) end
  end
  book.rpm, book.tpm = tonumber(ARGV[4 + 2 * i]), tonumber(ARGV[5 + 2 * i])
  books[i] = book
end
local slot, moved = now, true
while moved do
  moved = false
  for _, book in ipairs(books) do
    if book.last > slot then slot, moved = book.last, true end
    while true do
      local calls, used, first = 0, 0, nil
      for at, count in pairs(book.calls) do
        if count > 0 and at >= slot - n_slots and at <= slot then
          calls = calls + count
          used = used + (book.tokens[at] or 0)
          if first == nil or at < first then first = at end
        end
      end
      local full = (book.rpm > 0 and calls >= book.rpm) or (book.tpm > 0 and used + tokens > book.tpm)
      if first == nil or not full then break end
      slot, moved = first + n_slots + 1, true
    end
  end
end
local name = string.format('%.0f', slot)
for _, key in ipairs(KEYS) do
  redis.call('HINCRBY', key, 'c' .. name, 1)
  redis.call('HINCRBY', key, 't' .. name, tokens)
  redis.call('HSET', key, 'l', name)
  redis.call('EXPIRE', key, ttl)
end
return name
"""

_SETTLE = """
for _, key in ipairs(KEYS) do
  if redis.call('HGET', key, 'c' .. ARGV[1]) then
    redis.call('HINCRBY', key, 'c' .. ARGV[1], ARGV[2])
    redis.call('HINCRBY', key, 't' .. ARGV[1], ARGV[3])
  end
end
return 1
"""


def limiter_for(settings: Settings) -> RateLimiter | None:
    """The limiter at `settings.redis_url`; None without one. Raises: CacheError for a bad address."""
    return None if settings.redis_url is None else shared_limiter(resolve_environment(settings.redis_url))


def shared_limiter(redis_url: str) -> RateLimiter:
    """A limiter for all processes that use this Redis; connects when the first call is booked.

    Raises: CacheError for an address that is none.
    """
    return SharedRates(connect(redis_url, timeout_s=_TIMEOUT_S))


class SharedRates:
    """`RateLimiter` over Redis. May be used on several event loops, one after the other or at once."""

    def __init__(
        self,
        client: Redis,
        *,
        window_s: float = 60.0,
        timeout_s: float = _TIMEOUT_S,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The client is the limiter's own from here on."""
        self._client = client
        self._window_s = window_s
        self._timeout_s = timeout_s
        self._breaker = breaker or Breaker()
        self._clock = clock
        self._local = LocalRates(window_s=window_s, clock=clock)
        self._book: Script = client.register_script(_BOOK)
        self._settle: Script = client.register_script(_SETTLE)
        # One thread, so that a silent server can hold no more than one.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="coa-rates")
        self._closed = False

    async def book(self, limits: Sequence[RateLimit], tokens: int) -> Grant:
        """See `RateLimiter.book`."""
        limits = tuple(limits)
        if not limits:
            return Grant((), tokens, 0, 0.0)
        tokens = held_to(limits, tokens)
        now = slot_of(self._clock(), self._window_s)
        ttl = math.ceil(self._window_s * 2 + FARTHEST_SLOTS * self._window_s / N_SLOTS)
        counts = [count for limit in limits for count in (limit.rpm or 0, limit.tpm or 0)]
        slot = await self._asked(self._book, limits, [now, tokens, N_SLOTS, FARTHEST_SLOTS, ttl, *counts])
        return self._local.book_now(limits, tokens, earliest=0 if slot is None else int(slot))

    async def settle(self, grant: Grant, tokens: int | None) -> None:
        """See `RateLimiter.settle`."""
        self._local.settle_now(grant, tokens)
        if grant.limits and (tokens is None or tokens != grant.tokens):
            taken_back = 0 if tokens is not None else -1
            await self._asked(self._settle, grant.limits, [grant.slot, taken_back, (tokens or 0) - grant.tokens])

    async def close(self) -> None:
        """Closes the connection; later bookings are this process's own affair."""
        if not self._closed:
            self._closed = True
            self._thread.shutdown(wait=False)
            self._client.close()

    async def _asked(self, script: Script, limits: Sequence[RateLimit], arguments: list[int]) -> Any:
        """What the script returns; None when Redis does not answer in time."""
        if self._closed:
            return None
        loop = asyncio.get_running_loop()
        if self._breaker.open:
            if self._breaker.probe_due():
                loop.run_in_executor(self._thread, self._probe)
            return None
        keys = [_PREFIX + limit.key for limit in limits]
        try:
            running = loop.run_in_executor(self._thread, lambda: script(keys=keys, args=arguments))
            answer = await asyncio.wait_for(running, self._timeout_s)
        except Exception as error:  # a limiter that fails must not fail an answer
            self._note_failure(error)
            return None
        if self._breaker.succeeded():
            _log.warning("Redis answers again: rate limits are shared between processes.")
        return answer

    def _probe(self) -> None:
        """On the limiter's thread; nobody waits for it."""
        try:
            self._client.ping()
        except Exception as error:
            self._note_failure(error)
        else:
            if self._breaker.succeeded():
                _log.warning("Redis answers again: rate limits are shared between processes.")

    def _note_failure(self, error: Exception) -> None:
        if self._breaker.failed():
            _log.warning(
                "Redis does not answer (%s): rate limits are kept by this process alone.", type(error).__name__
            )
