"""What an engine says that it serves: its window first of all.

Each kind of engine tells it somewhere else, and some truncate in silence what is longer:

    llama.cpp   /props         default_generation_settings.n_ctx, of one slot
    vLLM        /v1/models     max_model_len
    SGLang      /v1/models     max_model_len; /get_server_info: max_total_num_tokens, which memory may hold lower
    Ollama      /api/ps        context_length of a model that is loaded; it is loaded anew for a request that asks for
                               another (options.num_ctx), up to the trained one of /api/show
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from coa.llm.deployments import Deployment, DeploymentKind
from coa.llm.engine_tokens import PROBE, Tokenizing, tokenize_body
from coa.llm.litellm_clients import on_loopback

__all__ = ["OLLAMA_DEFAULT_WINDOW", "WEIGHTS_META", "Served", "ask_all", "ask_served"]

OLLAMA_DEFAULT_WINDOW = 4096
"""Tokens that Ollama serves where nobody asks for more and the machine has little memory (its docs/context-length)."""
_WANTED_BY_DEFAULT = 8192

WEIGHTS_META = ("vocab_type", "n_vocab", "n_embd", "n_params", "size", "ftype")
"""Of `meta` in llama.cpp's /v1/models, what belongs to the weights and not to how they are served."""

_CONNECT_TIMEOUT_S = 2.0
_READ_TIMEOUT_S = 5.0
_TIMEOUT_S = 12.0
_OWNERS: dict[str, DeploymentKind] = {
    "llamacpp": "llama_server",
    "vllm": "vllm",
    "sglang": "sglang",
    "library": "ollama",
}
"""`owned_by` of /v1/models."""
_TOKENIZING: frozenset[str] = frozenset({"llama_server", "vllm", "sglang"})


@dataclass(frozen=True, slots=True)
class Served:
    """What came back from one deployment."""

    kind: DeploymentKind
    answers: bool
    """False where nothing listens; a server that refuses the key does answer."""
    window: int | None = None
    """Tokens; None where it does not tell."""
    n_params: int | None = None
    model: str | None = None
    """What the server calls the file or repository that it serves."""
    fingerprint: tuple[int, ...] | None = None
    """Token ids of a probe text: two servers with the same ones tokenize alike. None without a `/tokenize`."""
    meta: tuple[object, ...] = ()
    """What llama.cpp says of its weights: sizes and types, which another quantisation does not share."""
    problem: str | None = None
    """Why a call would fail, or what could not be found out; one clause."""
    send: Mapping[str, object] = field(default_factory=dict)
    """Parameters that a call has to carry so that `window` holds."""


async def ask_all(
    deployments: Iterable[Deployment], *, wanted: int | None = None, verify: bool | str = True
) -> dict[str, Served]:
    """What each deployment serves, by id; asked side by side. See `ask_served`."""
    asked = list(deployments)
    found = await asyncio.gather(*(ask_served(d, wanted=wanted, verify=verify) for d in asked))
    return {d.id: served for d, served in zip(asked, found, strict=True)}


async def ask_served(deployment: Deployment, *, wanted: int | None = None, verify: bool | str = True) -> Served:
    """What one deployment serves; never raises for what a server does.

    `wanted` is the window that will be asked of engines that let a request choose. A hosted model without an
    address of its own is not asked anything.
    """
    root = deployment.root_url
    if deployment.kind == "hosted" and (root is None or deployment.kind_is_sure):
        return Served(deployment.kind, answers=True)
    if root is None:
        return Served(deployment.kind, answers=False, problem="has no api_base")
    headers = {"Authorization": f"Bearer {deployment.api_key}"} if deployment.api_key else {}
    timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    # A proxy that is set for the outside cannot reach this machine.
    trust_env = not on_loopback(root)
    try:
        if urlsplit(root).scheme == "http":
            verify = False  # loading certificates takes a tenth of a second
        async with (
            asyncio.timeout(_TIMEOUT_S),
            httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=trust_env, verify=verify) as client,
        ):
            return await _Engine(client, root, deployment).ask(wanted)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
        return Served(deployment.kind, answers=False, problem="has an address that cannot be read")
    except (httpx.TransportError, TimeoutError, OSError) as error:
        return Served(deployment.kind, answers=False, problem=f"does not answer ({_cause(error)})")


def _cause(error: BaseException) -> str:
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "timed out"
    return "refused" if "refused" in str(error).lower() or isinstance(error, httpx.ConnectError) else "cut off"


