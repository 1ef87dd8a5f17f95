"""Keys stay out of run records: they are taken from the present configuration when a run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coa.config import Settings

__all__ = ["with_secrets", "without_secrets"]

_REMOVED = "<not stored>"
_SECRET_PARTS = ("key", "token", "secret", "password", "credential", "authorization")


def without_secrets(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values, every literal key or token in the models part replaced by a mark.

    References such as "os.environ/OPENAI_API_KEY" stay: they name a secret and are none.
    """
    raw = settings.model_dump(mode="json")
    raw["model_list"] = [_stripped(entry) for entry in raw["model_list"]]
    raw["router_settings"] = _stripped(raw["router_settings"])
    raw["litellm_settings"] = _stripped(raw["litellm_settings"])
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
    return raw


def _is_secret(key: str, value: object) -> bool:
    lowered = key.lower()
    return (
        isinstance(value, str)
        and not value.startswith("os.environ/")
        and any(part in lowered for part in _SECRET_PARTS)
    )


def _stripped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _REMOVED if _is_secret(str(k), v) else _stripped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_stripped(v) for v in value]
    return value


def _filled(value: Any, present: Any) -> Any:
    if isinstance(value, Mapping):
        other = present if isinstance(present, Mapping) else {}
        filled = {k: other.get(k) if v == _REMOVED else _filled(v, other.get(k)) for k, v in value.items()}
        return {k: v for k, v in filled.items() if not (value[k] == _REMOVED and v is None)}
    if isinstance(value, list):
        others = present if isinstance(present, list) else []
        return [_filled(v, others[i] if i < len(others) else None) for i, v in enumerate(value)]
    return value
