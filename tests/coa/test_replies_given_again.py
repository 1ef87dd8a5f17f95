"""Whole runs over the response cache: what is asked again, by whom, and what a broken store changes: nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coa.api import Session
from coa.config import Settings
from coa.documents import read_document
from coa.errors import ModelUnavailable
from coa.testing.fault_server import ChatRequest, Faults, FaultServer
from coa.testing.redis_process import RedisProcess
from coa.types import Answer, Document

pytestmark = pytest.mark.slow

QUESTION = "What did the crew do?"
BOOK = "CHAPTER I.\n\n" + "\n".join(
    f"On day {n} the crew mended sails and the wind of week {n} turned north." for n in range(1, 80)
)


def _reply(call: ChatRequest) -> str:
    """Differs with every prompt, so that a reply under a wrong key would show."""
    user = str(call.messages[-1]["content"])
    return f"They mended sails {sum(map(ord, user)) % 100_000} times [1]."


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, n_ctx=4096) as running:
        yield running


@pytest.fixture
def document() -> Document:
    return read_document(BOOK.encode(), name="voyage.txt")


Make = Callable[..., Settings]


@pytest.fixture
def configured(server: FaultServer, tmp_path: Path) -> Make:
    def make(**changes: Any) -> Settings:
        params = {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"}
        entry = {"model_name": "readers", "litellm_params": params, "model_info": {"max_input_tokens": 4096}}
        values = {"home": tmp_path, "model": "readers", "model_list": [entry], "chunk_tokens": 500, "retries": 0}
        return Settings.model_validate({**values, **changes})

    return make


def said(answer: Answer) -> Answer:
    """What of an answer does not depend on where its replies came from."""
    return replace(answer, run_id="", seconds=0.0, usage=replace(answer.usage, seconds=0.0, cached_tokens=0))


async def asked(settings: Settings, document: Document, question: str = QUESTION) -> Answer:
    async with Session(settings) as session:
        return await session.ask(document, question)


async def test_the_same_question_is_answered_again_without_a_call(
    server: FaultServer, configured: Make, document: Document
) -> None:
    fresh = await asked(configured(response_cache=False), document)
    first = await asked(configured(), document)
    n_calls = server.stats().calls
    second = await asked(configured(), document)
    assert server.stats().calls == n_calls
    assert said(first) == said(fresh)
    assert (second.text, second.citations, second.coverage) == (first.text, first.citations, first.coverage)
    assert (second.usage.calls, second.usage.reused) == (0, first.usage.calls)
    assert second.usage.prompt_tokens == second.usage.completion_tokens == 0
    other = await asked(configured(), document, "Where did the wind turn?")
    assert other.usage.reused == 0


async def test_a_run_that_is_resumed_says_what_it_would_have_said(
    server: FaultServer, configured: Make, document: Document, tmp_path: Path
) -> None:
    whole = await asked(configured(home=tmp_path / "whole"), document)
    server.faults = Faults(script=[None, "503"])
    settings = configured(home=tmp_path / "stopped", on_worker_failure="fail")
    async with Session(settings) as session:
        with pytest.raises(ModelUnavailable):
            await session.ask(document, QUESTION)
    server.faults = Faults()
    async with Session(settings) as session:
        resumed = await session.resume(session.runs.last().run_id)
    assert (resumed.text, resumed.citations, resumed.coverage) == (whole.text, whole.citations, whole.coverage)


async def test_another_model_at_the_same_address_is_asked_itself(configured: Make, document: Document) -> None:
    first = await asked(configured(), document)
    entry = configured().model_list[0]
    other = {**entry, "litellm_params": {**entry["litellm_params"], "model": "openai/another"}}
    second = await asked(configured(model_list=[other]), document)
    assert second.usage.calls == first.usage.calls
    assert second.usage.reused == 0


async def test_processes_share_replies_through_redis(
    server: FaultServer, configured: Make, document: Document, tmp_path: Path
) -> None:
    with RedisProcess() as redis:
        first = await asked(configured(redis_url=redis.url, home=tmp_path / "one"), document)
        second = await asked(configured(redis_url=redis.url, home=tmp_path / "two"), document)
        assert second.text == first.text
        assert second.usage.reused > 0, "all but those that a busy machine had no 50 ms for"
        redis.kill()
        third = await asked(configured(redis_url=redis.url, home=tmp_path / "three"), document)
    assert (third.text, third.usage.calls) == (first.text, first.usage.calls)
    assert len([w for w in third.warnings if "replies are not kept" in w]) == 1


async def test_a_store_that_cannot_be_used_costs_one_warning(
    configured: Make, document: Document, tmp_path: Path
) -> None:
    fresh = await asked(configured(response_cache=False), document)
    (tmp_path / "cache").write_text("a file in the folder's place", encoding="utf-8")
    answer = await asked(configured(), document)
    (warning,) = [w for w in answer.warnings if "replies are not kept" in w]
    assert said(replace(answer, warnings=tuple(w for w in answer.warnings if w != warning))) == said(fresh)
