"""`Session.ask_many`: a run for each question, read together; what fails is a result of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.config import Settings
from coa.documents import read_document
from coa.errors import BudgetExceeded, CoaError, ConfigError, ModelError, RunDrained
from coa.events import ChunkRead, Event, RunStarted
from coa.session import Session
from coa.stopping import StopSignal
from coa.testing.fault_server import ChatRequest, FaultServer
from coa.testing.reading_model import read_by_words
from coa.types import Answer, Document

QUESTIONS = [
    "Who kept the lighthouse key in the blue jar?",
    "Who painted the harbour wall with red lead?",
    "Which zeppelin exploded above Nagasaki?",
]
ADA = "Ada Brown kept the lighthouse key in the blue jar."
TOM = "Tom Reed painted the harbour wall with red lead."
Make = Callable[..., Settings]


class Journal:
    """What the server was asked to read, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.prefixes: list[str] = []
        self.refuse = ""
        """Calls whose prompt holds this are answered with an empty reply."""

    def reply(self, request: ChatRequest) -> str:
        user = str(request.messages[-1]["content"])
        if "Source text" in user:
            with self._lock:
                self.prefixes.append(user.partition("[End of source text.]")[0])
        return "" if self.refuse and self.refuse in user else read_by_words(user)


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def configured(tmp_path: Path, journal: Journal) -> Iterator[Make]:
    with FaultServer(reply=journal.reply) as server:

        def make(**changes: Any) -> Settings:
            entry = {
                "model_name": "readers",
                "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "k"},
                "model_info": {"max_input_tokens": 4096},
            }
            values = {"home": tmp_path, "model": "readers", "model_list": [entry], "chunk_tokens": 250, "retries": 0}
            return Settings.model_validate({**values, **changes})

        yield make


@pytest.fixture
def document() -> Document:
    lines = [f"On day {n} the ferry crossed the sound with {n} barrels aboard.\n\n" for n in range(50)]
    return read_document("".join([*lines[:30], TOM + "\n\n", *lines[30:], ADA + "\n"]).encode(), name="ferry.txt")


def _texts(outcomes: list[Answer | CoaError]) -> list[str]:
    return [outcome.text if isinstance(outcome, Answer) else type(outcome).__name__ for outcome in outcomes]


async def test_each_question_has_its_answer_its_run_and_its_place(configured: Make, document: Document) -> None:
    told: list[int] = []
    async with Session(configured()) as session:
        outcomes = await session.ask_many(document, QUESTIONS, on_answer=lambda number, outcome: told.append(number))
        alone = [await session.ask(document, question) for question in QUESTIONS]
        assert _texts(outcomes) == [answer.text for answer in alone]
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        assert [answer.question for answer in answers] == QUESTIONS
        assert len({answer.run_id for answer in answers}) == 3
        assert [session.runs.answer(answer.run_id) for answer in answers] == answers
    assert sorted(told) == [0, 1, 2]


async def test_a_chunk_is_read_for_all_questions_before_the_next_one(
    configured: Make, document: Document, journal: Journal
) -> None:
    async with Session(configured()) as session:
        outcomes = await session.ask_many(document, QUESTIONS)
    n_chunks = next(outcome.coverage.chunks for outcome in outcomes if isinstance(outcome, Answer))
    assert n_chunks > 3
    rounds = [journal.prefixes[n : n + 3] for n in range(0, len(journal.prefixes), 3)]
    assert len(rounds) == n_chunks
    assert all(len(set(together)) == 1 for together in rounds)
    assert len({together[0] for together in rounds}) == n_chunks


async def test_events_tell_the_runs_apart(configured: Make, document: Document) -> None:
    told: list[tuple[int, Event]] = []
    heard: list[Event] = []
    async with Session(configured(), on_event=heard.append) as session:
        outcomes = await session.ask_many(
            document, QUESTIONS[:2], on_event=lambda number, event: told.append((number, event))
        )
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, Answer)
        events = [event for n, event in told if n == number]
        assert [e.run_id for e in events if isinstance(e, RunStarted)] == [outcome.run_id]
        read = [e.index for e in events if isinstance(e, ChunkRead)]
        assert read == list(range(outcome.coverage.chunks))
    assert not any(isinstance(event, ChunkRead) for event in heard), "they have a listener of their own"


