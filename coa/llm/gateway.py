"""From a model's name to something that answers: group of the configuration, catalogue, GGUF file, or litellm name.

litellm takes seconds to import and an engine a moment to load its model, so both begin at once, in threads,
and the chat model is put together when the first call needs it.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import httpx

from coa.config import Settings, resolve_environment
from coa.errors import ConfigError, ModelNotFound
from coa.limits import FULL, SMALL, ReadingProfile
from coa.llm.catalogue import CATALOGUE
from coa.llm.chat import ChatModel
from coa.llm.deployments import Deployment, DeploymentKind, ModelGroup, group_from_model_list
from coa.llm.download import LocalModel, find_model
from coa.llm.embedded import EmbeddedEngine
from coa.llm.engine_tokens import EngineTokens
from coa.llm.litellm_clients import on_loopback
from coa.llm.litellm_model import LitellmModel, load_litellm
from coa.tokens import EstimatedTokens, TokenCounter

__all__ = ["Gateway", "open_gateway"]

OnStage = Callable[[str], None]

_SMALL_BELOW = 1_000_000_000
"""Parameters; research/engine.md 5: models under it cannot name sentences or end a list."""
_UNKNOWN_WINDOW = 8192
# What coa does anyway, by each call's own parameters.
_SETTINGS_MET = frozenset({"drop_params", "num_retries", "request_timeout", "telemetry", "set_verbose"})
_PROBE_TIMEOUT_S = 5.0


@dataclass
class Gateway:
    """A model that is ready to be used, and what is known about it."""

    group: ModelGroup
    counter: TokenCounter
    window: int
    """Tokens; what the engine says it serves where it tells, else what is configured."""
    profile: ReadingProfile
    warnings: tuple[str, ...] = ()
    chunk_tokens: int | None = None
    """The catalogue's advice for this model."""
    note_tokens: int | None = None
    answer_tokens: int | None = None
    settings: Settings = field(default_factory=Settings)
    engine: EmbeddedEngine | None = None
    _litellm: asyncio.Task[ModuleType] | None = None
    _model: LitellmModel | None = None

    async def chat_model(self) -> ChatModel:
        """The group's chat model; waits for litellm's import the first time."""
        if self._model is None:
            if self._litellm is None:
                self.begin_import()
            assert self._litellm is not None  # noqa: S101 - set by begin_import
            await self._litellm
        if self._model is None:  # another call may have made it meanwhile
            others = _other_groups(self.settings, self.group.name)
            self._model = LitellmModel(
                self.group,
                retries=self.settings.retries,
                timeout_s=self.settings.timeout_s,
                router_settings=self.settings.router_settings,
                other_groups=others,
            )
        return self._model

    async def cost_of(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Dollars for so many tokens by the configured or known price; None where there is none."""
        if all(d.local for d in self.group.deployments):
            return 0.0
        await self.chat_model()
        dearest: float | None = None
        for deployment in self.group.deployments:
            info = deployment.info or {}
            if info.get("input_cost_per_token") is None:
                litellm = await asyncio.to_thread(load_litellm)
                bare = deployment.model.partition("/")[2]
                info = litellm.model_cost.get(deployment.model) or litellm.model_cost.get(bare) or {}
            price_in, price_out = info.get("input_cost_per_token"), info.get("output_cost_per_token")
            if not isinstance(price_in, int | float) or not isinstance(price_out, int | float):
                return None
            cost = prompt_tokens * price_in + completion_tokens * price_out
            dearest = cost if dearest is None else max(dearest, cost)
        return dearest

    def begin_import(self) -> None:
        """Starts litellm's import in a thread."""
        self._litellm = asyncio.create_task(asyncio.to_thread(load_litellm))

    async def close(self) -> None:
        """Ends the engine, if it is ours, and lets go of connections."""
        if self._litellm is not None and not self._litellm.done():
            await asyncio.wait([self._litellm])
        if self._model is not None:
            await self._model.close()
        close = getattr(self.counter, "close", None)
        if close is not None:
            close()
        if self.engine is not None:
            await asyncio.to_thread(self.engine.close)


async def open_gateway(settings: Settings, *, calls: bool = True, on_stage: OnStage | None = None) -> Gateway:
    """The gateway to `settings.model`; `calls` False leaves litellm alone until it is asked for.

    Raises: ModelNotFound for a name that nothing answers to, ConfigError, and what starting an engine raises.
    """
    tell = on_stage or (lambda _: None)
    importing = asyncio.create_task(asyncio.to_thread(load_litellm)) if calls else None
    try:
        gateway = await _resolve(settings, tell)
    except BaseException:
        if importing is not None:
            await asyncio.wait([importing])
        raise
    ignored = sorted(key for key in settings.litellm_settings if key not in _SETTINGS_MET)
    if ignored:
        gateway.warnings += (f"litellm_settings: {', '.join(ignored)} are for litellm's proxy and not applied here.",)
    gateway._litellm = importing
    return gateway


async def _resolve(settings: Settings, tell: OnStage) -> Gateway:
    name = settings.model
    group = group_from_model_list(name, _resolved(settings))
    if group is not None:
        return await asyncio.to_thread(_configured, group, settings)
    local = await asyncio.to_thread(find_model, name, models_dir=settings.models_dir)
    if local is not None:
        tell(f"loading {local.name}")
        return await asyncio.to_thread(_embedded, local, settings)
    if name in CATALOGUE:
        raise ModelNotFound(f"the model {name!r} is not downloaded yet.", hint=f"Fetch it once: coa models pull {name}")
    if name.endswith(".gguf") or (Path(name).suffix == "" and name.startswith(("/", "./", "../", "~"))):
        raise ModelNotFound(f"there is no model file {name!r}.", hint="Check the path.")
    if "/" in name:
        return await _hosted(name, settings)
    known = [*CATALOGUE, *dict.fromkeys(str(e.get("model_name")) for e in settings.model_list)]
    close = difflib.get_close_matches(name, known, n=1)
    raise ModelNotFound(
        f"there is no model {name!r}" + (f"; did you mean {close[0]!r}?" if close else "."),
        hint="Give a name of `coa models list`, a group of your configuration, a path to a .gguf file, or a "
        "litellm model such as openai/gpt-4o-mini.",
    )


def _embedded(local: LocalModel, settings: Settings) -> Gateway:
    engine = EmbeddedEngine.start(local.path, alias=local.name, n_ctx=settings.window, n_threads=settings.n_threads)
    deployment = Deployment(
        id=f"embedded/{local.name}",
        model=f"openai/{local.name}",
        kind="llama_server",
        base_url=engine.base_url,
        api_key=engine.api_key,
        window=engine.n_ctx,
    )
    entry = local.entry
    profile = SMALL if _n_params(engine.root_url, engine.api_key, _SMALL_BELOW) < _SMALL_BELOW else FULL
    warnings = (_small_warning(local.name),) if profile is SMALL else ()
    return Gateway(
        group=ModelGroup(local.name, (deployment,)),
        counter=EngineTokens(engine.root_url, engine.api_key, local.name),
        window=engine.n_ctx,
        profile=profile,
        warnings=warnings,
        chunk_tokens=entry.chunk_tokens if entry is not None else None,
        note_tokens=entry.note_tokens if entry is not None else None,
        answer_tokens=entry.answer_tokens if entry is not None else None,
        settings=settings,
        engine=engine,
    )


def _configured(group: ModelGroup, settings: Settings) -> Gateway:
    """A group of model_list; llama.cpp servers are asked for their window, size and tokens."""
    warnings: list[str] = []
    windows: list[int] = [] if group.window is None else [group.window]
    counter: TokenCounter = EstimatedTokens()
    small = False
    for deployment in group.deployments:
        if deployment.kind != "llama_server" or deployment.base_url is None:
            continue
        root, key = _root(deployment.base_url), deployment.api_key or ""
        served = _served_window(root, key)
        if served is None:
            warnings.append(f"{deployment.id} at {root} does not say what window it serves.")
            continue
        if deployment.window is not None and served < deployment.window:
            raise ConfigError(
                f"{deployment.id} serves a window of {served} tokens, {deployment.window} are configured.",
                hint="Lower max_input_tokens in its model_info, or start the server with a larger one.",
            )
        windows.append(served)
        if not counter.exact:
            counter = EngineTokens(root, key, group.name)
            small = _n_params(root, key, _SMALL_BELOW) < _SMALL_BELOW
    window = settings.window or (min(windows) if windows else None)
    if window is None:
        warnings.append(
            f"the window of {group.name!r} is unknown: {_UNKNOWN_WINDOW} tokens are assumed (--window sets it)."
        )
    if windows and window is not None and window > min(windows):
        raise ConfigError(f"--window {window} is more than {group.name!r} serves ({min(windows)}).", hint="Lower it.")
    if small:
        warnings.append(_small_warning(group.name))
    return Gateway(
        group=group,
        counter=counter,
        window=window or _UNKNOWN_WINDOW,
        profile=SMALL if small else FULL,
        warnings=tuple(warnings),
        settings=settings,
    )


async def _hosted(name: str, settings: Settings) -> Gateway:
    """Any model that litellm knows how to call, keys from the environment as litellm wants them."""
    litellm = await asyncio.to_thread(load_litellm)
    try:
        model, provider, *_ = litellm.get_llm_provider(name)
    except Exception as error:
        raise ModelNotFound(
            f"litellm does not know the provider of {name!r}.", hint="Names look like openai/gpt-4o-mini."
        ) from error
    window = settings.window
    if window is None:
        known = litellm.model_cost.get(name) or litellm.model_cost.get(model) or {}
        window = known.get("max_input_tokens")
    warnings = []
    if window is None:
        window = _UNKNOWN_WINDOW
        warnings.append(f"the window of {name!r} is unknown: {window} tokens are assumed (--window sets it).")
    kind: DeploymentKind = "hosted"
    if provider in {"ollama", "ollama_chat"}:
        kind = "ollama"
    elif provider == "hosted_vllm":
        kind = "vllm"
    deployment = Deployment(id=name, model=name, kind=kind, window=window)
    return Gateway(
        group=ModelGroup(name, (deployment,)),
        counter=EstimatedTokens(),
        window=int(window),
        profile=FULL,
        warnings=tuple(warnings),
        settings=settings,
    )


def _resolved(settings: Settings) -> list[dict[str, object]]:
    wanted = [e for e in settings.model_list if e.get("model_name") == settings.model]
    resolved = resolve_environment(wanted)
    return resolved if isinstance(resolved, list) else []


def _other_groups(settings: Settings, name: str) -> tuple[ModelGroup, ...]:
    """The groups that router_settings may fall back to; only looked at when it names fallbacks."""
    if not settings.router_settings or not any("fallbacks" in key for key in settings.router_settings):
        return ()
    names = dict.fromkeys(str(e.get("model_name")) for e in settings.model_list)
    entries = resolve_environment(list(settings.model_list))
    groups = (group_from_model_list(n, entries) for n in names if n != name)
    return tuple(g for g in groups if g is not None)


def _root(base_url: str) -> str:
    return base_url.rstrip("/").removesuffix("/v1")


def _served_window(root: str, key: str) -> int | None:
    body = _get_json(f"{root}/props", key)
    settings = body.get("default_generation_settings") if body is not None else None
    n_ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    return int(n_ctx) if isinstance(n_ctx, int) and n_ctx > 0 else None


def _n_params(root: str, key: str, default: int) -> int:
    """Parameters of the served model; `default` where the server does not tell."""
    body = _get_json(f"{root}/v1/models", key)
    models = body.get("data") if body is not None else None
    meta = models[0].get("meta") if isinstance(models, list) and models and isinstance(models[0], dict) else None
    n_params = meta.get("n_params") if isinstance(meta, dict) else None
    return n_params if isinstance(n_params, int) else default


def _get_json(url: str, key: str) -> dict[str, object] | None:
    if urlsplit(url).scheme not in {"http", "https"}:
        return None
    try:
        response = httpx.get(
            url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_PROBE_TIMEOUT_S,
            trust_env=not on_loopback(url),  # a proxy set for the outside cannot reach it
        )
        body = response.json() if response.is_success else None
    except (httpx.HTTPError, ValueError):
        return None
    return body if isinstance(body, dict) else None


def _small_warning(name: str) -> str:
    return (
        f"{name} is a very small model: it shows that the machinery works, its answers are often wrong. "
        "For real answers pull a larger one (`coa models list`) or name any litellm model with --model."
    )
