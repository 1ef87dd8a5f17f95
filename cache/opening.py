"""From settings and open models to a prefix cache over them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from coa.cache.blocks import root_hash
from coa.cache.engines.adapter import EngineAdapter
from coa.cache.engines.llama_server import LlamaServer
from coa.cache.engines.ollama import Ollama
from coa.cache.engines.sglang import Sglang
from coa.cache.engines.vllm import Vllm
from coa.cache.kv_cache import KvCache
from coa.cache.kv_stats import KvStats, kv_stats_file
from coa.cache.redis_index import open_index
from coa.cache.redis_states import RedisScripts, RedisStates
from coa.cache.served_engines import Seats, ServedEngine
from coa.cache.single_flight import FileFlight, RedisFlight
from coa.cache.slot_files import SlotFiles
from coa.cache.speeds import Speeds
from coa.cache.states import StateStore
from coa.config import Settings, resolve_environment
from coa.llm.deployments import Deployment, DeploymentKind
from coa.llm.gateway import MakePrefixCache
from coa.llm.litellm_clients import on_loopback
from coa.llm.litellm_settings import call_settings
from coa.llm.opening import OpenModel
from coa.llm.response_cache import weights_of

__all__ = ["prefix_cache_for"]

Make = Callable[[Deployment, bool | str], EngineAdapter]

_ADAPTERS: Mapping[DeploymentKind, Make] = {
    "llama_server": lambda deployment, verify: LlamaServer(deployment, verify=verify),
    "vllm": lambda deployment, verify: Vllm(deployment, verify=verify),
    "sglang": lambda deployment, verify: Sglang(deployment, verify=verify),
    "ollama": lambda deployment, verify: Ollama(deployment, verify=verify),
}
"""Providers that are paid by the token keep caches of their own, which `coa.llm.cache_marks` steers."""


def prefix_cache_for(settings: Settings) -> MakePrefixCache | None:
    """What makes the prefix cache of a gateway; None where the settings turn it off."""
    return partial(_made, settings) if settings.kv_cache else None


def _made(settings: Settings, models: Sequence[OpenModel]) -> KvCache | None:
    """None where no deployment is an engine. Raises: CacheError for a bad address of Redis."""
    stats = KvStats(kv_stats_file(settings.home))
    calls = call_settings(settings)
    engines: dict[str, ServedEngine] = {}
    stores: dict[str, StateStore] = {}
    folders: dict[Path, StateStore] = {}
    redis_url = None if settings.redis_url is None else resolve_environment(settings.redis_url)
    groups = [(model, group) for model in models for group in (model.group, *model.fallbacks)]
    named = [(deployment, group, model) for model, group in groups for deployment in group.deployments]
    if not any(d.kind in _ADAPTERS and d.root_url is not None for d, _, _ in named):
        return None
    index = open_index(redis_url)
    seats: dict[str, Seats] = {}
    for deployment, group, model in named:
        make, root = _ADAPTERS.get(deployment.kind), deployment.root_url
        if make is None or root is None or deployment.id in engines:
            continue
        folder = _folder_of(deployment)
        if folder is not None:
            if folder not in folders:
                folders[folder] = _store(folder, settings, stats, redis_url)
            stores[deployment.id] = folders[folder]
        adapter = make(deployment, calls.verify)
        engines[deployment.id] = ServedEngine(
            deployment,
            group.name,
            adapter,
            identity=partial(_identity, deployment, model, adapter, keeps=folder is not None),
            index=index,
            seats=seats.setdefault(root, Seats()),
        )
    alone = FileFlight(next(iter(folders), settings.kv_dir))
    return KvCache(
        list(engines.values()),
        index=index,
        stores=stores,
        flight=alone if redis_url is None else RedisFlight(RedisScripts(redis_url), beside=alone),
        learned=Speeds(),
        stats=stats,
        timeout_s=calls.timeout_s,
    )


def _store(folder: Path, settings: Settings, stats: KvStats, redis_url: str | None) -> StateStore:
    files = SlotFiles(folder, settings.kv_cache_bytes, stats=stats)
    if redis_url is None or not settings.kv_redis_bytes:
        return files
    return RedisStates(files, RedisScripts(redis_url), settings.kv_redis_bytes)


def _folder_of(deployment: Deployment) -> Path | None:
    """Where the engine saves states, as far as this process can see it (model_info's `slot_save_path`)."""
    given = (deployment.info or {}).get("slot_save_path")
    if not isinstance(given, str) or not given:
        return None
    folder = Path(given).expanduser()
    return folder if folder.is_dir() else None


def _identity(deployment: Deployment, model: OpenModel, adapter: EngineAdapter, *, keeps: bool) -> bytes | None:
    """What saved states depend on besides tokens; None where its states would be kept, and its weights are not known
    yet. An engine refuses a state of another KV type, but takes one of another quantisation of the same model; and
    another micro-batch computes other last bits."""
    info = deployment.info or {}
    weights = weights_of(deployment, model.served.get(deployment.id), model.files)
    told = deployment.id if weights is None else weights.told
    if keeps and adapter.saves and not (weights is not None and weights.everywhere):
        if not isinstance(adapter, LlamaServer) or adapter.weights is None:
            return None
        told = f"{adapter.weights} {_file(deployment, adapter)}"
    return root_hash(
        deployment.kind,
        told,
        str(getattr(adapter, "build", "")),
        str(adapter.granularity),
        str(adapter.n_slots),  # llama.cpp refuses a state of a server with another number of slots
        str(info.get("kv_type", "")),
        str(info.get("adapter", "")),
        str(info.get("salt", "")),
    )


def _file(deployment: Deployment, adapter: LlamaServer) -> str:
    """What is seen of the weights' file beside what they compute; empty for one on another host, or in a container:
    those with the same name, sizes and replies share their states."""
    if on_loopback(deployment.root_url or ""):
        with contextlib.suppress(OSError):
            found = Path(adapter.model_path).stat()
            return f"{found.st_size} {found.st_mtime_ns}"
    return ""
