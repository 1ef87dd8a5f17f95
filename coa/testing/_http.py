"""HTTP/1.1 over asyncio for a loopback test server: keep-alive, bodies by length or chunked, streams, resets.

Written out rather than taken from a web framework because benchmarks use the server as an engine without
latency: one request costs some tens of microseconds here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

__all__ = ["Connection", "Handler", "HttpRequest"]

_HEAD_END = b"\r\n\r\n"
_MAX_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, read to its end."""

    method: str
    path: str
    """Without the query."""
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    body: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class _Head:
    method: str
    path: str
    headers: dict[str, str]
    size: int
    """Bytes of the head in the buffer."""


class Connection(asyncio.Protocol):
    """One client connection; requests are answered one after the other, in the order they came.

    The handler's task is cancelled when the client goes away.
    """

    def __init__(self, handle: Handler, open_connections: set[Connection]) -> None:
        self._handle = handle
        self._open = open_connections
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_server hands out
        self._transport = transport
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    # for handlers

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends a whole response."""
        self._write(_response_head(status, {"content-length": str(len(body)), **(headers or {})}) + body)

    def send_cut(self, status: int, body: bytes) -> None:
        """Announces the whole of `body`, sends half of it, and closes."""
        self._write(_response_head(status, {"content-length": str(len(body))}) + body[: len(body) // 2])
        self.close()

    def send_part(self, status: int, body: bytes, upto: int) -> None:
        """Announces the whole of `body` and sends its first `upto` bytes."""
        self._write(_response_head(status, {"content-length": str(len(body))}) + body[:upto])

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes as they are: the rest of what `send_part` began."""
        self._write(data)

    def half_close(self) -> None:
        """Says that nothing more will come (FIN) and goes on listening."""
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def start_stream(self) -> None:
        """Sends the head of an event stream."""
        headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        self._write(_response_head(HTTPStatus.OK, headers))

    def send_chunk(self, data: bytes) -> None:
        """Sends one chunk of a stream."""
        self._write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        """Ends the stream; the connection stays open for the next request."""
        self._write(b"0\r\n\r\n")

    def close(self) -> None:
        """Sends what is buffered, then closes in good order (FIN)."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Breaks the connection so that the client sees a reset (RST)."""
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # parsing

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _next(self) -> None:
        if self._task is not None:
            return
        try:
            request = self._take()
        except ValueError as error:
            self.send(HTTPStatus.BAD_REQUEST, str(error).encode())
            self.close()
            return
        if request is not None:
            self._task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: HttpRequest) -> None:
        try:
            await self._handle(request, self)
        finally:
            self._task = None
        if request.headers.get("connection", "").lower() == "close":
            self.close()
        elif self._transport is not None:
            self._next()

    def _take(self) -> HttpRequest | None:
        """The first request of the buffer, taken out of it; None as long as it is not complete."""
        if self._head is None:
            self._head = self._read_head()
        if self._head is None:
            return None
        head = self._head
        if head.headers.get("transfer-encoding", "").lower() == "chunked":
            taken = _dechunk(self._buffer, head.size)
        else:
            end = head.size + int(head.headers.get("content-length", "0"))
            taken = (bytes(self._buffer[head.size : end]), end) if len(self._buffer) >= end else None
        if taken is None:
            return None
        body, end = taken
        del self._buffer[:end]
        self._head = None
        return HttpRequest(head.method, head.path, head.headers, body)

    def _read_head(self) -> _Head | None:
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise ValueError("request head too large")
            return None
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3:
            raise ValueError(f"not a request line: {first[:80]!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return _Head(parts[0], parts[1].partition("?")[0], headers, end + len(_HEAD_END))


Handler = Callable[[HttpRequest, Connection], Awaitable[None]]


def _response_head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    if "content-type" not in headers:
        lines.append("content-type: application/json")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _dechunk(buffer: bytearray, at: int) -> tuple[bytes, int] | None:
    """A chunked body that starts at `at`, and where it ends; None as long as it is not complete."""
    body = bytearray()
    while True:
        line_end = buffer.find(b"\r\n", at)
        if line_end < 0:
            return None
        size = int(bytes(buffer[at:line_end]).partition(b";")[0], 16)
        at = line_end + 2
        if len(buffer) < at + size + 2:
            return None
        body += buffer[at : at + size]
        at += size + 2
        if size == 0:
            return bytes(body), at
