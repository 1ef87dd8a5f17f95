"""One configuration file, three kinds of deployments in one group, and one of them killed while a run goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import yaml

from coa.config import load_settings
from coa.documents import read_document
from coa.events import ChunkRead, Event
from coa.llm.chat import Decoding
from coa.llm.engine_process import EngineProcess
from coa.reading import Prompt
from coa.session import Session
from coa.testing.fault_server import FaultServer
from coa.testing.models import test_model_path

SENTENCE = "Ada took the brass key from the harbour and went up to the lighthouse. "


def _config(folder: Path, own: Path, other: EngineProcess, server: FaultServer) -> Path:
    """As a litellm proxy could read it, but for the first entry."""
    told = {"kind": "llama_server", "max_input_tokens": 1024}
    entries = [
        {"litellm_params": {"model": f"coa/{own.name}"}, "model_info": {"id": "own", "max_input_tokens": 1024}},
        {
            "litellm_params": {
                "model": "openai/other",
                "api_base": other.base_url,
                "api_key": "os.environ/COA_TEST_KEY",
            },
            "model_info": {**told, "id": "other"},
        },
        {
            "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "k"},
            "model_info": {**told, "id": "fault"},
        },
    ]
    file = folder / "coa.yaml"
    content = {
        "home": "home",
        "model": "readers",
        "notes": "paper",
        "chunk_tokens": 160,
        "note_tokens": 96,
        "answer_tokens": 128,
        "model_list": [{"model_name": "readers", **entry} for entry in entries],
        "router_settings": {"allowed_fails": 1, "cooldown_time": 30},
    }
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.slow
async def test_a_run_goes_on_when_one_of_its_three_engines_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.gguf"
    own.symlink_to(test_model_path().resolve())
    document = read_document((SENTENCE * 48).encode(), name="harbour.txt")
    with EngineProcess(own, alias="other", n_ctx=1024, n_threads=1) as other, FaultServer(n_ctx=1024) as server:
        monkeypatch.setenv("COA_TEST_KEY", other.api_key)
        settings = load_settings(config=_config(tmp_path, own, other, server), env={}).settings
        read: list[ChunkRead] = []

        def on_event(event: Event) -> None:
            if isinstance(event, ChunkRead):
                read.append(event)
                if len(read) == 2:
                    os.kill(other.pid, signal.SIGKILL)

        async with Session(settings, on_event=on_event) as session:
            answer = await session.ask(document, "Who took the key?")
            gateway = await session._open()
            model = await gateway.role_model("worker")
            asked = (model.complete(Prompt(tail=f"Who took key {n}?"), Decoding(2)) for n in range(8))
            answered_by = {reply.deployment for reply in await asyncio.gather(*asked)}
            served = {id_: (found.kind, found.window) for id_, found in gateway.role("worker").served.items()}
    assert other.returncode == -signal.SIGKILL
    assert served == dict.fromkeys(("own", "other", "fault"), ("llama_server", 1024))
    assert answered_by <= {"own", "fault"}
    assert answer.coverage.complete
    assert answer.coverage.chunks == len(read) >= 6
    assert answer.text
