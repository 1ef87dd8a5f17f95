"""Every example, run as its head says, over an engine that reads by words."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from coa.api import Session
from coa.config import load_settings
from coa.documents import read_document
from coa.events import ChunkRead
from coa.testing.fault_server import FaultKind, Faults, FaultServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUESTION = "Who kept the lighthouse key in the blue jar?"
FACT = "Ada Brown kept the lighthouse key in the blue jar."
FAILING: list[FaultKind] = ["500"] * 20
N_CLIENTS = int(os.environ.get("COA_EXAMPLE_CLIENTS", "10"))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _run(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "COLUMNS": "100", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


async def test_a_host_graph_answers_from_coas_chain_and_passes_its_events_on(folder: Path) -> None:
    host = _module(EXAMPLES / "host_graph" / "host.py")
    events: list[object] = []
    document = read_document(folder / "ferry.md")
    async with Session(load_settings(cwd=folder, env={}).settings) as session:
        state = await host.reply_to(session, document, QUESTION, events.append)
    assert state["ticket"] == QUESTION
    assert state["sources"] == [FACT]
    assert state["reply"].endswith(f"{FACT} [1]\n  [1] {FACT}")
    read = [event.index for event in events if isinstance(event, ChunkRead)]
    assert read == list(range(len(read)))
    assert len(read) > 3


@pytest.mark.slow
def test_the_host_graph_runs_as_a_script(folder: Path) -> None:
    done = _run(folder, str(EXAMPLES / "host_graph" / "host.py"), "ferry.md", QUESTION)
    assert done.stdout.endswith(f"{FACT} [1]\n  [1] {FACT}\n")
    assert "read 1 of " in done.stderr


@pytest.mark.slow
def test_notes_are_drawn_over_chunks(folder: Path) -> None:
    done = _run(folder, str(EXAMPLES / "notes_over_chunks.py"), "ferry.md", QUESTION)
    assert f"{FACT} [1]" in done.stdout
    assert f"“{FACT}” (Two)" in done.stdout
    assert "█" in done.stdout


@pytest.mark.slow
def test_a_strategy_of_an_installed_package_is_listed_and_asked_with(folder: Path, engine: FaultServer) -> None:
    target = folder / "site"
    build = [
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--disable-pip-version-check", "--root-user-action=ignore", "--target", str(target)),
    ]
    _run(folder, *build, str(EXAMPLES / "custom_strategy"))
    path = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH", "")]))
    listed = _run(folder, "-m", "coa", "graph", "list", PYTHONPATH=path).stdout
    assert "skim" in listed
    assert "the first and the last chunk of each chapter" in " ".join(listed.split())
    before = engine.stats().calls
    asked = _run(folder, "-m", "coa", "ask", "ferry.md", QUESTION, "--strategy", "skim", "--json", PYTHONPATH=path)
    answer = json.loads(asked.stdout)
    assert (answer["answer"], answer["strategy"]) == (f"{FACT} [1]", "skim")
    coverage = answer["coverage"]
    assert coverage["read"] == 6, "two chunks of each of three chapters"
    assert coverage["read"] + coverage["unselected"] == coverage["chunks"]
    assert engine.stats().calls - before == 6 + 1


def _events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def _text(n: int) -> str:
    before = f"On day {n} the ferry crossed the sound with {n + 3} barrels of herring. " * 30
    return f"{before}\n\nKeeper Number{n} kept the lighthouse key in the blue jar.\n\n{before}"


@pytest.mark.slow
async def test_the_services_clients_get_their_own_answers(folder: Path, engine: FaultServer) -> None:
    engine.faults = Faults(latency_s=0.02, jitter_s=0.03)
    app = _module(EXAMPLES / "service" / "app.py").create_app(load_settings(cwd=folder, env={}).settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as client,
    ):

        async def ask(n: int) -> str:
            added = await client.post("/documents", params={"name": f"{n}.txt"}, content=_text(n).encode())
            asked = {"document": added.json()["document"], "question": QUESTION, "thread": f"thread-{n}"}
            events = _events((await client.post("/ask", json=asked)).text)
            assert [event["type"] for event in events].count("chunk_read") == events[-1]["coverage"]["chunks"]
            return str(events[-1]["answer"])

        begun = time.perf_counter()
        answers = await asyncio.gather(*(ask(n) for n in range(N_CLIENTS)))
        print(f"{N_CLIENTS} clients in {time.perf_counter() - begun:.1f} s, {engine.stats().calls} calls")
        missing = await client.post("/ask", json={"document": "0" * 64, "question": QUESTION, "thread": "t"})
        assert missing.status_code == 404
        assert (await client.post("/documents", content=b"PK\x03\x04broken")).status_code == 422
    assert answers == [f"Keeper Number{n} kept the lighthouse key in the blue jar. [1]" for n in range(N_CLIENTS)]


@pytest.mark.slow
async def test_a_thread_of_the_service_goes_on_where_it_was_cut_off(folder: Path, engine: FaultServer) -> None:
    engine.faults = Faults(script=[*[None] * 3, *FAILING])
    settings = load_settings(cwd=folder, env={}, overrides={"retries": 0}).settings
    app = _module(EXAMPLES / "service" / "app.py").create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as client,
    ):
        added = await client.post("/documents", content=(folder / "ferry.md").read_bytes())
        asked = {"document": added.json()["document"], "question": QUESTION, "thread": "t1"}
        cut = _events((await client.post("/ask", json=asked)).text)
        assert cut[-1]["type"] == "error"
        n_read = [event["type"] for event in cut].count("chunk_read")
        engine.faults = Faults()
        before = engine.stats().calls
        whole = _events((await client.post("/ask", json=asked)).text)
        assert FACT in whole[-1]["answer"]
        assert engine.stats().calls - before == whole[-1]["coverage"]["chunks"] - n_read + 1
        calls = engine.stats().calls
        again = _events((await client.post("/ask", json=asked)).text)
        assert again[-1]["answer"] == whole[-1]["answer"]
        assert engine.stats().calls == calls, "a thread at its end makes no call"
