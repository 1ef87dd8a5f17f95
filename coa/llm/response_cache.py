"""A chat model that gives a reply again instead of asking for it again.

Only what a second call would repeat is kept: replies that ended by themselves, to greedy or seeded calls. The key
is a digest of everything that the reply depends on. A store that fails costs a warning, never a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from coa.errors import CacheError, ModelError
from coa.llm.chat import ChatModel, Completion, Decoding, OnText, WrappedModel
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.download import LocalModel
from coa.llm.litellm_clients import on_loopback
from coa.llm.response_store import ResponseStore, StoreSlow
from coa.llm.served import Served
from coa.reading import Prompt
from coa.secrets import hides_all
from coa.types import CallUsage

__all__ = ["CachedModel", "Weights", "group_identity", "response_key", "weights_of"]

_FORMAT = 1
"""Part of every key: raised when what a stored reply means changes."""
_RETRY_S = 1.0
_MAX_RETRY_S = 30.0
"""How long a store that failed is left alone, at first and at last; doubled from one failure to the next."""
_MAX_REPLY_BYTES = 4_000_000


class _Stored(BaseModel):
    """A reply as it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    deployment: str


class CachedModel(WrappedModel):
    """`model` with a store of replies before it; see `ChatModel`.

    The same call made twice at once is made once. A reply out of the store is marked by `CallUsage.reused`, and has
    neither tokens nor a price.
    """

    def __init__(
        self,
        model: ChatModel,
        store: ResponseStore,
        identity: str | Callable[[], str],
        *,
        deployments: Iterable[str] | None = None,
        on_trouble: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`identity` says which model replies: `group_identity`; a function may block, and is asked once, in a thread.

        `deployments` are the ids whose replies are kept, None for all: what a fallback to another group replied is
        not this group's. `on_trouble` is told of each outage of the store once.
        """
        super().__init__(model)
        self._store = store
        self._identity = identity
        self._deployments = None if deployments is None else frozenset(deployments)
        self._reading = _Health(clock, on_trouble)
        self._writing = _Health(clock, on_trouble)
        self._identifying = asyncio.Lock()
        self._asking: dict[str, asyncio.Future[Completion]] = {}

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        """The stored reply, else the model's; see `ChatModel.complete`."""
        if decoding.temperature > 0 and decoding.seed is None:
            return await self._model.complete(prompt, decoding, on_text=on_text)
        key = response_key(await self._who(), prompt, decoding)
        while (asking := self._asking.get(key)) is not None:
            try:
                made = await asyncio.shield(asking)
            except ModelError as error:
                raise _unpaid(error) from error
            except asyncio.CancelledError:
                if asking.cancelled() and not _being_cancelled():
                    continue  # the call that was waited for was given up: it is this one's turn
                raise
            return _reused(made.text, made, on_text)
        return await self._first(key, prompt, decoding, on_text)

    async def _who(self) -> str:
        if isinstance(self._identity, str):
            return self._identity
        async with self._identifying:
            if not isinstance(self._identity, str):
                self._identity = await asyncio.to_thread(self._identity)
        return self._identity

    async def _first(self, key: str, prompt: Prompt, decoding: Decoding, on_text: OnText | None) -> Completion:
        """The reply, shared with the calls that ask for it meanwhile."""
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        try:
            stored = await self._stored(key)
            if stored is not None:
                found = Completion(
                    stored.text, "stop", CallUsage(), stored.deployment, time.perf_counter() - started, attempts=0
                )
                asking.set_result(found)
                return _reused(stored.text, found, on_text)
            completion = await self._model.complete(prompt, decoding, on_text=on_text)
            asking.set_result(completion)
            if self._keeps(completion):
                await self._keep(key, completion)
            return completion
        except ModelError as error:
            asking.set_exception(error)
            asking.exception()  # nobody may be waiting for it
            raise
        except BaseException:
            asking.cancel()
            raise
        finally:
            del self._asking[key]

    def _keeps(self, completion: Completion) -> bool:
        if completion.finish_reason != "stop" or not completion.text.strip():
            return False
        return self._deployments is None or completion.deployment in self._deployments

    async def _stored(self, key: str) -> _Stored | None:
        if self._reading.down:
            return None
        try:
            found = await self._store.get(key)
        except CacheError as error:
            self._reading.failed(error)
            return None
        self._reading.works()
        return None if found is None else _unpacked(found)

    async def _keep(self, key: str, completion: Completion) -> None:
        packed = _packed(completion)
        if packed is None or self._reading.down or self._writing.down:
            return
        try:
            await self._store.put(key, packed, model=self.name)
        except CacheError as error:
            self._writing.failed(error)
        else:
            self._writing.works()


class _Health:
    """Of one way to use a store; a full disk can still be read."""

    def __init__(self, clock: Callable[[], float], on_trouble: Callable[[str], None] | None) -> None:
        self._clock = clock
        self._on_trouble = on_trouble
        self._failures = 0
        self._down_until = float("-inf")
        self._told = False

    @property
    def down(self) -> bool:
        return self._clock() < self._down_until

    def failed(self, error: CacheError) -> None:
        self._failures += 1
        self._down_until = self._clock() + min(_MAX_RETRY_S, _RETRY_S * 2 ** min(self._failures - 1, 10))
        if self._told or (self._failures == 1 and isinstance(error, StoreSlow)):
            return
        self._told = True
        if self._on_trouble is not None:
            self._on_trouble(f"replies are not kept: {error.message}")

    def works(self) -> None:
        self._failures, self._told = 0, False


def response_key(identity: str, prompt: Prompt, decoding: Decoding) -> str:
    """The digest of everything that a reply depends on: the model, the messages as they are sent, every field of
    `decoding`, and coa's own format."""
    asked = [_FORMAT, identity, prompt.messages(), asdict(decoding)]
    text = json.dumps(asked, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Weights(NamedTuple):
    """Which weights a deployment serves, as far as that is known."""

    told: str
    """A file's digest, or what the server says of itself."""
    everywhere: bool
    """True where this says it all; else the same words may mean other weights at another address."""


def group_identity(group: ModelGroup, weights: Mapping[str, Weights]) -> str:
    """The digest of what replies in `group`: every deployment's model, engine and parameters, without keys and headers.

    `weights` are by deployment id. The group's own name, the deployments' order, and the address of weights that are
    known everywhere are of no account.
    """
    told = {json.dumps(_described(d, weights.get(d.id)), sort_keys=True, default=str) for d in group.deployments}
    return hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()


def weights_of(deployment: Deployment, served: Served | None, files: Iterable[LocalModel]) -> Weights | None:
    """What is known of the weights behind a deployment; None where it is nothing. Blocking: it may read a model file.

    The digest of a file that coa itself serves, or the repository that vLLM or SGLang loaded, is the same everywhere; a
    path on another host, and the name that Ollama gives a model, are not.
    """
    if served is None or served.model is None:
        return None
    root = deployment.root_url
    near = root is not None and on_loopback(root)
    file = next((f for f in files if str(f.path) == served.model), None)
    if file is not None and near:
        return Weights(file.sha256, everywhere=True)
    if served.kind in ("vllm", "sglang") and not served.model.startswith((".", "/", "~")):
        return Weights(served.model, everywhere=True)
    told: list[object] = [served.model, served.n_params, served.fingerprint, *served.meta]
    if near:
        with contextlib.suppress(OSError):  # the server's file may be ours to look at
            found = Path(served.model).stat()
            told += [found.st_size, found.st_mtime_ns]
    return Weights(hashlib.sha256(repr(told).encode()).hexdigest(), everywhere=False)


def _described(deployment: Deployment, weights: Weights | None) -> dict[str, object]:
    known = deployment.root_url is None or (weights is not None and weights.everywhere)
    return {
        "model": deployment.model,
        "kind": deployment.kind,  # a request says other things to other engines
        "weights": None if weights is None else weights.told,
        "address": None if known else deployment.shown_address,
        "params": _without_secrets(deployment.params or {}),
    }


def _without_secrets(params: Mapping[str, object]) -> dict[str, object]:
    return {
        key: _without_secrets(value) if isinstance(value, Mapping) else value
        for key, value in params.items()
        if not hides_all(key) and key not in _NO_MATTER
    }


_NO_MATTER = frozenset(
    {"rpm", "tpm", "timeout", "stream_timeout", "max_retries", "max_parallel_requests", "weight", "order", "tags"}
    | {"input_cost_per_token", "output_cost_per_token"}
)
"""Parameters that change when a call is made and what it costs, but no reply."""


def _packed(completion: Completion) -> bytes | None:
    stored = _Stored(text=completion.text, deployment=completion.deployment)
    try:
        packed = zlib.compress(stored.model_dump_json().encode(), 1)
    except (UnicodeEncodeError, ValueError):  # half a surrogate pair
        return None
    return packed if len(packed) <= _MAX_REPLY_BYTES else None


def _unpacked(packed: bytes) -> _Stored | None:
    """None for what is damaged: the sum at the end of the compressed bytes tells."""
    reader = zlib.decompressobj()
    try:
        raw = reader.decompress(packed, 16 * _MAX_REPLY_BYTES)
        return _Stored.model_validate_json(raw) if reader.eof else None
    except (zlib.error, ValidationError, ValueError):
        return None


def _reused(text: str, completion: Completion, on_text: OnText | None) -> Completion:
    if on_text is not None:
        on_text(text)
    usage = CallUsage(cost_usd=0.0, reused=True)
    return replace(completion, usage=usage, attempts=0)


def _unpaid(error: ModelError) -> ModelError:
    """The same error for a call that was not made: what it cost is on the first one."""
    own = copy.copy(error)
    own.usage = None
    return own


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
