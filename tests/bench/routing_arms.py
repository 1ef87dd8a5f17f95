"""The arms of tests/bench/routing.py: each sends a call to one of the same servers, in its own way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import httpx

from coa.cache.opening import prefix_cache_for
from coa.cache.placement import rendezvous_order
from coa.config import Settings
from coa.llm.call_labels import labels
from coa.llm.chat import ChatModel, Decoding
from coa.llm.gateway import Gateway, open_gateway
from coa.llm.litellm_model import load_litellm
from coa.reading import Prompt

__all__ = ["ALIAS", "Arm", "ByDocument", "Litellm", "Ours", "Reply", "Server", "SglangRouter"]

ALIAS = "smol"
GROUP = "readers"
_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
_READY_S = 60.0
_UNBOUNDED = 1000
"""Calls at once: the other arms send each as it comes, so ours may hold none back either (the default is 8)."""


class Server(NamedTuple):
    """A replica."""

    id: str
    base_url: str
    root_url: str
    key: str
    n_slots: int
    states: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass(frozen=True)
class Reply:
    """Of a call."""

    text: str
    first_at: float
    """When its first piece came, by `time.perf_counter`."""


class Arm(Protocol):
    """A way to send calls; made with `open`, ended with `close`."""

    async def open(self) -> None: ...

    def upcoming(self, prompts: Sequence[Prompt], document: str) -> None: ...

    async def call(self, prompt: Prompt, document: str, max_tokens: int) -> Reply: ...

    async def close(self) -> None: ...


class ByDocument:
    """Each document has one replica, by its name's hash alone."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = {server.id: server for server in servers}
        self._client = httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT)

    async def open(self) -> None:
        """Nothing to do."""

    def upcoming(self, prompts: Sequence[Prompt], document: str) -> None:
        """Nobody is told."""

    async def call(self, prompt: Prompt, document: str, max_tokens: int) -> Reply:
        server = self._servers[rendezvous_order(document, list(self._servers))[0]]
        return await streamed(self._client, server.base_url, server.headers, prompt, max_tokens)

    async def close(self) -> None:
        await self._client.aclose()


class SglangRouter:
    """The real router, cache_aware, in front of the servers; needs an interpreter that has it."""

    def __init__(self, servers: Sequence[Server], python: str) -> None:
        self._servers, self._python = servers, python
        self._client = httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT)
        self._stack = ExitStack()
        self._url = ""

    async def open(self) -> None:
        """Starts it, and waits until it routes. Raises: RuntimeError when it does not come up."""
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}/v1"
        command = [self._python, "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", *(server.root_url for server in self._servers), "--policy", "cache_aware"]
        # Its defaults are for replicas with hundreds of calls in flight: with 64 it would never balance here.
        command += ["--cache-threshold", "0.3", "--balance-abs-threshold", "4", "--balance-rel-threshold", "1.5"]
        command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(_free_port()), "--log-level", "warn"]
        log = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - ends with the stack
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: ASYNC220
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        deadline = time.monotonic() + _READY_S
        while not await self._routes():
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise RuntimeError(f"sglang-router did not come up: {log.read()[-800:].decode(errors='replace')}")
            time.sleep(0.3)  # noqa: ASYNC251 - nothing else runs yet

    def upcoming(self, prompts: Sequence[Prompt], document: str) -> None:
        """Nobody is told."""

    async def call(self, prompt: Prompt, document: str, max_tokens: int) -> Reply:
        return await streamed(self._client, self._url, self._servers[0].headers, prompt, max_tokens)

    async def close(self) -> None:
        await self._client.aclose()
        self._stack.close()

    async def _routes(self) -> bool:
        try:
            answer = await self._client.get(f"{self._url}/models", headers=self._servers[0].headers)
        except httpx.HTTPError:
            return False
        return answer.is_success and bool(answer.json().get("data"))


