"""The chain against CoA's Algorithm 1: who reads what with which notes; where it stops and goes on."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from coa.agents import Manager, Worker, WorkerReply
from coa.errors import BadOutput, ContentRefused, ModelError, ModelUnavailable, RunDrained, StorageError
from coa.events import AnswerStarted, AnswerToken, ChunkRead, ChunkSkipped, ChunkStarted, Event
from coa.graphs import InMemoryNotes, ReadContext, ReadOptions, ReadOutput, build_chain, strategy
from coa.graphs.context import Reading
from coa.graphs.running import run_graph
from coa.limits import FULL, Limits
from coa.llm.budget import Budget, Demand, Prices
from coa.llm.chat import Completion, Decoding, OnText
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt
from coa.runs import Part
from coa.types import CallUsage, Chunk, CommunicationUnit, Span, Usage

LIMITS = Limits(4096, 2000, 256, 400, 300, 500)


def _part(n_chunks: int, title: str | None = None, *, mark: str = "c") -> Part:
    chunks = []
    for index in range(n_chunks):
        text = f"Sentence of {mark}{index}. "
        span = Span(index * 100, index * 100 + len(text))
        chunks.append(Chunk(index, text, span, (span,), 10, "words", False))
    return Part(title, tuple(chunks))


def _describe(prompt: Prompt, _: Decoding) -> str:
    """A note that says which chunk was read with which notes before it."""
    if not prompt.prefix:
        return "ANSWER(" + _notes(prompt) + ")"
    name = prompt.prefix.split("Sentence of ")[1].split(".")[0]
    before = _notes(prompt)
    return name if before == "(none)" else f"{before}>{name}"


def _notes(prompt: Prompt) -> str:
    lines = prompt.tail.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("Notes")) + 1]


@dataclass
class Run:
    """A chain that can be run again and again over one folder."""

    folder: Path
    parts: tuple[Part, ...]
    notes: InMemoryNotes = field(default_factory=InMemoryNotes)
    events: list[Event] = field(default_factory=list)
    drain: Callable[[str], None] = lambda reason: None
    worker: Callable[[ScriptedModel], Reading] = lambda model: Worker(model, LIMITS, FULL)
    worker_demand: Demand = field(default_factory=Demand)
    passes: int = 1
    output: ReadOutput | None = None

    async def __call__(
        self,
        model: ScriptedModel,
        *,
        question: str | None = "Who?",
        budget: Budget | None = None,
        on_worker_failure: Literal["skip", "fail"] = "skip",
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> str | None:
        spent = Usage()
        for note in self.notes.notes.values():
            spent = spent.merged(note.usage)
        for answer in self.notes.answers.values():
            spent = spent.merged(answer.usage)
        context = ReadContext(
            parts=self.parts,
            worker=self.worker(model),
            manager=Manager(model, LIMITS, FULL),
            notes=self.notes,
            budget=budget or Budget(),
            spent=spent,
            on_worker_failure=on_worker_failure,
            worker_demand=self.worker_demand,
            options=ReadOptions(passes=self.passes),
            manager_demand=Demand(1, LIMITS.manager_tokens - LIMITS.answer_tokens, LIMITS.answer_tokens),
        )

        def told(event: Event) -> None:
            self.events.append(event)
            on_event(event)

        def control(drain: Callable[[str], None]) -> None:
            self.drain = drain

        output = await run_graph(
            build_chain(),
            question=question,
            context=context,
            run_id="run",
            checkpoints=self.folder / "state.sqlite",
            on_event=told,
            on_control=control,
        )
        self.output = output
        return output["stopped"]


def _delete_checkpoints(folder: Path) -> None:
    for file in folder.glob("state.sqlite*"):
        file.unlink()


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _scripted() -> ScriptedModel:
    return ScriptedModel(respond=_describe)


async def test_each_worker_reads_its_chunk_with_the_notes_of_the_one_before(tmp_path: Path) -> None:
    run, model = Run(tmp_path, (_part(4),)), _scripted()
    assert await run(model) is None
    said = [_describe(call.prompt, call.decoding) for call in model.calls]
    assert said == ["c0", "c0>c1", "c0>c1>c2", "c0>c1>c2>c3", "ANSWER(c0>c1>c2>c3)"]
    assert run.notes.answers[0].text == "ANSWER(c0>c1>c2>c3)"
    manager = model.calls[-1].prompt
    assert manager.prefix == ""
    assert "Sentence of" not in manager.tail


async def test_events_come_in_order_and_add_up(tmp_path: Path) -> None:
    run = Run(tmp_path, (_part(2),))
    await run(_scripted())
    kinds = [type(event) for event in run.events]
    assert kinds == [ChunkStarted, ChunkRead, ChunkStarted, ChunkRead, AnswerStarted, AnswerToken]
    reads = [event for event in run.events if isinstance(event, ChunkRead)]
    assert [(r.index, r.n_chunks, r.note, r.informative, r.reused) for r in reads] == [
        (0, 2, "c0", True, False),
        (1, 2, "c0>c1", True, False),
    ]
    assert [r.usage.calls for r in reads] == [1, 2]


async def test_a_refusal_in_the_middle_keeps_the_evidence_to_the_answer(tmp_path: Path) -> None:
    refusals = iter(["Ada has the key [1].", "The text does not mention the key.", "NO_INFORMATION"])
    model = ScriptedModel(respond=lambda p, d: next(refusals) if p.prefix else f"ANSWER({_notes(p)})")
    run = Run(tmp_path, (_part(3),))
    await run(model)
    assert run.notes.answers[0].text == "ANSWER(Ada has the key [1.1].)"
    assert [run.notes.notes["", 0, i].informative for i in range(3)] == [True, False, False]
    assert [run.notes.notes["", 0, i].unit_chunk for i in range(3)] == [0, 0, 0]


async def test_parts_are_read_and_answered_one_after_the_other_each_from_nothing(tmp_path: Path) -> None:
    run, model = Run(tmp_path, (_part(2, "I", mark="a"), _part(1, "II", mark="b"))), _scripted()
    await run(model, question=None)
    assert [run.notes.answers[i].text for i in (0, 1)] == ["ANSWER(a0>a1)", "ANSWER(b0)"]
    assert [_describe(c.prompt, c.decoding) for c in model.calls] == [
        "a0",
        "a0>a1",
        "ANSWER(a0>a1)",
        "b0",
        "ANSWER(b0)",
    ]
    assert [e.index for e in run.events if isinstance(e, ChunkRead)] == [0, 1, 2]


def _failing_at(k: int, error: ModelError) -> ScriptedModel:
    """Answers k calls, then raises."""
    model = ScriptedModel()

    def respond(prompt: Prompt, decoding: Decoding) -> str:
        if len(model.calls) > k:
            raise error
        return _describe(prompt, decoding)

    model.respond = respond
    return model


N = 4


@pytest.mark.parametrize("k", range(N + 1))
async def test_a_run_that_breaks_at_any_call_goes_on_where_it_stood(tmp_path: Path, k: int) -> None:
    run = Run(tmp_path, (_part(N),))
    broken = _failing_at(k, ModelUnavailable("down"))
    with pytest.raises(ModelUnavailable, match="down"):
        await run(broken)
    assert len(run.notes.notes) == min(k, N)
    model = _scripted()
    assert await run(model) is None
    assert run.notes.answers[0].text == "ANSWER(c0>c1>c2>c3)"
    assert k + len(model.calls) == N + 1, "no call is paid twice, none is left out"


@pytest.mark.parametrize("k", range(N))
async def test_a_drain_ends_after_the_chunk_in_hand_and_can_be_resumed(tmp_path: Path, k: int) -> None:
    run, first = Run(tmp_path, (_part(N),)), _scripted()

    def stop(event: Event) -> None:
        if isinstance(event, ChunkStarted) and event.index == k:
            run.drain("SIGTERM")

    with pytest.raises(RunDrained) as caught:
        await run(first, on_event=stop)
    assert caught.value.run_id == "run"
    assert len(run.notes.notes) == len(first.calls) == k + 1
    second = _scripted()
    await run(second)
    assert run.notes.answers[0].text == "ANSWER(c0>c1>c2>c3)"
    assert len(first.calls) + len(second.calls) == N + 1


class _DiesAfterStoring(InMemoryNotes):
    """Keeps the note and then fails, as a process does that is killed between note and checkpoint."""

    dies_at: int = -1

    async def add_note(self, note: Any) -> None:
        await super().add_note(note)
        if note.chunk == self.dies_at:
            self.dies_at = -1
            raise StorageError("killed")


@pytest.mark.parametrize("k", range(N))
async def test_a_note_that_was_stored_but_not_checkpointed_is_not_paid_again(tmp_path: Path, k: int) -> None:
    notes = _DiesAfterStoring()
    notes.dies_at = k
    run, model = Run(tmp_path, (_part(N),), notes), _scripted()
    with pytest.raises(StorageError, match="killed"):
        await run(model)
    run.events.clear()
    await run(model)
    assert run.notes.answers[0].text == "ANSWER(c0>c1>c2>c3)"
    assert len(model.calls) == N + 1
    assert [e.index for e in run.events if isinstance(e, ChunkRead) and e.reused] == [k]
    assert [e.usage.calls for e in run.events if isinstance(e, ChunkRead)][-1] == N


async def test_without_its_checkpoints_a_run_is_made_again_from_its_notes(tmp_path: Path) -> None:
    run, model = Run(tmp_path, (_part(N),)), _failing_at(3, ModelUnavailable("down"))
    with pytest.raises(ModelUnavailable):
        await run(model)
    _delete_checkpoints(tmp_path)
    again = _scripted()
    await run(again)
    assert run.notes.answers[0].text == "ANSWER(c0>c1>c2>c3)"
    assert len(again.calls) == N + 1 - 3


async def test_a_damaged_checkpoint_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"no database at all " * 100)
    with pytest.raises(StorageError, match=r"state\.sqlite: file is not a database"):
        await Run(tmp_path, (_part(1),))(_scripted())


async def _rewrite(folder: Path, change: dict[str, object]) -> None:
    """Adds a checkpoint at the end whose state differs."""
    async with AsyncSqliteSaver.from_conn_string(str(folder / "state.sqlite")) as saver:
        compiled = build_chain().compile(checkpointer=saver)
        await compiled.aupdate_state({"configurable": {"thread_id": "run"}}, change, as_node="cite")


@pytest.mark.parametrize("change", [{"finished": False}, {"version": 1}], ids=["not finished", "older"])
async def test_a_checkpoint_at_an_end_that_is_none_is_not_believed(tmp_path: Path, change: dict[str, object]) -> None:
    run = Run(tmp_path, (_part(2, "I"),))
    await run(_scripted())
    first = run.output
    await _rewrite(tmp_path, change)
    run.notes.answers.clear()
    model = _scripted()
    await run(model)
    assert [_describe(c.prompt, c.decoding) for c in model.calls] == ["ANSWER(c0>c1)"]
    assert run.output == first


async def test_a_second_reading_begins_with_the_notes_of_the_first(tmp_path: Path) -> None:
    run, model = Run(tmp_path, (_part(3),), passes=2), _scripted()
    await run(model)
    assert [_describe(c.prompt, c.decoding) for c in model.calls] == [
        "c0",
        "c0>c1",
        "c0>c1>c2",
        "c0>c1>c2>c0",
        "c0>c1>c2>c0>c1",
        "c0>c1>c2>c0>c1>c2",
        "ANSWER(c0>c1>c2>c0>c1>c2)",
    ]
    assert run.output is not None
    assert run.output["coverage"]["read"] == 3


async def test_a_finished_run_makes_no_call_when_it_is_run_again(tmp_path: Path) -> None:
    run = Run(tmp_path, (_part(2),))
    await run(_scripted())
    model = ScriptedModel()
    assert await run(model) is None
    assert model.calls == []


@pytest.mark.parametrize(
    ("budget", "n_read", "reason"),
    [
        (Budget(max_calls=4), 2, "the limit of 4 calls"),
        (Budget(max_calls=1), 0, "the limit of 1 calls"),
        # What a read and the answer take at most: 3,132 + 1,456 tokens, 1.7328 + 0.7624 dollars; a call: 220, 0.1.
        (Budget(max_tokens_total=5027), 2, "the limit of 5027 tokens"),
        (Budget(max_tokens_total=4587), 0, "the limit of 4587 tokens"),
        (Budget(max_cost_usd=2.65, prices=Prices(0.0004, 0.001)), 2, "the limit of $2.65"),
        (Budget(max_cost_usd=2.49, prices=Prices(0.0004, 0.001)), 0, "the limit of $2.49"),
        (Budget(max_cost_usd=2.28, prices=Prices(1e-9, 1e-9)), 2, "the limit of $2.28"),
    ],
    ids=["calls", "no call", "tokens", "no token", "dollars", "no dollar", "dearer than configured"],
)
async def test_a_budget_stops_the_reading_and_leaves_enough_for_the_answer(
    tmp_path: Path, budget: Budget, n_read: int, reason: str
) -> None:
    def respond(prompt: Prompt, decoding: Decoding) -> Completion:
        return Completion(_describe(prompt, decoding), "stop", CallUsage(200, 0, 20, 0.1), "s", 0.1)

    run, model = Run(tmp_path, (_part(5),)), ScriptedModel(respond=respond)
    assert await run(model, budget=budget) == reason
    assert len(run.notes.notes) == n_read
    assert len(model.calls) == n_read + (1 if n_read else 0)
    assert 0 in run.notes.answers
    if n_read:
        assert run.notes.answers[0].text == "ANSWER(" + ">".join(f"c{i}" for i in range(n_read)) + ")"


@pytest.mark.parametrize("max_calls", range(1, 9))
async def test_a_limit_of_calls_holds_where_every_note_is_asked_for_twice(tmp_path: Path, max_calls: int) -> None:
    def respond(prompt: Prompt, decoding: Decoding) -> Completion:
        again = prompt.prefix and len(model.calls) % 2
        return Completion("A note.", "length" if again else "stop", CallUsage(200, 0, 20, 0.1), "s", 0.1)

    run, model = Run(tmp_path, (_part(5),)), ScriptedModel(respond=respond)
    assert await run(model, budget=Budget(max_calls=max_calls)) == f"the limit of {max_calls} calls"
    assert len(run.notes.notes) == (max_calls - 1) // 2
    assert len(model.calls) <= max_calls


class _HostsWorker:
    """A worker of a host, which says nothing of what it takes."""

    async def read(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> WorkerReply:
        usage = Usage().plus(CallUsage(1, 0, 1, 0.0)).plus(CallUsage(1, 0, 1, 0.0))
        return WorkerReply(CommunicationUnit("A note.", chunk.index), True, usage)


@pytest.mark.parametrize(("demand", "n_read"), [(Demand(), 2), (Demand(2), 1)])
async def test_a_hosts_worker_takes_what_the_context_says(tmp_path: Path, demand: Demand, n_read: int) -> None:
    run = Run(tmp_path, (_part(5),), worker=lambda model: _HostsWorker(), worker_demand=demand)
    assert await run(ScriptedModel(["ANSWER"]), budget=Budget(max_calls=4)) == "the limit of 4 calls"
    assert len(run.notes.notes) == n_read


async def test_an_unknown_price_stops_a_run_with_a_limit_in_dollars(tmp_path: Path) -> None:
    paid = Completion("c0", "stop", CallUsage(5, 0, 5, None), "s", 0.1)
    run = Run(tmp_path, (_part(3),))
    reason = await run(ScriptedModel([paid, "ANSWER"]), budget=Budget(max_cost_usd=1.0))
    assert reason == "the limit of $1: this model's price is unknown"
    assert len(run.notes.notes) == 1


@pytest.mark.parametrize("error", [ContentRefused("filtered", usage=Usage(calls=1)), BadOutput("cut off")])
async def test_a_chunk_that_cannot_be_read_is_skipped_with_its_cause(tmp_path: Path, error: ModelError) -> None:
    run = Run(tmp_path, (_part(3),))
    model = ScriptedModel(["A [1].", error, "A and B.", "ANSWER"])
    await run(model)
    skipped = run.notes.notes["", 0, 1]
    assert skipped.cause == error.message
    assert (skipped.text, skipped.informative, skipped.unit_chunk) == ("A [1.1].", False, 0)
    assert skipped.usage == (error.usage or Usage())
    assert ChunkSkipped(1, 3, error.message) in run.events
    assert _notes(model.calls[2].prompt) == "A [1.1]."


async def test_where_failures_are_not_to_be_skipped_the_run_stops(tmp_path: Path) -> None:
    run = Run(tmp_path, (_part(3),))
    with pytest.raises(ContentRefused):
        await run(ScriptedModel(["A.", ContentRefused("filtered")]), on_worker_failure="fail")
    assert list(run.notes.notes) == [("", 0, 0)]


@pytest.mark.slow
async def test_a_thousand_chunks_are_within_the_recursion_limit(tmp_path: Path) -> None:
    run, model = Run(tmp_path, (_part(1000),)), ScriptedModel(respond=lambda p, d: "note" if p.prefix else "ANSWER")
    await run(model)
    assert len(model.calls) == 1001


def _states(path: Path) -> list[dict[str, Any]]:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    with sqlite3.connect(path) as connection:
        rows = connection.execute("select type, checkpoint from checkpoints order by checkpoint_id").fetchall()
    connection.close()
    return [JsonPlusSerializer().loads_typed((kind, blob))["channel_values"] for kind, blob in rows]


async def test_every_step_is_checkpointed_plainly_and_without_the_documents_text(tmp_path: Path) -> None:
    run = Run(tmp_path, (_part(3),))
    await run(ScriptedModel(respond=lambda p, d: "a note" if p.prefix else "ANSWER"))
    states = _states(tmp_path / "state.sqlite")
    positions = [s["position"] for s in states if "position" in s]
    assert positions == [0, 1, 2, 3, 0, 0], "start, three reads, answer, cite"
    for state in states:
        plain = {key: value for key, value in state.items() if not key.startswith(("branch:", "__"))}
        assert json.loads(json.dumps(plain)) == plain
    assert b"Sentence of" not in (tmp_path / "state.sqlite").read_bytes()


async def test_checkpoints_stay_small_with_long_notes(tmp_path: Path) -> None:
    note = "Ada walked on through the rain and said nothing of the key. " * 80  # 4,800 characters
    run = Run(tmp_path, (_part(200),))
    await run(ScriptedModel(respond=lambda p, d: note if p.prefix else "ANSWER"))
    assert _bytes_in(tmp_path) / 200 < 30_000


def test_strategies_are_found_by_name_and_misspelt_ones_are_explained() -> None:
    from coa.errors import ConfigError

    assert strategy("chain").build().nodes.keys() == {"start", "demonstrate", "read", "answer", "cite"}
    with pytest.raises(ConfigError, match="did you mean 'chain'"):
        strategy("chian")


@pytest.mark.parametrize("k", range(N + 1))
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
async def test_a_run_that_is_cancelled_anywhere_goes_on_where_it_stood(tmp_path: Path, k: int, turns: int) -> None:
    run, first = Run(tmp_path, (_part(N),)), _scripted()
    started = asyncio.Event()

    def on_event(event: Event) -> None:
        if (isinstance(event, ChunkStarted) and event.index == k) or (isinstance(event, AnswerStarted) and k == N):
            started.set()

    task = asyncio.create_task(run(first, on_event=on_event))
    await started.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stored = len(run.notes.notes) + len(run.notes.answers)
    second = _scripted()
    assert await run(second) is None
    assert run.notes.answers[0].text == "ANSWER(c0>c1>c2>c3)"
    assert stored + len(second.calls) == N + 1


class _Hanging(ScriptedModel):
    """Never answers its last call."""

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        if len(self.calls) == self.hangs_at:
            self.reached.set()
            await asyncio.Event().wait()
        return await super().complete(prompt, decoding, on_text=on_text)

    def __init__(self, hangs_at: int) -> None:
        super().__init__(respond=_describe)
        self.hangs_at = hangs_at
        self.reached = asyncio.Event()


@pytest.mark.parametrize("k", range(N + 1))
async def test_a_run_that_is_cancelled_within_a_call_goes_on_with_that_call(tmp_path: Path, k: int) -> None:
    run, first = Run(tmp_path, (_part(N),)), _Hanging(k)
    task = asyncio.create_task(run(first))
    await first.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second = _scripted()
    assert await run(second) is None
    assert run.notes.answers[0].text == "ANSWER(c0>c1>c2>c3)"
    assert k + len(second.calls) == N + 1
