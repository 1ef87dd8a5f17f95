"""From a model's name to what is known about it: its deployments asked, its engines started, its tokens counted.

A name is a group of the configuration, a model of the catalogue, a path to a GGUF file, or any litellm model.
"""

from __future__ import annotations

import asyncio
import difflib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from coa.config import Settings, resolve_environment
from coa.errors import ConfigError, ModelNotFound
from coa.limits import FULL, SMALL, ReadingProfile
from coa.llm.catalogue import CATALOGUE
from coa.llm.counting import counter_for
from coa.llm.deployments import Deployment, ModelGroup, entries_for, group_from_model_list
from coa.llm.download import LocalModel, find_model
from coa.llm.embedded import MICRO_BATCH, EmbeddedEngine
from coa.llm.litellm_model import load_litellm
from coa.llm.litellm_settings import CallSettings, call_settings, fallback_groups
from coa.llm.prices import listed_window
from coa.llm.served import Served, ask_all
from coa.tokens import TokenCounter

__all__ = ["UNKNOWN_WINDOW", "Engines", "OpenModel", "open_model", "starts_engine"]

OnStage = Callable[[str], None]

UNKNOWN_WINDOW = 8192
"""Tokens that are assumed where nobody tells."""
_SMALL_BELOW = 1_000_000_000
"""Parameters; research/engine.md 5: models under it cannot name sentences or end a list."""
_HOW_TO_WIDEN = {
    "llama_server": "start the server with a larger one (-c, which its slots share)",
    "vllm": "start the server with --max-model-len {n}",
    "sglang": "start the server with --context-length {n} and memory for it",
    "ollama": "use a model that was trained for more",
    "hosted": "ask whoever runs it",
}


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model that is ready to be called, and what is known about it."""

    group: ModelGroup
    counter: TokenCounter
    window: int
    """Tokens; the smallest of what the deployments serve and of what is configured."""
    profile: ReadingProfile
    fallbacks: tuple[ModelGroup, ...] = ()
    """Groups that litellm's Router may turn to."""
    warnings: tuple[str, ...] = ()
    served: Mapping[str, Served] = field(default_factory=dict)
    """What each deployment said, by id; those of fallbacks as well."""
    files: tuple[LocalModel, ...] = ()
    """Models that coa serves itself, in the order of the deployments."""
    chunk_tokens: int | None = None
    """The catalogue's advice for this model."""
    long_chunk_tokens: int | None = None
    note_tokens: int | None = None
    answer_tokens: int | None = None


class Engines:
    """The engines in this process that one gateway started: one for each file and window, however often named."""

    def __init__(self) -> None:
        self._started: dict[tuple[Path, int | None], EmbeddedEngine] = {}
        self._lock = threading.Lock()

    @property
    def first(self) -> EmbeddedEngine | None:
        """The one that was started first."""
        return next(iter(self._started.values()), None)

    def start(
        self, model: LocalModel, *, n_ctx: int | None, n_threads: int | None, kv_dir: Path | None = None
    ) -> EmbeddedEngine:
        """The engine for `model`, its states in `kv_dir`; blocking. Raises: as `EmbeddedEngine.start`."""
        with self._lock:
            key = (model.path, n_ctx)
            if key not in self._started:
                self._started[key] = EmbeddedEngine.start(
                    model.path, alias=model.name, n_ctx=n_ctx, n_threads=n_threads, slot_save_path=kv_dir
                )
            return self._started[key]

    def close(self) -> None:
        """Ends all of them; blocking."""
        for engine in self._started.values():
            engine.close()


async def open_model(
    name: str, settings: Settings, calls: CallSettings, *, engines: Engines, on_stage: OnStage
) -> OpenModel:
    """What `name` stands for, opened.

    Raises: ModelNotFound for a name that nothing answers to, ConfigError, and what starting an engine raises.
    """
    group = await _resolved(_without_alias(name, calls), settings)
    any_failure, too_long = fallback_groups(calls.router, group.name)
    others = {other: _fallback(other, settings) for other in (*any_failure, *too_long)}
    opened = await asyncio.to_thread(_start_embedded, (group, *others.values()), settings, engines, on_stage)
    deployments = [d for each in opened.groups for d in each.deployments]
    served = await ask_all(deployments, wanted=settings.window, verify=calls.verify)
    groups = tuple(_as_served(each, served) for each in opened.groups)
    # What answers any failure has to hold every prompt; what answers one that is too long holds more by intent.
    counted = [groups[0], *(g for g in groups[1:] if g.name in any_failure)]
    together = [d for each in counted for d in each.deployments]
    asked = _Opened(groups, opened.files, together, served)
    return await _put_together(asked, settings, calls)


