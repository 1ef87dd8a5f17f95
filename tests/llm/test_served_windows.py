"""What engines say that they serve, each in its own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from coa.llm.deployments import Deployment
from coa.llm.served import OLLAMA_DEFAULT_WINDOW, Served, ask_all, ask_served

if TYPE_CHECKING:
    from tests.llm.conftest import Engine

Serve = Callable[[Mapping[str, Any]], "Engine"]

LLAMA = {
    "GET /props": {
        "default_generation_settings": {"id": 0, "n_ctx": 6144, "speculative": False, "is_processing": False},
        "total_slots": 4,
        "model_path": "models/reader.gguf",
        "chat_template": "…",
    },
    "GET /v1/models": {
        "object": "list",
        "data": [
            {
                "id": "reader",
                "object": "model",
                "owned_by": "llamacpp",
                "meta": {"vocab_type": 2, "n_vocab": 32000, "n_ctx_train": 32768, "n_params": 7_000_000_000},
            }
        ],
    },
    "POST /tokenize": {"tokens": [3, 1, 4]},
}
SGLANG = {
    "GET /v1/models": {
        "data": [{"id": "reader", "owned_by": "sglang", "root": "reader", "max_model_len": 32768}],
    },
    "GET /get_server_info": {
        "model_path": "org/reader",
        "context_length": None,
        "status": "ready",
        "max_total_num_tokens": 20480,
        "max_req_input_len": 20474,
        "internal_states": [{}],
    },
    "POST /tokenize": {"tokens": [1, 2], "count": 2, "max_model_len": 131072},
}
OLLAMA: dict[str, Any] = {
    "POST /api/show": {
        "parameters": 'stop                           "<|im_end|>"\nnum_ctx                        16384',
        "model_info": {
            "general.architecture": "qwen2",
            "general.parameter_count": 494_032_768,
            "qwen2.context_length": 32768,
        },
        "capabilities": ["completion"],
    },
    "GET /api/ps": {
        "models": [{"name": "reader:latest", "model": "reader:latest", "size_vram": 1, "context_length": 12288}]
    },
    "GET /v1/models": {"object": "list", "data": [{"id": "reader:latest", "object": "model", "owned_by": "library"}]},
}


def _at(engine: Engine, model: str = "openai/reader", kind: Any = "hosted", **more: Any) -> Deployment:
    return Deployment("d", model, kind, engine.base_url, "key-1", kind_is_sure=kind != "hosted", **more)


async def test_llama_cpp_serves_the_window_of_one_slot(serve: Serve) -> None:
    engine = serve(LLAMA)
    meta = (2, 32000, None, 7_000_000_000, None, None)
    expected = Served("llama_server", True, 6144, 7_000_000_000, "models/reader.gguf", (3, 1, 4), meta)
    assert await ask_served(_at(engine, kind="llama_server")) == expected
    assert await ask_served(_at(engine)) == expected, "found out by asking"
    assert engine.keys == {"Bearer key-1"}


async def test_vllm_serves_its_longest_model(vllm: Engine) -> None:
    served = await ask_served(_at(vllm, "hosted_vllm/reader", "vllm"))
    assert (served.window, served.model, served.problem) == (4096, "org/reader-7b", None)
    assert served.fingerprint is not None
    other = await ask_served(_at(vllm, "hosted_vllm/writer", "vllm"))
    assert other.problem == "serves 'reader', not 'writer'"
    assert (await ask_served(_at(vllm))).kind == "vllm"


async def test_sglang_serves_what_its_memory_holds(serve: Serve) -> None:
    served = await ask_served(_at(serve(SGLANG), kind="sglang"))
    assert (served.window, served.model, served.fingerprint) == (20480, "org/reader", (1, 2))
    newer = {**SGLANG, "GET /server_info": SGLANG["GET /get_server_info"]}
    del newer["GET /get_server_info"]
    assert (await ask_served(_at(serve(newer)))).window == 20480
    silent = {**SGLANG, "GET /get_server_info": 404}
    assert (await ask_served(_at(serve(silent)))).window == 32768


@pytest.mark.parametrize(
    ("configured", "wanted", "params", "loaded", "expected"),
    [
        (None, None, {}, True, 12288),
        (None, None, {}, False, 16384),
        (24000, None, {}, True, 24000),
        (None, 9000, {}, True, 9000),
        (None, None, {"num_ctx": 2048}, True, 2048),
        (99_999, None, {}, True, 32768),
    ],
    ids=["as loaded", "as its Modelfile says", "configured", "--window", "num_ctx", "never more than trained"],
)
async def test_ollama_is_told_the_window_since_it_would_cut_longer_prompts_in_silence(
    serve: Serve, configured: int | None, wanted: int | None, params: dict[str, int], *, loaded: bool, expected: int
) -> None:
    engine = serve(OLLAMA if loaded else {**OLLAMA, "GET /api/ps": {"models": []}})
    deployment = Deployment("d", "ollama_chat/reader", "ollama", engine.root_url, window=configured, params=params)
    served = await ask_served(deployment, wanted=wanted)
    assert (served.window, served.send, served.n_params) == (expected, {"num_ctx": expected}, 494_032_768)


async def test_ollamas_openai_endpoint_cannot_be_told_so_what_is_loaded_counts(serve: Serve) -> None:
    assert (await ask_served(_at(serve(OLLAMA)))).kind == "ollama"
    loaded = await ask_served(_at(serve(OLLAMA), kind="ollama"), wanted=30000)
    assert (loaded.window, loaded.send) == (12288, {})
    bare = {"POST /api/show": {"model_info": {"x.context_length": 32768}}}
    assert (await ask_served(_at(serve(bare), kind="ollama"))).window == OLLAMA_DEFAULT_WINDOW


async def test_a_model_that_ollama_does_not_have_is_named_with_the_command(serve: Serve) -> None:
    served = await ask_served(Deployment("d", "ollama/other", "ollama", serve({"GET /api/ps": {}}).root_url))
    assert served.problem == "has no model 'other' (ollama pull other)"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_is_told(serve: Serve, status: int) -> None:
    answers = dict.fromkeys(["GET /v1/models", "GET /props"], status)
    for kind in ("vllm", "llama_server", "sglang"):
        served = await ask_served(_at(serve(answers), kind=kind))
        assert (served.answers, served.problem, served.window) == (True, "refuses the key", None)


async def test_a_server_that_loads_its_model_is_told(serve: Serve) -> None:
    served = await ask_served(_at(serve({"GET /props": 503}), kind="llama_server"))
    assert served.problem == "is still loading its model"


@pytest.mark.parametrize("kind", ["llama_server", "vllm", "sglang", "ollama", "hosted"])
async def test_replies_that_make_no_sense_leave_the_window_unknown(serve: Serve, kind: Any) -> None:
    paths = ["GET /v1/models", "GET /props", "POST /tokenize", "GET /get_server_info", "POST /api/show", "GET /api/ps"]
    engine = serve({})
    odd = '{"data": [{"max_model_len": "4096"}], "tokens": ["a"], "model_info": 3}'
    for body in ("", "[]", "null", "<html>", "{", '{"data": 3}', '{"data": [null], "tokens": 5}', odd):
        engine.answers = dict.fromkeys(paths, body)
        served = await ask_served(_at(engine, kind=kind))
        assert served.answers
        assert (served.window, served.fingerprint) == (None, None), body


async def test_an_engine_without_an_address_is_told_and_a_hosted_list_may_be_private(serve: Serve) -> None:
    assert (await ask_served(Deployment("d", "sglang/x", "sglang"))).problem == "has no api_base"
    private = await ask_served(_at(serve({"GET /v1/models": 403})))
    assert private == Served("hosted", True)


async def test_hosted_models_without_an_address_are_not_asked() -> None:
    assert await ask_served(Deployment("d", "openai/gpt-4o", "hosted")) == Served("hosted", True)


async def test_a_dead_server_is_told_at_once_and_a_silent_one_soon(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coa.llm.served._READ_TIMEOUT_S", 0.3)
    gone = serve({})
    gone.close()

    def hang(_body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(3.0)
        return {}

    silent = serve({"GET /v1/models": hang})
    started = time.perf_counter()
    found = await ask_all(
        [Deployment(n, "hosted_vllm/x", "vllm", e.base_url) for n, e in (("gone", gone), ("silent", silent))]
    )
    assert time.perf_counter() - started < 2.5
    assert {n: (s.answers, s.problem) for n, s in found.items()} == {
        "gone": (False, "does not answer (refused)"),
        "silent": (False, "does not answer (timed out)"),
    }
    weird = await ask_served(Deployment("d", "hosted_vllm/x", "vllm", "http://[::1"))
    assert weird.problem is not None
