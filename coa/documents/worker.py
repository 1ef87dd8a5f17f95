"""The process that reads documents for another one: `python -m coa.documents.worker FD`.

It takes a request from the socket of that number, reads, replies, and takes the next one until the socket is closed.
What a hostile file can reach from here is bounded: address space and processor time by the kernel, wall time by the
parent, which kills the process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from coa.documents.limits import ReadingLimits
from coa.documents.reader import parse_document, read_document
from coa.errors import CoaError
from coa.types import Document

__all__ = ["receive", "send", "serve"]

_HEAD = struct.Struct(">QQ")
# A worker that holds more than this after a document is replaced: what libraries leak is gone with it.
_RETIRED_ABOVE = 400_000_000
_PARENT_CHECK_S = 2.0
_CPU_SLACK_S = 2
_BLOCK = 1 << 20


def send(connection: socket.socket, header: dict[str, Any], payload: bytes = b"") -> None:
    """One frame: a JSON object and bytes. Raises OSError."""
    head = json.dumps(header).encode()
    connection.sendall(_HEAD.pack(len(head), len(payload)) + head)
    connection.sendall(payload)


def receive(
    connection: socket.socket, *, max_bytes: int, deadline: float | None = None
) -> tuple[dict[str, Any], bytearray]:
    """The next frame, of at most `max_bytes`.

    Raises EOFError where the other side is gone, TimeoutError past `deadline` (of time.monotonic), ValueError where
    what comes is no frame.
    """
    n_head, n_payload = _HEAD.unpack(_receive_exactly(connection, _HEAD.size, deadline))
    if n_head + n_payload > max_bytes:
        raise ValueError(f"a frame of {n_head + n_payload} bytes where {max_bytes} are expected at most")
    header = json.loads(_receive_exactly(connection, n_head, deadline))
    return header, _receive_exactly(connection, n_payload, deadline)


def _receive_exactly(connection: socket.socket, n: int, deadline: float | None) -> bytearray:
    data = bytearray()
    while len(data) < n:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
        block = connection.recv(min(n - len(data), _BLOCK))
        if not block:
            raise EOFError
        data += block
    return data


def serve(connection: socket.socket) -> None:
    """Answers requests until the other side closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    send(connection, {"ready": True})
    while True:
        try:
            request, data = receive(connection, max_bytes=1 << 40)
        except (EOFError, OSError):
            return
        header, payload = _answer(request, data)
        del data
        header["retire"] = header.get("retire", False) or _held() > _RETIRED_ABOVE
        send(connection, header, payload)
        if header["retire"]:
            return


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)


def _answer(request: dict[str, Any], data: bytearray) -> tuple[dict[str, Any], bytes]:
    limits = ReadingLimits(**request["limits"])
    _bound(limits, request["reader"])
    try:
        if request["path"] is not None:
            document = read_document(
                Path(request["path"]),
                name=request["name"],
                encoding=request["encoding"],
                max_bytes=request["max_bytes"],
                limits=limits,
                reader=request["reader"],
            )
        else:
            document = parse_document(
                bytes(data), name=request["name"], encoding=request["encoding"], limits=limits, reader=request["reader"]
            )
        return _packed(document)
    except CoaError as exc:
        return {"error": type(exc).__name__, "message": exc.message, "hint": exc.hint}, b""
    except MemoryError:
        return {"error": "MemoryError", "retire": True}, b""
    except Exception as exc:
        said = f"{type(exc).__name__}: {exc}".splitlines()[0][:300]
        return {"error": "Exception", "message": said, "trace": traceback.format_exc(limit=-20), "retire": True}, b""
    finally:
        _unbound()


def _packed(document: Document) -> tuple[dict[str, Any], bytes]:
    return {"document": asdict(replace(document, text=""))}, document.text.encode("utf-8")


def _bound(limits: ReadingLimits, reader: str | None) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits.max_seconds) + _CPU_SLACK_S
    _set_soft(resource.RLIMIT_CPU, seconds)
    # torch maps gigabytes of libraries that it does not touch: of docling only what can be written to is counted.
    _set_soft(resource.RLIMIT_DATA if reader == "docling" else resource.RLIMIT_AS, limits.max_memory_bytes)


def _unbound() -> None:
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_DATA):
        _set_soft(kind, resource.getrlimit(kind)[1])


def _set_soft(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if resource.RLIM_INFINITY not in (hard, value):
        value = min(value, hard)
    try:
        resource.setrlimit(kind, (value, hard))
    except (ValueError, OSError):
        # macOS refuses to bound the address space; time is bounded there all the same.
        if kind == resource.RLIMIT_CPU:
            raise


def _held() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
