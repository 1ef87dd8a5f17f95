"""Ollama: it re-uses a prompt's beginning by itself, and tells nothing of it.

There is no tokenizer to ask, no count of cached tokens (`prompt_eval_count` is not one), and no word of what is where;
so the index guesses from the calls made, by pieces of text, and confidence in it stays low. A model that was unloaded
(`keep_alive`, five minutes by default) has lost its cache.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import httpx

from coa.cache.engines.engine_http import EngineHttp
from coa.cache.engines.text_pieces import PieceMemory
from coa.cache.index import IndexKind
from coa.errors import CacheError
from coa.llm.deployments import Deployment
from coa.reading import Prompt

__all__ = ["Ollama"]


class Ollama:
    """See `EngineAdapter`."""

    kind: IndexKind = "approx"
    saves = False
    granularity = 1
    tells_cached = False

    def __init__(
        self,
        deployment: Deployment,
        *,
        verify: bool | str = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`verify` and `transport` as httpx takes them."""
        self.deployment = deployment
        given = {**(deployment.info or {}), **(deployment.params or {})}.get("max_parallel_requests")
        self.n_slots = given if isinstance(given, int) and given > 0 else 1
        """OLLAMA_NUM_PARALLEL is 1 by default, and it does not say."""
        self._pieces = PieceMemory()
        self._http = EngineHttp(deployment, verify=verify, transport=transport)
        self._unloaded = ""

    async def open(self) -> None:
        """Whether it answers."""
        await self._http.call("GET", "/api/version")

    async def prefix_tokens(self, prompt: Prompt) -> list[int]:
        """Pieces of the text; no round trip."""
        return self._pieces.tokens(prompt)

    async def prefill(self, tokens: Sequence[int], *, slot: int | None = None) -> int:
        """A chat of one token, since none at all would mean no limit; it does not tell what it had to compute."""
        prompt = self._pieces.prompt(tokens)
        if prompt is None:
            raise CacheError(f"{self.deployment.id} was not asked for these tokens.")
        options: dict[str, Any] = {"num_predict": 1}
        params = self.deployment.params or {}
        # Another window than that of the calls would have the model loaded anew.
        options |= {key: params[key] for key in ("num_ctx",) if key in params}
        body: dict[str, Any] = {"model": self.deployment.served_name, "messages": prompt.messages()}
        body |= {"options": options, "stream": False}
        if "keep_alive" in params:
            body["keep_alive"] = params["keep_alive"]
        await self._http.call("POST", "/api/chat", body, computes=True)
        return len(tokens)

    async def save(self, slot: int, file: str) -> int:
        """Not with this engine; see `EngineAdapter`."""
        raise CacheError(f"{self.deployment.id} does not save states.")

    async def restore(self, slot: int, file: str) -> int:
        """Not with this engine; see `EngineAdapter`."""
        raise CacheError(f"{self.deployment.id} does not restore states.")

    async def epoch(self) -> str:
        """The model's digest; another nonce each time that it was seen unloaded."""
        loaded = (await self._http.call("GET", "/api/ps")).get("models")
        name = self.deployment.served_name
        for model in loaded if isinstance(loaded, list) else []:
            names = (model.get("model"), model.get("name")) if isinstance(model, dict) else ()
            if name in names or f"{name}:latest" in names:
                self._seen = True
                return f"{str(model.get('digest') or '')[:12]}{self._unloaded}"
        if self._seen:
            self._seen = False
            self._unloaded = f".{secrets.token_hex(4)}"
        return f"unloaded{self._unloaded}"

    async def close(self) -> None:
        """See `EngineAdapter`."""
        await self._http.close()

    _seen = False
    """Whether it was loaded when last looked at."""
