"""Limits in dollars and calls, and the room for long summaries, over a real HTTP server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.api import Session
from coa.config import Settings
from coa.documents import read_document
from coa.errors import BudgetExceeded, ConfigError, LimitsError
from coa.events import Event, RunStarted
from coa.testing.fault_server import FaultServer
from coa.types import Document

QUESTION = "Where did Ada hide the brass key?"
PRICES = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}
Make = Callable[..., Settings]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda call: "Ada hid the key under the third stone [1].", n_ctx=8192) as running:
        yield running


@pytest.fixture
def document() -> Document:
    days = [f"On day {n} the crew mended sails. The wind of day {n} turned north." for n in range(150)]
    days[20:20] = [f"Where the well is Ada did hide the brass key {'of iron ' * n}at last." for n in range(4)]
    return read_document("\n".join(days).encode(), name="voyage.txt")


@pytest.fixture
def configured(server: FaultServer, tmp_path: Path) -> Make:
    """Settings for the server as a group of model_list with `prices`."""

    def make(prices: dict[str, float] | None = None, window: int = 4096, **changes: Any) -> Settings:
        entry = {
            "model_name": "readers",
            "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "k", **(prices or {})},
            "model_info": {"kind": "hosted", "max_input_tokens": window, **(prices or {})},
        }
        values = {"home": tmp_path, "model": "readers", "model_list": [entry], "chunk_tokens": 700, "retries": 0}
        return Settings.model_validate({**values, **changes})

    return make


async def test_a_limit_that_cannot_pay_a_chunk_and_the_answer_makes_no_call(
    server: FaultServer, configured: Make, document: Document
) -> None:
    async with Session(configured(PRICES, max_cost_usd=0.0)) as session:
        with pytest.raises(BudgetExceeded, match=r"the limit of \$0: 0 of") as caught:
            await session.ask(document, QUESTION)
    assert caught.value.answer is None
    assert "One chunk and the answer" in str(caught.value)
    assert server.stats().calls == 0


@pytest.mark.parametrize("limit", [3.0, 8.0, 9.0, 10.0])
async def test_a_limit_in_dollars_holds_and_leaves_the_answer_its_share(
    server: FaultServer, configured: Make, document: Document, limit: float
) -> None:
    async with Session(configured(PRICES, max_cost_usd=limit)) as session:
        with pytest.raises(BudgetExceeded) as caught:
            await session.ask(document, QUESTION)
    stats = server.stats()
    spent = stats.prompt_tokens * 0.001 + stats.completion_tokens * 0.002
    assert spent <= limit
    answer = caught.value.answer
    assert (answer is None) == (stats.calls == 0)
    if answer is not None:
        assert answer.coverage.read == stats.calls - 1
        assert answer.usage.prompt_tokens == stats.prompt_tokens
    assert (answer is not None) == (limit > 3)


@pytest.mark.parametrize("do", ["ask", "plan"])
async def test_a_limit_in_dollars_without_a_price_is_refused_before_any_call(
    server: FaultServer, configured: Make, document: Document, do: str
) -> None:
    events: list[Event] = []
    async with Session(configured(max_cost_usd=5.0), on_event=events.append) as session:
        with pytest.raises(ConfigError, match="the price of 'readers' is unknown") as caught:
            await getattr(session, do)(document, QUESTION)
        assert session.runs.list() == []
    assert "input_cost_per_token" in str(caught.value.hint)
    assert "--max-tokens-total" in str(caught.value.hint)
    assert not [event for event in events if isinstance(event, RunStarted)]
    assert server.stats().calls == 0


@pytest.mark.parametrize("max_calls", [1, 2])
async def test_a_limit_of_calls_holds_with_quotes_that_take_several_a_chunk(
    server: FaultServer, configured: Make, document: Document, max_calls: int
) -> None:
    async with Session(configured(notes="quotes", max_calls=max_calls)) as session:
        with pytest.raises(BudgetExceeded, match=f"the limit of {max_calls} calls"):
            await session.ask(document, QUESTION)
    assert server.stats().calls <= max_calls


async def test_a_limit_of_calls_that_just_suffices_stops_no_quotes(
    server: FaultServer, configured: Make, document: Document
) -> None:
    async with Session(configured(notes="quotes", max_calls=3, max_tokens_total=1200)) as session:
        answer = await session.ask(document, QUESTION)
    assert answer.coverage.complete
    assert server.stats().calls == answer.usage.calls == 3


async def test_a_plan_refuses_the_words_that_a_run_refuses(
    server: FaultServer, configured: Make, document: Document
) -> None:
    async with Session(configured()) as session:
        for do in (session.summarize(document, words=5000), session.plan(document, None, words=5000)):
            with pytest.raises(LimitsError, match="the manager's prompt does not fit") as caught:
                await do
            assert "Lower --words" in str(caught.value.hint)
        planned = await session.plan(document, None, words=1000)
        usual = await session.plan(document, None)
    assert planned.completion_tokens_max > usual.completion_tokens_max
    assert server.stats().calls == 0


async def test_a_summary_of_copied_sentences_needs_no_tokens_for_its_words(
    server: FaultServer, configured: Make, document: Document
) -> None:
    async with Session(configured(notes="quotes")) as session:
        answer = await session.summarize(document, words=5000)
    assert answer.coverage.complete
    assert server.stats().calls == 0


async def test_asking_for_few_words_does_not_lower_the_cap_of_the_answer(
    server: FaultServer, configured: Make, document: Document
) -> None:
    async with Session(configured(window=8192)) as session:
        usual = await session.plan(document, None)
        few = await session.plan(document, None, words=210)
        await session.summarize(document, words=210)
    assert few.completion_tokens_max == usual.completion_tokens_max
    assert server.requests[-1].body["max_tokens"] == 1024
