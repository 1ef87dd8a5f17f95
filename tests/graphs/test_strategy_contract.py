"""What every strategy keeps to, whatever it does: coverage, citations, events, resumption, cancellation, size."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import pytest

from coa.errors import ModelUnavailable, RunDrained, StorageError
from coa.events import AnswerStarted, AnswerToken, ChunkRead, ChunkSkipped, ChunkStarted, Event
from coa.graphs import STRATEGIES, InMemoryNotes, ReadOptions, strategy
from coa.llm.budget import Budget
from coa.llm.chat import Completion, Decoding
from coa.reading import Prompt
from coa.testing.reading_model import ReadingModel

pytestmark = pytest.mark.slow

# The same folder holds it; test files are no package.
FACT = "Ada Brown kept the lighthouse key in the blue jar."
NAMES = sorted(STRATEGIES)
every_strategy = pytest.mark.parametrize("name", NAMES)
World = Any
Make = Callable[..., Any]


def _failing_at(k: int) -> ReadingModel:
    """Answers k calls, then its server is gone."""
    model = ReadingModel()
    respond = model.respond
    assert respond is not None

    def fail(prompt: Prompt, decoding: Decoding) -> str | Completion:
        if len(model.calls) > k:
            raise ModelUnavailable("down")
        return respond(prompt, decoding)

    model.respond = fail
    return model


async def _calls_of(world: Make, name: str) -> int:
    whole = world()
    await whole.run(name)
    assert whole.model.calls
    return len(whole.model.calls)


@every_strategy
async def test_it_answers_with_the_fact_and_cites_it_verbatim(world: Make, name: str) -> None:
    run = world()
    output = await run.run(name)
    assert FACT.rstrip(".") in output["answer"]
    assert FACT in [c["quote"] for c in output["citations"]]
    for citation in output["citations"]:
        assert run.document.text[citation["start"] : citation["end"]] == citation["quote"]
    assert output["stopped"] is None


@every_strategy
async def test_coverage_is_exact(world: Make, name: str) -> None:
    run = world()
    coverage = (await run.run(name))["coverage"]
    assert coverage["chunks"] == run.n_chunks > 3
    assert coverage["read"] + coverage["unselected"] == run.n_chunks
    assert coverage["skipped"] == []
    shown = {
        n
        for call in run.model.calls
        for n, chunk in enumerate(run.plan.parts[0].chunks)
        if chunk.text.split(".")[0].strip() in call.prompt.prefix + call.prompt.tail
    }
    assert len(shown) >= coverage["read"], "a chunk that counts as read was in a prompt"


@every_strategy
async def test_a_text_of_one_chunk_is_read_and_answered(world: Make, name: str) -> None:
    run = world(n_paragraphs=1)
    assert run.n_chunks == 1
    output = await run.run(name)
    assert FACT.rstrip(".") in output["answer"]
    assert output["coverage"] == {"chunks": 1, "read": 1, "skipped": [], "unselected": 0}


@every_strategy
async def test_what_the_text_does_not_say_is_said_to_be_missing(world: Make, name: str) -> None:
    output = await world(question="Which zeppelin exploded above Nagasaki?").run(name)
    assert output["answer"] == "The text does not say."
    assert output["citations"] == []


@every_strategy
async def test_events_are_typed_and_in_order(world: Make, name: str) -> None:
    run = world()
    await run.run(name)
    assert all(isinstance(event, get_args(Event)) for event in run.events)
    begun: set[tuple[int, str]] = set()
    for event in run.events:
        if isinstance(event, ChunkStarted):
            assert 0 <= event.index < event.n_chunks == run.n_chunks
            begun.add((event.index, event.path))
        elif isinstance(event, ChunkRead | ChunkSkipped):
            assert (event.index, event.path) in begun, "an end without a beginning"
    kinds = [type(event) for event in run.events]
    assert AnswerToken in kinds
    assert kinds.index(AnswerStarted) < kinds.index(AnswerToken)
    assert ChunkRead not in kinds[kinds.index(AnswerToken) :] or name in {"direct", "auto"}


@every_strategy
async def test_it_goes_on_where_it_stood_after_a_failure_at_any_call(world: Make, name: str) -> None:
    expected = await world().run(name)
    n_calls = await _calls_of(world, name)
    for k in range(n_calls):
        run = world(model=_failing_at(k), options=ReadOptions(max_parallel=1))
        with pytest.raises(ModelUnavailable):
            await run.run(name)
        run.model = ReadingModel()
        assert await run.run(name) == expected, f"failed at call {k}"
        # Of several calls side by side those after the failing one failed as well; nothing answered is asked again.
        assert len(run.model.calls) == n_calls - k, f"failed at call {k}"


class _DiesAfterStoring(InMemoryNotes):
    """Keeps what it is given and then fails, as a process does that is killed before its checkpoint."""

    dies_at = -1
    n_stored = 0

    def _stored(self) -> None:
        self.n_stored += 1
        if self.n_stored == self.dies_at:
            raise StorageError("killed")

    async def add_note(self, note: Any) -> None:
        await super().add_note(note)
        self._stored()

    async def add_step(self, step: Any) -> None:
        await super().add_step(step)
        self._stored()

    async def add_answer(self, part: int, answer: Any) -> None:
        await super().add_answer(part, answer)
        self._stored()


@every_strategy
async def test_what_was_stored_but_not_checkpointed_is_not_paid_again(world: Make, name: str) -> None:
    whole = _DiesAfterStoring()
    first = world(notes=whole)
    expected = await first.run(name)
    n_calls = len(first.model.calls)
    for k in range(1, whole.n_stored + 1):
        notes = _DiesAfterStoring()
        notes.dies_at = k
        run = world(notes=notes)
        with pytest.raises(StorageError, match="killed"):
            await run.run(name)
        assert await run.run(name) == expected
        assert len(run.model.calls) == n_calls, f"killed after the {k}th was stored"


@every_strategy
async def test_a_cancellation_leaves_nothing_running_and_can_be_resumed(world: Make, name: str) -> None:
    expected = await world().run(name)
    n_calls = await _calls_of(world, name)

    class Slow(ReadingModel):
        async def complete(self, *args: Any, **kwargs: Any) -> Completion:
            completion = await super().complete(*args, **kwargs)
            if len(self.calls) > n_calls // 2:
                reached.set()
                await asyncio.Event().wait()
            return completion

    reached = asyncio.Event()
    run = world(model=Slow())
    task = asyncio.create_task(run.run(name))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    run.model = ReadingModel()
    assert await run.run(name) == expected


@every_strategy
async def test_a_drain_stops_between_two_steps(world: Make, name: str) -> None:
    run = world()

    def stop(event: Event) -> None:
        run.drain("SIGTERM")

    run.on_event = stop
    with pytest.raises(RunDrained):
        await run.run(name)
    drained = len(run.model.calls)
    run.on_event = lambda event: None
    output = await run.run(name)
    assert FACT.rstrip(".") in output["answer"]
    assert drained <= len(run.model.calls) == await _calls_of(world, name)


@every_strategy
async def test_the_result_is_the_same_without_streaming_and_without_checkpoints(world: Make, name: str) -> None:
    run = world()
    streamed = await run.run(name)
    other = world()
    plain = (
        await strategy(name)
        .build()
        .compile()
        .ainvoke({"question": other.question}, {"recursion_limit": 1000}, context=other.new_context(name))
    )
    assert plain == streamed
    assert await world(keeps_checkpoints=False).run(name) == streamed


@every_strategy
@pytest.mark.parametrize("max_calls", [1, 3, 6])
async def test_a_limit_of_calls_is_kept_to(world: Make, name: str, max_calls: int) -> None:
    run = world(budget=Budget(max_calls=max_calls))
    output = await run.run(name)
    assert len(run.model.calls) <= max_calls
    coverage = output["coverage"]
    assert coverage["read"] + coverage["unselected"] + len(coverage["skipped"]) == coverage["chunks"]
    if output["stopped"] is not None:
        assert output["stopped"] == f"the limit of {max_calls} calls"


# What does not fit into one call is refused: see test_direct_refuses_what_does_not_fit_before_the_first_call.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "direct"])
async def test_three_hundred_chunks_are_read_with_little_state(world: Make, name: str) -> None:
    run = world(n_paragraphs=600)
    assert run.n_chunks >= 300
    output = await run.run(name)
    assert FACT.rstrip(".") in output["answer"]
    size = sum(file.stat().st_size for file in run.folder.glob("state.sqlite*"))
    assert size / run.n_chunks < 30_000
    assert b"barrels of herring" not in (run.folder / "state.sqlite").read_bytes()


@every_strategy
def test_it_describes_itself(name: str) -> None:
    found = strategy(name)
    assert dataclasses.asdict(found)["name"] == name
    graph = found.build().compile()
    assert graph.get_input_jsonschema()["properties"].keys() == {"question"}
    assert "answer" in graph.get_output_jsonschema()["properties"]
    assert "cite" in graph.get_graph().draw_mermaid() or name == "auto"
    assert found.build().compile() is not graph
