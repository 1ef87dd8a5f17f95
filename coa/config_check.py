"""What is wrong with a configuration, all of it at once, without a call."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from coa.config import InvalidSettings, Settings, config_files, load_settings, profiles_of, resolve_environment
from coa.config_sources import PROXY_KEYS, read_config_file
from coa.errors import CoaError, ConfigError
from coa.limits import FULL, SMALL
from coa.llm.catalogue import catalogue_model
from coa.llm.deployments import Deployment, ModelGroup, entries_for, group_from_model_list
from coa.llm.gateway import Gateway, models_named
from coa.llm.litellm_settings import call_settings, check_router_settings, fallback_groups
from coa.llm.opening import OpenModel
from coa.llm.token_counters import LocalTokens
from coa.tokens import EstimatedTokens

__all__ = ["ConfigReport", "check_configuration"]

_BOUNDLESS = 10**9
_EMBEDDED_WINDOW = 8192
_FALLBACKS = ("fallbacks", "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks")


class ConfigReport(NamedTuple):
    """What was looked at and what is wrong with it."""

    files: list[Path]
    profiles: list[str]
    problems: list[str]
    """A line each; empty when all is well."""


def check_configuration(
    *, config: Path | None = None, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> ConfigReport:
    """Everything that is wrong with the files in force, their profiles among it. Blocking; never raises ConfigError.

    `config` takes the place of the project's file, as it does for `load_settings`. litellm is imported where the
    settings of its Router or a price have to be looked at.
    """
    files = config_files(config=config, cwd=cwd, env=env)
    problems: list[str] = []
    profiles: set[str] = set()
    for file in files:
        try:
            problems += _unknown_keys(file)
            profiles |= set(profiles_of(file))
        except ConfigError as error:
            problems.append(str(error))
    if problems:  # values are only read where all keys are known
        return ConfigReport(files, sorted(profiles), problems)
    for profile in (None, *sorted(profiles)):
        found: list[str] = []
        try:
            settings, origins = load_settings(config=config, profile=profile, cwd=cwd, env=env)
            found = list(_problems(settings, chosen={k for k, origin in origins.items() if origin != "default"}))
        except InvalidSettings as error:
            found = [f"{problem}." for problem in error.problems]
        except ConfigError as error:
            found = [str(error)]
        told = [line if profile is None else f"profile {profile}: {line}" for line in found]
        problems += [line for line in told if line.removeprefix(f"profile {profile}: ") not in problems]
    return ConfigReport(files, sorted(profiles), problems)


def _unknown_keys(file: Path) -> Iterator[str]:
    values = read_config_file(file)
    profiles = values.pop("profiles", None) or {}
    sections: dict[str, Any] = {f"{file}": {k: v for k, v in values.items() if k not in PROXY_KEYS}}
    if isinstance(profiles, dict):
        sections |= {f"{file}: profiles.{name}": changes for name, changes in profiles.items()}
    for where, keys in sections.items():
        if not isinstance(keys, dict):
            yield f"{where}: expected a mapping of settings."
            continue
        for key in keys:
            if key not in Settings.model_fields:
                close = difflib.get_close_matches(str(key), Settings.model_fields, n=1)
                advice = f"did you mean {close[0]!r}?" if close else "`coa config show` lists the keys."
                yield f"{where}: unknown key {str(key)!r}; {advice}"


def _problems(settings: Settings, *, chosen: set[str]) -> Iterator[str]:
    """What does not go together in settings that are valid one by one; `chosen` are those that are not defaults."""
    yield from _unset_variables(settings)
    groups: dict[str, ModelGroup] = {}
    for name in dict.fromkeys(str(entry["model_name"]) for entry in settings.model_list):
        found, problem = _group(name, settings)
        if found is not None:
            groups[name] = found
        if problem is not None:
            yield problem
    yield from _wrong_names(settings, chosen)
    yield from _told(lambda: call_settings(_without_references(settings)))
    yield from _wrong_fallbacks(settings)
    if settings.router_settings:
        from coa.llm.litellm_model import load_litellm

        yield from _told(lambda: check_router_settings(settings.router_settings, load_litellm()))
    if "strategy" in chosen:
        from coa.graphs import strategy

        yield from _told(lambda: strategy(settings.strategy))
    yield from _limits(settings, groups)


def _told(look: Callable[[], object]) -> Iterator[str]:
    try:
        look()
    except CoaError as error:
        yield str(error)


def _unset_variables(settings: Settings) -> Iterator[str]:
    places: list[tuple[str, object]] = [("redis_url", settings.redis_url), ("checkpoints", settings.checkpoints)]
    places += [(f"model_list[{n}] ({entry['model_name']!r})", entry) for n, entry in enumerate(settings.model_list)]
    places += [("router_settings", settings.router_settings), ("litellm_settings", settings.litellm_settings)]
    for where, value in places:
        for reference in dict.fromkeys(_references(value)):
            for line in _told(lambda reference=reference: resolve_environment(reference)):  # type: ignore[misc]
                yield f"{where}: {line}"


def _references(value: object) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("os.environ/"):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _group(name: str, settings: Settings) -> tuple[ModelGroup | None, str | None]:
    entries = [_resolved(entry) for entry in settings.model_list]
    try:
        group = group_from_model_list(name, entries)
        for deployment in group.deployments if group is not None else ():
            _check_deployment(deployment)
    except ConfigError as error:
        return None, str(error)
    return group, None


def _check_deployment(deployment: Deployment) -> None:
    """Raises: ConfigError for a tokenizer or a model file that is not there."""
    named = deployment.tokenizer
    if named is not None and named not in ("server", "estimate"):
        LocalTokens(named)
    own = deployment.embedded
    if own is not None and catalogue_model(own) is None and not Path(own).expanduser().is_file():
        raise ConfigError(f"{deployment.id}: {own!r} is neither in the catalogue nor a file.")


def _resolved(value: Any) -> Any:
    """`value` without its references to the environment: those that are not set are told elsewhere."""
    if isinstance(value, str) and value.startswith("os.environ/"):
        try:
            return resolve_environment(value)
        except ConfigError:
            return None
    if isinstance(value, Mapping):
        return {k: found for k, v in value.items() if (found := _resolved(v)) is not None or v is None}
    return [_resolved(item) for item in value] if isinstance(value, list) else value


def _without_references(settings: Settings) -> Settings:
    sections = ("router_settings", "litellm_settings")
    return settings.model_copy(update={key: _resolved(getattr(settings, key)) for key in sections})


def _wrong_names(settings: Settings, chosen: set[str]) -> Iterator[str]:
    named = {**({"model": settings.model} if "model" in chosen else {})}
    named |= {f"roles.{role}": name for role, name in settings.roles.items()}
    listed = {str(entry["model_name"]) for entry in settings.model_list}
    aliases = settings.router_settings.get("model_group_alias")
    known_otherwise = set(aliases) if isinstance(aliases, Mapping) else set()
    for where, name in named.items():
        if entries_for(name, settings.model_list) in listed or name in known_otherwise or "/" in name:
            continue
        if catalogue_model(name) is not None:
            continue
        if not (settings.models_dir / f"{name}.gguf").is_file() and not Path(name).is_file():
            known = ", ".join(sorted(listed)) or "none"
            yield f"{where}: there is no model {name!r}: no group of model_list ({known}), nothing in the catalogue."


def _wrong_fallbacks(settings: Settings) -> Iterator[str]:
    listed = {str(entry["model_name"]) for entry in settings.model_list}
    router = {k: v for k, v in settings.litellm_settings.items() if k in _FALLBACKS} | settings.router_settings
    try:
        for name in sorted({*listed, settings.model}):
            for target in (*fallback_groups(router, name)[0], *fallback_groups(router, name)[1]):
                if entries_for(target, settings.model_list) not in listed:
                    yield f"fallbacks of {name!r} name {target!r}, which is no group of model_list."
    except ConfigError as error:
        yield str(error)
        return
    for key in _FALLBACKS:
        for item in router.get(key) or ():
            for source in item if isinstance(item, Mapping) else ():
                if source not in (*listed, *settings.roles.values(), settings.model, "*"):
                    yield f"{key}: {source!r} is no group of model_list."


def _limits(settings: Settings, groups: Mapping[str, ModelGroup]) -> Iterator[str]:
    """Shares that cannot fit into the windows that are known without asking anybody."""
    from coa.planning import limits_for

    main, roles = models_named(settings)
    models: dict[str, OpenModel] = {}
    for name in dict.fromkeys([main, *roles.values()]):
        group = groups.get(name) or ModelGroup(name, (Deployment(name, name, "hosted"),))
        entry = catalogue_model(name)
        own = min(entry.window, _EMBEDDED_WINDOW) if entry is not None and name not in groups else None
        if settings.window is not None and group.window is not None and settings.window > group.window:
            yield f"window {settings.window} is more than {name!r} is configured with ({group.window})."
        window = settings.window or group.window or own or _BOUNDLESS
        models[name] = OpenModel(
            group,
            EstimatedTokens(0.0),
            window,
            SMALL if entry is not None and entry.parameters.endswith("M") else FULL,
            chunk_tokens=entry.chunk_tokens if entry is not None else None,
            note_tokens=entry.note_tokens if entry is not None else None,
            answer_tokens=entry.answer_tokens if entry is not None else None,
        )
    plain = settings.model_copy(update={"litellm_settings": {}, "router_settings": {}})
    gateway = Gateway(plain, models)
    if gateway.window < _BOUNDLESS:
        for line in _told(lambda: limits_for(gateway, settings)):
            yield f"{line} (By an estimate of the prompts.)"
