"""Who may call: a token, or nobody but this machine."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from coa.errors import ConfigError

__all__ = ["Guard", "checked_token"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SHORTEST_TOKEN = 16
_OPEN_PATHS = frozenset({"/health"})


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def checked_token(host: str, token: str | None) -> str | None:
    """`token`, where it is fit for serving on `host`. Raises: ConfigError without one where others can reach it."""
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise ConfigError(f"the token is too short: at least {_SHORTEST_TOKEN} characters.")
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"serving on {host} needs a token: others can reach it.",
            hint="Set COA_SERVE_TOKEN, or serve on 127.0.0.1.",
        )
    return token


class Guard:
    """ASGI middleware: refuses calls without the token; without one, calls that name another host than this machine
    (a page in a browser can be made to call loopback under its own name, "DNS rebinding")."""

    def __init__(self, app: App, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the call on, or answers 401 or 403 itself."""
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS:
            return await self._app(scope, receive, send)
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if self._token is not None:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return await _refuse(send, 401, "AuthenticationNeeded", "the token is missing or wrong.")
        elif not is_loopback(_host_of(headers.get("host", ""))):
            return await _refuse(send, 403, "Forbidden", "without a token only this machine's own names are served.")
        return await self._app(scope, receive, send)


def _host_of(header: str) -> str:
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0]


async def _refuse(send: Send, status: int, kind: str, message: str) -> None:
    from coa.serve.bodies import ErrorBody

    body = ErrorBody(error=kind, message=message).model_dump_json().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
