"""What `coa doctor` and `coa models test` look at."""

from __future__ import annotations

import asyncio
import platform
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from coa.cache.kv_cache import KvCache
from coa.cache.opening import prefix_cache_for
from coa.cache.state_probe import probe_state
from coa.config import Settings, resolve_environment
from coa.errors import CoaError
from coa.llm.chat import ChatModel
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.gateway import Gateway, open_gateway
from coa.llm.litellm_model import LitellmModel, load_litellm
from coa.llm.opening import OpenModel
from coa.llm.prices import prices_of
from coa.llm.probes import probe_prefix, probe_schema, probe_stream
from coa.llm.response_file import FileResponses, responses_file
from coa.llm.response_store import ResponseStore
from coa.planning import limits_for

__all__ = ["Check", "diagnose", "test_model"]

Status = Literal["ok", "warn", "fail"]

_PACKAGES = ("langgraph", "litellm", "xllamacpp", "pydantic", "typer", "redis")
_MALWARE = {"1.82.7", "1.82.8"}
_LITTLE_SPACE = 2 * 2**30
_REDIS_TIMEOUT_S = 2.0
_SLOW_REDIS_S = 0.02
_REUSE = 2.0
"""How much faster the second reading of a prefix has to be to count as reuse where nothing is reported."""
_PER_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str


async def diagnose(settings: Settings) -> list[Check]:
    """Versions, folders, kept replies, Redis where configured, and every model of the settings with real calls."""
    try:
        redis = await asyncio.to_thread(_redis, resolve_environment(settings.redis_url))
    except CoaError as error:
        return [_python(), *_packages(), Check("redis server", "fail", str(error))]
    checks = [_python(), *_packages(), _home(settings.home), *redis]
    return [*checks, *await _kept_replies(settings), *await test_model(settings)]


async def test_model(settings: Settings) -> list[Check]:
    """What the models of the settings serve, and what a few calls to each of their deployments show.

    Five calls a deployment; replies that were kept from before are not used.
    """
    try:
        gateway = await open_gateway(
            settings.model_copy(update={"response_cache": False}), make_prefix_cache=prefix_cache_for(settings)
        )
    except CoaError as error:
        return [Check("model", "fail", str(error))]
    try:
        checks = []
        for name, model in gateway.models.items():
            roles = sorted(role for role, named in settings.roles.items() if named == name)
            checks += await _model(gateway, model, settings, roles)
        checks += await _saved_states(gateway)
        checks.append(await asyncio.to_thread(_limits, gateway, settings))
        return checks
    finally:
        await gateway.close()


test_model.__test__ = False  # type: ignore[attr-defined] # pytest would take it for a test


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> list[Check]:
    found = []
    for name in _PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(Check(name, "fail", "not installed"))
            continue
        if name == "litellm" and version in _MALWARE:
            found.append(Check(name, "fail", f"{version} carries malware: remove it and renew your keys"))
        else:
            found.append(Check(name, "ok", version))
    return found


def _home(home: Path) -> Check:
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".doctor"
        probe.write_text("ok", encoding="utf-8")
        probe.unlink()
        free = shutil.disk_usage(home).free
    except OSError as error:
        return Check("home", "fail", f"{home}: {error.strerror}. Choose another folder with COA_HOME.")
    return Check("home", "ok" if free > _LITTLE_SPACE else "warn", f"{home}, {free / 2**30:.1f} GiB free")


