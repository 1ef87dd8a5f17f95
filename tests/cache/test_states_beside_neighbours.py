"""What an engine saves while it writes a reply to somebody else is, to the last bit, what it saves when it is alone."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx
import pytest

from coa.cache.engines.llama_server import LlamaServer
from coa.llm.deployments import Deployment
from coa.llm.embedded import MICRO_BATCH
from coa.llm.engine_process import EngineProcess
from coa.testing.models import test_model_path

N_TOKENS = 5 * MICRO_BATCH


def tokens(seed: int, n: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(100, 40_000) for _ in range(n)]


@pytest.mark.slow
async def test_a_reply_beside_it_changes_no_bit_of_a_state(tmp_path: Path) -> None:
    engine = EngineProcess(test_model_path(), slot_save_path=tmp_path, n_parallel=2, n_ctx=1024, n_threads=2)
    info = {"n_ubatch": MICRO_BATCH, "slot_save_path": str(tmp_path)}
    deployment = Deployment(
        "e", "openai/m", "llama_server", base_url=engine.base_url, api_key=engine.api_key, info=info
    )
    server = LlamaServer(deployment)
    with engine:
        await server.open()
        assert await server.prefill(tokens(1, N_TOKENS), slot=0) == N_TOKENS
        await server.save(0, "alone")
        writing = asyncio.create_task(replied(engine, tokens(2, 16), slot=1))
        await asyncio.sleep(0.5)  # its own prompt is read
        await server.prefill(tokens(1, N_TOKENS), slot=0)
        assert not writing.done(), "nothing was written beside it"
        await server.save(0, "beside")
        await writing
        await server.close()
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "beside").read_bytes()


async def replied(engine: EngineProcess, prompt: list[int], *, slot: int) -> None:
    body = {"prompt": prompt, "n_predict": 400, "id_slot": slot, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {engine.api_key}"}
    async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as client:
        (await client.post(f"{engine.root_url}/completion", json=body)).raise_for_status()
