"""A price that nobody knows is unknown: never a crash, and never nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from coa.config import Settings
from coa.errors import ConfigError
from coa.llm.budget import Prices
from coa.llm.deployments import Deployment, group_from_model_list
from coa.llm.gateway import Gateway
from coa.llm.litellm_model import load_litellm
from coa.llm.litellm_requests import list_unknown_models
from coa.llm.opening import OpenModel
from coa.llm.prices import listed_window, prices_of
from coa.tokens import EstimatedTokens

FINE_TUNE = "openai/ft:gpt-4o-mini:some-org::AbC123"


def _listed(entry: object, *, info: object = None) -> Any:
    """litellm with one entry in its list; `info` is what get_model_info gives, or raises."""

    def get_model_info(model: str) -> object:
        if isinstance(info, Exception):
            raise info
        if info is None:
            raise ValueError("This model isn't mapped yet.")
        return info

    return SimpleNamespace(model_cost={"x": entry}, get_model_info=get_model_info)


def _deployment(model: str = "openai/x", kind: Any = "hosted", **info: Any) -> Deployment:
    entry = {"model_name": "g", "litellm_params": {"model": model}, "model_info": {**info, "kind": kind}}
    group = group_from_model_list("g", [entry])
    assert group is not None
    return group.deployments[0]


ODD: list[Any] = [None, 0, 0.0, "", "0.1", "free", -1e-6, float("nan"), float("inf"), True, [], {}, "missing"]


@pytest.mark.parametrize("price", ODD, ids=repr)
@pytest.mark.parametrize("way", ["input", "output"])
def test_odd_entries_of_the_price_list_are_unknown_prices(price: Any, way: str) -> None:
    keys = {f"{way}_cost_per_token": price}
    other = {f"{'output' if way == 'input' else 'input'}_cost_per_token": 0.0 if price in (0, 0.0) else 1e-6}
    entry = other if price == "missing" else {**other, **keys}
    for listed in (_listed(entry), _listed(None, info=entry)):
        assert prices_of(_deployment(), listed) is None
    for window in ODD:
        assert listed_window(_deployment(), _listed({"max_input_tokens": window})) is None


@pytest.mark.parametrize("entry", [None, 3, "text", [], {}])
def test_entries_that_are_no_entries_are_passed_over(entry: object) -> None:
    assert prices_of(_deployment(), _listed(entry, info=entry)) is None
    assert listed_window(_deployment(), _listed(entry, info=RuntimeError("boom"))) is None
    assert prices_of(_deployment(), cast("Any", SimpleNamespace())) is None


def test_a_model_that_is_free_one_way_has_a_price_and_floats_are_windows_too() -> None:
    listed = _listed({"input_cost_per_token": 1e-6, "output_cost_per_token": 0, "max_input_tokens": 128000.0})
    assert prices_of(_deployment(), listed) == Prices(1e-6, 0.0)
    assert listed_window(_deployment(), listed) == 128_000


def test_configured_prices_go_first_and_zero_is_an_answer_there() -> None:
    listed = _listed({"input_cost_per_token": 1.0, "output_cost_per_token": 1.0})
    assert prices_of(_deployment(input_cost_per_token=0, output_cost_per_token=0), listed) == Prices(0.0, 0.0)
    rented = _deployment("hosted_vllm/x", "vllm", input_cost_per_token="1e-7", output_cost_per_token=2e-7)
    assert prices_of(rented, None) == Prices(1e-7, 2e-7), "YAML reads 1e-7 as text"
    assert prices_of(_deployment("hosted_vllm/x", "vllm"), None) == Prices(0.0, 0.0)
    both = {"model": "openai/x", "input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6}
    group = group_from_model_list("g", [{"model_name": "g", "litellm_params": both}])
    assert group is not None
    assert group.deployments[0].prices == Prices(3e-6, 4e-6)


@pytest.mark.parametrize("price", ["free", -1, True, float("nan"), "inf", [1], ""])
def test_a_configured_price_that_is_none_is_refused_by_name(price: object) -> None:
    with pytest.raises(ConfigError, match="input_cost_per_token has to be a number of dollars"):
        _deployment(input_cost_per_token=price, output_cost_per_token=1e-6)


def test_half_a_price_is_refused() -> None:
    with pytest.raises(ConfigError, match="input_cost_per_token is given without output_cost_per_token"):
        _deployment(input_cost_per_token=1e-6, output_cost_per_token=None)


def test_the_real_list_knows_known_models_and_no_fine_tune() -> None:
    litellm = load_litellm()
    known, base = _deployment("openai/gpt-4o-mini"), _deployment("azure/my-deployment", base_model="azure/gpt-4o")
    assert listed_window(known, litellm) == 128_000
    for deployment in (known, base):
        price = prices_of(deployment, litellm)
        assert price is not None
        assert 0 < price.prompt < price.completion
    for name in (FINE_TUNE, "nobody/x", "x", "openai/", "hosted_vllm/"):
        assert prices_of(Deployment("d", name, "hosted"), litellm) is None
        assert listed_window(Deployment("d", name, "hosted"), litellm) is None


def _gateway(**models: tuple[Deployment, ...]) -> Gateway:
    from coa.limits import FULL
    from coa.llm.deployments import ModelGroup

    settings = Settings(model="a", roles={"manager": "b"} if "b" in models else {})
    opened = {n: OpenModel(ModelGroup(n, ds), EstimatedTokens(), 8192, FULL) for n, ds in models.items()}
    return Gateway(settings, opened)


@pytest.mark.parametrize("model", ["openai/served-at-home", "hosted_vllm/served-at-home", FINE_TUNE])
def test_a_model_that_was_entered_for_litellm_to_find_has_no_price_for_that(model: str) -> None:
    litellm = load_litellm()
    list_unknown_models(litellm, [_deployment(model), _deployment("openai/gpt-4o-mini")])
    assert litellm.get_model_info(model=model)["mode"] == "chat"
    assert prices_of(_deployment(model), litellm) is None
    assert listed_window(_deployment(model), litellm) is None
    assert prices_of(_deployment("openai/gpt-4o-mini"), litellm) is not None


async def test_the_dearest_deployment_of_any_role_counts_and_one_unknown_price_makes_it_unknown() -> None:
    cheap = _deployment(input_cost_per_token=1e-6, output_cost_per_token=1e-6)
    dear = _deployment(input_cost_per_token=5e-6, output_cost_per_token=1e-6)
    local = _deployment("hosted_vllm/x", "vllm")
    gateway = _gateway(a=(cheap, local), b=(dear,))
    assert await gateway.cost_of(1000, 1000) == pytest.approx(0.006)
    assert await gateway.role_cost("worker", 1000, 1000) == pytest.approx(0.002)
    assert await gateway.role_cost("manager", 1000, 1000) == pytest.approx(0.006)
    assert await _gateway(a=(local,)).cost_of(10, 10) == 0.0
    unknown = _gateway(a=(cheap, _deployment(FINE_TUNE)))
    assert await unknown.cost_of(10, 10) is None
    await unknown.close()