def _redis(url: str | None) -> list[Check]:
    """Blocking. A dead Redis is a warning, since coa goes on without it, and told soon."""
    if url is None:
        return []
    from coa.cache.redis_facts import redis_facts

    try:
        facts = redis_facts(url, timeout_s=_REDIS_TIMEOUT_S)
    except CoaError as error:
        return [Check("redis server", "warn", str(error))]
    bound = f"{_size(facts.used_bytes)} of {_size(facts.max_bytes)}" if facts.max_bytes else "no maxmemory"
    memory = f"{bound}, {facts.policy}"
    full = facts.max_bytes > 0 and facts.policy == "noeviction"
    if full:
        memory += ": writes fail when it is full (allkeys-lru makes room)"
    return [
        Check("redis server", "ok", f"version {facts.version}"),
        Check("redis memory", "warn" if full else "ok", memory),
        Check(
            "redis latency",
            "ok" if facts.latency_s < _SLOW_REDIS_S else "warn",
            f"{facts.latency_s * 1000:.2f} ms a round trip",
        ),
    ]


async def _kept_replies(settings: Settings) -> list[Check]:
    """What is kept where this configuration keeps it: at Redis where there is one, else in coa's folder."""
    from coa.cache.responses import responses_for

    if not settings.response_cache:
        return [Check("kept replies", "ok", "off")]
    file = FileResponses(responses_file(settings.home), settings.response_cache_bytes)
    store: ResponseStore = file
    try:
        store = responses_for(settings, patient=True) or file
        if store is file and not file.path.exists():
            return [Check("kept replies", "ok", f"none yet, up to {_size(settings.response_cache_bytes)}")]
        stats = await store.stats()
    except CoaError as error:
        return [Check("kept replies", "warn", str(error))]
    finally:
        await store.close()
    total = stats.total
    held = f"{total.entries} replies, {_size(total.bytes)} of {_size(settings.response_cache_bytes)}"
    return [Check("kept replies", "ok", f"{held}, used {total.hits} times, in {stats.place}")]


async def _model(gateway: Gateway, model: OpenModel, settings: Settings, roles: list[str]) -> list[Check]:
    """One model: what is known of it, then its deployments one after the other, so that times can be compared."""
    name, deployments = model.group.name, model.group.deployments
    several = len(gateway.models) > 1
    told = f"{name}: {', '.join(d.id for d in deployments)}" + (f" (plays {', '.join(roles)})" if roles else "")
    exact = "exact" if model.counter.exact else "an estimate with a margin"
    checks = [Check("model", "ok", told)]
    problems = {d.id for d in deployments if model.served[d.id].problem is not None}
    for warning in model.warnings:
        if warning.partition(" ")[0] not in problems:
            checks.append(Check(f"{name}: model" if several else "model", "warn", warning))
    counted = Check("tokenizer", "ok" if model.counter.exact else "warn", f"{model.counter.name}, {exact}")
    checks.append(Check(f"{name}: tokenizer", counted.status, counted.detail) if several else counted)
    alive = sum(model.served[d.id].answers for d in deployments)
    for deployment in deployments:
        prefix = f"{deployment.id}: " if several or len(deployments) > 1 else ""
        async for check in _deployment(model, deployment, settings, alone=alive == 0):
            checks.append(Check(prefix + check.name, check.status, check.detail))
    return checks


async def _deployment(
    model: OpenModel, deployment: Deployment, settings: Settings, *, alone: bool
) -> AsyncIterator[Check]:
    """What it says, then calls; nothing is called where nothing listens."""
    served = model.served[deployment.id]
    where = f"{deployment.kind} at {deployment.shown_address}" if deployment.root_url else deployment.model
    if served.problem is not None:
        down = not served.answers and not alone
        yield Check("reachable", "warn" if down else "fail", f"{where} {served.problem}")
        if not served.answers:
            return
    else:
        yield Check("reachable", "ok", where if deployment.root_url else f"{where}, asked by calls alone")
    if deployment.local:
        told = f"{served.window} tokens" if served.window is not None else "it does not tell"
        yield Check("served window", "ok" if served.window is not None else "warn", told)
    chat = LitellmModel(ModelGroup(deployment.id, (deployment,)), retries=0, timeout_s=settings.timeout_s)
    try:
        for look in (_reading, _streaming, _structured):
            async for check in look(model, deployment, chat):
                yield check
    except CoaError as error:
        yield Check("call", "fail", str(error))
    finally:
        await chat.close()
    yield await _price(deployment)


