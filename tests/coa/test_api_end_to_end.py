"""The API over a real HTTP server: questions, summaries, plans, faults, resumes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import coa
from coa.api import Session, StopSignal, ask, ask_sync, resume
from coa.config import Settings
from coa.documents import read_document
from coa.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    ConfigError,
    LimitsError,
    ModelUnavailable,
    RunDrained,
)
from coa.events import AnswerStarted, AnswerToken, ChunkRead, ChunkSkipped, ChunkStarted, Event, RunStarted
from coa.testing.fault_server import ChatRequest, Faults, FaultServer
from coa.types import Document

pytestmark = pytest.mark.slow

KEY = "sk-secret-of-the-service-0123456789"
N_CHAPTERS = 6
QUESTION = "Where did Ada hide the brass key?"


def _book() -> str:
    chapters = []
    for n in range(1, N_CHAPTERS + 1):
        lines = [f"On day {n}{k} the crew mended sails and the wind of week {k} turned north." for k in range(1, 26)]
        if n == 3:
            lines.insert(9, "Ada hid the brass key under the third stone of the old well.")
        chapters.append(f"CHAPTER {['I', 'II', 'III', 'IV', 'V', 'VI'][n - 1]}.\n\n" + "\n".join(lines) + "\n\n")
    return "\n".join(chapters)


def _reply(call: ChatRequest) -> str:
    """A worker that finds the key, a manager that repeats its notes."""
    user = str(call.messages[-1]["content"])
    if "Source text" not in user:
        return user.split("Notes:\n")[1].split("\n\nQuestion", maxsplit=1)[0].split("\n\nSummary", maxsplit=1)[0]
    found = re.search(r"^\[(\d+)\] Ada hid the brass key", user, re.MULTILINE)
    notes = user.split("be empty):\n")[1].split("\n", maxsplit=1)[0]
    if "Question:" not in user:
        return f"They mended sails [1]. {'' if notes == '(none)' else notes}"[:200]
    if found:
        return f"Ada hid the key under the third stone [{found.group(1)}]."
    return "NO_INFORMATION" if notes == "(none)" else notes


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, api_key=KEY, n_ctx=4096) as running:
        yield running


@pytest.fixture
def document() -> Document:
    return read_document(_book().encode(), name="voyage.txt")


Make = Callable[..., Settings]


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Which engine the group says it is; hosted where a test does not say."""
    return str(getattr(request, "param", "hosted"))


BOTH_KINDS = pytest.mark.parametrize("kind", ["hosted", "llama_server"], indirect=True)


@pytest.fixture
def configured(server: FaultServer, tmp_path: Path, kind: str) -> Make:
    """Settings for the server as a group of model_list."""

    def make(**changes: Any) -> Settings:
        entry = {
            "model_name": "readers",
            "litellm_params": {
                "model": "openai/fault",
                "api_base": server.base_url,
                "api_key": changes.pop("key", KEY),
            },
            "model_info": {"kind": kind, "max_input_tokens": 4096},
        }
        values = {"home": tmp_path, "model": "readers", "model_list": [entry], "chunk_tokens": 700, "retries": 1}
        return Settings.model_validate({**values, **changes})

    return make


@BOTH_KINDS
async def test_a_question_is_answered_with_the_place_in_the_book(
    server: FaultServer, configured: Make, document: Document, kind: str
) -> None:
    events: list[Event] = []
    async with Session(configured(), on_event=events.append) as session:
        planned = await session.plan(document, QUESTION)
        assert server.stats().calls == 0, "a plan costs nothing"
        answer = await session.ask(document, QUESTION)
    stats = server.stats()
    assert answer.text == "Ada hid the key under the third stone [1]."
    (citation,) = answer.citations
    assert citation.quote == "Ada hid the brass key under the third stone of the old well."
    assert document.text[citation.start : citation.end] == citation.quote
    assert "CHAPTER III" in (citation.chapter or "")
    assert citation.origin == "model"
    assert answer.coverage.complete
    assert (answer.usage.calls, answer.usage.prompt_tokens) == (stats.calls, stats.prompt_tokens)
    assert answer.usage.cost_usd == (0.0 if kind == "llama_server" else None)
    assert answer.run_id == session.runs.last().run_id
    assert session.runs.last().state == "done"
    assert session.runs.last().prompts["reading_prefix"] == "1"
    assert planned.calls == stats.calls == planned.n_chunks + 1
    assert planned.n_chunks == answer.coverage.chunks > 3
    assert planned.exact == (kind == "llama_server")
    assert answer.usage.completion_tokens <= planned.completion_tokens_max
    assert 0 < planned.cacheable_ratio < 1


