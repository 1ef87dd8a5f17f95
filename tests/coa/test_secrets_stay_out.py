"""What of the settings is stored with a run, and how it comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coa.config import Settings
from coa.secrets import with_secrets, without_secrets

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
