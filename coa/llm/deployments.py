"""Model groups as litellm's Router takes them.

Of an entry's `model_info` coa reads, next to litellm's own keys:

    id                      how logs, events and the doctor call it; "<group>/<n>" without one
    kind                    llama_server, vllm, sglang, ollama or hosted; else told by provider, or by asking
    max_input_tokens        the window: tokens in and out together
    input_cost_per_token    dollars; both or none
    output_cost_per_token
    tokenizer               path to a tokenizer.json, "server" (the engine's own), or "estimate"
    slot_save_path          llama.cpp's `--slot-save-path`, where this process sees the same folder: saved states
    n_ubatch                llama.cpp's `--ubatch-size` where it is not 512
    kv_type, adapter        KV type and LoRA adapter that the engine was started with: states of others are not taken
    kv_events, kv_replay    ZMQ addresses of vLLM's or SGLang's KV events, where the engine does not tell them
    kv_topic

and of its `litellm_params` a `model` of "coa/<catalogue name or path to a .gguf file>", which is an engine that
coa itself starts in its process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args
from urllib.parse import urlsplit, urlunsplit

from coa.errors import ConfigError
from coa.llm.budget import Prices

__all__ = ["Deployment", "DeploymentKind", "ModelGroup", "entries_for", "group_from_model_list"]

DeploymentKind = Literal["llama_server", "vllm", "sglang", "ollama", "hosted"]

_LOCAL_KINDS: frozenset[str] = frozenset({"llama_server", "vllm", "sglang", "ollama"})
_EMBEDDED = "coa"
_KIND_OF_PROVIDER: dict[str, DeploymentKind] = {
    "hosted_vllm": "vllm",
    "vllm": "vllm",
    "sglang": "sglang",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "llamafile": "llama_server",
    "llama_server": "llama_server",
    _EMBEDDED: "llama_server",
}
# Where litellm looks when no api_base is given: a variable of its own, then a place of its own.
_DEFAULT_ADDRESSES = {
    "ollama": ("OLLAMA_API_BASE", "http://localhost:11434"),
    "ollama_chat": ("OLLAMA_API_BASE", "http://localhost:11434"),
    "hosted_vllm": ("HOSTED_VLLM_API_BASE", None),
    "llamafile": ("LLAMAFILE_API_BASE", "http://127.0.0.1:8080/v1"),
}
_PRICE_KEYS = ("input_cost_per_token", "output_cost_per_token")


@dataclass(frozen=True, slots=True)
class Deployment:
    """One served endpoint of a model."""

    id: str
    model: str
    """litellm's name, provider included: "openai/…", "hosted_vllm/…"."""
    kind: DeploymentKind
    base_url: str | None = None
    api_key: str | None = None
    window: int | None = None
    """Tokens; None where it is not configured."""
    params: Mapping[str, object] | None = None
    """Further litellm_params as configured."""
    info: Mapping[str, object] | None = None
    """Further model_info as configured (prices and the like)."""
    tokenizer: str | None = None
    """Path to a tokenizer.json, "server" or "estimate"; None where it is not configured."""
    kind_is_sure: bool = True
    """False where nothing says what serves it, so that it is worth asking."""

    @property
    def local(self) -> bool:
        """True for engines that are not paid by the token."""
        return self.kind in _LOCAL_KINDS

    @property
    def provider(self) -> str:
        """What stands before the first "/" of the model's name; empty for a bare name."""
        return self.model.partition("/")[0] if "/" in self.model else ""

    @property
    def served_name(self) -> str:
        """The model's name as the server knows it."""
        return self.model.partition("/")[2] or self.model

    @property
    def embedded(self) -> str | None:
        """The catalogue name or path of a model that coa serves itself; None for any other."""
        return self.served_name if self.provider == _EMBEDDED else None

    @property
    def address(self) -> str | None:
        """Where it is called: `base_url`, or where litellm looks by itself; None for a provider's own address."""
        if self.base_url is not None:
            return self.base_url.rstrip("/")
        variable, default = _DEFAULT_ADDRESSES.get(self.provider, (None, None))
        found = (os.environ.get(variable) if variable else None) or default
        return None if found is None else found.rstrip("/")

    @property
    def root_url(self) -> str | None:
        """`address` without "/v1", where engines have their own paths."""
        return None if self.address is None else self.address.removesuffix("/v1")

    @property
    def shown_address(self) -> str:
        """`root_url` without a login, for messages."""
        try:
            parts = urlsplit(self.root_url or "")
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) or self.provider
        except ValueError:
            return "an address that cannot be read"

    @property
    def prices(self) -> Prices | None:
        """As configured; None where nothing is."""
        given = {**(self.info or {}), **{k: v for k, v in (self.params or {}).items() if v is not None}}
        prompt, completion = (given.get(key) for key in _PRICE_KEYS)
        if not isinstance(prompt, float) or not isinstance(completion, float):
            return None
        return Prices(prompt, completion)

    def as_litellm(self, group: str) -> dict[str, object]:
        """The entry of a Router's model_list; the client's own retries are off, so that layers don't multiply."""
        params: dict[str, object] = {**(self.params or {}), "model": self.model, "max_retries": 0}
        if self.base_url is not None:
            params["api_base"] = self.base_url
        if self.api_key is not None:
            params["api_key"] = self.api_key
        return {"model_name": group, "litellm_params": params, "model_info": {**(self.info or {}), "id": self.id}}


