"""`ChatModel` over litellm: one retry layer, typed errors, limits that are waited for, usage that is true."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType

from coa.errors import (
    AuthenticationFailed,
    ContentRefused,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
)
from coa.llm.cache_marks import marked_messages
from coa.llm.call_labels import call_labels
from coa.llm.chat import Completion, Decoding, OnText, visible_text
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.litellm_clients import ClientLease, one_try, spare_loopback_the_proxy
from coa.llm.litellm_errors import TIMEOUT_HINT, blotted_cause, translated
from coa.llm.litellm_replies import Emitter, Reply, UnusableReply, finish_reason, streamed, whole
from coa.llm.litellm_requests import (
    deadline_for,
    enforces_schema,
    list_ollama_models,
    list_unknown_models,
    request_for,
)
from coa.llm.litellm_routes import route_for
from coa.llm.litellm_usage import UsageReader, measured, sum_of_calls, usage_of
from coa.llm.pacing import Admission, Deadline, Outcome, Pacing
from coa.llm.prefixes import Measured, PrefixCache, Reservation
from coa.llm.prices import remember_price_list
from coa.llm.rates import RateLimit, RateLimiter, rate_limits
from coa.llm.turns import Slots
from coa.reading import Prompt
from coa.secrets import secret_strings
from coa.types import CallUsage

__all__ = ["LitellmModel", "load_litellm"]

Sleep = Callable[[float], Awaitable[None]]

_MAX_WAIT_S = 60.0
# Providers count by the minute: a refusal without a wish is waited out over more than one, in three steps.
_REFUSED_WAIT_S = 2.0
_REFUSED_GROWTH = 6.0
_FAILED_WAIT_S = 0.5
# Of one deployment's own making: another one may do better.
_ELSEWHERE = (AuthenticationFailed, ModelNotFound)


def load_litellm() -> ModuleType:
    """The litellm module, kept from going online by itself; takes seconds the first time.

    It fetches a price list at import unless told not to, and tokenizers from a hub when it counts tokens.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.disable_hf_tokenizer_download = True
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    remember_price_list(litellm)
    if not os.environ.get("LITELLM_LOG"):
        # It prints failed calls to stderr before it raises them; they are told once, by our own errors.
        for name in ("LiteLLM", "LiteLLM Router"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


class LitellmModel:
    """A model group behind litellm.

    Where a group has several deployments, or others to fall back to, litellm's Router picks among them and cools
    failing ones down. Retries are ours alone (its own and the provider clients' stand at 0), because stacked
    layers multiply: three of them once made 45 calls of one. A retry goes to another deployment where there is one.
    """

    def __init__(
        self,
        group: ModelGroup,
        *,
        retries: int = 3,
        timeout_s: float | None = None,
        idle_timeout_s: float = 120.0,
        max_parallel_calls: int | None = None,
        limiter: RateLimiter | None = None,
        router_settings: Mapping[str, object] | None = None,
        other_groups: tuple[ModelGroup, ...] = (),
        prefixes: PrefixCache | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`other_groups` are what the router_settings' fallbacks may name. `timeout_s` None scales with tokens.

        `limiter` keeps the rpm and tpm of the deployments' entries and stays the caller's to close; None is one
        that all models of this process share. `prefixes` is the caller's, too.
        """
        litellm = load_litellm()
        self._litellm = litellm
        self.group = group
        self.name = group.name
        self.supports_grammar = group.supports_grammar
        self.supports_schema = enforces_schema(group.deployments, litellm)
        self._timeout_s = timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._retries = retries
        self._sleep = sleep
        self._prefixes = prefixes
        self._lease: ClientLease | None = None
        self._slots = Slots(max_parallel_calls) if max_parallel_calls else None
        settings = dict(router_settings or {})
        groups = (group, *other_groups)
        self._deployments = {d.id: d for g in reversed(groups) for d in g.deployments}
        self._secrets = tuple(secret_strings([[d.as_litellm(g.name) for g in groups for d in g.deployments], settings]))
        spare_loopback_the_proxy(d.base_url for g in groups for d in g.deployments if d.base_url)
        list_ollama_models(litellm, self._deployments.values())
        list_unknown_models(litellm, self._deployments.values())
        self._pacing = _pacing(groups, limiter, sleep)
        self._usage = UsageReader(litellm)
        self._route = route_for(litellm, group, other_groups, settings, sleep=sleep)

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        """The reply; see `ChatModel.complete`."""
        if self._lease is None:
            self._lease = ClientLease(self._litellm)
        call = _Call(self, prompt, decoding, Emitter(on_text) if on_text is not None else None)
        number = 1
        while True:
            try:
                return await call.attempt(number)
            except ModelError as error:
                if number > self._retries or not call.again(error):
                    raise
                seconds = call.wait_s(number, error)
            await call.pause(seconds)
            number += 1

    async def close(self) -> None:
        """Lets go of the Router, and of connections that no other model of this event loop uses."""
        self._route.close()
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.release()

    def _answered_by(self, reply: Reply, admission: Admission) -> Deployment:
        """The deployment that a reply came from: litellm's word, else where it was sent."""
        for found in (reply.hidden.get("model_id"), admission.deployment):
            if found is not None and str(found) in self._deployments:
                return self._deployments[str(found)]
        return self.group.deployments[0]


class _Call:
    """One `complete`: its attempts, what they cost, and where they failed."""

    def __init__(self, model: LitellmModel, prompt: Prompt, decoding: Decoding, emit: Emitter | None) -> None:
        self._model = model
        self._prompt = prompt
        self._decoding = decoding
        self._emit = emit
        self._spent: list[CallUsage] = []
        self._failed: set[str] = set()
        self._refused = False
        self._refused_by: str | None = None
        """The deployment that no other call is sent to while this one waits."""

    async def attempt(self, number: int) -> Completion:
        """One attempt; its failure is remembered for the next."""
        model, emit = self._model, self._emit
        if self._failed.issuperset(d.id for d in model.group.deployments):
            self._failed.clear()
        self._refused_by = None
        deadline = deadline_for(
            self._prompt,
            self._decoding,
            timeout_s=model._timeout_s,
            idle_timeout_s=model._idle_timeout_s,
            stream=emit is not None,
        )
        async with model._slots or contextlib.nullcontext(), self._reserved() as reservation:
            admission = Admission(
                model._pacing,
                deadline,
                tokens=self._tokens_at_most(),
                avoid=frozenset(self._failed),
                refused=self._refused,
                reservation=None if reservation is None else reservation.held,
            )
            outcome: Outcome = "dropped"
            failed: ModelError | None = None
            try:
                with model._route.admitting(admission), one_try():
                    async with deadline.watched():
                        reply = await self._reply(admission, deadline)
                outcome = "ok"
            except Exception as error:  # the one place where litellm's many exceptions become ours
                failed = self._translated(error, admission, deadline)
                outcome = _outcome(failed)
                self._refused = outcome == "limited"
                cause = blotted_cause(error, model._secrets)
            finally:
                if admission.leave(outcome):
                    self._refused_by = admission.deployment
            if failed is None:
                return await self._completed(reply, admission, number, reservation)
        if admission.deployment is not None:
            self._failed.add(admission.deployment)
        raise failed from cause  # outside the handler: its context would hold the raw error

    def again(self, error: ModelError) -> bool:
        """Whether another attempt may do better."""
        return error.retryable or (isinstance(error, _ELSEWHERE) and self._elsewhere)

    def wait_s(self, number: int, error: ModelError) -> float:
        """Seconds after attempt `number`: the server's wish where it has one, else growing, always with jitter."""
        if self._elsewhere:
            self._refused_by = None  # the Router cools it down, and nobody waits for it
            return random.uniform(0.0, 0.1)
        asked = getattr(error, "retry_after_s", None)
        if asked is not None:
            return min(float(asked) * random.uniform(1.0, 1.1), _MAX_WAIT_S)
        if isinstance(error, RateLimited):
            seconds = _REFUSED_WAIT_S * _REFUSED_GROWTH ** (number - 1)
            return min(seconds * random.uniform(0.85, 1.15), _MAX_WAIT_S)
        return random.uniform(0.0, min(_FAILED_WAIT_S * 2.0 ** (number - 1), _MAX_WAIT_S))

    async def pause(self, seconds: float) -> None:
        """Waits; after a refusal nobody else is sent to that deployment meanwhile."""
        pacing, refused_by = self._model._pacing, self._refused_by
        async with pacing.pace(refused_by).hold() if refused_by is not None else contextlib.nullcontext():
            await self._model._sleep(seconds)

    @property
    def _elsewhere(self) -> bool:
        """Whether the group has a deployment that has not failed this call."""
        return any(d.id not in self._failed for d in self._model.group.deployments)

    async def _reply(self, admission: Admission, deadline: Deadline) -> Reply:
        model = self._model
        request = request_for(
            model.group, self._prompt, self._decoding, schemas=model.supports_schema, total_s=deadline.total_s
        )
        reads = call_labels().get("reads", "1")
        marked = marked_messages(self._prompt, model._deployments.values(), model._litellm, reads=int(reads))
        if marked is not None:
            request["messages"] = marked
        if self._emit is None:
            return whole(await model._route.send(request, admission))
        self._emit.restart()
        request |= {"stream": True, "stream_options": {"include_usage": True}}
        return await streamed(await model._route.send(request, admission), self._emit, deadline.piece)

    @contextlib.asynccontextmanager
    async def _reserved(self) -> AsyncIterator[_Reserved | None]:
        """The prefix cache's part in an attempt, ended whatever happens."""
        prefixes, model = self._model._prefixes, self._model
        held = None if prefixes is None else prefixes.reserve(model.group.name, self._prompt, self._decoding)
        if held is None:
            yield None
            return
        reserved = _Reserved(held)
        try:
            yield reserved
        finally:
            await held.done(reserved.measured)

    async def _completed(
        self, reply: Reply, admission: Admission, number: int, reserved: _Reserved | None
    ) -> Completion:
        """The reply, paid for. Raises: ContentRefused, UnusableReply."""
        model = self._model
        deployment = model._answered_by(reply, admission)
        usage = model._usage.read(reply, self._prompt, deployment)
        if reserved is not None:
            reserved.measured = measured(reply, usage)
            # The engine found them in place, because they had been computed there a moment before.
            computed = min(usage.cached_tokens, admission.prepared.prefilled_tokens)
            usage = replace(usage, cached_tokens=usage.cached_tokens - computed)
        self._spent.append(usage)
        await admission.settle(usage.prompt_tokens + usage.completion_tokens)
        text, finish = visible_text(reply.raw), finish_reason(reply)
        problem = "refused to answer (content filter)" if finish == "content_filter" else "gave an empty reply"
        if finish == "content_filter" or (not text and finish != "length"):
            kind = ContentRefused if finish == "content_filter" else UnusableReply
            self._failed.add(deployment.id)
            raise kind(f"{model.name} {problem}.", deployment=deployment.id, usage=usage_of(self._spent))
        seconds = asyncio.get_running_loop().time() - (admission.sent_at or 0.0)
        return Completion(text, finish, sum_of_calls(self._spent), deployment.id, seconds, number)

    def _translated(self, error: Exception, admission: Admission, deadline: Deadline) -> ModelError:
        model, usage = self._model, usage_of(self._spent)
        if deadline.expired:
            return ModelTimeout(
                f"the call to {model.name} failed: {deadline.cause}.",
                hint=TIMEOUT_HINT,
                deployment=admission.deployment,
                usage=usage,
            )
        failed = translated(error, deployment=model.name, secrets=model._secrets, usage=usage)
        failed.deployment = admission.deployment or failed.deployment
        failed.usage = failed.usage or usage
        return failed

    def _tokens_at_most(self) -> int:
        """For rate limits; 0 where there are none, since it takes a look at the whole prompt."""
        if not self._model._pacing.limits:
            return 0
        return self._model._usage.estimated_prompt(self._prompt) + self._decoding.max_tokens


@dataclass
class _Reserved:
    """A reservation, and what became of its call."""

    held: Reservation
    measured: Measured | None = None


def _outcome(failed: ModelError) -> Outcome:
    """What a failure says of the deployment."""
    if isinstance(failed, RateLimited):
        return "limited"
    return (
        "failed"
        if isinstance(failed, ModelTimeout | ModelUnavailable | AuthenticationFailed | ModelNotFound)
        else "dropped"
    )


def _pacing(groups: tuple[ModelGroup, ...], limiter: RateLimiter | None, sleep: Sleep) -> Pacing:
    """By the limits in the deployments' entries."""
    limits: dict[str, tuple[RateLimit, ...]] = {}
    most: dict[str, int] = {}
    for group in reversed(groups):
        for deployment in group.deployments:
            given = {**(deployment.info or {}), **(deployment.params or {})}
            found = rate_limits(group.name, _endpoint(deployment), given)
            if found:
                limits[deployment.id] = found
            parallel = given.get("max_parallel_requests")
            if isinstance(parallel, int) and parallel > 0:
                most[deployment.id] = parallel
    return Pacing(limits, most, limiter=limiter, sleep=sleep)


def _endpoint(deployment: Deployment) -> str:
    """What a provider counts by: model, address and account."""
    return "\n".join((deployment.model, deployment.address or "", deployment.api_key or ""))