@BOTH_KINDS
async def test_an_estimate_is_near_what_a_run_with_usual_notes_takes(
    configured: Make, document: Document, server: FaultServer
) -> None:
    server.stop()
    notes = "The crew mended sails, and the wind of the week turned north [3]. " * 14
    with FaultServer(lambda call: notes, api_key=KEY, n_ctx=4096, port=server.port) as busy:
        async with Session(configured()) as session:
            planned = await session.plan(document, QUESTION)
            answer = await session.ask(document, QUESTION)
        assert answer.usage.prompt_tokens == busy.stats().prompt_tokens
    assert planned.prompt_tokens == pytest.approx(answer.usage.prompt_tokens, rel=0.35)


async def test_events_tell_the_run_in_order(configured: Make, document: Document) -> None:
    events: list[Event] = []
    async with Session(configured(), on_event=events.append) as session:
        answer = await session.ask(document, QUESTION)
    kept = [e for e in events if isinstance(e, RunStarted | ChunkStarted | ChunkRead | AnswerStarted | AnswerToken)]
    started = kept[0]
    assert isinstance(started, RunStarted)
    n = started.n_chunks
    assert (started.run_id, started.n_done, started.document) == (answer.run_id, 0, "voyage.txt")
    assert [type(e) for e in kept[1 : 2 * n + 1]] == [ChunkStarted, ChunkRead] * n
    assert [e.index for e in kept[1 : 2 * n + 1 : 2] if isinstance(e, ChunkStarted)] == list(range(n))
    assert isinstance(kept[2 * n + 1], AnswerStarted)
    tokens = [e.text for e in kept[2 * n + 2 :] if isinstance(e, AnswerToken)]
    assert len(tokens) > 1
    assert "".join(tokens) == session.runs.part_answers(answer.run_id)[0].text


async def test_two_questions_of_one_session_are_two_runs(
    server: FaultServer, configured: Make, document: Document
) -> None:
    async with Session(configured()) as session:
        first, second = await asyncio.gather(session.ask(document, QUESTION), session.ask(document, "Who hid the key?"))
        third = await session.ask(document, QUESTION)
    assert first.text == second.text == third.text
    assert len({first.run_id, second.run_id, third.run_id}) == 3
    assert server.stats().cached_tokens > 0, "the same chunks were read again"


async def test_a_summary_of_the_book_and_of_its_chapters(configured: Make, document: Document) -> None:
    async with Session(configured()) as session:
        whole = await session.summarize(document, words=50)
        by_chapter = await session.summarize(document, per="chapter", language="de")
        planned = await session.plan(document, None, per="chapter")
    assert whole.question is None
    assert whole.text.startswith("They mended sails [1]")
    assert [line for line in by_chapter.text.splitlines() if line.startswith("## ")] == [
        f"## {section.title}" for section in document.chapters()
    ]
    assert by_chapter.text.count("They mended sails") >= N_CHAPTERS
    places = [c.start for c in by_chapter.citations]
    assert places == sorted(places), "each chapter cites itself"
    assert planned.calls == by_chapter.usage.calls + by_chapter.usage.reused, (
        "what was read for the book is not read again"
    )
    assert by_chapter.usage.reused > 0


def _outage(at: int) -> Callable[[ChatRequest], Any]:
    return lambda call: "503" if call.number >= at else None