@dataclass(frozen=True, slots=True)
class ModelGroup:
    """Deployments that serve the same model under one name."""

    name: str
    deployments: tuple[Deployment, ...]

    @property
    def supports_grammar(self) -> bool:
        """True when all of them are llama.cpp servers."""
        return all(d.kind == "llama_server" for d in self.deployments)

    @property
    def window(self) -> int | None:
        """The smallest configured window, in tokens; None when none is configured."""
        windows = [d.window for d in self.deployments if d.window is not None]
        return min(windows) if windows else None

    def deployment(self, deployment_id: str) -> Deployment | None:
        """The deployment of that id."""
        return next((d for d in self.deployments if d.id == deployment_id), None)


def group_from_model_list(name: str, entries: Sequence[Mapping[str, object]]) -> ModelGroup | None:
    """The group `name` of a litellm proxy's model_list; None when no entry has that model_name.

    An entry for "openai/*" stands for every name of that form for which there is no entry of its own; of several
    such the longest counts. Without a `kind` the provider in `litellm_params.model` decides; an "openai/" model with
    an api_base counts as hosted, and as not sure.

    Raises: ConfigError for entries without a model, with an unknown kind, with a window or a price that is no
    number, or with an id that another one has.
    """
    found: list[Deployment] = []
    pattern = entries_for(name, entries)
    for at, entry in enumerate(entries):
        if entry.get("model_name") != pattern:
            continue
        where = f"model_list[{at}] ({pattern!r})"
        params = entry.get("litellm_params")
        if not isinstance(params, Mapping) or not isinstance(params.get("model"), str):
            raise ConfigError(f"{where} has no litellm_params.model.")
        info = entry.get("model_info") or {}
        if not isinstance(info, Mapping):
            raise ConfigError(f"{where}: model_info has to be a mapping.")
        params = {**params, "model": _filled(str(params["model"]), str(pattern), name)}
        deployment = _deployment(f"{name}/{at}", where, params, dict(info))
        if any(d.id == deployment.id for d in found):
            raise ConfigError(f"{where}: another deployment has the id {deployment.id!r} already.")
        found.append(deployment)
    return ModelGroup(name, tuple(found)) if found else None


def entries_for(name: str, entries: Sequence[Mapping[str, object]]) -> str:
    """The model_name of the entries that serve `name`: its own, or the longest one with a "*" that fits."""
    names = [str(entry.get("model_name")) for entry in entries]
    if name in names:
        return name
    matching = [n for n in names if n.count("*") == 1 and _star(n, name) is not None]
    return max(matching, key=len, default=name)


def _star(pattern: str, name: str) -> str | None:
    """What the "*" of `pattern` stands for in `name`; None where they do not match."""
    before, _, after = pattern.partition("*")
    fits = len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after)
    return name[len(before) : len(name) - len(after)] if fits else None


def _filled(model: str, pattern: str, name: str) -> str:
    """`model` with its "*" as in `name`; a model without one is meant as it stands."""
    star = _star(pattern, name) if "*" in pattern else None
    return model if star is None else model.replace("*", star, 1)


def _deployment(default_id: str, where: str, params: dict[str, object], info: dict[str, object]) -> Deployment:
    model = str(params.pop("model"))
    given_kind = info.pop("kind", None)
    kind = given_kind or _KIND_OF_PROVIDER.get(model.partition("/")[0], "hosted")
    if kind not in get_args(DeploymentKind):
        known = ", ".join(get_args(DeploymentKind))
        raise ConfigError(f"{where}: kind {kind!r} is not one of {known}.")
    tokenizer = info.pop("tokenizer", None)
    if tokenizer is not None and (not isinstance(tokenizer, str) or not tokenizer):
        raise ConfigError(f"{where}: tokenizer has to be a path, 'server' or 'estimate', not {tokenizer!r}.")
    api_base = params.pop("api_base", None)
    api_key = params.pop("api_key", None)
    for source in (info, params):
        _check_prices(source, where)
    return Deployment(
        id=str(info.pop("id", default_id)),
        model=model,
        kind=cast("DeploymentKind", kind),
        base_url=None if api_base is None else str(api_base),
        api_key=None if api_key is None else str(api_key),
        window=_window(info, where),
        params=params,
        info=info,
        tokenizer=tokenizer,
        kind_is_sure=given_kind is not None or kind != "hosted" or api_base is None,
    )


def _window(info: dict[str, object], where: str) -> int | None:
    window = info.get("max_input_tokens")
    if isinstance(window, str) and window.isdecimal():  # out of os.environ
        window = info["max_input_tokens"] = int(window)
    if window is not None and (not isinstance(window, int) or isinstance(window, bool) or window <= 0):
        raise ConfigError(f"{where}: max_input_tokens has to be a positive number, not {window!r}.")
    return window


def _check_prices(source: dict[str, object], where: str) -> None:
    """Makes both prices floats; YAML reads "1e-6" as a word."""
    for key in _PRICE_KEYS:
        given = source.get(key)
        if given is None:
            continue
        try:
            price = float(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else math.nan
        except ValueError:
            price = math.nan
        if not 0 <= price < math.inf:
            raise ConfigError(f"{where}: {key} has to be a number of dollars, 0 or more, not {given!r}.")
        source[key] = price
    given_keys = [key for key in _PRICE_KEYS if source.get(key) is not None]
    if len(given_keys) == 1:
        missing = next(key for key in _PRICE_KEYS if key not in given_keys)
        raise ConfigError(f"{where}: {given_keys[0]} is given without {missing}.", hint="0 says that it is free.")
