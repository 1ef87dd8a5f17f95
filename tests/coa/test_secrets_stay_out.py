"""What of the settings is stored with a run, and how it comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coa.config import Settings, masked
from coa.secrets import secret_strings, with_secrets, without_secrets

SECRET = "sk-0123456789-do-not-store"


def _settings(secret: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "home": Path("/nowhere"),
        "model": "readers",
        "model_list": [
            {
                "model_name": "readers",
                "litellm_params": {
                    "model": "openai/x",
                    "api_key": secret,
                    "aws_secret_access_key": secret,
                    "extra_headers": {"X-Team": secret, "Cookie": secret},
                    "api_keys": [secret, {"name": secret}],
                    "api_base": f"https://user:{secret}@host/v1",
                    "max_tokens": 5,
                },
                "model_info": {"max_input_tokens": 9000},
            },
            {"model_name": "readers", "litellm_params": {"model": "openai/y", "api_key": "os.environ/OPENAI_KEY"}},
        ],
        "router_settings": {"redis_password": secret, "redis_url": f"redis://:{secret}@host", "timeout": 3},
        "litellm_settings": {"langfuse": [{"secret": secret}]},
        "redis_url": f"redis://:{secret}@cache:6379/0",
    }
    return Settings.model_validate({**values, **changes})


def test_no_secret_is_stored_and_everything_else_is() -> None:
    stored = without_secrets(_settings(SECRET))
    text = json.dumps(stored)
    assert SECRET not in text
    assert "os.environ/OPENAI_KEY" in text
    params = stored["model_list"][0]["litellm_params"]
    assert (params["model"], params["max_tokens"]) == ("openai/x", 5)
    assert stored["router_settings"]["timeout"] == 3


def test_secrets_come_back_from_the_present_configuration() -> None:
    present = _settings("sk-the-new-one-after-rotation")
    resumed = Settings.model_validate(with_secrets(without_secrets(_settings(SECRET, note_tokens=77)), present))
    assert resumed.model_list == present.model_list
    assert resumed.router_settings == present.router_settings
    assert resumed.redis_url == present.redis_url
    assert resumed.note_tokens == 77, "what is no secret stays the run's own"


def test_a_secret_that_is_nowhere_any_more_is_dropped() -> None:
    present = Settings(home=Path("/nowhere"))
    resumed = with_secrets(without_secrets(_settings(SECRET)), present)
    assert "api_key" not in resumed["model_list"][0]["litellm_params"]
    assert resumed["redis_url"] is None
    assert "<not stored>" not in json.dumps(resumed)


def test_a_redis_address_without_a_password_is_no_secret() -> None:
    assert without_secrets(_settings(SECRET, redis_url="redis://host:1/0"))["redis_url"] == "redis://host:1/0"


SECRET_PARAMS = {
    "key": SECRET,
    "x-api-key": SECRET,
    "authToken": SECRET,
    "APIKey": SECRET,
    "openaiapikey": SECRET,
    "hf_token": SECRET,
    "access_tokens": [SECRET],
    "api_keys": [SECRET, {"name": SECRET}],
    "passphrase": SECRET,
    "aws_access_key_id": SECRET,
    "vertex_credentials": {"inner": {"any": SECRET}},
    "default_headers": {"X-Team": SECRET, "Authorization": f"Bearer {SECRET}"},
    "proxy": f"http://someone:{SECRET}@proxy:3128",
}
PLAIN_PARAMS = {
    "max_tokens": "5",
    "max_token": "5",
    "input_cost_per_token": "1e-6",
    "input_cost_per_audio_token": "1e-6",
    "token_limit": "9",
    "custom_tokenizer": "x",
    "keywords": "monkey business",
    "api_key": "os.environ/OPENAI_KEY",
    "api_base": "https://host/v1?mail=a@b",
    "organization": "",
}


@pytest.mark.parametrize("key", SECRET_PARAMS)
def test_what_is_shown_what_is_stored_and_what_is_blotted_out_agree_on_secrets(key: str) -> None:
    params = {"model": "openai/x", key: SECRET_PARAMS[key]}
    entry = {"model_name": "readers", "litellm_params": params}
    settings = Settings(home=Path("/nowhere"), model_list=[entry])
    assert SECRET not in json.dumps(masked(entry))
    assert SECRET not in json.dumps(without_secrets(settings))
    assert SECRET in set(secret_strings(entry))


def test_what_only_sounds_like_a_secret_is_none() -> None:
    entry = {"model_name": "readers", "litellm_params": {"model": "openai/x", **PLAIN_PARAMS}}
    assert masked(entry) == entry
    assert without_secrets(Settings(home=Path("/nowhere"), model_list=[entry]))["model_list"] == [entry]
    assert list(secret_strings(entry)) == []