@pytest.mark.parametrize("at", [0, 2, 5])
async def test_a_run_that_lost_its_server_is_resumed_and_pays_nothing_twice(
    server: FaultServer, configured: Make, document: Document, *, at: int
) -> None:
    server.faults = Faults(when=_outage(at))
    async with Session(configured(retries=0)) as session:
        with pytest.raises(ModelUnavailable):
            await session.ask(document, QUESTION)
        record = session.runs.last()
        assert (record.state, record.n_done) == ("failed", at)
        assert record.error
    server.faults = Faults()
    before = server.stats().calls
    async with Session(configured()) as session:
        answer = await session.resume(record.run_id[:-2])
        assert answer.text == "Ada hid the key under the third stone [1]."
        assert answer.coverage.complete
        assert session.runs.last().state == "done"
        paid = server.stats().calls - before
        assert paid == record.n_chunks + 1 - at
        assert (await session.resume(record.run_id)) == answer, "a finished run is given as it is"
    assert server.stats().calls == before + paid
    assert answer.usage.calls == record.n_chunks + 1


async def test_keys_are_in_no_file_and_the_present_one_is_used_on_resume(
    server: FaultServer, configured: Make, document: Document, tmp_path: Path
) -> None:
    wrong = "sk-a-wrong-key-that-is-secret-too"
    async with Session(configured(key=wrong)) as session:
        with pytest.raises(AuthenticationFailed) as caught:
            await session.ask(document, QUESTION)
        run_id = session.runs.last().run_id
    assert wrong not in str(caught.value)
    answer = await resume(run_id, **configured().model_dump(exclude={"home"}), home=tmp_path)
    assert answer.coverage.complete
    assert _files_with(tmp_path, wrong) == _files_with(tmp_path, KEY) == []


