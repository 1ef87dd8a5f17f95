"""Limits on what a run may spend."""

from __future__ import annotations

from dataclasses import dataclass

from coa.types import Usage

__all__ = ["Budget", "Demand", "Prices"]


@dataclass(frozen=True, slots=True)
class Demand:
    """The most that a step of a run can take, summed over its calls."""

    calls: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """In and out together."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Demand) -> Demand:
        """What both take."""
        return Demand(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def minus(self, other: Demand) -> Demand:
        """What is left of this without `other`."""
        return Demand(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per token."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for so many tokens."""
        return prompt_tokens * self.prompt + completion_tokens * self.completion


@dataclass(frozen=True, slots=True)
class Budget:
    """Calls, tokens (in and out together) and dollars that a run may use; None is no limit.

    Without `prices` a limit in dollars goes by the average so far, and the first call is always allowed.
    """

    max_calls: int | None = None
    max_tokens_total: int | None = None
    max_cost_usd: float | None = None
    prices: Prices | None = None

    def refusal(self, spent: Usage, following: Demand, reserved: Demand) -> str | None:
        """Why a step that takes `following` at most may not be begun; None when it may.

        `reserved` is what the answer will take: reading stops early enough to leave it.
        """
        if self.max_calls is not None and spent.calls + following.calls + reserved.calls > self.max_calls:
            return f"the limit of {self.max_calls} calls"
        tokens = spent.prompt_tokens + spent.completion_tokens
        if self.max_tokens_total is not None and tokens + following.tokens + reserved.tokens > self.max_tokens_total:
            return f"the limit of {self.max_tokens_total} tokens"
        if self.max_cost_usd is not None:
            paid = self._paid(spent)
            if paid is None:
                return f"the limit of ${self.max_cost_usd:g}: this model's price is unknown"
            # The larger of both: a configured price may be lower than what the provider charges.
            wanted = paid / tokens * (following.tokens + reserved.tokens) if tokens else 0.0
            if self.prices is not None:
                listed = (self.prices.of(step.prompt_tokens, step.completion_tokens) for step in (following, reserved))
                wanted = max(wanted, sum(listed))
            if paid + wanted > self.max_cost_usd:
                return f"the limit of ${self.max_cost_usd:g}"
        return None

    def _paid(self, spent: Usage) -> float | None:
        """Dollars spent; by the prices where the provider did not tell."""
        if spent.cost_usd is None and self.prices is not None:
            return self.prices.of(spent.prompt_tokens, spent.completion_tokens)
        return spent.cost_usd
