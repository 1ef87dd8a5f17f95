"""What vLLM and SGLang have in common: exact tokens from `/tokenize`, KV events, and no states to save."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from coa.cache.engines.engine_http import EngineHttp, gauge
from coa.cache.index import IndexKind
from coa.cache.kv_blocks import EngineBlocks
from coa.cache.kv_feed import KvFeed, KvSink, KvSource, kv_source, zmq_is_here
from coa.errors import CacheError
from coa.llm.deployments import Deployment
from coa.reading import Prompt

__all__ = ["EventsEngine"]

_log = logging.getLogger(__name__)

# Two letters that a tail may begin with: what is before them in both prompts is the prefix.
_PROBES = ("A", "Z")
_SEAM = 20
"""Characters at the end of a prefix that its last token, and what follows, may depend on."""
_MOST_SEAMS = 64


class EventsEngine:
    """The part of `EngineAdapter` that does not depend on which of them it is."""

    saves = False

    def __init__(
        self,
        deployment: Deployment,
        *,
        n_slots: int,
        verify: bool | str,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        info: Mapping[str, object] = deployment.info or {}
        params: Mapping[str, object] = deployment.params or {}
        given = {**info, **params}.get("max_parallel_requests")
        self.deployment = deployment
        self.kind: IndexKind = "approx"
        self.n_slots = given if isinstance(given, int) and given > 0 else n_slots
        self.granularity = 1
        self.capacity_tokens = 0
        """What its memory holds; 0 where it does not tell. Known after `open`."""
        self.tells_cached = False
        """Whether its replies say how much of a prompt it had; known after `open`."""
        self.source = kv_source(info, deployment.id)
        """Where its KV events are; None where there are none. Known after `open`."""
        self.adapter_name: str | None = None
        """Its LoRA adapter; known after `open`."""
        extra = params.get("extra_body")
        self._template = {**(extra if isinstance(extra, Mapping) else {}), **params}.get("chat_template_kwargs")
        self._after: dict[str, int] = {}
        """Tokens from the tail's first one on, by how the prefix ends."""
        self._http = EngineHttp(deployment, verify=verify, transport=transport)

    async def prefix_tokens(self, prompt: Prompt) -> list[int]:
        """Two round trips, side by side; one for a prefix that ends as an earlier one did, as those of a template do:
        then as many tokens follow it as did then."""
        seam = prompt.prefix[-_SEAM:]
        n_after = self._after.get(seam)
        if n_after is not None:
            return (await self._chat_tokens(prompt, _PROBES[0]))[:-n_after]
        one, other = await asyncio.gather(*(self._chat_tokens(prompt, probe) for probe in _PROBES))
        n_common = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        if n_common == 0:
            raise self._http.error("/tokenize", "the chat template does not show the user's message")
        if len(self._after) < _MOST_SEAMS and len(prompt.prefix) > _SEAM:
            self._after[seam] = len(one) - n_common
        return one[:n_common]

    async def save(self, slot: int, file: str) -> int:
        """Not with this engine; see `EngineAdapter`."""
        raise CacheError(f"{self.deployment.id} does not save states.")

    async def restore(self, slot: int, file: str) -> int:
        """Not with this engine; see `EngineAdapter`."""
        raise CacheError(f"{self.deployment.id} does not restore states.")

    async def epoch(self) -> str:
        """When its process began, as its metrics say; one that does not tell never changes."""
        found = gauge(await self._http.text("/metrics"), "process_start_time_seconds", *self._created)
        return found[0] if found is not None else ""

    _created: tuple[str, ...] = ()
    """Metrics that tell the same where several processes serve, and none of them tells its own start."""

    def feed(self, root: bytes, sink: KvSink) -> KvFeed | None:
        """See `coa.cache.kv_feed.TellsEvents`."""
        if self.kind != "events" or self.source is None:
            return None
        blocks = EngineBlocks(root, adapter=self.adapter_name)
        return KvFeed(self.source, blocks, sink, name=self.deployment.id, epoch=self.epoch)

    async def close(self) -> None:
        """See `EngineAdapter`."""
        await self._http.close()

    def _tells(self, *, told: bool, flag: str) -> None:
        """Whether its replies say what was cached."""
        self.tells_cached = told
        if not told:
            _log.warning("%s does not tell cached tokens: with %s it would.", self.deployment.id, flag)

    def _follow(self, source: KvSource | None) -> None:
        """Takes `source` for its events where they can be followed."""
        self.source = source
        self.kind = "approx"
        if source is None:
            return
        if not zmq_is_here():
            _log.warning(
                "%s publishes KV events; reading them takes the extra: pip install 'coa-orchestrator[vllm]'.",
                self.deployment.id,
            )
            return
        self.kind = "events"

    async def _chat_tokens(self, prompt: Prompt, tail: str) -> list[int]:
        messages = Prompt(system=prompt.system, prefix=prompt.prefix, tail=tail).messages()
        body: dict[str, object] = {"model": self.deployment.served_name, "messages": messages}
        if self._template is not None:
            body["chat_template_kwargs"] = self._template
        return self._ids(await self._http.call("POST", "/tokenize", body))

    def _ids(self, reply: Mapping[str, Any]) -> list[int]:
        tokens: Any = reply.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise self._http.error("/tokenize", "no tokens in the reply")
        return tokens

    async def _completed(self, tokens: Sequence[int]) -> tuple[int, int | None]:
        """Tokens of the prompt, and those of them that were cached; None where the reply does not tell."""
        body = {"model": self.deployment.served_name, "prompt": list(tokens), "max_tokens": 1, "temperature": 0}
        reply = await self._http.call("POST", "/v1/completions", body, computes=True)
        usage = reply.get("usage")
        usage = usage if isinstance(usage, Mapping) else {}
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        n_prompt = usage.get("prompt_tokens")
        return (
            n_prompt if isinstance(n_prompt, int) else len(tokens),
            cached if isinstance(cached, int) else None,
        )
