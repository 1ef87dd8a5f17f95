"""llama.cpp's server: embedded in this process, or anywhere its HTTP is.

Endpoints (tools/server/README.md): /apply-template and /tokenize give a prompt's exact tokens; /completion with
`n_predict` 0 evaluates a prompt into a slot and writes nothing; /slots/N saves, restores and erases. A state file holds
its tokens beside their KV, and a later call re-uses what its prompt has in common with the slot's tokens.

A server takes a state of any weights of the same shape, so a state is only saved to, and restored into, the process
that was asked for its weights.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import httpx

from coa.cache.index import IndexKind
from coa.errors import CacheError
from coa.llm.deployments import Deployment
from coa.llm.litellm_clients import on_loopback
from coa.llm.served import WEIGHTS_META
from coa.reading import Prompt

__all__ = ["DEFAULT_MICRO_BATCH", "LlamaServer"]

DEFAULT_MICRO_BATCH = 512
"""llama.cpp's own `--ubatch-size`, where a deployment's model_info does not say `n_ubatch`."""
_SENTINEL = "Qcoaqborderq"
"""Survives trimming and no template changes it."""
_TIMEOUT = httpx.Timeout(10.0, connect=2.0)
_PIECE_BATCHES = 2
"""Micro-batches of one request. A prompt that the server cuts into two of its batches goes on in the second behind the
tokens that others decode there, off the border, and its state differs in the last bits from that of a lone one."""
_PROBE = (
    "In the beginning there was a harbour, and nine boats lay in it. The tenth was at sea. What became of it, nobody"
)
_N_LIKELIEST = 10
_LOGPROB_DIGITS = 2
"""On a CPU they agree to the last bit, whatever the number of threads and of slots and whoever is served beside;
other devices may add in another order. Another quantisation, or another training, moves some of ten by more."""
_NONCE = secrets.token_hex(4)
"""Of this process: in the epoch of a server that says nothing by which others could know it."""
_MARKER = re.compile(r"<__media_[A-Za-z0-9]{32}__>")
"""Drawn anew by each process of a server; not what somebody chose for it."""
# A long prefix on a slow machine takes minutes; calls have time limits of their own, which cancel this.
_COMPUTING = httpx.Timeout(None, connect=2.0)


class LlamaServer:
    """See `EngineAdapter`."""

    kind: IndexKind = "owned"

    def __init__(
        self,
        deployment: Deployment,
        *,
        verify: bool | str = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`verify` and `transport` as httpx takes them."""
        info: Mapping[str, object] = deployment.info or {}
        self.deployment = deployment
        self.n_slots = 1
        self.saves = False
        self._runtime = str(info.get("runtime") or "")
        self.build = self._runtime
        """Name and version of the runtime; known after `open`."""
        self.weights: str | None = None
        """A digest of what it says of its weights, and of what they compute; None until `recognise`."""
        self.restarted = False
        """Whether it was seen to be another process than the one that was opened."""
        self.server = ""
        """See `Replica.server`; known after `epoch`."""
        self.model_path = ""
        """Of its file, on its own host; empty where it does not say."""
        micro_batch = info.get("n_ubatch")
        self.granularity = micro_batch if isinstance(micro_batch, int) and micro_batch > 0 else DEFAULT_MICRO_BATCH
        root = deployment.root_url or ""
        headers = {"Authorization": f"Bearer {deployment.api_key}"} if deployment.api_key else {}
        self._client = httpx.AsyncClient(
            base_url=root,
            headers=headers,
            timeout=_TIMEOUT,
            verify=False if root.startswith("http:") else verify,  # loading certificates takes a tenth of a second
            trust_env=not on_loopback(root),
            transport=transport,
        )
        self._before: dict[str, str] = {}
        self._root = root
        self._n_restarts = 0
        self._computed: float | None = None
        self._file: list[object] | None = None
        self._opened: str | None = None
        """The epoch that what is known of it belongs to."""

    async def open(self) -> None:
        """Asks for the number of slots, and whether they can be saved; forgets what was known of a process before."""
        self.weights, self._opened = None, None
        self._before.clear()
        opened = await self.epoch()
        props = await self._call("GET", "/props")
        slots = props.get("total_slots")
        self.n_slots = slots if isinstance(slots, int) and slots > 0 else 1
        self.build = self._runtime or f"llama.cpp {props.get('build_info') or 'unknown'}"
        self.model_path = str(props.get("model_path") or "")
        # A name that cannot be one: a server that saves says so, any other that it does not.
        try:
            response = await self._client.post("/slots/0?action=save", json={"filename": ""})
        except httpx.HTTPError as error:
            raise self._error("/slots", type(error).__name__) from error
        self.saves = response.status_code == httpx.codes.BAD_REQUEST
        self._opened, self.restarted = opened, False

    async def recognise(self, slot: int) -> None:
        """See `TellsWeights`. A file's name says little: it may be another one on another host, or tomorrow."""
        meta = await self._meta()
        body: dict[str, object] = {"prompt": _PROBE, "id_slot": slot, "cache_prompt": False}
        body |= {"n_predict": 1, "temperature": 0, "n_probs": _N_LIKELIEST}
        likeliest = _likeliest(await self._call("POST", "/completion", body, limits=_COMPUTING))
        if likeliest is None:
            self.saves = False
            return
        known = json.dumps([self.model_path, meta, likeliest])
        self.weights = blake2b(known.encode(), digest_size=16).hexdigest()

    async def prefix_tokens(self, prompt: Prompt) -> list[int]:
        """One round trip, and one more for the first prompt of each system text."""
        before = self._before.get(prompt.system)
        if before is None:
            messages = Prompt(system=prompt.system, tail=_SENTINEL).messages()
            body: dict[str, object] = {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
            rendered = str((await self._call("POST", "/apply-template", body)).get("prompt"))
            before, found, _ = rendered.partition(_SENTINEL)
            if not found:
                raise self._error("/apply-template", "the chat template does not show the user's message")
            self._before[prompt.system] = before
        body = {"content": before + prompt.prefix, "add_special": True, "parse_special": True}
        tokens: Any = (await self._call("POST", "/tokenize", body)).get("tokens")
        if not isinstance(tokens, list):
            raise self._error("/tokenize", "no tokens in the reply")
        return tokens

    async def prefill(self, tokens: Sequence[int], *, slot: int | None = None) -> int:
        """With a slot, from nothing and in pieces: neither what was in it nor a reply that is written beside it moves
        the borders of micro-batches, unless the slot before it is the one that writes."""
        if slot is None:
            return await self._compute({"prompt": list(tokens), "cache_prompt": True}, len(tokens))
        piece, computed = _PIECE_BATCHES * self.granularity, 0
        for start in range(0, len(tokens), piece):
            part = tokens[: start + piece]
            body: dict[str, object] = {"prompt": list(part), "cache_prompt": start > 0, "id_slot": slot}
            computed += await self._compute(body, len(part) - start)
        return computed

    async def _compute(self, body: Mapping[str, object], expected: int) -> int:
        """The tokens computed; as many as `expected` where the server does not tell."""
        reply = await self._call("POST", "/completion", {**body, "n_predict": 0}, limits=_COMPUTING)
        timings = reply.get("timings")
        computed = timings.get("prompt_n") if isinstance(timings, dict) else None
        return computed if isinstance(computed, int) else expected

    async def save(self, slot: int, file: str) -> int:
        """See `EngineAdapter`; as `restore`. Where the folder is seen from here, the file has to be as long as the
        server says: on a disk without room it may lose its end without an error, and restoring such a file aborts the
        server."""
        await self._same_process()
        saved = await self._call("POST", f"/slots/{slot}?action=save", {"filename": file}, limits=_COMPUTING)
        written, length = saved.get("n_written"), await asyncio.to_thread(self._length, file)
        if length is not None and isinstance(written, int) and length != written:
            raise self._error("/slots", f"a state of {written} bytes is {length} bytes long: is the disk full?")
        return _count(saved, "n_saved")

    async def restore(self, slot: int, file: str) -> int:
        """See `EngineAdapter`; 0 where the engine does not take the file. Raises, too, when it was restarted since
        `open`: its weights may be others."""
        await self._same_process()
        path = f"/slots/{slot}?action=restore"
        restored = await self._call("POST", path, {"filename": file}, limits=_COMPUTING, refusable=True)
        return _count(restored, "n_restored")

    async def epoch(self) -> str:
        """What is the server's own and the same for whoever asks: a word that each process of it draws, else when it
        was started. One that tells neither, an older one without metrics, is known to this process alone, and
        changes when its file does, or when its counter of computed tokens goes down."""
        props = await self._call("GET", "/props")
        marker = props.get("media_marker")
        if isinstance(marker, str) and _MARKER.fullmatch(marker):
            self.server = "llama.cpp"
            return blake2b(marker.encode(), digest_size=8).hexdigest()
        self.server = self._root  # a time alone may be that of another one, too
        try:
            metrics = await self._client.get("/metrics")
        except httpx.HTTPError as error:
            raise self._error("/metrics", type(error).__name__) from error
        if started := metrics.headers.get("Process-Start-Time-Unix"):
            return str(started)
        computed = _metric(metrics.text, "llamacpp:prompt_tokens_total")
        before, self._file = self._file, [props.get("model_path"), *await self._meta()]
        lower = computed is not None and self._computed is not None and computed < self._computed
        if lower or before not in (None, self._file):
            self._n_restarts += 1
        self._computed = self._computed if computed is None else computed
        return f"{_NONCE}.{self._n_restarts}"

    async def close(self) -> None:
        """See `EngineAdapter`."""
        await self._client.aclose()

    async def _meta(self) -> list[object]:
        """What it says of its weights; empty where it does not."""
        models = (await self._call("GET", "/v1/models")).get("data")
        entry = models[0] if isinstance(models, list) and models and isinstance(models[0], dict) else {}
        meta = entry.get("meta")
        return [meta.get(key) for key in WEIGHTS_META] if isinstance(meta, dict) else []

    async def _same_process(self) -> None:
        opened = self._opened  # while the server is asked, it may be opened anew
        if opened is not None and await self.epoch() != opened:
            self.restarted = self.restarted or self._opened == opened
            raise self._error("/slots", "it was restarted")

    def _length(self, file: str) -> int | None:
        folder = (self.deployment.info or {}).get("slot_save_path")
        path = Path(folder).expanduser() / file if isinstance(folder, str) and folder else None
        return path.stat().st_size if path is not None and path.is_file() else None

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        limits: httpx.Timeout = _TIMEOUT,
        refusable: bool = False,
    ) -> dict[str, Any]:
        """Empty where the engine says that it cannot, and `refusable` takes that for an answer."""
        try:
            response = await self._client.request(method, path, json=body, timeout=limits)
            answer: Any = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._error(path, type(error).__name__) from error
        if refusable and response.status_code == httpx.codes.BAD_REQUEST:
            return {}
        if response.is_error or not isinstance(answer, dict):
            told = answer.get("error") if isinstance(answer, dict) else None
            message = told.get("message") if isinstance(told, dict) else None
            raise self._error(path, f"HTTP {response.status_code}" + (f", {str(message)[:200]}" if message else ""))
        return answer

    def _error(self, path: str, what: str) -> CacheError:
        return CacheError(f"{self.deployment.id} did not do {path.partition('?')[0]}: {what}.")


def _count(answer: Mapping[str, Any], key: str) -> int:
    found = answer.get(key)
    return found if isinstance(found, int) else 0


def _likeliest(answer: Mapping[str, Any]) -> list[tuple[int, float]] | None:
    """The first token's likeliest ones, with their rounded log-probabilities, by id: equally likely ones have no order.
    None where the server does not tell."""
    told = answer.get("completion_probabilities")
    first = told[0] if isinstance(told, list) and told and isinstance(told[0], dict) else {}
    top = first.get("top_logprobs")
    if not isinstance(top, list) or not top:
        return None
    try:
        return sorted((int(each["id"]), round(float(each["logprob"]), _LOGPROB_DIGITS)) for each in top)
    except (KeyError, TypeError, ValueError):
        return None


def _metric(text: str, name: str) -> float | None:
    for line in text.splitlines():
        if line.startswith(name):
            try:
                return float(line.rpartition(" ")[2])
            except ValueError:
                return None
    return None
