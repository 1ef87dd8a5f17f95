"""A saved state goes into no other weights than those that it was computed with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from coa.cache import opening
from coa.cache.blocks import root_hash
from coa.cache.engines.llama_server import LlamaServer
from coa.cache.kv_cache import KvCache
from coa.cache.opening import prefix_cache_for
from coa.cache.served_engines import ServedEngine
from coa.cache.states import StateKey
from coa.config import Settings
from coa.errors import CacheError
from coa.limits import SMALL
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.download import LocalModel
from coa.llm.engine_process import EngineProcess
from coa.llm.opening import OpenModel
from coa.llm.served import Served, ask_all
from coa.reading import Prompt
from coa.testing.models import test_model_path as model_path
from coa.tokens import EstimatedTokens

PROMPT = Prompt(
    prefix="On Monday there were nine boats in the harbour, and the master counted them. " * 20, tail="Say."
)
KEY = "a-key-of-the-tests"
META = {"vocab_type": 2, "n_vocab": 49152, "n_embd": 576, "n_params": 134515008, "size": 143025408, "ftype": "Q8_0"}
LIKELIEST = [{"id": 5443, "logprob": -0.54875}, {"id": 5341, "logprob": -2.13857}]


@dataclass
class Llama:
    """A llama.cpp server in so far as its weights are concerned."""

    marker: str = "a" * 32
    path: str = "/models/m.gguf"
    meta: dict[str, Any] = field(default_factory=lambda: {**META, "n_ctx": 512})
    likeliest: Any = field(default_factory=lambda: LIKELIEST)
    loading: bool = False
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.transport = httpx.MockTransport(self._answer)

    def adapter(self, url: str = "http://gpu1:8080") -> LlamaServer:
        return LlamaServer(Deployment("d", "openai/m", "llama_server", f"{url}/v1"), transport=self.transport)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        route = f"{request.method} {request.url.path}"
        self.asked.append(route)
        if self.loading:
            return httpx.Response(503, json={"error": {"message": "Loading model"}})
        if route == "GET /props":
            marker = f"<__media_{self.marker}__>" if self.marker else "<__media__>"
            told = {"media_marker": marker, "model_path": self.path, "total_slots": 2}
            return httpx.Response(200, json=told)
        if route == "GET /v1/models":
            return httpx.Response(200, json={"data": [{"id": "m", "meta": self.meta}]})
        if route == "POST /completion":
            assert json.loads(request.content)["cache_prompt"] is False
            told = {} if self.likeliest is None else {"completion_probabilities": [{"top_logprobs": self.likeliest}]}
            return httpx.Response(200, json=told)
        if request.url.params.get("action") == "restore":
            return httpx.Response(200, json={"n_restored": 64})
        return httpx.Response(400, json={"error": {"message": "no such name"}})


def open_model(deployment: Deployment, served: Served | None = None, *files: LocalModel) -> OpenModel:
    asked = {} if served is None else {deployment.id: served}
    return OpenModel(ModelGroup("m", (deployment,)), EstimatedTokens(), 2048, SMALL, served=asked, files=files)


def engine_of(llama: Llama, url: str = "http://gpu1:8080", clock: Callable[[], float] = lambda: 0.0) -> ServedEngine:
    adapter = llama.adapter(url)
    model = open_model(adapter.deployment, Served("llama_server", answers=True, model=llama.path))

    def identity() -> bytes | None:
        return opening._identity(adapter.deployment, model, adapter, keeps=True)

    return ServedEngine(adapter.deployment, "m", adapter, identity=identity, clock=clock)


async def identity_of(llama: Llama, url: str = "http://gpu1:8080") -> bytes:
    engine = engine_of(llama, url)
    assert await engine.ready()
    assert engine.identity is not None
    return engine.identity


async def test_a_server_of_the_same_name_with_other_weights_has_other_states() -> None:
    same = await identity_of(Llama())
    assert await identity_of(Llama(marker="b" * 32)) == same, "a restart changes no weights"
    assert await identity_of(Llama(meta={**META, "n_ctx": 1024})) == same, "nor does its window"
    rounded = [{**each, "logprob": each["logprob"] + 1e-5} for each in reversed(LIKELIEST)]
    assert await identity_of(Llama(likeliest=rounded)) == same
    others = [
        Llama(meta={**META, "size": 96576768}),
        Llama(meta={**META, "ftype": "Q4_1"}),
        Llama(path="/models/other.gguf"),
        Llama(likeliest=[LIKELIEST[0], {**LIKELIEST[1], "logprob": -2.2}]),
        Llama(likeliest=[LIKELIEST[0], {**LIKELIEST[1], "id": 1137}]),
    ]
    assert len({same, *[await identity_of(other) for other in others]}) == 1 + len(others)


async def test_weights_of_one_name_that_compute_the_same_are_shared_between_addresses(tmp_path: Path) -> None:
    here = ("http://127.0.0.1:8080", "http://localhost:8081")
    assert len({await identity_of(Llama(), url) for url in (*here, "http://gpu1:8080", "http://gpu2:8080")}) == 1
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    found = {await identity_of(Llama(path=str(file)), url) for url in here}
    assert len(found) == 1, "a file that is seen from here"
    os.utime(file, (1, 1))
    assert await identity_of(Llama(path=str(file)), here[0]) not in found
    assert await identity_of(Llama(path=str(file)), "http://gpu1:8080") not in found, "it is not that host's"


async def test_an_engine_is_asked_for_its_weights_once_for_each_process_of_it() -> None:
    llama = Llama()
    engine = engine_of(llama)
    for _ in range(3):
        assert await engine.ready()
    assert llama.asked.count("POST /completion") == 1
    assert not await engine.look_for_restart()
    llama.marker = "b" * 32
    assert await engine.look_for_restart()
    assert await engine.ready()
    assert llama.asked.count("POST /completion") == 2


async def test_a_server_that_was_still_loading_is_asked_when_it_is_ready() -> None:
    now = 0.0
    llama = Llama(loading=True)
    engine = engine_of(llama, clock=lambda: now)
    assert not await engine.ready()
    assert engine.identity is None
    llama.loading = False
    now = 100.0
    assert await engine.ready()
    assert engine.identity == await identity_of(Llama())


async def test_a_server_that_tells_no_probabilities_keeps_no_states() -> None:
    engine = engine_of(Llama(likeliest=None))
    assert await engine.ready()
    assert not engine.adapter.saves


async def test_nothing_is_restored_or_saved_after_a_restart_until_the_weights_are_known() -> None:
    llama = Llama()
    engine = engine_of(llama)
    prefix = await prefix_of(engine)
    assert await engine.restore(0, prefix, "file") == 64
    llama.marker, llama.likeliest = "b" * 32, [{"id": 1, "logprob": -1.0}]
    for use in (engine.restore, engine.save, engine.restore):
        with pytest.raises(CacheError, match="restarted"):
            await use(0, prefix, "file")
    assert await engine.ready(), "it is asked anew"
    with pytest.raises(CacheError, match="restarted"):
        await engine.restore(0, prefix, "file")
    after = await prefix_of(engine)
    assert after.identity != prefix.identity
    assert await engine.restore(0, after, "file") == 64


async def prefix_of(engine: ServedEngine) -> StateKey:
    assert await engine.ready()
    assert engine.identity is not None
    return StateKey(engine.identity, bytes(16), 64)


async def test_of_a_server_that_tells_no_process_another_file_is_noticed() -> None:
    for change in ({"meta": {**META, "ftype": "Q4_1"}}, {"path": "/models/other.gguf"}):
        llama = Llama(marker="")
        engine = engine_of(llama)
        prefix = await prefix_of(engine)
        assert await engine.restore(0, prefix, "file") == 64
        vars(llama).update(change)
        with pytest.raises(CacheError, match="restarted"):
            await engine.restore(0, prefix, "file")
        assert (await prefix_of(engine)).identity != prefix.identity


def test_states_of_an_engine_in_this_process_are_known_by_its_files_digest_alone(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF weights")
    local, served = LocalModel("m", file, None), Served("llama_server", answers=True, model=str(file))
    adapter = Llama().adapter("http://127.0.0.1:8080")
    adapter.saves, adapter.build = True, "xllamacpp 1"
    found = opening._identity(adapter.deployment, open_model(adapter.deployment, served, local), adapter, keeps=True)
    assert found == root_hash("llama_server", local.sha256, "xllamacpp 1", "512", "1", "", "", "")
    elsewhere = Llama().adapter()
    elsewhere.saves = True
    model = open_model(elsewhere.deployment, served, local)
    assert opening._identity(elsewhere.deployment, model, elsewhere, keeps=True) is None, "a path on another host"


@pytest.mark.slow
async def test_a_server_that_comes_back_with_another_file_of_the_same_name_computes_anew(tmp_path: Path) -> None:
    file, states = tmp_path / "m.gguf", tmp_path / "states"
    states.mkdir()
    shutil.copyfile(model_path(), file)
    os.utime(file, (1, 1))
    engine = EngineProcess(file, alias="m", api_key=KEY, n_ctx=1024, n_threads=2, slot_save_path=states)
    port = int(engine.root_url.rpartition(":")[2])
    caches = []
    try:
        caches.append(await opened(engine.base_url, states, tmp_path))
        assert await prefilled(caches[0]) > 0
        caches.append(await opened(engine.base_url, states, tmp_path))
        assert await prefilled(caches[1]) == 0, "another process of coa takes the same weights for the same"
        engine.close()
        with file.open("r+b") as weights:  # as long and as old as before
            weights.seek(file.stat().st_size // 2)
            changed = bytes(byte ^ 1 for byte in weights.read(1 << 20))
            weights.seek(-len(changed), os.SEEK_CUR)
            weights.write(changed)
        os.utime(file, (1, 1))
        engine = EngineProcess(file, alias="m", port=port, api_key=KEY, n_ctx=1024, n_threads=2, slot_save_path=states)
        assert await prefilled(caches[0]) > 0, "restored into other weights"
        caches.append(await opened(engine.base_url, states, tmp_path))
        assert await prefilled(caches[2]) > 0, "restored into other weights"
        assert await prefilled(caches[0]) == 0, "and what was saved since is used"
    finally:
        engine.close()
        for cache in caches:
            await cache.close()


async def opened(url: str, states: Path, home: Path) -> KvCache:
    """As another process of coa would have it."""
    info = {"slot_save_path": str(states), "n_ubatch": 128}
    deployment = Deployment("d", "openai/m", "llama_server", url, KEY, info=info)
    served = await ask_all([deployment])
    make = prefix_cache_for(Settings(home=home))
    assert make is not None
    cache = make([open_model(deployment, served["d"])])
    assert isinstance(cache, KvCache)
    return cache


async def prefilled(cache: KvCache) -> int:
    """Tokens that had to be computed before a call."""
    booking = cache.reserve("m", PROMPT, Decoding(max_tokens=4))
    assert booking is not None
    await booking.seat("d")
    prepared = await booking.prepare("d")
    await booking.done(None)
    return prepared.prefilled_tokens
