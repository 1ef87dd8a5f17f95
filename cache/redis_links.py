"""Scripts in a Redis that may be dead, deaf or flushed, without anybody having to wait for it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from coa.cache.breaker import Breaker

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["RedisLink", "ScriptRunner"]

_log = logging.getLogger(__name__)

_BUDGET_S = 0.04
"""Of the 50 ms that a call may lose to Redis; the rest is for what is done instead."""
_LEAST_WAIT_S = 0.002
_MAX_WAITING = 256
_MAX_LOST = 4096
_REQUESTS_KNOWN = 4096


class ScriptRunner(Protocol):
    """A Redis, as far as the index needs one."""

    async def run(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:
        """What the script returns. Raises whatever the client raises."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...


class _Told(NamedTuple):
    script: str
    keys: tuple[str, ...]
    args: tuple[str | bytes, ...]
    at: float


class RedisLink:
    """A Redis client in a thread of its own: usable from several event loops, and a deaf server holds one thread.

    A request waits at most `budget_s` seconds in all its calls together, then it is answered None, as everybody is
    while the breaker is open. What was told and did not arrive is told again when the server answers again.
    """

    def __init__(
        self,
        client: Redis,
        *,
        budget_s: float = _BUDGET_S,
        breaker: Breaker | None = None,
        keep_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The client is the link's own from here on. What was told longer than `keep_s` ago is not told again."""
        self._client = client
        self._budget_s = budget_s
        self._breaker = breaker or Breaker()
        self._keep_s = keep_s
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="coa-index")
        self._digests: dict[str, str] = {}
        self._spent: OrderedDict[str, float] = OrderedDict()
        self._lost: deque[_Told] = deque(maxlen=_MAX_LOST)
        self._waiting = 0
        self._counting = threading.Lock()
        self._closed = False
        self.outages = 0
        """How often the server stopped answering."""

    @property
    def out(self) -> bool:
        """Whether nobody is to ask now."""
        return self._closed or self._breaker.open

    async def ask(self, script: str, keys: Sequence[str], args: Sequence[str | bytes], request: str = "") -> Any:
        """What the script returns; None when the server does not answer within what the request may still wait."""
        left = self._budget_s - self._spent.get(request, 0.0)
        if self.out or left < _LEAST_WAIT_S:
            self._probe_when_due()
            return None
        started, queued = self._clock(), self._waiting > 0
        try:
            running = asyncio.get_running_loop().run_in_executor(self._thread, self._evaluate, script, keys, args)
            answer = await asyncio.wait_for(running, left)
        except Exception as error:  # advice that fails must not fail an answer
            # Behind what was told before, a question may be late without the server being so; what was told finds out.
            if not (queued and isinstance(error, TimeoutError)):
                self._failed(error)
            self._book(request, self._clock() - started)
            return None
        self._succeeded()
        return answer

    def tell(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> None:
        """Has the script run after everything told or asked before; nobody waits for it."""
        told = _Told(script, tuple(keys), tuple(args), self._clock())
        if self._closed:
            return
        if self.out or self._waiting >= _MAX_WAITING:
            self._lost.append(told)
            self._probe_when_due()
            return
        self._submit(told)

    async def flushed(self) -> None:
        """Waits until all that was told before has arrived, or has not."""
        if not self._closed:
            await asyncio.get_running_loop().run_in_executor(self._thread, lambda: None)

    def close(self) -> None:
        """Later calls are answered None; what was told and is on its way still arrives."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._client.close)
            self._thread.shutdown(wait=False)

    def _evaluate(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:
        from redis.exceptions import NoScriptError

        digest = self._digests.get(script)
        if digest is None:
            digest = self._digests[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return self._client.evalsha(digest, len(keys), *keys, *args)
        except NoScriptError:
            return self._client.eval(script, len(keys), *keys, *args)

    def _submit(self, told: _Told) -> None:
        with self._counting:
            self._waiting += 1
        self._thread.submit(self._tell, told)

    def _tell(self, told: _Told) -> None:
        with self._counting:
            self._waiting -= 1
        if self._breaker.open:
            self._lost.append(told)
            return
        try:
            self._evaluate(told.script, told.keys, told.args)
        except Exception as error:
            self._lost.append(told)
            self._failed(error)
        else:
            self._succeeded()

    def _probe_when_due(self) -> None:
        if not self._closed and self._breaker.probe_due():
            self._thread.submit(self._probe)

    def _probe(self) -> None:
        try:
            self._client.ping()
        except Exception as error:
            self._failed(error)
        else:
            self._succeeded()

    def _failed(self, error: Exception) -> None:
        was_open = self._breaker.open
        self._breaker.failed()
        if self._breaker.open and not was_open:
            self.outages += 1
            _log.warning("Redis does not answer (%s): the prefix index is this process's own.", type(error).__name__)

    def _succeeded(self) -> None:
        if self._breaker.open:
            _log.warning("Redis answers again: the prefix index is shared between processes.")
        self._breaker.succeeded()
        while self._lost and not self._closed:
            told = self._lost.popleft()
            if self._clock() - told.at < self._keep_s:
                self._submit(told)

    def _book(self, request: str, waited_s: float) -> None:
        if request:
            self._spent[request] = self._spent.get(request, 0.0) + waited_s
            while len(self._spent) > _REQUESTS_KNOWN:
                self._spent.popitem(last=False)
