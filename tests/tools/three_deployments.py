"""One configuration file, one group, three engines: embedded, a llama.cpp server process, a fault server process.

    python tests/tools/three_deployments.py [--kill engine|server] [--chunks 8]

The one named by --kill ends by SIGKILL in the middle of the run; the run goes on with the other two. Prints what
became of it as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from coa.api import Session
from coa.config import load_settings
from coa.documents import read_document
from coa.events import ChunkRead, ChunkSkipped, Event
from coa.llm.engine_process import EngineProcess
from coa.testing.models import test_model_path

QUESTION = "Where did Ada hide the brass key?"
WINDOW = 2048


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill", choices=["engine", "server"], default="engine")
    parser.add_argument("--chunks", type=int, default=8)
    options = parser.parse_args()
    told = asyncio.run(run(options.kill, options.chunks))
    print(json.dumps(told, indent=1))
    # A small model's note may run into its cap; that an engine is gone must cost no chunk.
    lost = [cause for cause in told["skipped"] if "failed" in cause]
    return 1 if lost or told["read"] + len(told["skipped"]) != told["chunks"] or not told["killed_after_chunk"] else 0


async def run(kill: str, n_chunks: int) -> dict[str, Any]:
    """Coverage, and how it went until the kill."""
    model = test_model_path()
    days = (f"On day {n} the crew mended sail {n}. The wind of day {n} turned north." for n in range(n_chunks * 9))
    document = read_document("\n".join(days).encode(), name="voyage.txt")
    with (
        tempfile.TemporaryDirectory() as folder,
        EngineProcess(model, alias="separate", n_ctx=WINDOW) as engine,
        _fault_server() as (url, server_pid),
    ):
        config = Path(folder) / "coa.yaml"
        config.write_text(yaml.safe_dump(configuration(str(model), engine, url)), encoding="utf-8")
        victim = engine.pid if kill == "engine" else server_pid
        killed_after: list[int] = []

        def on_event(event: Event) -> None:
            if isinstance(event, ChunkRead | ChunkSkipped) and event.index + 1 >= n_chunks // 2 and not killed_after:
                counts.append(_answered(engine, url))
                os.kill(victim, signal.SIGKILL)
                killed_after.append(event.index)

        counts: list[dict[str, int]] = []
        settings = load_settings(config=config, overrides={"home": folder}).settings
        async with Session(settings, on_event=on_event) as session:
            answer = await session.ask(document, QUESTION)
    return {
        "killed": kill,
        "killed_after_chunk": killed_after,
        "answered_until_then": counts,
        "chunks": answer.coverage.chunks,
        "read": answer.coverage.read,
        "calls": answer.usage.calls,
        "skipped": [skipped.cause for skipped in answer.coverage.skipped],
        "answer": answer.text,
    }


def configuration(model: str, engine: EngineProcess, url: str) -> dict[str, Any]:
    """What a user would write into coa.yaml."""
    info = {"max_input_tokens": WINDOW}
    separate = {"model": "openai/separate", "api_base": engine.base_url, "api_key": engine.api_key}
    faulty = {"model": "openai/fault", "api_base": url, "api_key": "none"}
    return {
        "model": "readers",
        "chunk_tokens": 300,
        "note_tokens": 48,
        "answer_tokens": 48,
        "notes": "paper",
        "model_list": [
            {"model_name": "readers", "litellm_params": {"model": f"coa/{model}"}, "model_info": info},
            {"model_name": "readers", "litellm_params": separate, "model_info": {**info, "kind": "llama_server"}},
            {"model_name": "readers", "litellm_params": faulty, "model_info": {**info, "kind": "hosted"}},
        ],
    }


@contextlib.contextmanager
def _fault_server() -> Iterator[tuple[str, int]]:
    """Its base URL and process."""
    command = [sys.executable, "-m", "coa.testing.fault_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["base_url"], process.pid
        finally:
            process.kill()


def _answered(engine: EngineProcess, url: str) -> dict[str, int]:
    """Calls so far of the fault server, and whether the separate engine is well."""
    stats = httpx.get(url.removesuffix("/v1") + "/stats", trust_env=False).json()
    health = httpx.get(f"{engine.root_url}/health", trust_env=False)
    return {"server": stats["calls"], "engine_is_well": int(health.is_success)}


if __name__ == "__main__":
    sys.exit(main())
