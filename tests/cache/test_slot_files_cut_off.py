"""A save that loses its end on a full disk, as llama.cpp reports it: as done."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from coa.cache.engines.llama_server import LlamaServer
from coa.errors import CacheError
from coa.llm.deployments import Deployment


class SavesHundredBytes(BaseHTTPRequestHandler):
    """Says so, whatever is on the disk."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"n_saved": 128, "n_written": 100}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), SavesHundredBytes) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def deployment(url: str, info: dict[str, object]) -> Deployment:
    return Deployment("d", "openai/m", "llama_server", f"{url}/v1", info=info)


async def test_a_file_that_is_shorter_than_the_engine_says_is_an_error(url: str, tmp_path: Path) -> None:
    engine = LlamaServer(deployment(url, {"slot_save_path": str(tmp_path)}))
    (tmp_path / "whole.kv").write_bytes(bytes(100))
    (tmp_path / "short.kv").write_bytes(bytes(96))
    assert await engine.save(0, "whole.kv") == 128
    with pytest.raises(CacheError, match="is 96 bytes long: is the disk full"):
        await engine.save(0, "short.kv")
    await engine.close()


async def test_a_folder_that_is_not_seen_from_here_is_not_asked(url: str) -> None:
    engine = LlamaServer(deployment(url, {}))
    assert await engine.save(0, "short.kv") == 128
    await engine.close()