async def test_without_a_listener_of_their_own_the_session_hears_of_all_runs(
    configured: Make, document: Document
) -> None:
    heard: list[Event] = []
    async with Session(configured(), on_event=heard.append) as session:
        await session.ask_many(document, QUESTIONS[:2])
    assert len({event.run_id for event in heard if isinstance(event, RunStarted)}) == 2


async def test_a_question_that_fails_is_an_error_in_its_place(
    configured: Make, document: Document, journal: Journal
) -> None:
    journal.refuse = QUESTIONS[0]
    async with Session(configured(on_worker_failure="fail")) as session:
        outcomes = await session.ask_many(document, [*QUESTIONS[:2], " "])
        assert isinstance(outcomes[0], ModelError)
        assert _texts(outcomes)[1].startswith("Tom Reed painted")
        assert isinstance(outcomes[2], ConfigError)
        failed = next(record for record in session.runs.list() if record.state == "failed")
        journal.refuse = ""
        assert (await session.resume(failed.run_id)).text.startswith("Ada Brown kept")


async def test_a_budget_is_each_runs_own(configured: Make, document: Document) -> None:
    async with Session(configured(max_calls=4)) as session:
        outcomes = await session.ask_many(document, QUESTIONS[:2])
    for outcome in outcomes:
        assert isinstance(outcome, BudgetExceeded)
        assert outcome.answer is not None
        assert 0 < outcome.answer.usage.calls <= 4


async def test_a_stop_drains_all_of_them_and_each_can_be_gone_on_with(
    configured: Make, document: Document, journal: Journal
) -> None:
    stop = StopSignal()

    def on_event(number: int, event: Event) -> None:
        if isinstance(event, ChunkRead) and event.index == 1:
            stop.request("SIGTERM")

    async with Session(configured(), stop=stop) as session:
        outcomes = await session.ask_many(document, QUESTIONS[:2], on_event=on_event)
        drained = [outcome for outcome in outcomes if isinstance(outcome, RunDrained)]
        assert len(drained) == 2
        assert len(journal.prefixes) <= 6, "nobody goes on to a chunk after the one in hand"
    run_ids = [outcome.run_id for outcome in drained]
    async with Session(configured()) as session:
        answers = await session.ask_many(document, QUESTIONS[:2], run_ids=run_ids)
    assert [answer.run_id for answer in answers if isinstance(answer, Answer)] == run_ids
    assert _texts(answers)[0].startswith("Ada Brown kept")
    assert len(journal.prefixes) == 2 * next(a.coverage.chunks for a in answers if isinstance(a, Answer))


async def test_cancelling_leaves_runs_that_can_be_resumed(configured: Make, document: Document) -> None:
    begun = asyncio.Event()

    def on_event(number: int, event: Event) -> None:
        if isinstance(event, ChunkRead):
            begun.set()

    async with Session(configured()) as session:
        asking = asyncio.create_task(session.ask_many(document, QUESTIONS[:2], on_event=on_event))
        await asyncio.wait_for(begun.wait(), 30)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        states = {record.state for record in session.runs.list()}
        assert states == {"drained"}
        for record in session.runs.list():
            assert (await session.resume(record.run_id)).coverage.complete


async def test_a_bug_ends_all_and_is_not_taken_for_an_answer(configured: Make, document: Document) -> None:
    def on_answer(number: int, outcome: Answer | CoaError) -> None:
        raise KeyError("bug")

    async with Session(configured()) as session:
        with pytest.raises(KeyError):
            await session.ask_many(document, QUESTIONS[:2], on_answer=on_answer)


async def test_a_strategy_without_an_order_answers_just_the_same(configured: Make, document: Document) -> None:
    async with Session(configured(strategy="tree")) as session:
        outcomes = await asyncio.wait_for(session.ask_many(document, QUESTIONS[:2]), 60)
    assert _texts(outcomes)[0].startswith("Ada Brown kept")


async def test_no_questions_have_no_answers(configured: Make, document: Document) -> None:
    async with Session(configured()) as session:
        assert await session.ask_many(document, []) == []
