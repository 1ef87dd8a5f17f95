"""What a call took and cost: as the server says, and worked out where it says nothing."""

from __future__ import annotations

import logging
import math
from types import ModuleType
from typing import Any

from coa.llm.budget import Prices
from coa.llm.chat import visible_text
from coa.llm.deployments import Deployment
from coa.llm.litellm_replies import Reply
from coa.llm.prefixes import Measured
from coa.llm.prices import prices_of
from coa.reading import Prompt
from coa.tokens import EstimatedTokens
from coa.types import CallUsage, Usage

__all__ = ["UsageReader", "measured", "sum_of_calls", "usage_of"]

_log = logging.getLogger(__name__)


class UsageReader:
    """Usage and price of replies by the deployment that gave them."""

    def __init__(self, litellm: ModuleType) -> None:
        self._litellm = litellm
        self._counter = EstimatedTokens()
        self._prices: dict[str, Prices | None] = {}
        self._silent: set[str] = set()

    def read(self, reply: Reply, prompt: Prompt, deployment: Deployment) -> CallUsage:
        """What the reply took.

        Numbers that cannot be (below 0, more cached than sent) are held to what can; a server that tells none
        gets an estimate, and is named once in the log.
        """
        n_prompt, n_completion = _count(reply.usage, "prompt_tokens"), _count(reply.usage, "completion_tokens")
        told = n_prompt > 0
        if not told:
            n_prompt = self.estimated_prompt(prompt)
            self._note_silence(deployment.id)
        if n_completion == 0 and reply.raw + reply.thoughts:
            n_completion = self._counter.count([reply.raw + reply.thoughts])[0]
        details = getattr(reply.usage, "prompt_tokens_details", None)
        n_cached = min(n_prompt, _count(details, "cached_tokens")) if told else 0
        return CallUsage(
            prompt_tokens=n_prompt,
            cached_tokens=n_cached,
            completion_tokens=n_completion,
            cost_usd=self._cost(reply, deployment, n_prompt, n_completion, n_cached=n_cached, told=told),
            reasoning_tokens=_reasoning(reply, n_completion),
        )

    def estimated_prompt(self, prompt: Prompt) -> int:
        """Tokens of a prompt, estimated."""
        return sum(self._counter.count([prompt.system, prompt.prefix, prompt.tail]))

    def _cost(
        self,
        reply: Reply,
        deployment: Deployment,
        n_prompt: int,
        n_completion: int,
        *,
        n_cached: int,
        told: bool,
    ) -> float | None:
        """Dollars, or None where no price is known; litellm says 0 for unknown ones, so its zeros count for nothing.

        A configured price is worked out here: litellm knows one price for a model's name in the whole process, and
        takes cached tokens for free where their price was not configured.
        """
        configured = deployment.prices
        if configured is not None:
            read = (deployment.info or {}).get("cache_read_input_token_cost")
            saved = n_cached * (configured.prompt - read) if isinstance(read, int | float) else 0.0
            return configured.of(n_prompt, n_completion) - saved
        if deployment.local:
            return 0.0
        cost = reply.hidden.get("response_cost")
        if told and isinstance(cost, int | float) and cost > 0:
            return float(cost)
        if deployment.id not in self._prices:
            self._prices[deployment.id] = prices_of(deployment, self._litellm)
        prices = self._prices[deployment.id]
        return None if prices is None else prices.of(n_prompt, n_completion)

    def _note_silence(self, deployment: str) -> None:
        if deployment not in self._silent:
            self._silent.add(deployment)
            _log.warning("%s does not say what its replies take: tokens are estimated.", deployment)


def measured(reply: Reply, usage: CallUsage) -> Measured:
    """What the engine said of the call, for the prefix cache; llama.cpp tells times as well."""
    timings = reply.timings
    times = [_seconds(timings, name) for name in ("prompt_ms", "predicted_ms")]
    return Measured(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, times[0], times[1])


def sum_of_calls(calls: list[CallUsage]) -> CallUsage:
    """Several calls' usage as one call's: that of a reply together with the useless ones before it."""
    costs = [call.cost_usd for call in calls]
    return CallUsage(
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        cached_tokens=sum(call.cached_tokens for call in calls),
        completion_tokens=sum(call.completion_tokens for call in calls),
        cost_usd=None if any(cost is None for cost in costs) else sum(cost for cost in costs if cost is not None),
        reasoning_tokens=sum(call.reasoning_tokens for call in calls),
    )


def usage_of(calls: list[CallUsage]) -> Usage | None:
    """What was paid for replies that were of no use; None for none."""
    total = Usage()
    for call in calls:
        total = total.plus(call)
    return total if calls else None


def _reasoning(reply: Reply, n_completion: int) -> int:
    """Tokens spent on thoughts: as told, else their share of the characters; never more than there are."""
    told = _count(getattr(reply.usage, "completion_tokens_details", None), "reasoning_tokens")
    if told:
        return min(told, n_completion)
    n_visible = len(visible_text(reply.raw))
    n_thought = len(reply.thoughts) + max(0, len(reply.raw.strip()) - n_visible)
    if n_thought == 0:
        return 0
    return min(n_completion, math.ceil(n_completion * n_thought / (n_thought + n_visible)))


def _seconds(timings: Any, name: str) -> float | None:
    value = timings.get(name) if isinstance(timings, dict) else None
    return value / 1000 if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else None


def _count(source: Any, name: str) -> int:
    value = getattr(source, name, 0)
    return max(0, int(value)) if isinstance(value, int | float) and math.isfinite(value) else 0
