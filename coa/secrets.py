"""What a secret is, and how secrets stay out of run records, of what is shown, and of errors.

A run's record has none: they are taken from the present configuration when the run is resumed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Protocol
from urllib.parse import unquote

__all__ = [
    "MASK",
    "blotted",
    "environment_secrets",
    "hides_all",
    "is_secret",
    "secret_strings",
    "with_secrets",
    "without_secrets",
]

MASK = "********"
"""Stands where a secret stood."""

_REMOVED = "<not stored>"
_MAY_HOLD_SECRETS = ("model_list", "router_settings", "litellm_settings", "redis_url", "checkpoints")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORD = re.compile(
    r".*(?:secret|passw|passphrase|credential|authorization|bearer|cookie).*|pass|pwd"
    r"|(?:[a-z]*(?:api|access|private|master|auth))?keys?|[a-z]*(?:api|access|auth|refresh|session)tokens?"
)
_TOKEN_OWNERS = frozenset({"access", "api", "auth", "id", "refresh", "session"})
_COUNTING = frozenset(
    {"budget", "cost", "count", "counter", "limit", "limits", "max", "min", "n", "num", "per", "rate", "type", "window"}
)
_LOGIN_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://([^/@\s]*)@", re.IGNORECASE)
_BEARER = re.compile(r"(\bBearer\s+)\S+", re.IGNORECASE)
_SECRET_VARIABLES = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")
_SURELY_NO_WORD = 8
"""Characters from which on a secret is blotted out inside words as well."""


class _Settings(Protocol):
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def hides_all(key: str) -> bool:
    """Whether everything under `key` is secret: it is named like a secret, or holds headers.

    Words count, not letters: "authToken" and "x-api-key" are secret, "max_tokens" and "tokenizer" are not.
    """
    words = [word.lower() for word in _WORD.findall(key)]
    if words[-1:] == ["headers"] or any(_SECRET_WORD.fullmatch(word) for word in words):
        return True
    if _COUNTING.intersection(words):
        return False
    return "token" in words or any(pair[1] == "tokens" and pair[0] in _TOKEN_OWNERS for pair in pairwise(words))


def is_secret(key: str, value: str) -> bool:
    """Whether `value`, as it stands under `key`, has to be hidden: by the key's name, or as a URL with a login.

    References of the form "os.environ/NAME" name a secret and are none.
    """
    if not value or value.startswith("os.environ/"):
        return False
    return hides_all(key) or _LOGIN_IN_URL.search(value) is not None


def secret_strings(value: object, key: str = "", *, hidden: bool = False) -> Iterator[str]:
    """All secrets in lists and mappings; of a header also what follows its scheme, of a URL its password.

    `hidden` says that something above is secret already.
    """
    hidden = hidden or hides_all(key)
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from secret_strings(item, str(name), hidden=hidden)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secret_strings(item, key, hidden=hidden)
    elif isinstance(value, str) and value and not value.startswith("os.environ/"):
        if hidden:
            yield value
            scheme, _, rest = value.partition(" ")
            if scheme.lower() in ("basic", "bearer", "token"):
                yield rest
        for login in _LOGIN_IN_URL.findall(value):
            password = login.partition(":")[2] or login
            yield from (login, password, unquote(password))


def environment_secrets() -> list[str]:
    """What stands in variables named like OPENAI_API_KEY or HF_TOKEN, where litellm looks for keys by itself."""
    return [
        value
        for name, value in os.environ.items()
        if name.upper().endswith(_SECRET_VARIABLES) and len(value) >= _SURELY_NO_WORD
    ]


def blotted(text: str, secrets: Iterable[str]) -> str:
    """`text` without the `secrets` and without bearer tokens; short secrets ("k") only where they stand alone."""
    for secret in sorted({s.strip() for s in secrets} - {""}, key=len, reverse=True):
        if len(secret) >= _SURELY_NO_WORD:
            text = text.replace(secret, MASK)
        else:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
    return _BEARER.sub(rf"\g<1>{MASK}", text)


def without_secrets(settings: _Settings) -> dict[str, Any]:
    """The settings as JSON values; every literal key or token, all headers, and addresses with a password marked.

    References such as "os.environ/OPENAI_API_KEY" stay: they name a secret and are none.
    """
    raw = settings.model_dump(mode="json")
    for key in _MAY_HOLD_SECRETS:
        raw[key] = _stripped(raw[key], key)
    return raw


def with_secrets(stored: Mapping[str, Any], present: _Settings) -> dict[str, Any]:
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
    for key in ("redis_url", "checkpoints"):
        if raw.get(key) == _REMOVED:
            raw[key] = current[key]
    return raw


def _stripped(value: Any, key: str, *, hidden: bool = False) -> Any:
    """`value`, which stands under `key`, without secrets; `hidden` says that something above is secret already."""
    hidden = hidden or hides_all(key)
    if isinstance(value, Mapping):
        return {k: _stripped(v, str(k), hidden=hidden) for k, v in value.items()}
    if isinstance(value, list):
        return [_stripped(v, key, hidden=hidden) for v in value]
    return _REMOVED if isinstance(value, str) and is_secret("secret" if hidden else key, value) else value


def _filled(value: Any, present: Any) -> Any:
    if isinstance(value, Mapping):
        other = present if isinstance(present, Mapping) else {}
        filled = {k: other.get(k) if v == _REMOVED else _filled(v, other.get(k)) for k, v in value.items()}
        return {k: v for k, v in filled.items() if not (value[k] == _REMOVED and v is None)}
    if isinstance(value, list):
        others = present if isinstance(present, list) else []
        pairs = [(v, others[i] if i < len(others) else None) for i, v in enumerate(value)]
        return [
            other if v == _REMOVED else _filled(v, other) for v, other in pairs if v != _REMOVED or other is not None
        ]
    return value
