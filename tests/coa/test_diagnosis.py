"""What the doctor sees, over servers that are well, ill and gone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.config import Settings
from coa.diagnosis import Check, diagnose
from coa.diagnosis import test_model as check_model
from coa.llm.deployments import Deployment
from coa.llm.probes import probe_prefix
from coa.testing.fault_server import ChatRequest, Faults, FaultServer
from coa.testing.models import test_model_path as model_path
from coa.testing.redis_process import RedisProcess
from coa.tokens import EstimatedTokens


def _reply(request: ChatRequest) -> str:
    return '{"colour": "red", "count": 3}' if "apples" in str(request.body["messages"]) else "one two three four"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, n_ctx=4096) as running:
        yield running


def _dead_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def _entry(base_url: str, name: str = "readers", **info: Any) -> dict[str, Any]:
    params = {"model": "openai/fault", "api_base": base_url, "api_key": "k"}
    return {"model_name": name, "litellm_params": params, "model_info": info}


def _settings(home: Path, *entries: dict[str, Any], **changes: Any) -> Settings:
    return Settings.model_validate({"home": home, "model": "readers", "model_list": list(entries), **changes})


def _by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


async def test_a_sound_engine_passes_every_check(tmp_path: Path, server: FaultServer) -> None:
    checks = _by_name(await check_model(_settings(tmp_path, _entry(server.base_url, kind="llama_server"))))
    names = "model tokenizer reachable call streaming price window"
    assert {name: checks[name].status for name in names.split()} == dict.fromkeys(names.split(), "ok")
    assert checks["served window"] == Check("served window", "ok", "4096 tokens")
    assert checks["prefix reuse"].status == "ok"
    assert "tokens cached (first: " in checks["prefix reuse"].detail
    assert checks["structured output"].detail.startswith("JSON as asked; ")
    assert checks["window"].detail.startswith("4096 tokens: chunk ")
    assert server.stats().calls == 4


async def test_the_prefix_is_new_each_time_about_2000_tokens_and_half_a_smaller_window(
    tmp_path: Path, server: FaultServer
) -> None:
    deployment = Deployment("d", "openai/fault", "llama_server", server.base_url)
    counter = EstimatedTokens(0.0)
    model: Any = None  # llama.cpp is called directly
    large = [await probe_prefix(deployment, model, window=8192, counter=counter) for _ in range(2)]
    small = await probe_prefix(deployment, model, window=600, counter=counter)
    for found in large:
        assert 1500 < found.cold.prompt_tokens < 2500
        assert found.warm.cached_tokens > 0.9 * found.cold.prompt_tokens
        assert found.cold.cached_tokens < 100
    assert 150 < small.cold.prompt_tokens < 450
    assert all(request.body["cache_prompt"] is True for request in server.requests)


async def test_a_reply_that_is_no_json_and_a_price_that_nobody_knows_are_warnings(tmp_path: Path) -> None:
    with FaultServer(lambda request: "Red, three.", n_ctx=4096) as server:
        checks = _by_name(await check_model(_settings(tmp_path, _entry(server.base_url, max_input_tokens=4096))))
    assert {n: c.status for n, c in checks.items() if c.status != "ok"} == {
        "tokenizer": "warn",
        "structured output": "warn",
        "price": "warn",
    }
    assert checks["price"].detail.startswith("unknown: set input_cost_per_token")
    assert "not the JSON" in checks["structured output"].detail


async def test_prices_are_shown_by_the_million(tmp_path: Path, server: FaultServer) -> None:
    priced: dict[str, Any] = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2.5e-6, "max_input_tokens": 4096}
    checks = _by_name(await check_model(_settings(tmp_path, _entry(server.base_url, **priced))))
    assert checks["price"] == Check("price", "ok", "$1 in and $2.5 out a million tokens")


async def test_a_call_that_fails_is_a_failure(tmp_path: Path, server: FaultServer) -> None:
    server.faults = Faults(script=["401"] * 8)
    for kind in ("llama_server", "hosted"):
        info: dict[str, Any] = {"kind": kind, "max_input_tokens": 4096}
        failed = await check_model(_settings(tmp_path, _entry(server.base_url, **info)))
        assert [c.name for c in failed if c.status == "fail"] == ["call"]


async def test_what_cannot_be_opened_is_a_failure(tmp_path: Path, server: FaultServer) -> None:
    missing = await check_model(_settings(tmp_path, _entry(server.base_url), model="raeders"))
    assert [(c.name, c.status) for c in missing] == [("model", "fail")]
    wide = _entry(server.base_url, kind="llama_server", max_input_tokens=9000)
    (refused,) = await check_model(_settings(tmp_path, wide))
    assert "serves a window of 4096 tokens, 9000 are configured" in refused.detail
    tight = await check_model(_settings(tmp_path, _entry(server.base_url), chunk_tokens=9000, window=4096))
    assert [c.name for c in tight if c.status == "fail"] == ["window"]


async def test_a_server_that_is_gone_is_a_warning_beside_others_and_a_failure_alone(
    tmp_path: Path, server: FaultServer
) -> None:
    up, down = _entry(server.base_url, kind="llama_server"), _entry(_dead_url(), kind="llama_server", id="gone")
    both = await check_model(_settings(tmp_path, up, down))
    assert [c.name for c in both if c.status == "fail"] == []
    found = _by_name(both)
    assert found["gone: reachable"].status == "warn"
    assert "does not answer (refused)" in found["gone: reachable"].detail
    assert found["readers/0: call"].status == "ok"
    assert "gone: call" not in found, "nothing is called where nothing listens"
    alone = await check_model(_settings(tmp_path, down))
    assert [c.name for c in alone if c.status == "fail"] == ["reachable"]


async def test_every_role_has_its_model_looked_at(tmp_path: Path, server: FaultServer) -> None:
    entries = [_entry(server.base_url, name, kind="llama_server") for name in ("readers", "writers")]
    checks = await check_model(_settings(tmp_path, *entries, roles={"manager": "writers", "judge": "writers"}))
    assert [c.detail for c in checks if c.name == "model"] == [
        "readers: readers/0",
        "writers: writers/1 (plays judge, manager)",
    ]
    assert {"readers/0: call", "writers/1: call", "writers: tokenizer"} <= _by_name(checks).keys()


async def test_kept_replies_do_not_answer_for_a_model(tmp_path: Path, server: FaultServer) -> None:
    settings = _settings(tmp_path, _entry(server.base_url, max_input_tokens=4096), response_cache=True)
    for _ in range(2):
        await check_model(settings)
    assert server.stats().calls == 8


async def test_redis_is_shown_with_its_memory_and_latency(tmp_path: Path, server: FaultServer) -> None:
    entry = _entry(server.base_url, kind="llama_server")
    with RedisProcess() as redis:
        from coa.cache.connection import connect

        found = _by_name(await diagnose(_settings(tmp_path, entry, redis_url=redis.url)))
        assert found["redis server"] == Check("redis server", "ok", f"version {redis.version}")
        assert found["redis memory"] == Check("redis memory", "ok", "no maxmemory, noeviction")
        assert found["redis latency"].status == "ok"
        client = connect(redis.url, timeout_s=1.0)
        client.config_set("maxmemory", 50_000_000)
        client.close()
        full = _by_name(await diagnose(_settings(tmp_path, entry, redis_url=redis.url)))
    assert full["redis memory"].status == "warn"
    assert "of 50.0 MB, noeviction: writes fail when it is full" in full["redis memory"].detail
    assert full["kept replies"].detail.startswith("0 replies, 0 B of 200.0 MB, used 0 times, in unix:")
    assert full["home"].status in ("ok", "warn")
    gone = _by_name(await diagnose(_settings(tmp_path, entry, redis_url="redis://127.0.0.1:1")))
    assert gone["redis server"].status == gone["kept replies"].status == "warn"
    assert "does not answer" in gone["redis server"].detail


async def test_an_address_of_redis_may_stand_in_the_environment(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(tmp_path, _entry(server.base_url), redis_url="os.environ/COA_TEST_REDIS")
    (failed,) = [c for c in await diagnose(settings) if c.status == "fail"]
    assert "COA_TEST_REDIS is not set" in failed.detail
    monkeypatch.setenv("COA_TEST_REDIS", "redis://127.0.0.1:1")
    found = _by_name(await diagnose(settings))
    assert "does not answer" in found["redis server"].detail
    assert found["kept replies"].status == "warn"


@pytest.mark.slow
async def test_the_embedded_engine_reuses_a_prefix_and_keeps_to_a_schema(tmp_path: Path) -> None:
    checks = _by_name(await check_model(Settings(home=tmp_path, model=str(model_path()), window=1024)))
    assert [c.name for c in checks.values() if c.status == "fail"] == []
    assert checks["prefix reuse"].status == "ok"
    assert checks["structured output"].status == "ok"
    assert checks["served window"].detail == "1024 tokens"
