"""What may still be spent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coa.llm.budget import Budget
from coa.types import CallUsage, Usage


def test_without_limits_everything_may_be_spent() -> None:
    assert Budget().refusal(Usage(10**6, 10**9, 0, 10**9, None), next_tokens=10**9, reserved_tokens=10**9) is None


@given(
    limit=st.integers(1, 30),
    tokens=st.integers(1, 5000),
    dollars=st.floats(0.001, 0.2),
    each=st.integers(1, 400),
)
def test_reading_on_as_long_as_it_is_allowed_never_goes_over(
    limit: int, tokens: int, dollars: float, each: int
) -> None:
    budget = Budget(limit, tokens, dollars)
    spent = Usage()
    call = CallUsage(prompt_tokens=each, cost_usd=each * 1e-4)
    n_read = 0
    while budget.refusal(spent, next_tokens=each, reserved_tokens=each) is None:
        spent = spent.plus(call)
        n_read += 1
    if n_read:
        spent = spent.plus(call)  # the answer
    assert spent.calls <= limit
    assert spent.prompt_tokens <= tokens
    if n_read > 1:  # the first call's price is known only after it
        assert spent.cost_usd is not None
        assert spent.cost_usd <= dollars + 1e-9


def test_a_limit_in_dollars_needs_a_price() -> None:
    paid = Usage(1, 10, 0, 5, None)
    reason = Budget(max_cost_usd=1.0).refusal(paid, next_tokens=1, reserved_tokens=1)
    assert reason == "the limit of $1: this model's price is unknown"
