"""Model groups as litellm's Router takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from coa.errors import ConfigError

__all__ = ["Deployment", "DeploymentKind", "ModelGroup", "group_from_model_list"]

DeploymentKind = Literal["llama_server", "vllm", "sglang", "ollama", "hosted"]

_LOCAL_KINDS: frozenset[str] = frozenset({"llama_server", "vllm", "sglang", "ollama"})


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

    @property
    def local(self) -> bool:
        """True for engines that are not paid by the token."""
        return self.kind in _LOCAL_KINDS

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

    Besides litellm's own keys `model_info.kind` says which engine serves it; without it the provider in
    `litellm_params.model` decides, and an "openai/" model with an api_base counts as hosted.

    Raises: ConfigError for entries without a model or with an unknown kind.
    """
    found: list[Deployment] = []
    for at, entry in enumerate(entries):
        if entry.get("model_name") != name:
            continue
        params = entry.get("litellm_params")
        if not isinstance(params, Mapping) or not isinstance(params.get("model"), str):
            raise ConfigError(f"model_list[{at}] ({name!r}) has no litellm_params.model.")
        info = entry.get("model_info") or {}
        if not isinstance(info, Mapping):
            raise ConfigError(f"model_list[{at}] ({name!r}): model_info has to be a mapping.")
        found.append(_deployment(name, at, dict(params), dict(info)))
    return ModelGroup(name, tuple(found)) if found else None


def _deployment(name: str, at: int, params: dict[str, object], info: dict[str, object]) -> Deployment:
    model = str(params.pop("model"))
    kind = info.pop("kind", None) or _kind_of(model)
    if kind not in get_args(DeploymentKind):
        known = ", ".join(get_args(DeploymentKind))
        raise ConfigError(f"model_list[{at}] ({name!r}): kind {kind!r} is not one of {known}.")
    window = info.get("max_input_tokens")
    if window is not None and (not isinstance(window, int) or window <= 0):
        raise ConfigError(f"model_list[{at}] ({name!r}): max_input_tokens has to be a positive number, not {window!r}.")
    api_base = params.pop("api_base", None)
    api_key = params.pop("api_key", None)
    return Deployment(
        id=str(info.pop("id", f"{name}/{at}")),
        model=model,
        kind=cast("DeploymentKind", kind),
        base_url=None if api_base is None else str(api_base),
        api_key=None if api_key is None else str(api_key),
        window=window,
        params=params,
        info=info,
    )


def _kind_of(model: str) -> DeploymentKind:
    provider = model.partition("/")[0]
    if provider in {"hosted_vllm", "vllm"}:
        return "vllm"
    if provider in {"ollama", "ollama_chat"}:
        return "ollama"
    if provider in {"llamafile", "llama_server"}:
        return "llama_server"
    return "hosted"
