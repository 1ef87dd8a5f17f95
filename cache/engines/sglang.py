"""SGLang: as vLLM where its `/tokenize` takes chat messages, which recent releases do.

An older one tells no exact tokens of a chat: its prompts are known by pieces of their text then, its events are of no
use, and a prefix is computed by a chat of one token. Cached tokens are told by its native /generate always, in chats
with `--enable-cache-report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from coa.cache.engines.events_engine import EventsEngine
from coa.cache.engines.text_pieces import PieceMemory
from coa.errors import CacheError
from coa.llm.deployments import Deployment
from coa.reading import Prompt

__all__ = ["Sglang"]

_MAX_RUNNING = 256
"""Where it does not tell `max_running_requests`."""


class Sglang(EventsEngine):
    """See `EngineAdapter`."""

    _created = ("sglang:prompt_tokens_total_created", "sglang:prompt_tokens_created")

    def __init__(
        self,
        deployment: Deployment,
        *,
        verify: bool | str = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`verify` and `transport` as httpx takes them. Raises: ConfigError for a bad `kv_events`."""
        super().__init__(deployment, n_slots=_MAX_RUNNING, verify=verify, transport=transport)
        self._configured = self.source
        self._pieces = PieceMemory()
        self.exact = True
        """Whether tokens are its own, and no pieces of text; known after `open`."""

    async def open(self) -> None:
        """Asks for its page size and limits, and whether it tokenizes chats."""
        info = await self._http.maybe("GET", "/get_server_info") or await self._http.maybe("GET", "/server_info")
        if info is None:
            raise self._http.error("/get_server_info", "no such endpoint")
        given = {**(self.deployment.info or {}), **(self.deployment.params or {})}.get("max_parallel_requests")
        running = info.get("max_running_requests")
        if not given and isinstance(running, int) and running > 0:
            self.n_slots = running
        page = info.get("page_size")
        self.granularity = page if isinstance(page, int) and page > 0 else 1
        capacity = info.get("max_total_num_tokens")
        self.capacity_tokens = capacity if isinstance(capacity, int) else 0
        self._tells(told=info.get("enable_cache_report") is True, flag="--enable-cache-report")
        body = {"model": self.deployment.served_name, "messages": Prompt(tail="A").messages()}
        told: Mapping[str, Any] = await self._http.maybe("POST", "/tokenize", body) or {}
        self.exact = bool(told.get("tokens")) and isinstance(told["tokens"], list)
        several = isinstance(info.get("dp_size"), int) and info["dp_size"] > 1
        self._follow(self._configured if self.exact and not several else None)

    async def prefix_tokens(self, prompt: Prompt) -> list[int]:
        """Two round trips; pieces of the text where it does not tokenize chats."""
        return await super().prefix_tokens(prompt) if self.exact else self._pieces.tokens(prompt)

    async def prefill(self, tokens: Sequence[int], *, slot: int | None = None) -> int:
        """One token is written; pages are its own, whatever `slot` says."""
        if self.exact:
            sampling = {"max_new_tokens": 1, "temperature": 0}
            body: dict[str, object] = {"input_ids": list(tokens), "sampling_params": sampling}
            meta = (await self._http.call("POST", "/generate", body, computes=True)).get("meta_info")
            told: Mapping[str, Any] = meta if isinstance(meta, Mapping) else {}
            return max(0, _count(told, "prompt_tokens", len(tokens)) - _count(told, "cached_tokens", 0))
        prompt = self._pieces.prompt(tokens)
        if prompt is None:
            raise CacheError(f"{self.deployment.id} was not asked for these tokens.")
        body = {"model": self.deployment.served_name, "messages": prompt.messages(), "max_tokens": 1, "temperature": 0}
        await self._http.call("POST", "/v1/chat/completions", body, computes=True)
        return len(tokens)


def _count(told: Mapping[str, Any], key: str, default: int) -> int:
    value = told.get(key)
    return value if isinstance(value, int) else default
