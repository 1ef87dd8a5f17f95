"""`ChatModel` over litellm's Router: one retry layer, typed errors, usage that includes cached tokens."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from coa.errors import BadOutput, ContentRefused, ModelError
from coa.llm.chat import Completion, Decoding, FinishReason, OnText, visible_text
from coa.llm.deployments import ModelGroup
from coa.llm.litellm_clients import ClientLease, spare_loopback_the_proxy
from coa.llm.litellm_errors import blotted_cause, translated
from coa.reading import Prompt
from coa.secrets import secret_strings
from coa.types import CallUsage, Usage

__all__ = ["LitellmModel", "load_litellm"]

Sleep = Callable[[float], Awaitable[None]]

_MAX_WAIT_S = 60.0
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
# A slow laptop reads about 20 tokens a second and writes 2; the timeout is for hung servers, not for slow ones.
_SLOW_READING = 20.0
_SLOW_WRITING = 2.0
_CHARS_PER_TOKEN = 3.0
_BASE_TIMEOUT_S = 60.0
# litellm keeps a client, with connections of its own, for each timeout that it is given.
_TIMEOUT_STEP_S = 240.0


class _EmptyReply(BadOutput):
    """A reply without text; servers under load give one now and then, so it is asked for again."""

    retryable = True


class _Reply(NamedTuple):
    raw: str
    finish: str | None
    usage: Any
    hidden: Mapping[str, Any]


def load_litellm() -> ModuleType:
    """The litellm module, kept from going online by itself; takes seconds the first time.

    It fetches a price list at import unless told not to, and tokenizers from a hub when it counts tokens.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.disable_hf_tokenizer_download = True
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    if not os.environ.get("LITELLM_LOG"):
        # It prints failed calls to stderr before it raises them; they are told once, by our own errors.
        for name in ("LiteLLM", "LiteLLM Router"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


class LitellmModel:
    """A model group behind litellm's Router.

    The Router picks deployments, cools failing ones down and falls back; retries are ours alone (its own and
    the provider clients' stand at 0), because stacked layers multiply: three of them once made 45 calls of one.
    """

    def __init__(
        self,
        group: ModelGroup,
        *,
        retries: int = 3,
        timeout_s: float | None = None,
        router_settings: Mapping[str, object] | None = None,
        other_groups: tuple[ModelGroup, ...] = (),
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`other_groups` are what the router_settings' fallbacks may name. `timeout_s` None scales with tokens."""
        litellm = load_litellm()
        self._litellm = litellm
        self.group = group
        self.name = group.name
        self.supports_grammar = group.supports_grammar
        self.supports_schema = False
        self._local = all(d.kind == "llama_server" for d in group.deployments)
        self._timeout_s = timeout_s
        self._retries = retries
        self._sleep = sleep
        self._lease: ClientLease | None = None
        groups = (group, *other_groups)
        settings: dict[str, object] = {**(router_settings or {})}
        deployments = [d.as_litellm(g.name) for g in groups for d in g.deployments]
        self._secrets = tuple(secret_strings([deployments, settings]))
        spare_loopback_the_proxy(d.base_url for g in groups for d in g.deployments if d.base_url)
        settings["num_retries"] = 0
        if len(group.deployments) == 1 and not other_groups:
            # Nowhere else to go: a cooled-down only deployment would turn a short 429 into "none available".
            settings.setdefault("disable_cooldowns", True)
        self._router = litellm.Router(model_list=deployments, **settings)

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        """The reply; see `ChatModel.complete`."""
        if self._lease is None:
            self._lease = ClientLease(self._litellm)
        emit = _Emitter(on_text) if on_text is not None else None
        spent: list[CallUsage] = []
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=_wait,
            retry=retry_if_exception(lambda e: isinstance(e, ModelError) and e.retryable),
            sleep=self._sleep,
            reraise=True,
        )
        completion: Completion | None = None
        async for attempt in retrying:
            with attempt:
                completion = await self._call(prompt, decoding, emit, spent, attempt.retry_state.attempt_number)
        if completion is None:  # pragma: no cover - tenacity re-raises instead
            raise BadOutput("no reply.")
        return completion

    async def close(self) -> None:
        """Lets go of the Router, and of connections that no other model of this event loop uses."""
        discard = getattr(self._router, "discard", None)
        if discard is not None:
            discard()
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    async def _call(
        self, prompt: Prompt, decoding: Decoding, emit: _Emitter | None, spent: list[CallUsage], attempt: int
    ) -> Completion:
        request = self._request(prompt, decoding)
        started = time.perf_counter()
        failed: ModelError | None = None
        try:
            if emit is None:
                reply = _whole(await self._router.acompletion(**request))
            else:
                emit.restart()
                stream = await self._router.acompletion(**request, stream=True, stream_options={"include_usage": True})
                reply = await _streamed(stream, emit)
        except ModelError:
            raise
        except Exception as error:  # the one place where litellm's many exceptions become ours
            failed = translated(error, deployment=self.name, secrets=self._secrets, usage=_usage_of(spent))
            cause = blotted_cause(error, self._secrets)
        if failed is not None:  # raised outside the handler: its context would hold the raw error
            raise failed from cause
        deployment = str(reply.hidden.get("model_id") or self.group.deployments[0].id)
        spent.append(self._usage(reply))
        usage = _total(spent)
        text = visible_text(reply.raw)
        finish: FinishReason = _FINISH.get(reply.finish or "", "other")
        if finish == "content_filter":
            raise ContentRefused(
                f"{self.name} refused to answer (content filter).", deployment=deployment, usage=_usage_of(spent)
            )
        if not text and finish != "length":
            raise _EmptyReply(f"{self.name} gave an empty reply.", deployment=deployment, usage=_usage_of(spent))
        return Completion(text, finish, usage, deployment, time.perf_counter() - started, attempt)

    def _request(self, prompt: Prompt, decoding: Decoding) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.name,
            "messages": prompt.messages(),
            "max_tokens": decoding.max_tokens,
            "temperature": decoding.temperature,
            # Some hosted models refuse a temperature of 0 or a parameter of another's; litellm leaves those out then.
            "drop_params": True,
            "timeout": self._timeout_s or _timeout_for(prompt, decoding),
        }
        if self.supports_grammar:
            # A prefix left over in the slot would shift the borders of computed batches, and with them greedy text:
            # a resumed run could answer otherwise than an uninterrupted one. Notes are short: no thinking aloud.
            body: dict[str, Any] = {
                "cache_prompt": False,
                "chat_template_kwargs": {"enable_thinking": False},
            }
            if decoding.grammar is not None:
                body["grammar"] = decoding.grammar
            if decoding.repeat_penalty is not None:
                body["repeat_penalty"] = decoding.repeat_penalty
            request["extra_body"] = body
        return request

    def _usage(self, reply: _Reply) -> CallUsage:
        """What the server reports; numbers that cannot be (below 0, more cached than sent) are held to what can."""
        details = getattr(reply.usage, "prompt_tokens_details", None)
        n_prompt = _count(reply.usage, "prompt_tokens")
        return CallUsage(
            prompt_tokens=n_prompt,
            cached_tokens=min(n_prompt, _count(details, "cached_tokens")),
            completion_tokens=_count(reply.usage, "completion_tokens"),
            cost_usd=0.0 if self._local else self._cost(reply),
        )

    def _cost(self, reply: _Reply) -> float | None:
        """Dollars, or None where no price is known; litellm says 0 for unknown ones in some releases."""
        cost = reply.hidden.get("response_cost")
        if isinstance(cost, int | float) and cost > 0:
            return float(cost)
        deployment = self.group.deployment(str(reply.hidden.get("model_id"))) or self.group.deployments[0]
        if deployment.info and deployment.info.get("input_cost_per_token") is not None:
            return float(cost or 0.0)
        if deployment.local:
            return 0.0
        # The Router enters what model_info says into the price list: an entry alone is no price.
        names = (deployment.model, deployment.model.partition("/")[2])
        entries = (self._litellm.model_cost.get(name) or {} for name in names)
        known = any(entry.get("input_cost_per_token") is not None for entry in entries)
        return float(cost) if known and cost is not None else None


