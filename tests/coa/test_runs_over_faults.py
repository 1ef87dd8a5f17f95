"""Whole runs over a server that goes wrong, and what they spend: short versions of tests/tools/fault_seeds.py."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from coa.api import Session
from coa.config import Settings
from coa.errors import BudgetExceeded
from coa.testing.fault_server import Faults, FaultServer
from coa.types import Document

TOOL = Path(__file__).parents[1] / "tools" / "fault_seeds.py"
PRICE_IN, PRICE_OUT = 0.001, 0.0002


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fault_seeds", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


tool = _loaded()


# litellm makes a coroutine in a thread; a time limit that ends just then leaves it unawaited.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'OpenAIChatCompletion:RuntimeWarning")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 7, 11])
async def test_a_run_over_faults_of_every_kind_ends_as_it_should(seed: int) -> None:
    ((name, faults, _),) = tool.plans([seed], each=False)
    outcome = await tool.run(name, faults, seed=seed, n_chunks=50)
    assert outcome.problems == ()
    assert 45 <= outcome.chunks <= 60
    assert outcome.calls <= outcome.needed * (1 + tool.RETRIES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["length", "empty", "broken-stream"])
async def test_a_run_over_one_kind_of_fault_ends_as_it_should(kind: str) -> None:
    faults = Faults(rates={kind: 0.2}, retry_after_s=0.2)  # type: ignore[dict-item] # of the list above
    outcome = await tool.run(kind, faults, seed=5, n_chunks=15)
    assert outcome.problems == ()
    assert outcome.faults > 0
    assert outcome.complete or kind == "length"


# spending


@pytest.fixture
def server() -> Iterator[FaultServer]:
    faults = Faults(rates={"empty": 0.15, "503": 0.1, "429-retry-after": 0.05}, retry_after_s=0.1)
    with FaultServer(tool.reply, faults=faults, seed=4) as running:
        yield running


@pytest.fixture
def document() -> Document:
    made: Document = tool.document_of(14)
    return made


def _settings(server: FaultServer, home: Path, **changes: Any) -> Settings:
    settings = tool.settings_for(home, server)
    entry = settings.model_list[0]
    prices = {"input_cost_per_token": PRICE_IN, "output_cost_per_token": PRICE_OUT}
    entry = {**entry, "model_info": {**entry["model_info"], **prices}}
    return Settings.model_validate({**settings.model_dump(), "model_list": [entry], **changes})


def _dollars(server: FaultServer) -> float:
    stats = server.stats()
    return stats.prompt_tokens * PRICE_IN + stats.completion_tokens * PRICE_OUT


@pytest.mark.parametrize("limit", [0.1, 5.0, 7.0])
async def test_what_a_run_costs_exceeds_its_limit_by_one_call_at_most_whatever_goes_wrong(
    server: FaultServer, document: Document, tmp_path: Path, limit: float
) -> None:
    """Empty replies are paid for, and asked for again."""
    async with Session(_settings(server, tmp_path, max_cost_usd=limit)) as session:
        with pytest.raises(BudgetExceeded) as caught:
            await session.ask(document, tool.QUESTION)
    stats = server.stats()
    one_call = (stats.prompt_tokens * PRICE_IN) / max(1, stats.by_outcome.get("ok", 0)) * 2 + 2048 * PRICE_OUT
    assert _dollars(server) <= limit + one_call
    answer = caught.value.answer
    assert (answer is None) == (stats.calls == 0) == (limit < 1)
    if answer is not None:
        assert 0 < answer.coverage.read < answer.coverage.chunks
        assert answer.usage.cost_usd == pytest.approx(_dollars(server)), "every paid call is in the sum"


async def test_a_resumed_run_goes_on_counting_where_it_stood(
    server: FaultServer, document: Document, tmp_path: Path
) -> None:
    limit = 6.0
    async with Session(_settings(server, tmp_path, max_cost_usd=limit)) as session:
        with pytest.raises(BudgetExceeded):
            await session.ask(document, tool.QUESTION)
        first, run_id = _dollars(server), session.runs.list()[0].run_id
        calls = server.stats().calls
        answer = await session.resume(run_id)
    assert first > 0.5
    assert server.stats().calls == calls, "nothing is left of its limit"
    assert answer.usage.cost_usd == pytest.approx(first)
