"""`litellm_settings` and `router_settings`, as far as they are about calls.

A file that a litellm proxy reads holds three kinds of keys: those about calls, which hold here too; those about
retries and timeouts, which coa's own one retry layer takes over; and those of the proxy's server (keys, budgets,
caches), which say nothing here and are named in one warning.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any, NoReturn

from coa.config import Settings, resolve_environment
from coa.errors import ConfigError

__all__ = ["CallSettings", "SharedState", "call_settings", "check_router_settings", "fallback_groups"]

_SHARED = frozenset(
    {
        "drop_params",
        "enable_json_schema_validation",
        "force_ipv4",
        "modify_params",
        "redact_messages_in_exceptions",
        "redact_user_api_key_info",
        "ssl_certificate",
        "ssl_verify",
        "turn_off_message_logging",
    }
)
"""Attributes of the litellm module, for every call in the process."""
_CALLBACKS = ("callbacks", "success_callback", "failure_callback", "service_callback")
_TO_ROUTER = frozenset(
    {
        "allowed_fails",
        "content_policy_fallbacks",
        "context_window_fallbacks",
        "cooldown_time",
        "default_fallbacks",
        "fallbacks",
    }
)
# coa retries, times out and stays quiet by itself: taken as met, or over into coa's own settings.
_OURS = frozenset({"num_retries", "request_timeout", "set_verbose", "telemetry", "suppress_debug_info"})
_RETRY_KEYS = frozenset({"num_retries", "retry_after", "retry_policy", "model_group_retry_policy"})
_FALLBACK_KEYS = ("fallbacks", "default_fallbacks", "content_policy_fallbacks", "context_window_fallbacks")


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What the two sections of a configuration come to."""

    router: Mapping[str, object]
    """Arguments of litellm's Router."""
    retries: int
    timeout_s: float | None
    shared: Mapping[str, object]
    """Attributes of the litellm module."""
    callbacks: Mapping[str, tuple[str, ...]]
    """By the module's list that they belong to."""
    warnings: tuple[str, ...] = ()

    @property
    def verify(self) -> bool | str:
        """Whether certificates are checked, or a path to those that are trusted."""
        verify = self.shared.get("ssl_verify", True)
        return verify if isinstance(verify, bool | str) else True


def call_settings(settings: Settings) -> CallSettings:
    """What of both sections holds for calls; `router_settings` go before `litellm_settings`, our own before both.

    Raises: ConfigError for values that cannot be meant and for variables that are not set.
    """
    given = settings.litellm_settings
    known = _SHARED | _TO_ROUTER | _OURS | set(_CALLBACKS)
    wanted: dict[str, Any] = resolve_environment({k: v for k, v in given.items() if k in known})
    router: dict[str, Any] = {k: v for k, v in wanted.items() if k in _TO_ROUTER and v is not None}
    router |= resolve_environment(settings.router_settings)
    warnings = []
    ignored = sorted(given.keys() - known)
    if ignored:
        warnings.append(f"litellm_settings: {', '.join(ignored)} are for litellm's proxy and not applied here.")
    policies = sorted(router.keys() & (_RETRY_KEYS - {"num_retries"}))
    if policies:
        warnings.append(
            f"router_settings: {', '.join(policies)} are not applied: coa's own `retries` are all there is."
        )
    retries, timeout = router.get("num_retries"), router.get("timeout")
    retries = wanted.get("num_retries") if retries is None else retries
    timeout = wanted.get("request_timeout") if timeout is None else timeout
    return CallSettings(
        router={k: v for k, v in router.items() if k not in _RETRY_KEYS | {"timeout"}},
        retries=_retries(settings, retries),
        timeout_s=_timeout(settings, timeout),
        shared={k: v for k, v in wanted.items() if k in _SHARED},
        callbacks={k: _names(k, wanted[k]) for k in _CALLBACKS if wanted.get(k)},
        warnings=tuple(warnings),
    )


def fallback_groups(router: Mapping[str, object], name: str) -> tuple[list[str], list[str]]:
    """Groups that may answer for `name`: those for any failure, then those for a prompt that is too long only.

    Followed from group to group. Raises: ConfigError for a form that litellm does not know either.
    """
    any_failure = _followed(router, name, ("fallbacks", "default_fallbacks", "content_policy_fallbacks"))
    too_long = [n for n in _followed(router, name, _FALLBACK_KEYS) if n not in any_failure]
    return any_failure, too_long


def check_router_settings(router: Mapping[str, object], litellm: ModuleType) -> None:
    """Raises: ConfigError that names the keys which this release of litellm's Router does not know."""
    parameters = inspect.signature(litellm.Router.__init__).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return  # a release that takes anything and looks later
    known = [name for name in parameters if name not in ("self", "model_list")]
    unknown = sorted(key for key in router if key not in known)
    if not unknown:
        return
    close = {key: difflib.get_close_matches(key, known, n=1) for key in unknown}
    told = ", ".join(f"{key!r}" + (f" (did you mean {close[key][0]!r}?)" if close[key] else "") for key in unknown)
    raise ConfigError(
        f"router_settings: litellm {metadata.version('litellm')} does not know {told}.",
        hint="Another release may: its Router's parameters are the keys.",
    )