class _Emitter:
    """Hands on the visible part of a stream, once, also when a retry starts the text over."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._given = ""
        self._raw = ""

    def restart(self) -> None:
        self._raw = ""

    def feed(self, piece: str) -> None:
        self._raw += piece
        held = self._raw.rfind("<")
        # A "<think>" may be cut in two by the stream: what could become one waits for its end.
        settled = self._raw[:held] if held >= 0 and len(self._raw) - held < len("</thinking>") else self._raw
        visible = visible_text(settled)
        if visible.startswith(self._given) and len(visible) > len(self._given):
            self._on_text(visible[len(self._given) :])
            self._given = visible

    def finish(self) -> None:
        visible = visible_text(self._raw)
        if visible.startswith(self._given) and len(visible) > len(self._given):
            self._on_text(visible[len(self._given) :])
            self._given = visible


def _whole(response: Any) -> _Reply:
    choice = response.choices[0]
    hidden = getattr(response, "_hidden_params", None) or {}
    return _Reply(choice.message.content or "", choice.finish_reason, getattr(response, "usage", None), hidden)


async def _streamed(stream: AsyncIterator[Any], emit: _Emitter) -> _Reply:
    parts: list[str] = []
    finish: str | None = None
    usage: Any = None
    hidden: dict[str, Any] = dict(getattr(stream, "_hidden_params", None) or {})
    async for chunk in stream:
        usage = getattr(chunk, "usage", None) or usage
        if not chunk.choices:
            continue
        choice = chunk.choices[0]
        piece = getattr(choice.delta, "content", None)
        if piece:
            parts.append(piece)
            emit.feed(piece)
        finish = choice.finish_reason or finish
    if finish is None:
        raise ConnectionError("the stream ended before the reply was complete")
    emit.finish()
    return _Reply("".join(parts), finish, usage, hidden)


def _wait(state: RetryCallState) -> float:
    """Seconds before the next try: the server's wish where it has one, else exponential with full jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(error, "retry_after_s", None)
    if asked is not None:
        return min(float(asked), _MAX_WAIT_S)
    return wait_random_exponential(multiplier=0.5, max=_MAX_WAIT_S)(state)


def _timeout_for(prompt: Prompt, decoding: Decoding) -> float:
    n_prompt = (len(prompt.system) + len(prompt.prefix) + len(prompt.tail)) / _CHARS_PER_TOKEN
    seconds = _BASE_TIMEOUT_S + n_prompt / _SLOW_READING + decoding.max_tokens / _SLOW_WRITING
    return math.ceil(seconds / _TIMEOUT_STEP_S) * _TIMEOUT_STEP_S


def _count(source: Any, name: str) -> int:
    value = getattr(source, name, 0)
    return max(0, int(value)) if isinstance(value, int | float) else 0


def _usage_of(calls: list[CallUsage]) -> Usage | None:
    """What was paid for replies that were of no use; None for none."""
    total = Usage()
    for call in calls:
        total = total.plus(call)
    return total if calls else None


def _total(usages: list[CallUsage]) -> CallUsage:
    costs = [u.cost_usd for u in usages]
    return CallUsage(
        prompt_tokens=sum(u.prompt_tokens for u in usages),
        cached_tokens=sum(u.cached_tokens for u in usages),
        completion_tokens=sum(u.completion_tokens for u in usages),
        cost_usd=None if any(c is None for c in costs) else sum(c for c in costs if c is not None),
    )