def _files_with(folder: Path, text: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    return [path for path in files if text.encode() in path.read_bytes()]


async def test_a_stop_drains_and_the_run_goes_on_later(
    server: FaultServer, configured: Make, document: Document
) -> None:
    stop = StopSignal()

    def on_event(event: Event) -> None:
        if isinstance(event, ChunkRead) and event.index == 1:
            stop.request("SIGTERM")

    async with Session(configured(), on_event=on_event, stop=stop) as session:
        with pytest.raises(RunDrained) as caught:
            await session.ask(document, QUESTION)
        record = session.runs.get(caught.value.run_id)
        assert (record.state, record.n_done) == ("drained", server.stats().calls)
    async with Session(configured()) as session:
        answer = await session.resume(record.run_id)
    assert server.stats().calls == answer.usage.calls == record.n_chunks + 1


async def test_a_cancelled_run_can_be_resumed(server: FaultServer, configured: Make, document: Document) -> None:
    read = asyncio.Event()
    async with Session(configured(), on_event=lambda e: read.set() if isinstance(e, ChunkRead) else None) as session:
        task = asyncio.create_task(session.ask(document, QUESTION))
        await read.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.runs.last().state == "drained"
        assert (await session.resume(session.runs.last().run_id)).coverage.complete


async def test_a_budget_gives_what_was_read(server: FaultServer, configured: Make, document: Document) -> None:
    async with Session(configured(max_calls=4)) as session:
        with pytest.raises(BudgetExceeded, match=r"stopped by the limit of 4 calls: 2 of \d+ chunks") as caught:
            await session.summarize(document)
        assert server.stats().calls == 3
        answer = caught.value.answer
        assert answer is not None
        assert (answer.coverage.read, answer.coverage.complete) == (2, False)
        assert answer.text.startswith("They mended sails")
        assert {s.cause for s in answer.coverage.skipped} == {"stopped by the limit of 4 calls"}
        assert session.runs.last().state == "partial"
        assert (await session.resume(answer.run_id)) == answer
    async with Session(configured(max_calls=1)) as session:
        with pytest.raises(BudgetExceeded, match="0 of") as caught:
            await session.ask(document, QUESTION)
    assert caught.value.answer is None, "what was not read cannot be said to hold no answer"
    assert server.stats().calls == 3


async def test_a_refused_chunk_is_listed_with_its_cause(
    server: FaultServer, configured: Make, document: Document
) -> None:
    server.faults = Faults(when=lambda call: "content-filter" if call.number == 1 else None)
    events: list[Event] = []
    async with Session(configured(), on_event=events.append) as session:
        answer = await session.ask(document, QUESTION)
        assert session.runs.last().state == "partial"
    (skipped,) = answer.coverage.skipped
    assert skipped.index == 1
    assert "content filter" in skipped.cause
    assert [e.index for e in events if isinstance(e, ChunkSkipped)] == [1]
    assert answer.usage.prompt_tokens == server.stats().prompt_tokens, "the refused call was paid as well"


@pytest.mark.parametrize(
    ("changes", "error", "part"),
    [
        ({"chunk_tokens": None, "window": 400}, LimitsError, "a window of 400 tokens is too small"),
        ({"chunk_tokens": 9000}, LimitsError, "chunk 9000 + notes in"),
        ({"window": 8000}, ConfigError, "--window 8000 is more than 'readers' serves"),
        ({"strategy": "chian"}, ConfigError, "did you mean 'chain'"),
    ],
)
async def test_what_cannot_work_is_refused_before_any_call(
    server: FaultServer,
    configured: Make,
    document: Document,
    *,
    changes: dict[str, Any],
    error: type[Exception],
    part: str,
) -> None:
    async with Session(configured(**changes)) as session:
        with pytest.raises(error, match=re.escape(part)):
            await session.ask(document, QUESTION)
        assert session.runs.list() == []
    assert server.stats().calls == 0


async def test_questions_that_are_empty_or_too_long_are_refused(configured: Make, document: Document) -> None:
    async with Session(configured()) as session:
        with pytest.raises(ConfigError, match="the question is empty"):
            await session.ask(document, " \n")
        with pytest.raises(ConfigError, match="256 are set aside for it"):
            await session.ask(document, "why " * 2000)
        with pytest.raises(ConfigError, match="no chapters"):
            await session.summarize(read_document(b"No chapter here. None at all."), per="chapter")


async def test_the_sync_call_is_refused_inside_a_loop() -> None:
    with pytest.raises(ConfigError, match=r"await coa\.ask"):
        ask_sync("nothing.txt", QUESTION)


def test_the_sync_call_works_outside_one(configured: Make, tmp_path: Path) -> None:
    book = tmp_path / "voyage.txt"
    book.write_text(_book())
    answer = coa.ask_sync(book, QUESTION, **configured().model_dump())
    assert answer.document == "voyage.txt"
    assert answer.text == "Ada hid the key under the third stone [1]."


async def test_the_same_text_under_another_name_keeps_its_own_name_on_resume(
    server: FaultServer, configured: Make, tmp_path: Path
) -> None:
    settings = configured(retries=0, response_cache=False).model_dump()
    await ask(read_document(_book().encode(), name="first.txt"), QUESTION, **settings)
    server.faults = Faults(script=[None, "503"])
    with pytest.raises(ModelUnavailable):
        await ask(read_document(_book().encode(), name="second.txt"), QUESTION, **settings)
    server.faults = Faults()
    async with Session(configured()) as session:
        answer = await session.resume(session.runs.last().run_id)
    assert answer.document == "second.txt"


async def test_a_run_record_is_readable_json(configured: Make, document: Document) -> None:
    async with Session(configured()) as session:
        answer = await session.ask(document, QUESTION)
        folder = session.runs.path(answer.run_id)
    names, record = _stored(folder)
    assert {"run.json", "plan.json", "notes.jsonl", "state.sqlite", "answer.json"} <= names
    assert (record["question"], record["n_done"], record["task"]) == (QUESTION, record["n_chunks"], "ask")


def _stored(folder: Path) -> tuple[set[str], dict[str, Any]]:
    return {path.name for path in folder.iterdir()}, json.loads((folder / "run.json").read_text())
