"""A model server that costs next to nothing, for measuring what calls it: the same reply to each, after a while.

    python tests/tools/quick_engine.py [--latency 0.2]

Prints its port, serves OpenAI-style chat completions on loopback until its standard input ends, and prints then what
it has seen, as JSON: calls, most at once, first and last (seconds of the machine's monotonic clock, last being the end
of the last reply), and its own CPU seconds. A call takes about 0.1 ms of CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

__all__ = ["COMPLETION", "QuickEngine", "Seen"]

_REPLY = "The weather is told of once: it rained in the morning, and the evening was clear."
COMPLETION = {
    "id": "chatcmpl-quick",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "quick",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": _REPLY}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 600, "completion_tokens": 20, "total_tokens": 620},
}


def _response(status: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


_OK = _response("200 OK", COMPLETION)
_NOT_HERE = _response("404 Not Found", {"error": {"message": "only chat completions"}})


@dataclass
class Seen:
    """What an engine has seen."""

    calls: int = 0
    most_at_once: int = 0
    first: float = 0.0
    last: float = 0.0
    cpu_s: float = 0.0


class _Connection(asyncio.Protocol):
    """One kept-alive connection; requests come one after the other."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._data = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end])
            at = head.lower().find(b"\r\ncontent-length:")
            length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            del self._data[: end + 4 + length]
            self._engine.answer(self._transport, chat=head.startswith(b"POST") and b"/chat/completions" in head)


class _Engine:
    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._loop = asyncio.get_running_loop()
        self._at_once = 0
        self.seen = Seen()

    def answer(self, transport: asyncio.Transport, *, chat: bool) -> None:
        if not chat:
            transport.write(_NOT_HERE)
            return
        seen = self.seen
        seen.calls += 1
        seen.first = seen.first or time.monotonic()
        self._at_once += 1
        seen.most_at_once = max(seen.most_at_once, self._at_once)
        self._loop.call_later(self._latency_s, self._reply, transport)

    def _reply(self, transport: asyncio.Transport) -> None:
        self._at_once -= 1
        self.seen.last = time.monotonic()
        if not transport.is_closing():
            transport.write(_OK)


async def _serve(latency_s: float) -> Seen:
    engine = _Engine(latency_s)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(engine), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
    await ended.read()
    server.close()
    engine.seen.cpu_s = time.process_time()
    return engine.seen


class QuickEngine:
    """The server in a process of its own; a context manager."""

    def __init__(self, *, latency_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--latency", str(latency_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.base_url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"
        self._seen: Seen | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended()

    def ended(self) -> Seen:
        """What it has seen; it serves no more. May be called again."""
        if self._seen is None:
            told, _ = self._process.communicate()
            self._seen = Seen(**json.loads(told)) if told else Seen()
        return self._seen


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.2)
    args = parser.parse_args(arguments)
    print(json.dumps(vars(asyncio.run(_serve(args.latency)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
