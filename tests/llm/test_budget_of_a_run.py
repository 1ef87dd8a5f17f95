"""What may still be spent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.llm.budget import Budget, Demand, Prices
from coa.types import CallUsage, Usage

PRICES = Prices(1e-4, 5e-4)


def test_without_limits_everything_may_be_spent() -> None:
    huge = Demand(10**9, 10**9, 10**9)
    assert Budget().refusal(Usage(10**6, 10**9, 0, 10**9, None), huge, huge) is None


@given(
    limit=st.integers(1, 30),
    tokens=st.integers(1, 5000),
    dollars=st.floats(0.0, 0.2),
    read=st.tuples(st.integers(1, 5), st.integers(1, 400), st.integers(0, 100)),
    answer=st.tuples(st.integers(0, 400), st.integers(0, 100)),
)
def test_reading_on_as_long_as_it_is_allowed_never_goes_over(
    limit: int, tokens: int, dollars: float, read: tuple[int, int, int], answer: tuple[int, int]
) -> None:
    budget = Budget(limit, tokens, dollars, PRICES)
    spent = Usage()
    n_read = 0
    while budget.refusal(spent, Demand(*read), Demand(1, *answer)) is None:
        calls, n_prompt, n_completion = read
        spent = spent.merged(Usage(calls, n_prompt, 0, n_completion, PRICES.of(n_prompt, n_completion)))
        n_read += 1
    if n_read:
        spent = spent.plus(CallUsage(answer[0], 0, answer[1], PRICES.of(*answer)))
    assert spent.calls <= limit
    assert spent.prompt_tokens + spent.completion_tokens <= tokens
    assert spent.cost_usd is not None
    assert spent.cost_usd <= dollars + 1e-9


def test_the_first_call_is_refused_where_its_price_is_over_the_limit() -> None:
    step = Demand(1, 1000, 10)
    assert Budget(max_cost_usd=0.0, prices=PRICES).refusal(Usage(), step, step) == "the limit of $0"
    assert Budget(max_cost_usd=0.0, prices=Prices(0.0, 0.0)).refusal(Usage(), step, step) is None


def test_a_step_without_a_call_is_never_refused() -> None:
    assert Budget(1, 10, 0.5, PRICES).refusal(Usage(1, 9, 0, 1, 0.5), Demand(0), Demand(0)) is None


def test_a_limit_in_dollars_needs_a_price() -> None:
    paid = Usage(1, 10, 0, 5, None)
    reason = Budget(max_cost_usd=1.0).refusal(paid, Demand(), Demand())
    assert reason == "the limit of $1: this model's price is unknown"


@pytest.mark.parametrize(("limit", "reason"), [(0.0034, "the limit of $0.0034"), (0.0036, None)])
def test_what_the_provider_does_not_tell_is_worked_out_from_the_prices(limit: float, reason: str | None) -> None:
    paid = Usage(1, 10, 0, 5, None)  # 0.0035 dollars
    assert Budget(max_cost_usd=limit, prices=PRICES).refusal(paid, Demand(0), Demand(0)) == reason