def starts_engine(name: str, settings: Settings) -> bool:
    """Whether `open_model` would load a model into this process for `name`, or for a fallback of it.

    Raises: ConfigError for settings that cannot be meant. Blocking.
    """
    calls = call_settings(settings)
    target = _without_alias(name, calls)
    configured = any(entry["model_name"] == target for entry in settings.model_list)
    if not configured and find_model(target, models_dir=settings.models_dir) is not None:
        return True
    own = _configured(target, settings)
    groups = [] if own is None else [own]
    groups += [_fallback(other, settings) for names in fallback_groups(calls.router, target) for other in names]
    return any(deployment.embedded is not None for group in groups for deployment in group.deployments)


async def _put_together(opened: _Opened, settings: Settings, calls: CallSettings) -> OpenModel:
    group, together, served = opened.groups[0], opened.together, opened.served
    warnings = _warnings(together, served)
    windows = await _windows(together, served, settings)
    window = settings.window or (min(windows) if windows else None)
    if window is None:
        warnings.append(
            f"the window of {group.name!r} is unknown: {UNKNOWN_WINDOW} tokens are assumed (--window sets it)."
        )
    elif windows and window > min(windows):
        raise ConfigError(f"--window {window} is more than {group.name!r} serves ({min(windows)}).", hint="Lower it.")
    sizes = [n for d in group.deployments if (n := served[d.id].n_params) is not None]
    small = bool(sizes) and min(sizes) < _SMALL_BELOW
    if small:
        warnings.append(_small_warning(group.name))
    entry = opened.files[0].entry if opened.files and len(group.deployments) == 1 else None
    return OpenModel(
        group=group,
        counter=await asyncio.to_thread(counter_for, together, served, verify=calls.verify),
        window=window or UNKNOWN_WINDOW,
        profile=SMALL if small else FULL,
        fallbacks=opened.groups[1:],
        warnings=tuple(warnings),
        served=served,
        files=opened.files,
        chunk_tokens=entry.chunk_tokens if entry is not None else None,
        long_chunk_tokens=entry.long_chunk_tokens if entry is not None else None,
        note_tokens=entry.note_tokens if entry is not None else None,
        answer_tokens=entry.answer_tokens if entry is not None else None,
    )


async def _resolved(name: str, settings: Settings) -> ModelGroup:
    """An entry of that very name, else a file that is there, else an entry whose "*" fits, else litellm."""
    if all(entry["model_name"] != name for entry in settings.model_list):
        local = await asyncio.to_thread(find_model, name, models_dir=settings.models_dir)
        if local is not None:
            return _of_file(local, name)
    return _configured(name, settings) or await _of_litellm(name, settings)


def _without_alias(name: str, calls: CallSettings) -> str:
    """The group that router_settings' model_group_alias leads to from `name`; `name` where it leads nowhere."""
    aliases = calls.router.get("model_group_alias")
    target = aliases.get(name) if isinstance(aliases, Mapping) else None
    target = target.get("model") if isinstance(target, Mapping) else target
    return target if isinstance(target, str) else name


def _configured(name: str, settings: Settings) -> ModelGroup | None:
    """The group of that name; only its own entries' variables have to be set."""
    own = entries_for(name, settings.model_list)
    entries = [resolve_environment(e) if e["model_name"] == own else e for e in settings.model_list]
    return group_from_model_list(name, entries)


def _fallback(name: str, settings: Settings) -> ModelGroup:
    group = _configured(name, settings)
    if group is None:
        known = dict.fromkeys(str(entry.get("model_name")) for entry in settings.model_list)
        close = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            f"the fallback {name!r} is no group of model_list" + (f"; did you mean {close[0]!r}?" if close else "."),
            hint="Groups that stand in for others need an entry with that model_name.",
        )
    return group


def _of_file(local: LocalModel, name: str) -> ModelGroup:
    deployment = Deployment(id=f"embedded/{local.name}", model=f"coa/{name}", kind="llama_server")
    return ModelGroup(local.name, (deployment,))


async def _of_litellm(name: str, settings: Settings) -> ModelGroup:
    """Any model that litellm knows how to call, keys from the environment as litellm wants them."""
    if name in CATALOGUE:
        raise ModelNotFound(f"the model {name!r} is not downloaded yet.", hint=f"Fetch it once: coa models pull {name}")
    if name.endswith(".gguf") or (Path(name).suffix == "" and name.startswith(("/", "./", "../", "~"))):
        raise ModelNotFound(f"there is no model file {name!r}.", hint="Check the path.")
    if "/" not in name:
        known = [*CATALOGUE, *dict.fromkeys(str(e.get("model_name")) for e in settings.model_list)]
        close = difflib.get_close_matches(name, known, n=1)
        raise ModelNotFound(
            f"there is no model {name!r}" + (f"; did you mean {close[0]!r}?" if close else "."),
            hint="Give a name of `coa models list`, a group of your configuration, a path to a .gguf file, or a "
            "litellm model such as openai/gpt-4o-mini.",
        )
    litellm = await asyncio.to_thread(load_litellm)
    try:
        litellm.get_llm_provider(name)
    except Exception as error:
        raise ModelNotFound(
            f"litellm does not know the provider of {name!r}.", hint="Names look like openai/gpt-4o-mini."
        ) from error
    entry = {"model_name": name, "litellm_params": {"model": name}, "model_info": {"id": name}}
    group = group_from_model_list(name, [entry])
    assert group is not None  # noqa: S101 - its only entry has that name
    return group


