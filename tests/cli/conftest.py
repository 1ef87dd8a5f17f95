"""The command line in this process, over a scripted `coa.api`; run as a script, in a process of its own."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import pytest

from coa.agents.statements import Statement
from coa.cli.invocation import Invocation
from coa.cli.main import run
from coa.config import Settings
from coa.errors import CoaError, RunDrained
from coa.events import AnswerStarted, AnswerToken, ChunkRead, ChunkStarted, Event, RunStarted
from coa.types import Answer, Citation, Claim, Coverage, Document, Note, SkippedChunk, Usage

RUN_ID = "20260101-000000-abcd"


def make_answer(text: str = "The cat did it.", *, read: int = 2, chunks: int = 2, **changes: Any) -> Answer:
    """An answer with one citation of each origin."""
    answer = Answer(
        text=text,
        run_id=RUN_ID,
        strategy="chain",
        model="smollm2-135m",
        question="Who did it?",
        coverage=Coverage(chunks, read, tuple(SkippedChunk(i, "no reply") for i in range(read, chunks))),
        usage=Usage(calls=3, prompt_tokens=1200, cached_tokens=200, completion_tokens=30, cost_usd=0.0, seconds=4.5),
        citations=(
            Citation("The cat\n sat.", 10, 23, chapter="I. The Cat"),
            Citation("It purred.", 30, 40, status="fuzzy", origin="located", score=0.5),
        ),
        notes=(Note(0, "a cat"), Note(1, "a cat", informative=False)),
        document="book.txt",
        document_sha256="ab" * 32,
        seconds=5.25,
        claims=(Claim(text, (1,)),),
        verdict="answered",
        prompts={"worker_question": "ab12"},
    )
    return replace(answer, **changes)


class FakeStop:
    """`coa.api.StopSignal`."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def request(self, reason: str) -> None:
        self.reason = reason

    @property
    def requested(self) -> bool:
        return self.reason is not None


@dataclass(frozen=True)
class FakePlan:
    document: str = "book.txt"
    sha256: str = "ab" * 32
    strategy: str = "chain"
    model: str = "smollm2-135m"
    tokenizer: str = "smollm2"
    exact: bool = True
    n_chunks: int = 12
    chunk_tokens: int = 1500
    calls: int = 13
    prompt_tokens: int = 20_000
    completion_tokens_max: int = 3_000
    cacheable_ratio: float = 0.8
    cost_usd: float | None = None
    seconds: float | None = 75.0
    chapters: int = 3
    window: int = 2048


@dataclass(frozen=True)
class FakeWarmed:
    """`coa.warming.Warmed`."""

    chunks: int = 12
    ready: int = 12
    found: int = 2
    computed_tokens: int = 14_000
    seconds: float = 18.25


@dataclass(frozen=True)
class FakeCheck:
    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str


@dataclass(frozen=True)
class FakeStrategy:
    """`coa.api.StrategyGraph`."""

    name: str
    description: str = "reads in order"
    agents: tuple[str, ...] = ("worker",)
    nodes: tuple[str, ...] = ("read",)
    mermaid: str = "graph TD;\n"
    schemas: Mapping[str, Any] = field(
        default_factory=lambda: {"input": {"properties": {"question": {}}}, "output": {"properties": {"answer": {}}}}
    )


@dataclass
class FakeApi:
    """`coa.api`: gives the scripted outcomes in order, raising those that are errors."""

    outcomes: list[Answer | Exception] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    checks: list[FakeCheck] = field(default_factory=list)
    plan: FakePlan = field(default_factory=FakePlan)
    warmed: FakeWarmed = field(default_factory=FakeWarmed)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    settings: Settings | None = None
    ends_in: list[int] = field(default_factory=list)
    """The order in which questions asked together end, by number from 0."""

    StopSignal = FakeStop

    def Session(  # noqa: N802
        self, settings: Settings, *, on_event: Callable[[Event], None] | None = None, stop: Any = None
    ) -> FakeSession:
        self.settings = settings
        return FakeSession(self, on_event or (lambda event: None), stop)

    def list_strategies(self) -> list[FakeStrategy]:
        return [FakeStrategy("chain")]

    def show_strategy(self, name: str) -> FakeStrategy:
        return FakeStrategy(name)

    async def diagnose(self, settings: Settings) -> Sequence[FakeCheck]:
        self.settings = settings
        return self.checks

    async def test_model(self, settings: Settings) -> Sequence[FakeCheck]:
        self.settings = settings
        return self.checks