class SharedState:
    """Attributes and callbacks of the litellm module while models of ours are open.

    The module belongs to the whole process: nothing is touched that is not configured, what was there before comes
    back with the last one that changed it, and a host's own callbacks stay where they are.
    """

    _lock = threading.Lock()
    _before: dict[str, object] = {}  # noqa: RUF012 - one for the process, as the module is
    _holders: dict[str, list[tuple[SharedState, object]]] = {}  # noqa: RUF012
    _callbacks: dict[tuple[str, object], int] = {}  # noqa: RUF012

    def __init__(self, litellm: ModuleType, wanted: CallSettings) -> None:
        """Raises: ConfigError for an attribute or a callback that this litellm does not have."""
        self._litellm = litellm
        self._added: list[tuple[str, object]] = []
        callbacks = [(where, _callback(name)) for where, names in wanted.callbacks.items() for name in names]
        for key in wanted.shared:
            if not hasattr(litellm, key):
                raise ConfigError(f"litellm_settings: litellm {metadata.version('litellm')} does not know {key!r}.")
        self._keys = list(wanted.shared)
        with self._lock:
            for key, value in wanted.shared.items():
                self._before.setdefault(key, getattr(litellm, key))
                self._holders.setdefault(key, []).append((self, value))
                setattr(litellm, key, value)
            for where, callback in callbacks:
                self._add(where, callback)

    def release(self) -> None:
        """Puts back what was there; may be called again."""
        with self._lock:
            for key in self._keys:
                holders = self._holders[key] = [h for h in self._holders[key] if h[0] is not self]
                setattr(self._litellm, key, holders[-1][1] if holders else self._before[key])
                if not holders:
                    del self._before[key], self._holders[key]
            for where, callback in self._added:
                self._remove(where, callback)
            self._keys, self._added = [], []

    def _add(self, where: str, callback: object) -> None:
        listed: list[object] = getattr(self._litellm, where)
        count = self._callbacks.get((where, _key(callback)), 0)
        if callback in listed and not count:
            return  # the host's own
        if not count:
            listed.append(callback)
        self._callbacks[where, _key(callback)] = count + 1
        self._added.append((where, callback))

    def _remove(self, where: str, callback: object) -> None:
        self._callbacks[where, _key(callback)] -= 1
        if self._callbacks[where, _key(callback)]:
            return
        del self._callbacks[where, _key(callback)]
        # litellm spreads a callback over its lists, as itself and as the logger that it makes of a name.
        made = [callback, *_loggers_of(callback)]
        for name in _lists_of(self._litellm):
            listed = getattr(self._litellm, name)
            listed[:] = [item for item in listed if not any(item is m or item == m for m in made)]


def _lists_of(litellm: ModuleType) -> Iterable[str]:
    names = (*_CALLBACKS, "input_callback", "_async_success_callback", "_async_failure_callback")
    return [name for name in (*names, "_async_input_callback") if isinstance(getattr(litellm, name, None), list)]


def _loggers_of(callback: object) -> list[object]:
    if not isinstance(callback, str):
        return []
    from litellm.litellm_core_utils import litellm_logging

    find = getattr(litellm_logging, "get_custom_logger_compatible_class", None)
    try:
        found = find(callback) if find is not None else None
    except Exception:  # an integration that is not installed
        return []
    return [found] if found is not None else []


def _key(callback: object) -> object:
    return callback if isinstance(callback, str) else id(callback)


def _callback(name: str) -> object:
    """A name that litellm knows, or what "module.attribute" leads to, from the import path alone."""
    module, dot, attribute = name.rpartition(".")
    if not dot:
        return name
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"litellm_settings: the callback {name!r} cannot be imported: {error}.",
            hint="Modules beside the configuration are not looked at: install it, or set PYTHONPATH.",
        ) from error


def _names(key: str, value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(name, str) and name for name in listed):
        raise ConfigError(f"litellm_settings: {key}: expected a list of names.")
    return tuple(dict.fromkeys(listed))


def _retries(settings: Settings, given: object) -> int:
    if given is None or "retries" in settings.model_fields_set:
        return settings.retries
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        _refuse("num_retries", given, "a whole number, 0 or more")
    return given


def _timeout(settings: Settings, given: object) -> float | None:
    if given is None or settings.timeout_s is not None:
        return settings.timeout_s
    if isinstance(given, bool) or not isinstance(given, int | float) or given <= 0:
        _refuse("request_timeout", given, "seconds above 0")
    return float(given)


def _refuse(key: str, given: object, expected: str) -> NoReturn:
    raise ConfigError(f"litellm_settings: {key}: expected {expected}, got {given!r}.")


def _followed(router: Mapping[str, object], name: str, keys: Iterable[str]) -> list[str]:
    found: list[str] = []
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        for key in keys:
            for target in _targets(router.get(key), key, current):
                if target != name and target not in found:
                    found.append(target)
                    waiting.append(target)
    return found


def _targets(value: object, key: str, name: str) -> list[str]:
    """Where one key leads from one group: [{group: [other, …]}, …], or for default_fallbacks [other, …]."""
    if value is None:
        return []
    found: list[str] = []
    for item in value if isinstance(value, list) else [None]:
        if isinstance(item, str) and key == "default_fallbacks":
            found.append(item)
        elif isinstance(item, Mapping) and key != "default_fallbacks":
            for group, targets in item.items():
                if not isinstance(targets, list):
                    _bad_form(key)
                if group in (name, "*"):
                    found += [str(t.get("model")) if isinstance(t, Mapping) else str(t) for t in targets]
        else:
            _bad_form(key)
    return found


def _bad_form(key: str) -> NoReturn:
    form = "[other, …]" if key == "default_fallbacks" else "[{group: [other, …]}]"
    raise ConfigError(f"router_settings: {key}: expected {form}.")
