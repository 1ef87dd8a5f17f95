"""Sessions over the same open models: resumed runs, views, and runs of a name that several begin at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.config import Settings
from coa.documents import read_document
from coa.errors import BudgetExceeded, ConfigError
from coa.llm.gateway import models_named, open_gateway
from coa.session import Session
from coa.testing.fault_server import FaultServer
from coa.testing.reading_model import read_by_words
from coa.types import Document

QUESTION = "Who kept the lighthouse key in the blue jar?"
FACT = "Ada Brown kept the lighthouse key in the blue jar."
Make = Callable[..., Settings]


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Make]:
    """Settings for two groups on one server, in one home."""
    with FaultServer(reply=lambda request: read_by_words(str(request.messages[-1]["content"]))) as server:

        def make(**changes: Any) -> Settings:
            entries = [
                {
                    "model_name": name,
                    "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "k"},
                    "model_info": {"max_input_tokens": 4096},
                }
                for name in ("readers", "others")
            ]
            return Settings.model_validate({"home": tmp_path, "model_list": entries, "chunk_tokens": 200, **changes})

        yield make


@pytest.fixture
def document() -> Document:
    lines = [f"On day {n} the ferry crossed the sound with {n} barrels aboard.\n\n" for n in range(40)]
    return read_document("".join([*lines, FACT + "\n"]).encode(), name="ferry.txt")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of every gateway that is opened."""
    found: list[Settings] = []

    async def counted(settings: Settings, **options: Any) -> Any:
        found.append(settings)
        return await open_gateway(settings, **options)

    monkeypatch.setattr("coa.session.open_gateway", counted)
    return found


async def _ended_by_its_limit(session: Session, document: Document) -> str:
    with pytest.raises(BudgetExceeded):
        await session.view(max_calls=3).ask(document, QUESTION)
    record = session.runs.last()
    session.runs.changed(record, "drained")
    (session.runs.path(record.run_id) / "answer.json").unlink()
    return record.run_id


async def test_a_run_that_is_resumed_uses_the_models_that_are_open(
    configured: Make, document: Document, opened: list[Settings]
) -> None:
    async with Session(configured(model="readers")) as session:
        run_id = await _ended_by_its_limit(session, document)
        with pytest.raises(BudgetExceeded):  # it keeps its own limit
            await session.view().resume(run_id)
        assert len(opened) == 1
        assert (await session.ask(document, QUESTION)).coverage.complete, "the session stays open"


async def test_a_run_of_another_model_is_resumed_with_its_own(
    configured: Make, document: Document, opened: list[Settings]
) -> None:
    async with Session(configured(model="readers")) as session:
        run_id = await _ended_by_its_limit(session, document)
    async with Session(configured(model="others")) as session:
        with pytest.raises(BudgetExceeded):
            await session.resume(run_id)
    assert [models_named(settings)[0] for settings in opened] == ["readers", "readers"]


async def test_a_run_whose_worker_was_named_alone_is_resumed_without_the_default_model(
    configured: Make, document: Document, opened: list[Settings]
) -> None:
    async with Session(configured(roles={"worker": "readers"})) as session:
        run_id = await _ended_by_its_limit(session, document)
    async with Session(configured(model="others")) as session:
        with pytest.raises(BudgetExceeded):
            await session.resume(run_id)
    assert models_named(opened[-1]) == ("readers", {"worker": "readers"})


async def test_a_run_that_two_begin_at_once_is_one_run(configured: Make, document: Document) -> None:
    async with Session(configured(model="readers")) as session:
        inside = asyncio.Event()

        async def begin(view: Session) -> int:
            async with view.prepared(document, QUESTION, run_id="mine") as run:
                inside.set()
                await asyncio.sleep(0.5)
                return len(run.context.parts[0].chunks)

        both = [begin(session.view(chunk_tokens=n)) for n in (200, 400)]
        found = await asyncio.gather(*both, return_exceptions=True)
        (refused,) = [one for one in found if isinstance(one, ConfigError)]
        assert "is being worked on" in str(refused)
        (n_chunks,) = [one for one in found if isinstance(one, int)]
        assert session.runs.plan("mine", document).n_chunks == n_chunks == session.runs.get("mine").n_chunks
        with pytest.raises(ConfigError, match="is about"):
            await begin_with(session, document, "Who else?")


async def begin_with(session: Session, document: Document, question: str) -> None:
    async with session.prepared(document, question, run_id="mine"):
        raise AssertionError("a run of another question was prepared")