@dataclass
class FakeSession:
    api: FakeApi
    on_event: Callable[[Event], None]
    stop: Any

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def ask(self, document: Document, question: str) -> Answer:
        return self._outcome("ask", question)

    async def ask_many(
        self,
        document: Document,
        questions: Sequence[str],
        *,
        on_answer: Callable[[int, Answer | CoaError], None] | None = None,
        on_event: Callable[[int, Event], None] | None = None,
    ) -> list[Answer | CoaError]:
        """Questions end in the order that `api.ends_in` gives, as asked where it is empty."""
        found: dict[int, Answer | CoaError] = {}
        asked = FakeSession(self.api, self.on_event, self.stop)
        for number in self.api.ends_in or range(len(questions)):
            if on_event is not None:
                asked.on_event = partial(_numbered, on_event, number)
            try:
                found[number] = asked._outcome("ask", questions[number])
            except CoaError as error:
                found[number] = error
            if on_answer is not None:
                on_answer(number, found[number])
        return [found[number] for number in range(len(questions))]

    async def summarize(
        self,
        document: Document,
        *,
        words: int | None = None,
        per: Literal["book", "chapter"] = "book",
        language: str = "auto",
    ) -> Answer:
        return self._outcome("summarize", (words, per, language))

    async def structure(self, document: Document, *, form: Literal["ids", "free"] = "ids") -> Answer:
        return self._outcome("structure", form)

    async def check(self, document: Document, statements: Sequence[str | Statement]) -> Answer:
        return self._outcome("check", tuple(statements))

    async def resume(self, run_id: str, *, review: object = None) -> Answer:
        told = () if review is None else (review,)
        return self._outcome("resume", run_id, *told)

    async def warm(self, document: Document, *, on_progress: Callable[[int, int], None] | None = None) -> FakeWarmed:
        self.api.calls.append(("warm", document.name))
        for event in self.api.events:
            self.on_event(event)
        for done in range(1, self.api.warmed.chunks + 1):
            if on_progress is not None:
                on_progress(done, self.api.warmed.chunks)
        return self.api.warmed

    async def plan(
        self,
        document: Document,
        question: str | None,
        *,
        per: Literal["book", "chapter"] = "book",
        words: int | None = None,
    ) -> FakePlan:
        self.api.calls.append(("plan", (question, per, words)))
        return self.api.plan

    def _outcome(self, task: str, detail: Any) -> Answer:
        self.api.calls.append((task, detail))
        for event in self.api.events:
            self.on_event(event)
        outcome = self.api.outcomes.pop(0) if self.api.outcomes else make_answer()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class Result(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


@dataclass
class Cli:
    """Runs command lines over `api`."""

    api: FakeApi
    capture: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    folder: Path

    answer = staticmethod(make_answer)
    check = FakeCheck

    def __call__(self, *args: str | Path, stdin: bytes = b"") -> Result:
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = run([str(arg) for arg in args], Invocation(load_api=lambda: self.api))
        out, err = self.capture.readouterr()
        return Result(code, out, err)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty, with coa's home in it and no settings from outside."""
    for name in [name for name in os.environ if name.startswith("COA_") and not name.startswith("COA_TEST_")]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, with `book.txt` in its folder."""
    (folder / "book.txt").write_text("The cat sat on the mat. It purred.\n", encoding="utf-8")
    return Cli(FakeApi(), capsys, monkeypatch, folder)


def _numbered(tell: Callable[[int, Event], None], number: int, event: Event) -> None:
    """Each question has a run of its own."""
    tell(number, replace(event, run_id=f"{RUN_ID}-{number}") if isinstance(event, RunStarted) else event)


class _SlowSession(FakeSession):
    """Reads ten chunks, each for SECONDS, and drains between two."""

    async def ask(self, document: Document, question: str) -> Answer:
        seconds = float(os.environ.get("SECONDS", "0.2"))
        if os.environ.get("NEVER_STARTS"):
            print("loading", file=sys.stderr, flush=True)
            await asyncio.sleep(60)
        self.on_event(RunStarted(RUN_ID, document.name, "chain", "fake", n_chunks=10, n_tokens=1000))
        for index in range(10):
            self.on_event(ChunkStarted(index, 10, 100))
            print(f"chunk {index}", file=sys.stderr, flush=True)
            await asyncio.sleep(seconds)
            self.on_event(ChunkRead(index, 10, 100, "note", True, Usage(), seconds))
            if self.stop.requested:
                raise RunDrained(f"stopped by {self.stop.reason}", run_id=RUN_ID)
        self.on_event(AnswerStarted())
        for piece in ("The cat ", "did it."):
            self.on_event(AnswerToken(piece))
        return make_answer()

    async def ask_many(
        self,
        document: Document,
        questions: Sequence[str],
        *,
        on_answer: Callable[[int, Answer | CoaError], None] | None = None,
        on_event: Callable[[int, Event], None] | None = None,
    ) -> list[Answer | CoaError]:
        assert on_answer is not None
        assert on_event is not None

        async def one(number: int) -> Answer | CoaError:
            asked = _SlowSession(self.api, partial(_numbered, on_event, number), self.stop)
            outcome: Answer | CoaError
            try:
                outcome = await asked.ask(document, questions[number])
            except RunDrained as error:
                outcome = RunDrained(error.message, run_id=f"{RUN_ID}-{number}")
            on_answer(number, outcome)
            return outcome

        return list(await asyncio.gather(*map(one, range(len(questions)))))


class _SlowApi(FakeApi):
    def Session(  # noqa: N802
        self, settings: Settings, *, on_event: Callable[[Event], None] | None = None, stop: Any = None
    ) -> FakeSession:
        return _SlowSession(self, on_event or (lambda event: None), stop)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], Invocation(load_api=_SlowApi)))
