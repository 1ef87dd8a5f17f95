"""What `coa doctor` and `coa models test` look at."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from coa.config import Settings
from coa.errors import CoaError
from coa.llm.chat import ChatModel, Decoding
from coa.llm.gateway import Gateway, open_gateway
from coa.planning import limits_for
from coa.reading import Prompt, render_sentence

__all__ = ["Check", "diagnose", "test_model"]

Status = Literal["ok", "warn", "fail"]

_PACKAGES = ("langgraph", "litellm", "xllamacpp", "pydantic", "typer", "redis")
_MALWARE = {"1.82.7", "1.82.8"}
_LITTLE_SPACE = 2 * 2**30
_PROBE_TOKENS = 1000
_REDIS_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str


async def diagnose(settings: Settings) -> list[Check]:
    """Versions, folders, Redis where configured, and the configured model with one real call."""
    checks = [_python(), *_packages(), _home(settings.home), *_redis(settings.redis_url)]
    return [*checks, *await test_model(settings)]


async def test_model(settings: Settings) -> list[Check]:
    """Whether `settings.model` can be reached, what window it serves, and how fast it reads and writes."""
    try:
        gateway = await open_gateway(settings)
    except CoaError as error:
        return [Check("model", "fail", str(error))]
    try:
        name = gateway.group.name
        checks = [
            Check("model", "ok", f"{name}: {', '.join(d.id for d in gateway.group.deployments)}"),
            *(Check("model", "warn", warning) for warning in gateway.warnings),
            Check(
                "tokenizer",
                "ok" if gateway.counter.exact else "warn",
                f"{gateway.counter.name}, {'exact' if gateway.counter.exact else 'an estimate with a margin'}",
            ),
            _limits(gateway, settings),
        ]
        try:
            checks.extend(await _calls(await gateway.chat_model()))
        except CoaError as error:
            checks.append(Check("call", "fail", str(error)))
        return checks
    finally:
        await gateway.close()


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
    """One line when Redis is configured; a dead one must not hold the doctor up for redis-py's default retries."""
    if url is None:
        return []
    from coa.cache.connection import redis_version

    try:
        return [Check("redis", "ok", f"version {redis_version(url, timeout_s=_REDIS_TIMEOUT_S)}")]
    except CoaError as error:
        return [Check("redis", "warn", str(error))]


def _limits(gateway: Gateway, settings: Settings) -> Check:
    try:
        limits = limits_for(gateway, settings)
    except CoaError as error:
        return Check("window", "fail", str(error))
    shares = f"chunk {limits.chunk_tokens}, notes {limits.note_tokens}, answer {limits.answer_tokens}"
    return Check("window", "ok", f"{gateway.window} tokens: {shares}")


async def _calls(model: ChatModel) -> list[Check]:
    """A reading of about a thousand tokens, and a streamed reply."""
    text = "".join(render_sentence(n, "The lamp was lit at seven, and the harbour lay still.") for n in range(1, 61))
    started = time.perf_counter()
    reading = await model.complete(Prompt(prefix=text, tail="When was the lamp lit?"), Decoding(max_tokens=1))
    read_s = time.perf_counter() - started
    pieces: list[str] = []
    started = time.perf_counter()
    writing = await model.complete(
        Prompt(tail="Count from one to twenty in words."), Decoding(max_tokens=40), on_text=pieces.append
    )
    write_s = time.perf_counter() - started
    n_in, n_out = reading.usage.prompt_tokens, writing.usage.completion_tokens
    if not n_in:
        return [Check("call", "warn", "it answers, but reports no token usage")]
    cost = reading.usage.cost_usd
    return [
        Check("call", "ok", f"read {n_in} tokens in {read_s:.1f} s ({n_in / read_s:.0f}/s)"),
        Check(
            "streaming",
            "ok" if len(pieces) > 1 else "warn",
            f"{len(pieces)} pieces, {n_out} tokens in {write_s:.1f} s ({n_out / write_s:.0f}/s)",
        ),
        Check("price", "ok" if cost is not None else "warn", "unknown" if cost is None else f"${cost:g} for that call"),
    ]