async def _reading(model: OpenModel, deployment: Deployment, chat: ChatModel) -> AsyncIterator[Check]:
    found = await probe_prefix(deployment, chat, window=model.window, counter=model.counter)
    n_in = found.cold.prompt_tokens
    if not n_in:
        yield Check("call", "warn", f"it answers in {found.cold_s:.1f} s, but reports no token usage")
        return
    yield Check("call", "ok", f"read {n_in} tokens in {found.cold_s:.1f} s ({n_in / found.cold_s:.0f}/s)")
    again = f"the same prefix again: {found.warm_s:.2f} s after {found.cold_s:.2f} s"
    if found.warm.cached_tokens:
        cached = f"{found.warm.cached_tokens} of {found.warm.prompt_tokens} tokens cached"
        yield Check("prefix reuse", "ok", f"{again}, {cached} (first: {found.cold.cached_tokens})")
    elif found.warm_s * _REUSE < found.cold_s:
        yield Check("prefix reuse", "warn", f"{again}, but cached tokens are not reported")
    else:
        yield Check("prefix reuse", "warn", f"{again}: no cached tokens reported, no gain seen")


async def _streaming(model: OpenModel, deployment: Deployment, chat: ChatModel) -> AsyncIterator[Check]:
    found = await probe_stream(chat)
    speed = (
        f"{found.completion_tokens} tokens in {found.seconds:.1f} s ({found.completion_tokens / found.seconds:.0f}/s)"
    )
    yield Check("streaming", "ok" if found.pieces > 1 else "warn", f"{found.pieces} pieces, {speed}")


async def _structured(model: OpenModel, deployment: Deployment, chat: ChatModel) -> AsyncIterator[Check]:
    found = await probe_schema(chat)
    how = "held to its schema by the engine" if found.enforced else "no schema is enforced: prompts and repair do it"
    if found.fits:
        yield Check("structured output", "ok", f"JSON as asked; {how}")
    else:
        yield Check("structured output", "warn", f"the reply is not the JSON that was asked for; {how}")


async def _saved_states(gateway: Gateway) -> list[Check]:
    """Whether engines that save attention KV do, each tried out."""
    cache, checks = gateway.prefix_cache, []
    if cache is None:
        return []
    assert isinstance(cache, KvCache)  # noqa: S101 - made by prefix_cache_for
    for deployment in cache.engines:
        name = "saved states" if len(cache.engines) == 1 else f"{deployment}: saved states"
        try:
            found = await probe_state(cache, deployment)
        except CoaError as error:
            checks.append(Check(name, "warn", str(error)))
            continue
        if found is not None:
            again = f"{found.restored_s:.2f} s after {found.computed_s:.2f} s"
            size = f"{found.tokens} tokens, {_size(found.n_bytes)}, saved in {found.saved_s:.2f} s"
            checks.append(Check(name, "ok", f"{size}; restored instead of computed: {again}"))
    return checks


async def _price(deployment: Deployment) -> Check:
    prices = prices_of(deployment, await asyncio.to_thread(load_litellm))
    if prices is None:
        return Check("price", "warn", "unknown: set input_cost_per_token and output_cost_per_token in model_info")
    if not prices.prompt and not prices.completion:
        return Check("price", "ok", "nothing by the token")
    per_million = (prices.prompt * _PER_MILLION, prices.completion * _PER_MILLION)
    return Check("price", "ok", "${:g} in and ${:g} out a million tokens".format(*per_million))


def _limits(gateway: Gateway, settings: Settings) -> Check:
    """Blocking."""
    try:
        limits = limits_for(gateway, settings)
    except CoaError as error:
        return Check("window", "fail", str(error))
    shares = f"chunk {limits.chunk_tokens}, notes {limits.note_tokens}, answer {limits.answer_tokens}"
    return Check("window", "ok", f"{gateway.window} tokens: {shares}")


def _size(n_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"
