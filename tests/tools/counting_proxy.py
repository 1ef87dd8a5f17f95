"""A reverse proxy on loopback that writes down every model call: what was sent, and whether the reply went out."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from types import TracebackType

import httpx

from coa.testing._http import Connection, HttpRequest

__all__ = ["Call", "CountingProxy"]

_CHAT = "/v1/chat/completions"
_TIMEOUT_S = 600.0
_HOP_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})


@dataclass(slots=True)
class Call:
    """One chat request."""

    prompt: str
    """The user message."""
    sent: float
    """`time.monotonic()`."""
    replied: float | None = None
    """When the last byte of the engine's reply was handed to the client; None for a call that was cut."""


class CountingProxy:
    """Serves in a thread, until `close`; a client that goes away ends its request at the engine too."""

    def __init__(self, root_url: str) -> None:
        self.calls: list[Call] = []
        """In the order they came."""
        self.n_others = 0
        """Replies to other requests: counting tokens, asking for the window."""
        self._upstream = root_url
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._done: asyncio.Event
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the proxy does not listen")

    def close(self) -> None:
        """Cuts what is open."""
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> CountingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _serve(self) -> None:
        self._done = asyncio.Event()
        open_connections: set[Connection] = set()
        async with httpx.AsyncClient(base_url=self._upstream, timeout=_TIMEOUT_S, trust_env=False) as self._client:
            server = await self._loop.create_server(lambda: Connection(self._forward, open_connections), "127.0.0.1", 0)
            self.root_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._ready.set()
            await self._done.wait()
            server.close()
            for connection in list(open_connections):
                connection.close()

    async def _forward(self, request: HttpRequest, connection: Connection) -> None:
        """Passes one request on; cancelled, and with it the engine's work, when the client goes away."""
        call = self._noted(request)
        headers = {k: v for k, v in request.headers.items() if k not in _HOP_HEADERS}
        async with self._client.stream(request.method, request.path, headers=headers, content=request.body) as reply:
            if reply.headers.get("content-type", "").startswith("text/event-stream"):
                connection.start_stream()
                async for piece in reply.aiter_bytes():
                    connection.send_chunk(piece)
                connection.end_stream()
            else:
                body = await reply.aread()
                connection.send(reply.status_code, body, {"content-type": reply.headers.get("content-type", "")})
        if call is None:
            self.n_others += 1
        elif reply.is_success:
            call.replied = time.monotonic()

    def _noted(self, request: HttpRequest) -> Call | None:
        if request.path != _CHAT:
            return None
        messages = json.loads(request.body)["messages"]
        call = Call(next(m["content"] for m in messages if m["role"] == "user"), time.monotonic())
        self.calls.append(call)
        return call