class Litellm:
    """litellm's own Router with one of its strategies."""

    def __init__(self, servers: Sequence[Server], strategy: str) -> None:
        self._servers, self._strategy = servers, strategy
        self._router: Any = None

    async def open(self) -> None:
        """Makes the Router."""
        litellm = load_litellm()
        entries = [
            {
                "model_name": GROUP,
                "litellm_params": {"model": f"openai/{ALIAS}", "api_base": server.base_url, "api_key": server.key},
                "model_info": {"id": server.id},
            }
            for server in self._servers
        ]
        self._router = litellm.Router(model_list=entries, routing_strategy=self._strategy, num_retries=3, timeout=600)

    def upcoming(self, prompts: Sequence[Prompt], document: str) -> None:
        """Nobody is told."""

    async def call(self, prompt: Prompt, document: str, max_tokens: int) -> Reply:
        stream = await self._router.acompletion(
            model=GROUP, messages=prompt.messages(), max_tokens=max_tokens, temperature=0.0, stream=True
        )
        pieces, first_at = [], 0.0
        async for chunk in stream:
            piece = chunk.choices[0].delta.content if chunk.choices else None
            if piece:
                first_at = first_at or time.perf_counter()
                pieces.append(piece)
        return Reply("".join(pieces), first_at or time.perf_counter())

    async def close(self) -> None:
        self._router.discard()


class Ours:
    """coa's gateway with its prefix cache; `save` lets engines save states and restore them, `ahead` tells it what a
    chain reads next: with both it is what a session has."""

    def __init__(self, servers: Sequence[Server], *, save: bool, ahead: bool = False) -> None:
        self._servers, self._save, self._ahead = servers, save, ahead
        self._stack = AsyncExitStack()
        self._gateway: Gateway | None = None
        self._model: ChatModel | None = None

    async def open(self) -> None:
        """Opens the gateway."""
        home = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="coa-bench-home-")))
        settings = Settings(
            home=home,
            model=GROUP,
            model_list=[self._entry(server) for server in self._servers],
            response_cache=False,
            max_parallel_calls=_UNBOUNDED,
        )
        self._gateway = await open_gateway(settings, make_prefix_cache=prefix_cache_for(settings))
        self._model = await self._gateway.chat_model()

    def upcoming(self, prompts: Sequence[Prompt], document: str) -> None:
        """As the graphs do before each chunk's call."""
        if self._ahead and self._gateway is not None and self._gateway.prefix_cache is not None:
            with labels(document=document):
                self._gateway.prefix_cache.upcoming(GROUP, prompts)

    async def call(self, prompt: Prompt, document: str, max_tokens: int) -> Reply:
        assert self._model is not None
        first: list[float] = []

        def came(_: str) -> None:
            if not first:
                first.append(time.perf_counter())

        with labels(document=document):
            completion = await self._model.complete(prompt, Decoding(max_tokens), on_text=came)
        return Reply(completion.text, first[0] if first else time.perf_counter())

    async def close(self) -> None:
        if self._gateway is not None:
            await self._gateway.close()
        await self._stack.aclose()

    def _entry(self, server: Server) -> dict[str, Any]:
        info: dict[str, object] = {"id": server.id, "kind": "llama_server", "n_ubatch": 128}
        if self._save:
            info["slot_save_path"] = str(server.states)
        params = {"model": f"openai/{ALIAS}", "api_base": server.base_url, "api_key": server.key}
        return {"model_name": GROUP, "litellm_params": params, "model_info": info}


async def streamed(
    client: httpx.AsyncClient, base_url: str, headers: Mapping[str, str], prompt: Prompt, max_tokens: int
) -> Reply:
    """One call to an OpenAI-compatible address. Raises: httpx.HTTPError."""
    body = {
        "model": ALIAS,
        "messages": prompt.messages(),
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "stream": True,
    }
    pieces, first_at = [], 0.0
    once = {**headers, "Connection": "close"}  # the servers end idle connections when they like
    async with client.stream("POST", f"{base_url}/chat/completions", headers=once, json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            data = line.removeprefix("data: ")
            if not line.startswith("data: ") or data == "[DONE]":
                continue
            choices = json.loads(data).get("choices") or [{}]
            piece = (choices[0].get("delta") or {}).get("content")
            if piece:
                first_at = first_at or time.perf_counter()
                pieces.append(piece)
    return Reply("".join(pieces), first_at or time.perf_counter())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