class _Engine:
    """The questions to one server; connection errors are the caller's."""

    def __init__(self, client: httpx.AsyncClient, root: str, deployment: Deployment) -> None:
        self._client = client
        self._root = root
        self._deployment = deployment
        self._name = deployment.served_name
        self._status = 0

    async def ask(self, wanted: int | None) -> Served:
        deployment = self._deployment
        models = await self._models() if deployment.kind != "ollama" else []
        refused = self._status in (401, 403)
        kind = deployment.kind
        if not deployment.kind_is_sure:
            kind = next((_OWNERS[o] for m in models if (o := str(m.get("owned_by"))) in _OWNERS), kind)
        entry, problem = self._own_entry(models)
        if refused and kind != "hosted":  # a hosted one may keep its list to itself and answer calls all the same
            problem = "refuses the key"
        # An adapter's entry may leave its window to the model that it is laid over.
        windows = [found for m in (entry, *models) if (found := _count(m.get("max_model_len"))) is not None]
        served = Served(kind, answers=True, window=windows[0] if windows else None, problem=problem)
        if kind == "llama_server":
            served = await self._llama_server(served, entry)
        elif kind == "sglang":
            served = await self._sglang(served)
        elif kind == "ollama":
            served = await self._ollama(served, wanted)
        elif kind == "vllm":
            root = entry.get("root")
            served = replace(served, model=str(root) if root else None)
        if kind in _TOKENIZING and served.problem is None:
            served = replace(served, fingerprint=await self._fingerprint(cast("Tokenizing", kind)))
        return served

    async def _models(self) -> list[Mapping[str, Any]]:
        """Entries of /v1/models; asked where the model's own calls go."""
        address = self._deployment.address or self._root
        body = await self._json("GET", f"{address}/models") or {}
        if not body.get("data") and not address.endswith("/v1"):
            body = await self._json("GET", f"{self._root}/v1/models") or body
        found = body.get("data")
        return [m for m in found if isinstance(m, dict)] if isinstance(found, list) else []

    def _own_entry(self, models: list[Mapping[str, Any]]) -> tuple[Mapping[str, Any], str | None]:
        """The model's entry, and a problem where a server that knows several does not know it."""
        for model in models:
            if self._name in (model.get("id"), model.get("root")):
                return model, None
        if len(models) == 1 and self._deployment.kind in ("llama_server", "hosted"):
            return models[0], None  # llama.cpp answers to any name
        if models and self._deployment.kind in ("vllm", "sglang"):
            names = ", ".join(repr(str(m.get("id"))) for m in models[:5])
            return models[0], f"serves {names}, not {self._name!r}"
        return {}, None

    async def _llama_server(self, served: Served, entry: Mapping[str, Any]) -> Served:
        props = await self._json("GET", f"{self._root}/props")
        if self._status == 503:
            return replace(served, problem="is still loading its model")
        if self._status in (401, 403):
            return replace(served, problem="refuses the key")
        generation = (props or {}).get("default_generation_settings")
        meta = entry.get("meta")
        return replace(
            served,
            window=_count(generation.get("n_ctx")) if isinstance(generation, dict) else served.window,
            n_params=_count(meta.get("n_params")) if isinstance(meta, dict) else None,
            meta=tuple(meta.get(key) for key in WEIGHTS_META) if isinstance(meta, dict) else (),
            model=str((props or {}).get("model_path") or "") or None,
        )

    async def _sglang(self, served: Served) -> Served:
        """Newer releases call it /server_info; a lack of memory lowers what a request may take."""
        info = await self._json("GET", f"{self._root}/get_server_info") or await self._json(
            "GET", f"{self._root}/server_info"
        )
        info = info or {}
        bounds = (served.window, _count(info.get("context_length")), _count(info.get("max_total_num_tokens")))
        known = [bound for bound in bounds if bound is not None]
        model = info.get("model_path")
        return replace(served, window=min(known) if known else None, model=str(model) if model else None)

    async def _ollama(self, served: Served, wanted: int | None) -> Served:
        show = await self._json("POST", f"{self._root}/api/show", {"model": self._name})
        facts = show.get("model_info") if show is not None else None
        if show is None or not isinstance(facts, dict):
            missing = f"has no model {self._name!r} (ollama pull {self._name})"
            return replace(served, problem=missing if self._status == 404 else "does not speak Ollama's /api/show")
        trained = next((_count(v) for k, v in facts.items() if str(k).endswith(".context_length")), None)
        served = replace(served, n_params=_count(facts.get("general.parameter_count")), model=self._name)
        loaded = await self._loaded_window()
        if self._deployment.provider not in ("ollama", "ollama_chat"):
            # Its OpenAI-style endpoint takes no num_ctx: what counts is how the model is loaded.
            return replace(served, window=loaded or _modelfile_window(show) or OLLAMA_DEFAULT_WINDOW)
        configured = _count((self._deployment.params or {}).get("num_ctx")) or self._deployment.window or wanted
        window = configured or loaded or _modelfile_window(show) or _WANTED_BY_DEFAULT
        window = min(window, trained) if trained is not None else window
        return replace(served, window=window, send={"num_ctx": window})

    async def _loaded_window(self) -> int | None:
        """Of the model as it is loaded now; None while it is not."""
        body = await self._json("GET", f"{self._root}/api/ps") or {}
        loaded = body.get("models")
        for model in loaded if isinstance(loaded, list) else []:
            names = (model.get("model"), model.get("name")) if isinstance(model, dict) else ()
            if self._name in names or f"{self._name}:latest" in names:
                return _count(model.get("context_length"))
        return None

    async def _fingerprint(self, kind: Tokenizing) -> tuple[int, ...] | None:
        body = tokenize_body(kind, "".join(PROBE), model=self._name)
        reply = await self._json("POST", f"{self._root}/tokenize", body)
        tokens = (reply or {}).get("tokens")
        return tuple(tokens) if isinstance(tokens, list) and all(isinstance(t, int) for t in tokens) else None

    async def _json(self, method: str, url: str, body: object = None) -> dict[str, Any] | None:
        """The reply where it is a success and a JSON object; `_status` says how it went."""
        reply = await self._client.request(method, url, json=body) if body else await self._client.request(method, url)
        self._status = reply.status_code
        try:
            found = reply.json() if reply.is_success else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def _modelfile_window(show: Mapping[str, Any]) -> int | None:
    """`num_ctx` among the "name   value" lines of the model's own parameters."""
    for line in str(show.get("parameters") or "").splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "num_ctx" and value.strip().isdecimal():
            return int(value)
    return None


def _count(value: object) -> int | None:
    """A whole number above 0; texts are not read as numbers."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        return None
    return value
