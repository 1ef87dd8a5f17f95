"""The HTTP clients that litellm keeps: no proxy for loopback, and closed when they are done with.

litellm's clients ask the environment for a proxy, and it has no switch for that by deployment: NO_PROXY is one.

litellm caches one client for each provider, key and timeout, by event loop, and leaves them open for good:
"unclosed client session" at exit, and in a service that opens models again and again a growing pile of
sockets. Its own `close_litellm_async_clients` closes those of every loop and of a host's own calls as well, so
only what came into the cache while models of ours were open on this loop is closed here, by the last of them.

And its HTTP client sends a request a second time when a connection breaks, beneath all retries that can be counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import ipaddress
import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment
from weakref import WeakKeyDictionary

__all__ = ["ClientLease", "on_loopback", "one_try", "spare_loopback_the_proxy"]

_LOOPBACK = ("127.0.0.1", "localhost")


@dataclass
class _Loop:
    n_open: int
    before: frozenset[str]
    session_before: object


_one_try: ContextVar[bool] = ContextVar("coa_one_try", default=False)
_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()


def on_loopback(url: str) -> bool:
    """Whether `url` leads to this machine; False for what is no URL."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def spare_loopback_the_proxy(urls: Iterable[str]) -> None:
    """Adds the loopback hosts of `urls` to this process's NO_PROXY, for clients that are made later.

    Nothing changes when none is on loopback or no proxy variable is set: where there are none, a NO_PROXY alone
    would make Python forget the proxies of the system's settings (macOS, Windows).
    """
    hosts = [urlsplit(url).hostname or "" for url in urls if on_loopback(url)]
    if not hosts or not getproxies_environment().keys() - {"no"}:
        return
    # Clients read one spelling or the other; to set only one of them would hide what the other holds.
    names = [name for name in ("no_proxy", "NO_PROXY") if name in os.environ] or ["no_proxy", "NO_PROXY"]
    for name in names:
        listed = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" not in listed:
            os.environ[name] = ",".join(dict.fromkeys([*listed, *_LOOPBACK, *hosts]))


@contextlib.contextmanager
def one_try() -> Iterator[None]:
    """Inside, a request whose connection breaks is not sent again by litellm's HTTP client.

    Only calls made in this context are concerned; a host's own go on as they did.
    """
    _teach_one_try()
    token = _one_try.set(True)
    try:
        yield
    finally:
        _one_try.reset(token)


@functools.cache
def _teach_one_try() -> None:
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    second_try = getattr(AsyncHTTPHandler, "single_connection_post_request", None)
    if second_try is None:
        return  # a release that does without

    @functools.wraps(second_try)
    async def taught(*args: Any, **kwargs: Any) -> Any:
        if _one_try.get():
            raise  # noqa: PLE0704 - it is called where the broken connection's error is handled
        return await second_try(*args, **kwargs)

    AsyncHTTPHandler.single_connection_post_request = taught  # type: ignore[method-assign]


class ClientLease:
    """One model's share in the clients of the running event loop."""

    def __init__(self, litellm: ModuleType) -> None:
        """Has to be made on the event loop that calls are made on."""
        self._litellm = litellm
        self._clients: dict[str, Any] = getattr(litellm.in_memory_llm_clients_cache, "cache_dict", {})
        self._loop = asyncio.get_running_loop()
        self._released = False
        shared = _loops.setdefault(self._loop, _Loop(0, frozenset(self._of_loop()), self._module_session()))
        shared.n_open += 1

    async def release(self) -> None:
        """Closes the clients when no other model of this loop is open; may be called again."""
        if self._released:
            return
        self._released = True
        shared = _loops[self._loop]
        shared.n_open -= 1
        if shared.n_open:
            return
        del _loops[self._loop]
        for key in self._of_loop():
            if key not in shared.before:
                await _close(self._clients.pop(key, None))
        session = self._module_session()
        if session is not None and session is not shared.session_before:
            await _close(session)  # its client makes a new one when it is used again
        await asyncio.sleep(0)  # a socket's transport ends one turn of the loop after its session

    def _module_session(self) -> object | None:
        """The connections of this loop behind litellm's one client for all that it keeps no client for."""
        client = vars(self._litellm).get("module_level_aclient")
        session = getattr(getattr(getattr(client, "client", None), "_transport", None), "client", None)
        return session if getattr(session, "_loop", None) is self._loop else None

    def _of_loop(self) -> list[str]:
        return [key for key in self._clients if str(key).endswith(f"-{id(self._loop)}")]


async def _close(client: object) -> None:
    close = getattr(client, "aclose", None) or getattr(client, "close", None)
    if close is None:
        return
    try:
        closing = close()
        if inspect.isawaitable(closing):
            await closing
    except Exception:  # noqa: S110 - a connection that cannot even be closed is of no further use
        pass
