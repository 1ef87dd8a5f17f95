"""Small real calls that show what a deployment can do: read, reuse a prefix, stream, keep to a schema."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

import httpx

from coa.errors import BadOutput, ModelError, ModelUnavailable
from coa.llm.chat import ChatModel, Decoding
from coa.llm.deployments import Deployment
from coa.llm.litellm_clients import on_loopback
from coa.reading import Prompt, render_sentence
from coa.tokens import TokenCounter
from coa.types import CallUsage

__all__ = ["PrefixReuse", "SchemaReply", "Streamed", "probe_prefix", "probe_schema", "probe_stream"]

_PREFIX_TOKENS = 2000
_SHARE_OF_WINDOW = 0.5
_TIMEOUT_S = 300.0
_QUESTIONS = ("When was the lamp lit?", "What lay still?")
_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "maxLength": 20}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class PrefixReuse:
    """One prefix read twice, with two questions after it."""

    cold: CallUsage
    cold_s: float
    warm: CallUsage
    warm_s: float


@dataclass(frozen=True, slots=True)
class Streamed:
    """A reply that was asked for in pieces."""

    pieces: int
    completion_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SchemaReply:
    """What came of asking for JSON in a form."""

    fits: bool
    enforced: bool
    """Whether the deployment is known to hold its replies to a schema."""
    usage: CallUsage


async def probe_prefix(deployment: Deployment, model: ChatModel, *, window: int, counter: TokenCounter) -> PrefixReuse:
    """A prefix of about 2,000 tokens, or half a smaller window, read by `deployment` twice; new each time.

    `model` makes the calls, but for llama.cpp, where coa's own calls leave the cache of the slot alone. Raises:
    ModelError.
    """
    prefix = await asyncio.to_thread(_prefix, int(min(_PREFIX_TOKENS, window * _SHARE_OF_WINDOW)), counter)
    found: list[tuple[CallUsage, float]] = []
    for question in _QUESTIONS:
        prompt = Prompt(prefix=prefix, tail=question)
        started = time.perf_counter()
        if deployment.kind == "llama_server":
            usage = await _llama_call(deployment, prompt)
        else:
            usage = (await model.complete(prompt, Decoding(max_tokens=1))).usage
        found.append((usage, time.perf_counter() - started))
    return PrefixReuse(*found[0], *found[1])


async def probe_stream(model: ChatModel) -> Streamed:
    """A short reply in pieces. Raises: ModelError."""
    pieces: list[str] = []
    started = time.perf_counter()
    reply = await model.complete(
        Prompt(tail="Count from one to twenty in words."), Decoding(max_tokens=40), on_text=pieces.append
    )
    return Streamed(len(pieces), reply.usage.completion_tokens, time.perf_counter() - started)


async def probe_schema(model: ChatModel) -> SchemaReply:
    """Whether a reply comes as a small JSON schema asks. Raises: ModelError."""
    prompt = Prompt(
        tail='Three red apples lie on the table. Give their colour and count as JSON: {"colour": "…", "count": 0}'
    )
    reply = await model.complete(prompt, Decoding(max_tokens=60, schema=_SCHEMA))
    return SchemaReply(_fits(reply.text), model.supports_schema, reply.usage)


def _fits(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return (
        isinstance(found, dict)
        and found.keys() == {"colour", "count"}
        and isinstance(found["colour"], str)
        and isinstance(found["count"], int)
    )


def _prefix(n_tokens: int, counter: TokenCounter) -> str:
    """Sentences of about so many tokens in all, the first of them like no other before; blocking."""
    first = render_sentence(1, f"Page {secrets.token_hex(6)} of the log.")
    line = render_sentence(10, "The lamp was lit at seven, and the harbour lay still.")
    per_line = max(1, counter.count([line])[0])
    return first + line * max(1, n_tokens // per_line)


async def _llama_call(deployment: Deployment, prompt: Prompt) -> CallUsage:
    """One call that may use what the server's slot holds."""
    body = {
        "model": deployment.served_name,
        "messages": prompt.messages(),
        "max_tokens": 1,
        "temperature": 0.0,
        "cache_prompt": True,
    }
    address = deployment.address or ""
    headers = {"Authorization": f"Bearer {deployment.api_key}"} if deployment.api_key else {}
    try:
        async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT_S, trust_env=not on_loopback(address)) as client:
            reply = await client.post(f"{address}/chat/completions", json=body)
    except httpx.HTTPError as error:
        raise ModelUnavailable(f"{deployment.id} does not answer ({type(error).__name__}).") from error
    if not reply.is_success:
        raise ModelError(f"{deployment.id} answered {reply.status_code}.")
    try:
        return _usage(reply.json())
    except (ValueError, AttributeError, TypeError):
        raise BadOutput(f"{deployment.id} answered something that is no chat completion.") from None


def _usage(reply: dict[str, Any]) -> CallUsage:
    usage = reply.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens")
    if cached is None:
        cached = (reply.get("timings") or {}).get("cache_n", 0)
    return CallUsage(
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        cached_tokens=int(cached),
        completion_tokens=int(usage.get("completion_tokens", 0)),
        cost_usd=None,
    )
