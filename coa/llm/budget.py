"""Limits on what a run may spend."""

from __future__ import annotations

from dataclasses import dataclass

from coa.types import Usage

__all__ = ["Budget"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Calls, tokens (in and out together) and dollars that a run may use; None is no limit."""

    max_calls: int | None = None
    max_tokens_total: int | None = None
    max_cost_usd: float | None = None

    def refusal(self, spent: Usage, *, next_tokens: int, reserved_tokens: int, reserved_calls: int = 1) -> str | None:
        """Why another call of up to `next_tokens` may not be made; None when it may.

        `reserved_*` is what the answer will take: reading stops early enough to leave it. A run that has spent
        nothing is always allowed its first call as long as the limits leave room for the call and the answer.
        """
        if self.max_calls is not None and spent.calls + 1 + reserved_calls > self.max_calls:
            return f"the limit of {self.max_calls} calls"
        tokens = spent.prompt_tokens + spent.completion_tokens
        if self.max_tokens_total is not None and tokens + next_tokens + reserved_tokens > self.max_tokens_total:
            return f"the limit of {self.max_tokens_total} tokens"
        if self.max_cost_usd is not None:
            if spent.cost_usd is None:
                return f"the limit of ${self.max_cost_usd:g}: this model's price is unknown"
            per_token = spent.cost_usd / tokens if tokens else 0.0
            if spent.cost_usd + per_token * (next_tokens + reserved_tokens) > self.max_cost_usd:
                return f"the limit of ${self.max_cost_usd:g}"
        return None
