"""The compose file of two GPU engines, and the configuration that goes with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from coa.cache.kv_feed import KvSource, binds, kv_source
from coa.config import load_settings
from coa.llm.deployments import Deployment, group_from_model_list

FOLDER = Path(__file__).parents[2] / "examples" / "gpu"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "docker-compose.yaml").read_text(encoding="utf-8"))
    assert found.keys() == {"services", "volumes"}
    return dict(found["services"])


@pytest.fixture(scope="module")
def deployments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Deployment]:
    home = tmp_path_factory.mktemp("home")
    settings = load_settings(config=FOLDER / "coa.yaml", overrides={"home": home}).settings
    group = group_from_model_list(settings.model, settings.model_list)
    assert group is not None
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    return {deployment.id: deployment for deployment in group.deployments}


def _options(service: dict[str, Any]) -> dict[str, str]:
    pairs = (option.partition("=") for option in service["command"])
    return {name: value for name, _, value in pairs}


def _ports(service: dict[str, Any]) -> set[str]:
    return {mapping.rpartition(":")[0] for mapping in service["ports"]}


def test_the_group_is_two_engines_of_one_model(deployments: dict[str, Deployment]) -> None:
    assert {d.id: (d.kind, d.served_name) for d in deployments.values()} == {
        "vllm-0": ("vllm", "reader"),
        "llama-0": ("llama_server", "reader"),
    }


def test_every_address_is_one_that_a_service_listens_at(
    services: dict[str, Any], deployments: dict[str, Deployment]
) -> None:
    vllm, llama = (deployments[name].info or {} for name in ("vllm-0", "llama-0"))
    source = kv_source(vllm, "vllm-0")
    assert source == KvSource("tcp://127.0.0.1:5557", "tcp://127.0.0.1:5558", "kv@vllm")
    called = {"vllm": deployments["vllm-0"].root_url, "llama": deployments["llama-0"].root_url}
    assert {str(url).removeprefix("http://") for url in (called["vllm"],)} < _ports(services["vllm"])
    assert {str(url).removeprefix("http://") for url in (called["llama"],)} == _ports(services["llama"])
    assert {str(a).removeprefix("tcp://") for a in (source.events, source.replay)} < _ports(services["vllm"])
    assert _ports(services["redis"]) == {"127.0.0.1:6379"}
    assert llama["slot_save_path"] == "./kv"


def test_vllm_publishes_what_coa_listens_to(services: dict[str, Any], deployments: dict[str, Deployment]) -> None:
    options = _options(services["vllm"])
    events = json.loads(options["--kv-events-config"])
    assert events["enable_kv_cache_events"]
    assert binds(events["endpoint"])
    assert events["topic"] == (deployments["vllm-0"].info or {})["kv_topic"]
    assert {"--enable-prefix-caching", "--enable-prompt-tokens-details"} <= options.keys()
    assert options["--served-model-name"] == "reader"


def test_llama_cpp_saves_slots_where_coa_looks(services: dict[str, Any], deployments: dict[str, Deployment]) -> None:
    options, info = _options(services["llama"]), deployments["llama-0"].info or {}
    host, _, inside = services["llama"]["volumes"][1].rpartition(":")
    assert options["--slot-save-path"] == inside == "/kv"
    assert host == "${COA_KV:-./kv}"
    assert options["--ubatch-size"] == str(info["n_ubatch"])
    assert int(options["--ctx-size"]) // int(options["--parallel"]) == 16384
    assert "--metrics" in options


def test_nothing_listens_beyond_this_machine_and_each_engine_has_a_gpu(services: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    gpus = [
        services[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for name in ("vllm", "llama")
    ]
    assert gpus == [["0"], ["1"]]
    assert all(service["healthcheck"]["test"][0] == "CMD" for service in services.values())
