"""`litellm_settings` and `router_settings`: what of them holds for calls, and litellm left as it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coa.config import Settings
from coa.errors import ConfigError
from coa.llm.litellm_model import load_litellm
from coa.llm.litellm_settings import SharedState, call_settings, check_router_settings, fallback_groups


def _settings(**values: Any) -> Settings:
    return Settings.model_validate(values)


def test_retries_and_timeouts_are_taken_over_unless_ours_are_set() -> None:
    theirs = {"litellm_settings": {"num_retries": 7, "request_timeout": 33}}
    taken = call_settings(_settings(**theirs))
    assert (taken.retries, taken.timeout_s, taken.warnings, taken.router) == (7, 33.0, (), {})
    router = call_settings(_settings(**theirs, router_settings={"num_retries": 0, "timeout": 5}))
    assert (router.retries, router.timeout_s, router.router) == (0, 5.0, {})
    ours = call_settings(_settings(**theirs, retries=1, timeout_s=60))
    assert (ours.retries, ours.timeout_s) == (1, 60)
    assert (call_settings(_settings()).retries, call_settings(_settings()).timeout_s) == (3, None)


def test_what_is_the_proxys_own_is_named_in_one_warning() -> None:
    settings = {"cache": True, "cache_params": {"host": "os.environ/COA_TEST_UNSET"}, "max_budget": 3}
    (warning,) = call_settings(_settings(litellm_settings={**settings, "drop_params": True})).warnings
    assert warning == "litellm_settings: cache, cache_params, max_budget are for litellm's proxy and not applied here."


def test_fallbacks_of_either_section_reach_the_router_and_retry_policies_do_not() -> None:
    taken = call_settings(
        _settings(
            litellm_settings={"fallbacks": [{"a": ["x"]}], "default_fallbacks": ["d"], "allowed_fails": 2},
            router_settings={"fallbacks": [{"a": ["b"]}], "retry_policy": {"TimeoutErrorRetries": 5}},
        )
    )
    assert taken.router == {"fallbacks": [{"a": ["b"]}], "default_fallbacks": ["d"], "allowed_fails": 2}
    assert taken.warnings == ("router_settings: retry_policy are not applied: coa's own `retries` are all there is.",)


def test_variables_are_looked_up_only_where_the_value_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COA_TEST_BUNDLE", "bundle.pem")
    assert (
        call_settings(_settings(litellm_settings={"ssl_verify": "os.environ/COA_TEST_BUNDLE"})).verify == "bundle.pem"
    )
    with pytest.raises(ConfigError, match="COA_TEST_UNSET is not set"):
        call_settings(_settings(litellm_settings={"ssl_verify": "os.environ/COA_TEST_UNSET"}))


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"num_retries": "many"}, "num_retries: expected a whole number"),
        ({"num_retries": -1}, "num_retries: expected a whole number"),
        ({"request_timeout": 0}, "request_timeout: expected seconds above 0"),
        ({"success_callback": 3}, "success_callback: expected a list of names"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(given: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        call_settings(_settings(litellm_settings=given))


def test_fallbacks_are_followed_from_group_to_group() -> None:
    router = {
        "fallbacks": [{"a": ["b"]}, {"b": ["c", "a"]}, {"x": ["y"]}],
        "default_fallbacks": ["d"],
        "context_window_fallbacks": [{"a": ["long", "b"]}, {"*": [{"model": "longer"}]}],
    }
    assert fallback_groups(router, "a") == (["b", "d", "c"], ["long", "longer"])
    assert fallback_groups({}, "a") == ([], [])
    wrong: dict[str, Any]
    for wrong in ({"fallbacks": "b"}, {"fallbacks": [{"a": "b"}]}, {"default_fallbacks": [{"a": []}]}):
        with pytest.raises(ConfigError, match="expected"):
            fallback_groups(wrong, "a")


def test_router_settings_that_this_litellm_does_not_know_are_named() -> None:
    litellm = load_litellm()
    check_router_settings({"routing_strategy": "least-busy", "cooldown_time": 3}, litellm)
    with pytest.raises(ConfigError, match=r"litellm [\d.]+ does not know 'frobnicate', 'routing_strateg' \(did you"):
        check_router_settings({"routing_strateg": "x", "frobnicate": 1}, litellm)
    later: Any = SimpleNamespace(Router=type("Router", (), {"__init__": lambda self, *args, **kwargs: None}))
    check_router_settings({"frobnicate": 1}, later)


def _litellm() -> Any:
    lists = ("callbacks", "success_callback", "failure_callback", "service_callback", "_async_success_callback")
    return SimpleNamespace(modify_params=False, ssl_verify=True, drop_params=None, **{name: [] for name in lists})


def test_litellm_is_put_back_when_the_last_model_closes() -> None:
    litellm = _litellm()
    litellm.success_callback.append("host")
    wanted = call_settings(
        _settings(litellm_settings={"modify_params": True, "success_callback": ["host", "langfuse"]})
    )
    first, second = SharedState(litellm, wanted), SharedState(litellm, wanted)
    assert (litellm.modify_params, litellm.drop_params) == (True, None)
    assert litellm.success_callback == ["host", "langfuse"], "once, and beside the host's own"
    litellm._async_success_callback.append("langfuse")  # litellm spreads them
    first.release()
    first.release()
    assert (litellm.modify_params, litellm.success_callback) == (True, ["host", "langfuse"])
    second.release()
    assert (litellm.modify_params, litellm.success_callback) == (False, ["host"])
    assert litellm._async_success_callback == []


def test_what_two_models_want_differently_is_the_later_ones_until_it_closes() -> None:
    litellm = _litellm()
    states = [
        SharedState(litellm, call_settings(_settings(litellm_settings={"ssl_verify": value}))) for value in (False, "b")
    ]
    assert litellm.ssl_verify == "b"
    states[1].release()
    assert litellm.ssl_verify is False
    states[0].release()
    assert litellm.ssl_verify is True


def test_a_callback_of_ones_own_is_imported_from_the_path_alone() -> None:
    litellm = _litellm()
    wanted = call_settings(_settings(litellm_settings={"callbacks": ["json.dumps"]}))
    state = SharedState(litellm, wanted)
    import json

    assert litellm.callbacks == [json.dumps]
    state.release()
    assert litellm.callbacks == []
    for name in ("no_such_module.handler", "json.no_such_handler"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            SharedState(litellm, call_settings(_settings(litellm_settings={"callbacks": [name]})))
    assert litellm.callbacks == []
