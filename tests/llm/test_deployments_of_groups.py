"""Groups of a litellm model_list."""

from __future__ import annotations

from typing import Any

import pytest

from coa.errors import ConfigError
from coa.llm.deployments import group_from_model_list


def _entry(
    model: str = "openai/x", *, name: str = "g", info: dict[str, Any] | None = None, **params: Any
) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}, "model_info": info or {}}


def test_a_group_holds_its_entries_in_order_and_no_others() -> None:
    entries = [_entry("openai/a"), _entry(name="other"), _entry("openai/b", info={"id": "mine"})]
    group = group_from_model_list("g", entries)
    assert group is not None
    assert [(d.id, d.model) for d in group.deployments] == [("g/0", "openai/a"), ("mine", "openai/b")]
    assert group.deployment("mine") is group.deployments[1]
    assert group_from_model_list("nobody", entries) is None


def test_what_litellm_gets_is_what_was_configured_without_retries_of_its_own() -> None:
    entry = _entry(
        api_base="http://host/v1", api_key="k", rpm=3, max_retries=9, info={"max_input_tokens": 9, "kind": "vllm"}
    )
    group = group_from_model_list("g", [entry])
    assert group is not None
    assert group.deployments[0].as_litellm("g") == {
        "model_name": "g",
        "litellm_params": {
            "model": "openai/x",
            "api_base": "http://host/v1",
            "api_key": "k",
            "rpm": 3,
            "max_retries": 0,
        },
        "model_info": {"max_input_tokens": 9, "id": "g/0"},
    }
    assert group.window == 9


@pytest.mark.parametrize(
    ("model", "kind", "local"),
    [
        ("openai/x", "hosted", False),
        ("hosted_vllm/x", "vllm", True),
        ("ollama_chat/x", "ollama", True),
        ("llamafile/x", "llama_server", True),
        ("anthropic/x", "hosted", False),
    ],
)
def test_the_provider_tells_the_kind_where_none_is_given(model: str, kind: str, *, local: bool) -> None:
    group = group_from_model_list("g", [_entry(model)])
    assert group is not None
    assert (group.deployments[0].kind, group.deployments[0].local) == (kind, local)


def test_grammars_need_every_deployment_to_obey_them_and_the_smallest_window_counts() -> None:
    llama = _entry(info={"kind": "llama_server", "max_input_tokens": 8000})
    both = group_from_model_list("g", [llama, _entry(info={"max_input_tokens": 4000})])
    alone = group_from_model_list("g", [llama, _entry(info={"kind": "llama_server"})])
    assert both is not None
    assert alone is not None
    assert (both.supports_grammar, both.window) == (False, 4000)
    assert (alone.supports_grammar, alone.window) == (True, 8000)


def test_an_entry_with_a_star_serves_every_name_of_its_form_that_has_none_of_its_own() -> None:
    entries = [
        _entry(m, name=n) for n, m in (("openai/*", "openai/*"), ("*", "hosted_vllm/*"), ("openai/a", "azure/a"))
    ]
    entries.append(_entry("anthropic/fixed", name="claude-*"))
    served = {
        name: [d.model for d in group.deployments] if (group := group_from_model_list(name, entries)) else None
        for name in ("openai/a", "openai/b", "claude-x", "other")
    }
    assert served == {
        "openai/a": ["azure/a"],
        "openai/b": ["openai/b"],
        "claude-x": ["anthropic/fixed"],
        "other": ["hosted_vllm/other"],
    }
    assert group_from_model_list("claude-", entries[3:]) is None


def test_two_deployments_of_one_group_cannot_have_one_id() -> None:
    with pytest.raises(ConfigError, match="another deployment has the id 'x' already"):
        group_from_model_list("g", [_entry(info={"id": "x"}), _entry(info={"id": "x"})])


@pytest.mark.parametrize(
    ("base_url", "model", "address", "shown"),
    [
        ("http://me:pw@host:1/v1/", "openai/x", "http://me:pw@host:1/v1", "http://host:1"),
        (None, "ollama_chat/x", "http://localhost:11434", "http://localhost:11434"),
        (None, "anthropic/x", None, "anthropic"),
    ],
)
def test_addresses_are_litellms_own_where_none_is_given_and_shown_without_a_login(
    monkeypatch: pytest.MonkeyPatch, base_url: str | None, model: str, address: str | None, shown: str
) -> None:
    monkeypatch.delenv("OLLAMA_API_BASE", raising=False)
    group = group_from_model_list("g", [_entry(model, api_base=base_url)])
    assert group is not None
    assert (group.deployments[0].address, group.deployments[0].shown_address) == (address, shown)


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"model_name": "g"}, r"model_list\[0\] \('g'\) has no litellm_params.model"),
        ({"model_name": "g", "litellm_params": {"model": 3}}, "has no litellm_params.model"),
        (_entry(info={"kind": "llama"}), "kind 'llama' is not one of llama_server, vllm"),
        (_entry(info={"max_input_tokens": "many"}), "max_input_tokens has to be a positive number"),
        (_entry(info={"max_input_tokens": 0}), "max_input_tokens has to be a positive number"),
        (_entry(info={"tokenizer": 3}), "tokenizer has to be a path, 'server' or 'estimate'"),
        ({**_entry(), "model_info": [1]}, "model_info has to be a mapping"),
    ],
)
def test_entries_that_cannot_be_meant_are_refused_with_their_place(entry: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        group_from_model_list("g", [entry])
