"""Keys stay out of run records: they are taken from the present configuration when a run is resumed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from coa.config import Settings

__all__ = ["with_secrets", "without_secrets"]

_REMOVED = "<not stored>"
_SECRET_PARTS = ("key", "token", "secret", "passw", "passphrase", "credential", "authorization", "bearer", "cookie")
_PASSWORD_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]*@", re.IGNORECASE)
_MAY_HOLD_SECRETS = ("model_list", "router_settings", "litellm_settings", "redis_url")


def without_secrets(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values; every literal key or token, all headers, and addresses with a password marked.

    References such as "os.environ/OPENAI_API_KEY" stay: they name a secret and are none.
    """
    raw = settings.model_dump(mode="json")
    for key in _MAY_HOLD_SECRETS:
        raw[key] = _stripped(raw[key], key)
    return raw


def with_secrets(stored: Mapping[str, Any], present: Settings) -> dict[str, Any]:
    """`stored` with the marked values taken from `present`, entry by entry of the same model_name and place.

    A secret that is in neither is dropped, so that the call fails by authentication and says so.
    """
    current = present.model_dump(mode="json")
    raw = dict(stored)
    by_name: dict[str, list[Any]] = {}
    for entry in current["model_list"]:
        by_name.setdefault(str(entry.get("model_name")), []).append(entry)
    filled = []
    for entry in raw.get("model_list", []):
        same = by_name.get(str(entry.get("model_name")), [])
        filled.append(_filled(entry, same.pop(0) if same else {}))
    raw["model_list"] = filled
    for key in ("router_settings", "litellm_settings"):
        raw[key] = _filled(raw.get(key, {}), current[key])
    if raw.get("redis_url") == _REMOVED:
        raw["redis_url"] = current["redis_url"]
    return raw


def _is_secret(key: str, value: str) -> bool:
    lowered = key.lower()
    named = any(part in lowered for part in _SECRET_PARTS) or "headers." in lowered
    return not value.startswith("os.environ/") and (named or _PASSWORD_IN_URL.match(value) is not None)


def _stripped(value: Any, key: str) -> Any:
    """`value` without secrets; `key` is the name it stands under, for headers with theirs before it."""
    if isinstance(value, Mapping):
        return {k: _stripped(v, f"{key}.{k}" if key.lower().endswith("headers") else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_stripped(v, key) for v in value]
    return _REMOVED if isinstance(value, str) and _is_secret(key, value) else value


def _filled(value: Any, present: Any) -> Any:
    if isinstance(value, Mapping):
        other = present if isinstance(present, Mapping) else {}
        filled = {k: other.get(k) if v == _REMOVED else _filled(v, other.get(k)) for k, v in value.items()}
        return {k: v for k, v in filled.items() if not (value[k] == _REMOVED and v is None)}
    if isinstance(value, list):
        others = present if isinstance(present, list) else []
        return [_filled(v, others[i] if i < len(others) else None) for i, v in enumerate(value)]
    return value