@dataclass(frozen=True, slots=True)
class _Opened:
    groups: tuple[ModelGroup, ...]
    """The group itself, then those that stand in for it."""
    files: tuple[LocalModel, ...]
    together: list[Deployment] = field(default_factory=list)
    """Deployments that have to hold every prompt."""
    served: Mapping[str, Served] = field(default_factory=dict)


def _start_embedded(groups: tuple[ModelGroup, ...], settings: Settings, engines: Engines, on_stage: OnStage) -> _Opened:
    """The groups with an engine of ours behind each deployment that names a model for one; blocking."""
    files: list[LocalModel] = []

    def started(deployment: Deployment) -> Deployment:
        if deployment.embedded is None:
            return deployment
        local = find_model(deployment.embedded, models_dir=settings.models_dir)
        if local is None:
            pull = f"Fetch it once: coa models pull {deployment.embedded}"
            hint = pull if deployment.embedded in CATALOGUE else "Check the path."
            raise ModelNotFound(f"there is no model file for {deployment.model!r} ({deployment.id}).", hint=hint)
        on_stage(f"loading {local.name}")
        window = deployment.window or settings.window
        kv_dir = _made(settings.kv_dir) if settings.kv_cache else None
        engine = engines.start(local, n_ctx=window, n_threads=settings.n_threads, kv_dir=kv_dir)
        files.append(local)
        info: dict[str, object] = dict(deployment.info or {})
        if kv_dir is not None:
            info |= {"slot_save_path": str(kv_dir), "n_ubatch": MICRO_BATCH, "runtime": f"xllamacpp {engine.version}"}
        return replace(
            deployment,
            model=f"openai/{local.name}",
            base_url=engine.base_url,
            api_key=engine.api_key,
            window=engine.n_ctx,
            info=info,
        )

    made = tuple(replace(g, deployments=tuple(started(d) for d in g.deployments)) for g in groups)
    return _Opened(made, tuple(files))


def _made(folder: Path) -> Path | None:
    """The folder, made where it was missing; None where it cannot be: then nothing is saved."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    return folder


def _as_served(group: ModelGroup, served: Mapping[str, Served]) -> ModelGroup:
    """The group with the kinds that were found out and the parameters that calls have to carry."""
    deployments = []
    for deployment in group.deployments:
        found = served[deployment.id]
        params = {**(deployment.params or {}), **found.send} if found.send else deployment.params
        deployments.append(replace(deployment, kind=found.kind, params=params))
    return replace(group, deployments=tuple(deployments))


async def _windows(deployments: list[Deployment], served: Mapping[str, Served], settings: Settings) -> list[int]:
    """Each deployment's window where it is known. Raises: ConfigError where less is served than configured."""
    windows = []
    for deployment in deployments:
        found = served[deployment.id].window
        if found is not None and deployment.window is not None and found < deployment.window:
            how = _HOW_TO_WIDEN[deployment.kind].format(n=deployment.window)
            raise ConfigError(
                f"{deployment.id} serves a window of {found} tokens, {deployment.window} are configured.",
                hint=f"Lower max_input_tokens in its model_info, or {how}.",
            )
        window = deployment.window or found
        if window is None and not deployment.local and settings.window is None:
            window = listed_window(deployment, await asyncio.to_thread(load_litellm))
        if window is not None:
            windows.append(window)
    return windows


def _warnings(deployments: list[Deployment], served: Mapping[str, Served]) -> list[str]:
    warnings = []
    for deployment in deployments:
        found = served[deployment.id]
        if found.problem is not None:
            again = " It may come back." if not found.answers and len(deployments) > 1 else ""
            warnings.append(f"{deployment.id} at {deployment.shown_address} {found.problem}.{again}")
        elif deployment.local and found.window is None:
            warnings.append(f"{deployment.id} at {deployment.shown_address} does not say what window it serves.")
    return warnings


def _small_warning(name: str) -> str:
    return (
        f"{name} is a very small model: it shows that the machinery works, its answers are often wrong. "
        "For real answers pull a larger one (`coa models list`) or name any litellm model with --model."
    )
