"""From a model's name to a gateway, over a server that says what it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.config import Settings
from coa.errors import ConfigError, ModelNotFound
from coa.llm.engine_tokens import EngineTokens
from coa.llm.gateway import Gateway, open_gateway
from coa.testing.fault_server import FaultServer


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(n_ctx=4096) as running:
        yield running


def _settings(home: Path, server: FaultServer, *, info: dict[str, Any] | None = None, **changes: Any) -> Settings:
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "k"},
        "model_info": info or {},
    }
    return Settings.model_validate({"home": home, "model": "readers", "model_list": [entry], **changes})


async def _opened(settings: Settings) -> Gateway:
    return await open_gateway(settings, calls=False)


async def test_a_llama_server_is_asked_for_its_window_and_tokens(tmp_path: Path, server: FaultServer) -> None:
    gateway = await _opened(_settings(tmp_path, server, info={"kind": "llama_server"}))
    assert gateway.window == 4096
    assert isinstance(gateway.counter, EngineTokens)
    assert gateway.warnings == ()
    assert await gateway.cost_of(1000, 1000) == 0.0
    await gateway.close()


async def test_a_hosted_group_without_a_window_warns_and_assumes_one(tmp_path: Path, server: FaultServer) -> None:
    gateway = await _opened(_settings(tmp_path, server))
    assert gateway.window == 8192
    assert not gateway.counter.exact
    assert "window of 'readers' is unknown" in gateway.warnings[0]
    await gateway.close()
    given = await _opened(_settings(tmp_path, server, window=3000))
    assert (given.window, given.warnings) == (3000, ())
    await given.close()


async def test_prices_are_the_configured_ones_or_unknown(tmp_path: Path, server: FaultServer) -> None:
    priced = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_input_tokens": 9000}
    gateway = await _opened(_settings(tmp_path, server, info=priced))
    assert await gateway.cost_of(1000, 100) == pytest.approx(0.0012)
    await gateway.close()
    unknown = await _opened(_settings(tmp_path, server, info={"max_input_tokens": 9000}))
    assert await unknown.cost_of(1000, 100) is None
    await unknown.close()


@pytest.mark.parametrize(
    ("info", "changes", "part"),
    [
        ({"kind": "llama_server", "max_input_tokens": 9000}, {}, "serves a window of 4096 tokens, 9000 are configured"),
        ({"kind": "llama_server"}, {"window": 5000}, "--window 5000 is more than 'readers' serves"),
        ({"max_input_tokens": 4000}, {"window": 5000}, "--window 5000 is more than 'readers' serves"),
    ],
)
async def test_windows_that_contradict_each_other_are_refused(
    tmp_path: Path, server: FaultServer, info: dict[str, Any], changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(ConfigError, match=part):
        await _opened(_settings(tmp_path, server, info=info, **changes))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("raeders", "did you mean 'readers'"),
        ("smollm2-135m", "coa models pull smollm2-135m"),
        ("./missing.gguf", "no model file"),
        ("nobody/gpt", "does not know the provider"),
        ("zzzzzz", "there is no model 'zzzzzz'"),
    ],
)
async def test_names_that_nothing_answers_to(tmp_path: Path, server: FaultServer, name: str, part: str) -> None:
    with pytest.raises(ModelNotFound, match=part):
        await _opened(_settings(tmp_path, server, model=name) if name != "x" else Settings())


async def test_a_known_hosted_model_brings_its_window(tmp_path: Path) -> None:
    gateway = await _opened(Settings(home=tmp_path, model="openai/gpt-4o-mini"))
    assert gateway.window == 128_000
    assert gateway.group.deployments[0].kind == "hosted"
    cost = await gateway.cost_of(1_000_000, 0)
    assert cost is not None
    assert cost > 0
    await gateway.close()


async def test_an_unset_variable_in_a_key_is_told_by_name(tmp_path: Path, server: FaultServer) -> None:
    settings = _settings(tmp_path, server)
    settings.model_list[0]["litellm_params"]["api_key"] = "os.environ/COA_TEST_NO_SUCH_KEY"
    with pytest.raises(ConfigError, match="COA_TEST_NO_SUCH_KEY is not set"):
        await _opened(settings)


async def test_a_gateway_has_one_model_however_many_ask_for_it(tmp_path: Path, server: FaultServer) -> None:
    gateway = await _opened(_settings(tmp_path, server))
    first, second = await asyncio.gather(gateway.chat_model(), gateway.chat_model())
    assert first is second
    await gateway.close()
