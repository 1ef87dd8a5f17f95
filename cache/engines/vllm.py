"""vLLM: exact tokens from `/tokenize`, its cache by KV events, a prefix computed by a completion of one token.

`--enable-prompt-tokens-details` makes its replies tell cached tokens. `--kv-events-config` makes it publish events;
recent releases say where at /kv_event_sources, of others the deployment's model_info has to (`kv_events`, `kv_replay`,
`kv_topic`). What it cannot do is save a state: LMCache is its own way of keeping KV elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from coa.cache.engines.engine_http import gauge
from coa.cache.engines.events_engine import EventsEngine
from coa.cache.kv_feed import KvSource, binds, reachable
from coa.errors import CacheError
from coa.llm.deployments import Deployment

__all__ = ["Vllm"]

_log = logging.getLogger(__name__)

_MAX_NUM_SEQS = 256
"""vLLM's own `--max-num-seqs`, where a deployment has no `max_parallel_requests`."""
_BLOCK = 16


class Vllm(EventsEngine):
    """See `EngineAdapter`."""

    _created = ("vllm:prompt_tokens_created",)

    def __init__(
        self,
        deployment: Deployment,
        *,
        verify: bool | str = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`verify` and `transport` as httpx takes them. Raises: ConfigError for a bad `kv_events`."""
        super().__init__(deployment, n_slots=_MAX_NUM_SEQS, verify=verify, transport=transport)
        self.granularity = _BLOCK
        self._configured = self.source

    async def open(self) -> None:
        """Asks for its cache's size, its events, its adapter, and whether it tells cached tokens."""
        models = await self._http.call("GET", "/v1/models")
        self.adapter_name = self._adapter(models.get("data"))
        config = gauge(await self._http.text("/metrics"), "vllm:cache_config_info")
        labels = config[1] if config is not None else {}
        self.granularity = _number(labels.get("block_size")) or _BLOCK
        n_blocks = _number(labels.get("num_gpu_blocks")) or 0
        self.capacity_tokens = _number(labels.get("kv_cache_size_tokens")) or n_blocks * self.granularity
        if labels.get("enable_prefix_caching") == "False":
            _log.warning("%s serves without --enable-prefix-caching: nothing is used again.", self.deployment.id)
        self._follow(await self._found_source())
        _, cached = await self._completed([1])
        self._tells(told=cached is not None, flag="--enable-prompt-tokens-details")

    async def prefill(self, tokens: Sequence[int], *, slot: int | None = None) -> int:
        """One token is written, since it writes at least one; blocks are its own, whatever `slot` says."""
        n_prompt, cached = await self._completed(tokens)
        return n_prompt - (cached or 0)

    def _adapter(self, entries: object) -> str | None:
        """The model's name where its entry says that it is laid over another one."""
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, Mapping) and entry.get("id") == self.deployment.served_name:
                return self.deployment.served_name if entry.get("parent") else None
        return None

    async def _found_source(self) -> KvSource | None:
        """As configured, else as it says itself."""
        try:
            ranks: Mapping[str, Any] = await self._http.maybe("GET", "/kv_event_sources") or {}
        except CacheError:
            ranks = {}
        told = [rank for rank in ranks.values() if isinstance(rank, Mapping) and rank.get("endpoint")]
        name, root = self.deployment.id, self.deployment.root_url or ""
        if len(told) > 1:
            # Which of its ranks takes a call is its own choice, and each has a cache.
            _log.warning("%s is data-parallel: its KV events do not say where a call finds its prefix.", name)
            return None
        endpoint = str(told[0]["endpoint"]) if told else ""
        configured = self._configured
        if endpoint and not binds(endpoint) and (configured is None or not binds(configured.events)):
            _log.warning(
                "%s sends KV events to %s, where nobody listens: give it an endpoint with a *, as in tcp://*:5557, or "
                "coa one to listen at (kv_events: tcp://*:PORT in model_info).",
                name,
                endpoint,
            )
            return None
        if configured is not None or not endpoint:
            return configured
        events = reachable(endpoint, root)
        replay = told[0].get("replay_endpoint")
        if events is None:
            _log.warning("%s publishes KV events at %s, which cannot be reached from here.", name, endpoint)
            return None
        return KvSource(events, reachable(str(replay), root) if replay else None, str(told[0].get("topic") or ""))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
