"""Groups of several deployments, and models of single roles."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from coa.config import Settings
from coa.errors import ConfigError, LimitsError, ModelNotFound, ModelUnavailable
from coa.limits import FULL, SMALL
from coa.llm.chat import Decoding
from coa.llm.engine_tokens import EngineTokens
from coa.llm.gateway import Gateway, open_gateway
from coa.llm.litellm_model import load_litellm
from coa.llm.token_counters import LargerTokens
from coa.planning import limits_for
from coa.reading import Prompt
from coa.testing.fault_server import FaultServer
from coa.testing.models import test_model_path as model_path

if TYPE_CHECKING:
    from tests.llm.conftest import Engine

Serve = Callable[[Mapping[str, Any]], "Engine"]
ASK = Prompt(tail="Who took the key?")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda request: "Ada.", n_ctx=4096) as running:
        yield running


@pytest.fixture
def small_server() -> Iterator[FaultServer]:
    with FaultServer(lambda request: "Bob.", n_ctx=1024) as running:
        yield running


def _entry(name: str, base_url: str, model: str = "openai/fault", **info: Any) -> dict[str, Any]:
    params = {"model": model, "api_base": base_url, "api_key": "k"}
    return {"model_name": name, "litellm_params": params, "model_info": info}


def _settings(home: Path, *entries: dict[str, Any], **changes: Any) -> Settings:
    return Settings.model_validate({"home": home, "model": "readers", "model_list": list(entries), **changes})


async def _opened(settings: Settings) -> Gateway:
    return await open_gateway(settings, calls=False)


async def test_of_several_deployments_the_smallest_window_counts(
    tmp_path: Path, server: FaultServer, small_server: FaultServer
) -> None:
    entries = [
        _entry("readers", s.base_url, kind="llama_server", max_input_tokens=900 + n)
        for n, s in enumerate((server, small_server))
    ]
    entries[0]["model_info"]["max_input_tokens"] = 4000
    gateway = await _opened(_settings(tmp_path, *entries))
    assert (gateway.window, gateway.group.window) == (901, 901)
    assert gateway.counter.exact
    await gateway.close()


async def test_a_server_that_is_down_is_a_warning_beside_others_and_an_error_at_the_first_call_alone(
    tmp_path: Path, server: FaultServer, serve: Serve
) -> None:
    gone = serve({})
    gone.close()
    up = _entry("readers", server.base_url, kind="llama_server")
    down = _entry("readers", gone.base_url, kind="llama_server", id="gone")
    gateway = await _opened(_settings(tmp_path, up, down))
    assert gateway.warnings == (f"gone at {gone.root_url} does not answer (refused). It may come back.",)
    assert gateway.window == 4096
    assert isinstance(gateway.counter, EngineTokens)
    assert (await (await gateway.chat_model()).complete(ASK, Decoding(5))).text == "Ada."
    await gateway.close()

    alone = await _opened(_settings(tmp_path, down, retries=0))
    assert alone.warnings[0] == f"gone at {gone.root_url} does not answer (refused)."
    assert not alone.counter.exact
    model = await alone.chat_model()
    with pytest.raises(ModelUnavailable):
        await model.complete(ASK, Decoding(5))
    await alone.close()


async def test_a_login_in_an_address_is_in_no_warning(tmp_path: Path) -> None:
    entry = _entry("readers", "http://me:hidden-word@127.0.0.1:9/v1", kind="vllm")
    gateway = await _opened(_settings(tmp_path, entry))
    assert "http://127.0.0.1:9 does not answer" in gateway.warnings[0]
    assert "hidden-word" not in str(gateway.warnings)
    await gateway.close()


async def test_an_engine_behind_an_openai_address_is_found_out(tmp_path: Path, vllm: Engine) -> None:
    gateway = await _opened(_settings(tmp_path, _entry("readers", vllm.base_url, "openai/reader")))
    assert (gateway.group.deployments[0].kind, gateway.window, gateway.warnings) == ("vllm", 4096, ())
    assert gateway.counter.exact
    assert await gateway.cost_of(10, 10) == 0.0
    await gateway.close()
    wide = _entry("readers", vllm.base_url, "openai/reader", max_input_tokens=32768)
    with pytest.raises(ConfigError, match=r"window of 4096 tokens, 32768 are configured.*--max-model-len 32768"):
        await _opened(_settings(tmp_path, wide))


async def test_ollama_is_sent_the_window_with_every_call(tmp_path: Path, serve: Serve) -> None:
    engine = serve(
        {
            "POST /api/show": {"model_info": {"llama.context_length": 8192, "general.parameter_count": 10}},
            "GET /api/ps": {"models": []},
            "POST /api/chat": {
                "model": "reader",
                "message": {"role": "assistant", "content": "Ada."},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 12,
                "eval_count": 2,
            },
        }
    )
    entry = _entry("readers", engine.root_url, "ollama_chat/reader", max_input_tokens=6000)
    gateway = await _opened(_settings(tmp_path, entry))
    assert (gateway.window, gateway.profile) == (6000, SMALL)
    assert (await (await gateway.chat_model()).complete(ASK, Decoding(5))).text == "Ada."
    assert [body["options"]["num_ctx"] for body in engine.asked("POST /api/chat")] == [6000]
    await gateway.close()
    wide = _entry("readers", engine.root_url, "ollama_chat/reader", max_input_tokens=16000)
    with pytest.raises(ConfigError, match="serves a window of 8192 tokens, 16000 are configured"):
        await _opened(_settings(tmp_path, wide))


async def test_a_hosted_deployment_beside_an_exact_one_counts_by_the_larger(
    tmp_path: Path, server: FaultServer, small_server: FaultServer
) -> None:
    entries = [_entry("readers", server.base_url, kind="llama_server"), _entry("spare", small_server.base_url)]
    fallbacks = {"fallbacks": [{"readers": ["spare"]}]}
    gateway = await _opened(_settings(tmp_path, *entries, router_settings=fallbacks))
    assert isinstance(gateway.counter, LargerTokens)
    assert "larger of fault, estimate" in gateway.counter.name
    server.stop()
    reply = await (await gateway.chat_model()).complete(ASK, Decoding(5))
    assert reply.text == "Bob."
    await gateway.close()


async def test_the_group_for_prompts_that_are_too_long_bounds_nothing(
    tmp_path: Path, server: FaultServer, small_server: FaultServer
) -> None:
    entries = [
        _entry("readers", server.base_url, kind="llama_server"),
        _entry("spare", small_server.base_url, kind="llama_server"),
    ]
    for key, window in (("fallbacks", 1024), ("context_window_fallbacks", 4096)):
        settings = _settings(tmp_path, *entries, litellm_settings={key: [{"readers": ["spare"]}]})
        gateway = await _opened(settings)
        assert gateway.window == window
        await gateway.close()


async def test_an_alias_of_the_router_leads_to_its_group(tmp_path: Path, server: FaultServer) -> None:
    aliases = {"gpt": "readers", "other": {"model": "readers", "hidden": True}}
    for alias in aliases:
        settings = _settings(
            tmp_path, _entry("readers", server.base_url), model=alias, router_settings={"model_group_alias": aliases}
        )
        gateway = await _opened(settings)
        assert gateway.group.name == "readers"
        assert (await (await gateway.chat_model()).complete(ASK, Decoding(5))).text == "Ada."
        await gateway.close()


async def test_a_fallback_that_is_no_group_is_told_before_the_first_call(tmp_path: Path, server: FaultServer) -> None:
    settings = _settings(
        tmp_path, _entry("readers", server.base_url), router_settings={"default_fallbacks": ["raeders"]}
    )
    with pytest.raises(ConfigError, match=r"fallback 'raeders' is no group of model_list; did you mean 'readers'"):
        await _opened(settings)


async def test_keys_of_groups_that_are_not_used_need_not_be_set(tmp_path: Path, server: FaultServer) -> None:
    other = _entry("other", "os.environ/COA_TEST_UNSET")
    settings = _settings(
        tmp_path, other, _entry("readers", server.base_url), router_settings={"fallbacks": [{"other": ["x"]}]}
    )
    await (await _opened(settings)).close()


async def test_each_role_has_its_model_and_roles_of_one_model_share_it(
    tmp_path: Path, server: FaultServer, small_server: FaultServer
) -> None:
    readers = _entry("readers", server.base_url, kind="llama_server")
    answerers = _entry("answerers", small_server.base_url, max_input_tokens=2000)
    roles = {"manager": "answerers", "judge": "answerers"}
    gateway = await _opened(_settings(tmp_path, readers, answerers, roles=roles))
    worker, manager, judge, main = await asyncio.gather(
        *(gateway.role_model(role) for role in ("worker", "manager", "judge")), gateway.chat_model()
    )
    assert main is worker
    assert manager is judge
    assert manager is not worker
    texts = [(await model.complete(ASK, Decoding(5))).text for model in (worker, manager)]
    assert texts == ["Ada.", "Bob."]
    assert (gateway.window, gateway.role("manager").window, gateway.role("worker").window) == (2000, 2000, 4096)
    assert (gateway.group.name, gateway.counter.exact) == ("readers", True)
    assert gateway.role_profile("manager") is FULL
    assert gateway.named("answerers") is gateway.role("judge")
    assert gateway.named("nobody") is None
    await gateway.close()


async def test_the_workers_model_stands_in_for_a_default_that_nobody_chose(tmp_path: Path, server: FaultServer) -> None:
    settings = Settings(home=tmp_path, roles={"worker": "readers"}, model_list=[_entry("readers", server.base_url)])
    gateway = await _opened(settings)
    assert gateway.group.name == "readers"
    await gateway.close()


async def test_a_role_whose_model_is_not_there_opens_nothing(tmp_path: Path, server: FaultServer) -> None:
    settings = _settings(tmp_path, _entry("readers", server.base_url), roles={"judge": "raeders"})
    with pytest.raises(ModelNotFound, match="did you mean 'readers'"):
        await _opened(settings)


async def test_limits_hold_for_the_smallest_window_of_all_roles(
    tmp_path: Path, server: FaultServer, small_server: FaultServer
) -> None:
    readers = _entry("readers", server.base_url, kind="llama_server")
    answerers = _entry("answerers", small_server.base_url, max_input_tokens=700)
    settings = _settings(tmp_path, readers, answerers, roles={"manager": "answerers"})
    gateway = await _opened(settings)
    with pytest.raises(LimitsError, match=r"window.*700"):
        await asyncio.to_thread(limits_for, gateway, settings.model_copy(update={"chunk_tokens": 1500}))
    await gateway.close()
    alone = await _opened(settings.model_copy(update={"roles": {}}))
    limits = await asyncio.to_thread(limits_for, alone, settings.model_copy(update={"chunk_tokens": 1500}))
    assert limits.worker_tokens <= 4096
    await alone.close()


async def test_settings_of_litellm_hold_while_the_model_is_open(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    litellm = load_litellm()
    before = (litellm.modify_params, list(litellm.success_callback))
    called: asyncio.Queue[str] = asyncio.Queue()

    async def on_success(kwargs: dict[str, Any], *_others: object) -> None:
        called.put_nowait(kwargs["model"])

    monkeypatch.setitem(sys.modules, "coa_test_callbacks", SimpleNamespace(on_success=on_success))
    settings = _settings(
        tmp_path,
        _entry("readers", server.base_url),
        litellm_settings={
            "modify_params": not before[0],
            "success_callback": ["coa_test_callbacks.on_success"],
            "cache": True,
        },
        router_settings={"routing_strategy": "least-busy"},
    )
    gateway = await _opened(settings)
    assert gateway.warnings[-1].startswith("litellm_settings: cache are for litellm's proxy")
    assert litellm.modify_params is before[0], "not before a model is made"
    await (await gateway.chat_model()).complete(ASK, Decoding(5))
    assert await asyncio.wait_for(called.get(), 5) == "fault"
    assert litellm.modify_params is not before[0]
    await gateway.close()
    assert (litellm.modify_params, list(litellm.success_callback)) == before
    wrong = await _opened(settings.model_copy(update={"router_settings": {"cooldown_tim": 1}}))
    with pytest.raises(ConfigError, match="did you mean 'cooldown_time'"):
        await wrong.chat_model()
    await wrong.close()
    assert (litellm.modify_params, list(litellm.success_callback)) == before


async def test_a_group_may_name_a_model_that_is_not_there(tmp_path: Path) -> None:
    entry = {"model_name": "readers", "litellm_params": {"model": "coa/smollm2-135m"}}
    with pytest.raises(ModelNotFound, match=r"coa models pull smollm2-135m"):
        await _opened(_settings(tmp_path, entry))


@pytest.mark.slow
async def test_an_engine_of_our_own_is_one_deployment_among_others(tmp_path: Path, server: FaultServer) -> None:
    file = model_path()
    own = {
        "model_name": "readers",
        "litellm_params": {"model": f"coa/{file}"},
        "model_info": {"id": "own", "max_input_tokens": 2048},
    }
    settings = _settings(
        tmp_path, own, _entry("readers", server.base_url, kind="llama_server"), roles={"judge": "again"}
    )
    again = {
        "model_name": "again",
        "litellm_params": {"model": f"coa/{file}"},
        "model_info": {"max_input_tokens": 2048},
    }
    settings = settings.model_copy(update={"model_list": [*settings.model_list, again]})
    gateway = await _opened(settings)
    engine = gateway.engine
    assert engine is not None
    assert engine.n_ctx == 2048
    assert gateway.window == 2048
    assert isinstance(gateway.counter, LargerTokens), "the fault server has a tokenizer of its own"
    assert gateway.role("judge").group.deployments[0].base_url == engine.base_url, "one engine for one file"
    assert gateway.role("judge").counter.exact
    model = await gateway.chat_model()
    server.stop()
    answers = {(await model.complete(ASK, Decoding(4))).deployment for _ in range(3)}
    assert answers == {"own"}
    await gateway.close()
    assert engine.closed
