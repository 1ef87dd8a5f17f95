"""Settings, and the layers they are read from.

Precedence, highest first: flags, `COA_*` variables, the project's file (`./coa.yaml`, else `[tool.coa]` in
`./pyproject.toml`, else what --config names in their place), the user's own file, defaults. A key is taken
whole from the highest layer that has it: lists and mappings are not merged. Nothing is read at import.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit, urlunsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from coa.config_sources import (
    PROXY_KEYS,
    Layer,
    absolute,
    environment_layer,
    find_project_file,
    read_config_file,
    with_absolute_paths,
)
from coa.document_limits import DEFAULT_LIMITS, ReadingLimits
from coa.errors import ConfigError
from coa.secrets import MASK, hides_all, is_secret

__all__ = [
    "ROLES",
    "InvalidSettings",
    "LoadedSettings",
    "Settings",
    "config_files",
    "load_settings",
    "masked",
    "profiles_of",
    "resolve_environment",
    "user_config_file",
]

_DATABASES = ("postgresql://", "postgres://", "redis://", "rediss://", "os.environ/")
_Count = Annotated[int, Field(ge=1)]
_READING_LIMITS = {key: limit for key, limit in asdict(DEFAULT_LIMITS).items() if key != "max_bytes"}


ROLES = ("worker", "manager", "judge", "retriever", "reasoner", "structurizer", "checker")
"""What agents do, as the setting `roles` names it."""


def _default_home() -> Path:
    return Path(platformdirs.user_data_dir("coa"))


class Settings(BaseModel):
    """Everything that can be configured; `None` means "worked out from the model's window"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(default_factory=_default_home)
    """Holds runs, models and documents; absolute."""
    model: str = Field(default="smollm2-135m", min_length=1)
    """A group of `model_list`, a name of the catalogue, a path to a GGUF file, or any litellm model."""
    roles: dict[str, str] = Field(default_factory=dict)
    """Models of single roles, by role ("worker", "manager", "judge", "retriever", "reasoner", "structurizer",
    "checker"); `model` serves those that are not named. Chunks are cut for the smallest window among them."""
    strategy: str = Field(default="chain", min_length=1)
    window: _Count | None = None
    """Tokens that the model takes in and gives out together."""
    chunk_tokens: _Count | None = None
    """Of a chunk as rendered in the prompt."""
    question_tokens: _Count = 256
    note_tokens: _Count | None = None
    """At most, of a communication unit."""
    answer_tokens: _Count | None = None
    notes: Literal["auto", "paper", "structured", "quotes"] = "auto"
    """What workers hand on. "paper": the model's own prose, as published (CoA). "structured": facts with sentence
    ids, appended rather than rewritten. "quotes": sentences of the source, picked by code and shortened by the
    model. "auto" takes quotes for models under a billion parameters, else paper."""
    passes: Annotated[int, Field(ge=1, le=2)] = 1
    """Readings of the chain; the second begins with the notes of the first."""
    demos: Literal["none", "recycled"] = "none"
    """Recycled demonstrations (DoubleDipper, arXiv 2406.13632): question and answer pairs made from the document."""
    paths: Annotated[int, Field(ge=2, le=9)] = 3
    """Chains of self-consistency and permutation."""
    choose: Literal["judge", "vote"] = "judge"
    """How one of several chains' answers is chosen."""
    rounds: Annotated[int, Field(ge=1, le=5)] = 2
    """At most, of retrieving evidence (alr2)."""
    top_k: _Count = 10
    """Passages that rag shows, and chunks that a preselection keeps."""
    preselect: Literal["auto", "never", "always"] = "auto"
    """Whether alr2 reads only the `top_k` chunks that a lexical ranking puts first; auto: for long documents."""
    review: bool = False
    """Stops before the answer so that a person can strike out evidence (alr2)."""
    verify: bool = True
    """Looks up every quote that a model wrote itself."""
    strict: bool = False
    """A quote that is not in the source is an error (exit code 8)."""
    on_worker_failure: Literal["skip", "fail"] = "skip"
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    retries: int = Field(default=3, ge=0)
    """Of one call, after the first attempt."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Of one call; None scales it to the call's tokens."""
    idle_timeout_s: float = Field(default=120.0, gt=0)
    """Of a streamed reply: how long a server may fall silent between two pieces, the first one apart."""
    max_parallel_calls: _Count = 8
    """Calls under way at once; the embedded engine takes one after the other anyway."""
    response_cache: bool = True
    """Whether a greedy reply to the very same prompt is given again without a call."""
    response_cache_bytes: _Count = 200_000_000
    """What stored replies may take; the ones that were not used for longest go first."""
    kv_cache: bool = True
    """Whether the attention KV of a chunk is kept and used again (`coa.cache`)."""
    kv_cache_bytes: _Count = 10_000_000_000
    """What saved states may take on disk."""
    kv_redis_bytes: int = Field(default=0, ge=0)
    """What saved states may take in Redis, for engines on other hosts; 0 keeps none there."""
    max_calls: _Count | None = None
    max_tokens_total: _Count | None = None
    """Prompt and completion tokens of a run together."""
    max_cost_usd: float | None = Field(default=None, ge=0)
    max_document_bytes: _Count = 50_000_000
    reading_limits: dict[str, int | float] = Field(default_factory=_READING_LIMITS.copy)
    """The fields of `ReadingLimits` but max_bytes; those that are not given are at their defaults."""
    reader: str | None = Field(default=None, min_length=1)
    """Of documents, by name: one of coa's own ("docling" for layout and OCR) or an installed plug-in. None chooses
    by content."""
    n_threads: _Count | None = None
    """Of the embedded engine; None uses the machine's cores."""
    redis_url: str | None = None
    checkpoints: str | None = None
    """A database for the graphs' checkpoints, postgresql://… or redis://…; None keeps them in the run's folder."""
    model_list: list[dict[str, Any]] = Field(default_factory=list)
    """litellm proxy's own form; `os.environ/NAME` is resolved when a call needs it."""
    router_settings: dict[str, Any] = Field(default_factory=dict)
    litellm_settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("model_list")
    @classmethod
    def _check_model_list(cls, models: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for n, entry in enumerate(models):
            if not isinstance(entry.get("model_name"), str):
                raise ValueError(f"entry {n + 1} has no model_name")
            params = entry.get("litellm_params")
            if not isinstance(params, dict) or not isinstance(params.get("model"), str):
                raise ValueError(f"entry {n + 1} ({entry['model_name']}) has no litellm_params.model")
        return models

    @field_validator("checkpoints")
    @classmethod
    def _check_checkpoints(cls, where: str | None) -> str | None:
        if where is not None and not where.startswith(_DATABASES):
            raise ValueError("expected postgresql://… or redis://…")
        return where

    @field_validator("roles")
    @classmethod
    def _check_roles(cls, roles: dict[str, str]) -> dict[str, str]:
        for role in roles:
            if role not in ROLES:
                close = difflib.get_close_matches(role, ROLES, n=1)
                advice = f"did you mean {close[0]!r}?" if close else f"roles are {', '.join(ROLES)}."
                raise ValueError(f"unknown role {role!r}; {advice}")
        return roles

    @field_validator("reading_limits", mode="before")
    @classmethod
    def _check_reading_limits(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        for key, limit in given.items():
            if key == "max_bytes":
                raise ValueError("max_bytes is set by max_document_bytes")
            if key not in _READING_LIMITS:
                raise ValueError(f"unknown key {str(key)!r}; {_advice(key, _READING_LIMITS)}")
            whole = isinstance(_READING_LIMITS[key], int)
            number = isinstance(limit, int if whole else int | float) and not isinstance(limit, bool)
            if not number or not 0 < limit < math.inf:
                raise ValueError(f"{key}: expected a{' whole' if whole else ''} number above 0, got {limit!r}")
        return {**_READING_LIMITS, **given}

    @property
    def document_limits(self) -> ReadingLimits:
        """`reading_limits`, with `max_document_bytes` for the file itself."""
        return ReadingLimits(max_bytes=self.max_document_bytes, **cast("dict[str, Any]", self.reading_limits))

    @property
    def runs_dir(self) -> Path:
        """Run records, notes and checkpoints."""
        return self.home / "runs"

    @property
    def models_dir(self) -> Path:
        """Downloaded models."""
        return self.home / "models"

    @property
    def kv_dir(self) -> Path:
        """Saved attention KV."""
        return self.home / "cache" / "kv"

    @property
    def documents_dir(self) -> Path:
        """Canonical texts, kept so that a run can be resumed."""
        return self.home / "documents"


class InvalidSettings(ConfigError):
    """Values that settings cannot have; the message names the first."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(problems[0] + (f" (and {len(problems) - 1} more)." if len(problems) > 1 else "."))
        self.problems = problems


class LoadedSettings(NamedTuple):
    """The settings in force, and for each key the source that it came from."""

    settings: Settings
    origins: dict[str, str]


_NESTED = {
    name: name in ("model_list", "router_settings", "litellm_settings", "reading_limits", "roles")
    for name in Settings.model_fields
}


def user_config_file(env: Mapping[str, str] | None = None) -> Path:
    """The user's own config file: in COA_HOME if that is set, else in the platform's config folder."""
    home = (os.environ if env is None else env).get("COA_HOME")
    folder = Path(home).expanduser() if home else Path(platformdirs.user_config_dir("coa"))
    return folder / "config.yaml"


def config_files(
    *, config: Path | None = None, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> list[Path]:
    """The config files in force, the strongest first; `config`, else COA_CONFIG, stands for the project's."""
    env = os.environ if env is None else env
    cwd = Path.cwd() if cwd is None else cwd
    if config is None and env.get("COA_CONFIG"):
        config = Path(env["COA_CONFIG"])
    project_file = absolute(config, cwd) if config is not None else find_project_file(cwd)
    user_file = user_config_file(env)
    files = [project_file] if project_file is not None else []
    return [*files, user_file] if user_file.is_file() and user_file != project_file else files


def profiles_of(file: Path) -> list[str]:
    """Names of the profiles that a config file defines."""
    found = read_config_file(file).get("profiles") or {}
    return [str(name) for name in found] if isinstance(found, dict) else []


def load_settings(
    *,
    config: Path | None = None,
    profile: str | None = None,
    overrides: Mapping[str, object] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """The settings in force for `cwd` and `env` (the process's own where None).

    `config` takes the place of the project's file; `overrides` are flags, those that are None count as not
    given. COA_CONFIG and COA_PROFILE stand in for the first two arguments.

    Raises:
        ConfigError: one line with the source and the key.
    """
    env = os.environ if env is None else env
    cwd = Path.cwd() if cwd is None else cwd
    profile = profile or env.get("COA_PROFILE") or None

    layers: list[Layer] = []
    profiles: set[str] = set()
    for file in reversed(config_files(config=config, cwd=cwd, env=env)):
        layers += _file_layers(file, profile, profiles)
    if profile is not None and profile not in profiles:
        known = f"known: {', '.join(sorted(profiles))}" if profiles else "no config file defines any"
        raise ConfigError(f"profile {profile!r} is not defined ({known}).")
    layers += environment_layer(env, _NESTED)
    for key, value in (overrides or {}).items():
        if value is not None:
            _check_keys([key], "argument")
            layers.append(Layer({key: value}, f"argument {key}"))
    return _merged(layers, cwd)


def _file_layers(path: Path, profile: str | None, profiles: set[str]) -> list[Layer]:
    """The file's own values, then those of its profile of that name; adds its profiles' names."""
    values = read_config_file(path)
    own_profiles = values.pop("profiles", None) or {}
    values = {key: value for key, value in values.items() if key not in PROXY_KEYS}
    _check_keys(values, str(path), extra=("profiles",))
    if not isinstance(own_profiles, dict):
        raise ConfigError(f"{path}: profiles: expected a mapping of names to settings.")
    for name, changes in own_profiles.items():
        if not isinstance(changes, dict):
            raise ConfigError(f"{path}: profiles.{name}: expected a mapping of settings.")
        _check_keys(changes, f"{path}: profiles.{name}")
        profiles.add(str(name))
    layers = [Layer(values, str(path), path.parent)]
    if profile in own_profiles:
        layers.append(Layer(own_profiles[profile], f"{path} (profile {profile})", path.parent))
    return layers


def _check_keys(keys: Iterable[object], source: str, *, extra: tuple[str, ...] = ()) -> None:
    known = [*Settings.model_fields, *extra]
    for key in keys:
        if key not in known:
            raise ConfigError(f"{source}: unknown key {str(key)!r}; {_advice(key, known)}")


def _advice(key: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(key), known, n=1)
    return f"did you mean {close[0]!r}?" if close else "`coa config show` lists the keys."


def _merged(layers: Iterable[Layer], cwd: Path) -> LoadedSettings:
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for layer in layers:
        for key, value in layer.values.items():
            values[key] = with_absolute_paths(key, value, layer.folder or cwd)
            origins[key] = layer.origin
    try:
        return LoadedSettings(Settings(**values), origins)
    except ValidationError as exc:
        raise InvalidSettings([_told(detail, origins) for detail in exc.errors(include_url=False)]) from None


def _told(detail: ErrorDetails, origins: Mapping[str, str]) -> str:
    """One problem on a line, without a full stop; values that may be secret are not in it."""
    key = str(detail["loc"][0])
    path = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
    message = message.replace("Input should be", "expected")
    given = detail["input"]
    shown = "" if _NESTED[key] or hides_all(key) or key.endswith("_url") or key == "checkpoints" else f", got {given!r}"
    return f"{origins[key]}: {path}: {message}{shown}"


def resolve_environment(value: Any, env: Mapping[str, str] | None = None) -> Any:
    """`value` with each string `os.environ/NAME` replaced by that variable, in lists and mappings too.

    Call it as late as can be, and keep the result out of records and messages.

    Raises:
        ConfigError: a variable is not set.
    """
    env = os.environ if env is None else env
    if isinstance(value, str) and value.startswith("os.environ/"):
        name = value.removeprefix("os.environ/")
        if name not in env:
            raise ConfigError(f"the environment variable {name} is not set.", hint=f"{value!r} refers to it.")
        return env[name]
    if isinstance(value, Mapping):
        return {key: resolve_environment(item, env) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve_environment(item, env) for item in value]
    return value


def masked(value: object, key: str = "", *, hidden: bool = False) -> object:
    """`value` fit to be shown: secrets hidden by their key's name (see `is_secret`), passwords inside URLs too.

    References of the form `os.environ/NAME` are not secret and stay. `hidden` says that something above is
    secret already.
    """
    hidden = hidden or hides_all(key)
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        return {str(k): masked(v, str(k), hidden=hidden) for k, v in mapping.items()}
    if isinstance(value, list | tuple):
        return [masked(item, key, hidden=hidden) for item in value]
    if isinstance(value, str) and is_secret("secret" if hidden else key, value):
        return MASK if hidden else _without_password(value)
    return value


def _without_password(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{MASK}@{host}")) if host != parts.netloc else MASK
