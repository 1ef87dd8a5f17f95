"""`coa serve` as a process: its address, its end, and when it does not begin."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coa.testing.fault_server import Faults, FaultServer

pytestmark = pytest.mark.slow

COMMAND = (sys.executable, "-m", "coa", "serve")
QUESTION = "Who kept the lighthouse key in the blue jar?"
FERRY = "\n\n".join(f"On day {n} the ferry crossed the sound with {n + 3} barrels of herring. " * 4 for n in range(40))


class Server:
    """A `coa serve` on a free port."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.announced = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", self.announced)
        assert found is not None, self.announced
        self.url = found.group()

    def end(self) -> tuple[int, str, str]:
        """Asks it to end, by its pid; its exit code, stdout and the rest of stderr."""
        os.kill(self.process.pid, signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: str) -> Server:
        servers.append(Server(folder, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.communicate()


def _healthy(url: str) -> dict[str, Any]:
    """What /health says; what announces its address answers."""
    found: dict[str, Any] = httpx.get(f"{url}/health", timeout=60).json()
    return found


def test_it_tells_its_address_answers_and_drains_its_runs_when_it_is_ended(
    started: Callable[..., Server], engine: FaultServer
) -> None:
    engine.faults = Faults(latency_s=0.2)
    server = started()
    assert server.announced.startswith("coa listens on ")
    assert _healthy(server.url)["runs"] == 0
    document = httpx.post(f"{server.url}/v1/documents", content=FERRY.encode(), timeout=60).json()["document"]
    replies: list[httpx.Response] = []

    def ask() -> None:
        wanted = {"document": document, "question": QUESTION}
        replies.append(httpx.post(f"{server.url}/v1/runs", json=wanted, timeout=60))

    asking = threading.Thread(target=ask)
    asking.start()
    while engine.stats().calls < 3:
        time.sleep(0.05)
    code, out, err = server.end()
    asking.join()
    assert (code, out, err) == (0, "", "")
    (reply,) = replies
    assert (reply.status_code, reply.json()["error"]) == (409, "RunDrained")
    again = started()
    _healthy(again.url)
    engine.faults = Faults()
    before = engine.stats().calls
    answer = httpx.post(f"{again.url}/v1/runs/{reply.json()['run_id']}/resume", timeout=60).json()
    assert answer["coverage"]["read"] == answer["coverage"]["chunks"]
    assert engine.stats().calls - before < answer["coverage"]["chunks"], "what was read is not read again"


def _refused(folder: Path, *arguments: str, **changes: str | None) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in {**os.environ, **changes}.items() if value is not None}
    return subprocess.run([*COMMAND, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def test_other_addresses_than_this_machines_need_a_token(folder: Path) -> None:
    refused = _refused(folder, "--host", "0.0.0.0", COA_SERVE_TOKEN=None)  # noqa: S104
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "COA_SERVE_TOKEN" in refused.stderr
    short = _refused(folder, "--host", "0.0.0.0", COA_SERVE_TOKEN="secret")  # noqa: S104
    assert short.returncode == 2
    assert "at least 16 characters" in short.stderr


def test_a_port_that_is_taken_is_said(folder: Path, engine: FaultServer) -> None:
    port = engine.base_url.rsplit(":", 1)[1].split("/")[0]
    refused = _refused(folder, "--port", port)
    assert refused.returncode == 2
    assert port in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_model_that_is_not_there_is_said_as_every_command_says_it(folder: Path) -> None:
    refused = _refused(folder, "--port", "0", "--model", "nowhere.gguf")
    assert refused.returncode != 0
    assert "nowhere.gguf" in refused.stderr
    assert "listens" not in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("arguments", "module"), [((), "uvicorn"), ((), "fastapi"), (("--mcp",), "mcp")])
def test_a_missing_extra_says_how_to_install_it(folder: Path, arguments: tuple[str, ...], module: str) -> None:
    (folder / "broken").mkdir()
    (folder / "broken" / f"{module}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{module}'\", name='{module}')\n"
    )
    path = os.pathsep.join(filter(None, [str(folder / "broken"), os.environ.get("PYTHONPATH", "")]))
    refused = _refused(folder, *arguments, PYTHONPATH=path)
    assert refused.returncode == 2
    assert f"serving needs {module}" in refused.stderr
    assert "pip install 'coa-orchestrator[serve]'" in refused.stderr
