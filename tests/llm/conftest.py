"""Servers on loopback that answer as engines do, in the shapes that their sources and documents give."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answer = Mapping[str, Any] | int | str | Callable[[dict[str, Any]], Any]


class Engine:
    """Answers by "METHOD /path": a mapping as JSON, a number as a status, text as it is, or a function of the body."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.keys: set[str | None] = set()
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one piece, or each reply waits for an acknowledgement

            def _answer(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(size)) if size else {}
                route = f"{self.command} {self.path}"
                engine.requests.append((route, body))
                engine.keys.add(self.headers.get("authorization"))
                found = engine.answers.get(route, 404)
                found = found(body) if callable(found) else found
                status, sent = (found, {"error": {"code": found}}) if isinstance(found, int) else (200, found)
                content = sent.encode() if isinstance(sent, str) else json.dumps(sent).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the client may have given up
                    self.wfile.write(content)

            do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.root_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.base_url = f"{self.root_url}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Nothing listens any more."""
        self._server.shutdown()
        self._server.server_close()

    def asked(self, route: str) -> list[dict[str, Any]]:
        """Bodies that came to one route."""
        return [body for asked, body in self.requests if asked == route]


@pytest.fixture
def serve() -> Iterator[Callable[[Mapping[str, Answer]], Engine]]:
    """Starts engines with the given answers; they end with the test."""
    running: list[Engine] = []

    def start(answers: Mapping[str, Answer]) -> Engine:
        running.append(Engine(answers))
        return running[-1]

    yield start
    for engine in running:
        engine.close()


def words(text: str, control: str = "<|im_end|>") -> list[int]:
    """A tokenizer of words, with one control token."""
    ids: list[int] = []
    for n, part in enumerate(text.split(control)):
        ids += [7] * bool(n) + [100 + len(word) for word in part.split()]
    return ids


@pytest.fixture
def vllm(serve: Callable[[Mapping[str, Answer]], Engine]) -> Engine:
    """vLLM 0.32, serving a window of 4,096."""
    return serve(
        {
            "GET /v1/models": {
                "object": "list",
                "data": [
                    {
                        "id": "reader",
                        "object": "model",
                        "owned_by": "vllm",
                        "root": "org/reader-7b",
                        "parent": None,
                        "max_model_len": 4096,
                    }
                ],
            },
            "POST /tokenize": lambda body: {
                "count": len(words(body["prompt"])),
                "max_model_len": 4096,
                "tokens": words(body["prompt"]),
                "token_strs": None,
            },
        }
    )
