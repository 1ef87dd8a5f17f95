"""Runs over one document keep in step: who reads when, and whom nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from coa.errors import ModelUnavailable, RunDrained
from coa.events import ChunkStarted
from coa.graphs import ReadContext, ReadOptions, strategy
from coa.graphs.together import Together, Turn, WaitEnded
from coa.llm.budget import Budget
from coa.llm.chat import Completion, Decoding, OnText
from coa.reading import Prompt, reading_prefix
from coa.testing.reading_model import ReadingModel
from coa.types import Chunk

World = Any
Make = Callable[..., Any]


class Read(NamedTuple):
    """A reading call, begun or ended."""

    run: str
    chunk: int
    begins: bool


class SlowModel(ReadingModel):
    """Takes `ms` milliseconds for a call, and writes down when reading calls begin and end."""

    def __init__(self, run: str, journal: list[Read], *, ms: int, fails_at: int | None = None) -> None:
        super().__init__()
        self._run, self._journal, self._ms, self._fails_at = run, journal, ms, fails_at
        self.chunks: Sequence[Chunk] = ()
        self.gate: asyncio.Event | None = None

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        at = next((n for n, c in enumerate(self.chunks) if prompt.prefix == _prefix(c)), None)
        if at is not None:
            self._journal.append(Read(self._run, at, True))
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(self._ms / 1000)
        if at is not None and at == self._fails_at:
            raise ModelUnavailable("down")
        completion = await super().complete(prompt, decoding, on_text=on_text)
        if at is not None:
            self._journal.append(Read(self._run, at, False))
        return completion


def _prefix(chunk: Chunk) -> str:
    return reading_prefix(chunk.text, chunk.sentences, offset=chunk.span.start)


@dataclass
class Several:
    """Runs that join one group."""

    make: Make
    journal: list[Read] = field(default_factory=list)
    together: Together = field(default_factory=Together)

    def world(self, name: str, *, ms: int = 1, fails_at: int | None = None, **changes: Any) -> World:
        model = SlowModel(name, self.journal, ms=ms, fails_at=fails_at)
        world = self.make(model=model, run_id=name, **changes)
        model.chunks = world.plan.parts[0].chunks
        return world

    async def run(self, world: World, name: str = "chain") -> Any:
        companion = self.together.join()
        if not strategy(name).in_order:
            companion.leave()

        def in_company(name: str) -> ReadContext:
            context: ReadContext = type(world).new_context(world, name)
            context.together = companion
            return context

        world.new_context = in_company
        try:
            return await world.run(name)
        finally:
            companion.leave()

    def begun(self, run: str) -> list[int]:
        """The chunks in the order in which the run began them."""
        return [read.chunk for read in self.journal if read.run == run and read.begins]

    def has_read(self, run: str, chunk: int) -> bool:
        return Read(run, chunk, False) in self.journal

    def in_step(self, runs: Sequence[str], order: Sequence[int]) -> bool:
        """Whether each of `runs` began a chunk of `order` only when all had ended the one before."""
        ends = {(read.run, read.chunk): at for at, read in enumerate(self.journal) if not read.begins}
        begins = {(read.run, read.chunk): at for at, read in enumerate(self.journal) if read.begins}
        return all(
            begins[run, chunk] > ends[other, before]
            for before, chunk in itertools.pairwise(order)
            for run in runs
            for other in runs
        )


@pytest.fixture
def several(world: Make) -> Several:
    return Several(world)


@contextlib.asynccontextmanager
async def running(*calls: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until(condition: Callable[[], bool]) -> None:
    """Waits for `condition`, and then long enough for what must not happen."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


async def test_a_chunk_is_read_by_all_before_the_next_is_read_by_any(several: Several) -> None:
    names = ["a", "b", "c"]
    worlds = [several.world(name, ms=ms) for name, ms in zip(names, (1, 20, 7), strict=True)]
    outputs = await asyncio.gather(*map(several.run, worlds))
    n_chunks = worlds[0].n_chunks
    assert all(several.begun(name) == list(range(n_chunks)) for name in names)
    assert several.in_step(names, range(n_chunks))
    assert [output["answer"] for output in outputs] == [(await several.make().run("chain"))["answer"]] * 3


async def test_without_a_group_runs_do_not_wait_for_each_other(several: Several) -> None:
    alone, slow = several.world("alone"), several.world("slow")
    slow.model.gate = asyncio.Event()
    async with running(several.run(slow), alone.run("chain")) as (_, free):
        await asyncio.wait_for(free, 60)
    assert several.begun("slow") == [0]


@pytest.mark.parametrize(("name", "paths"), [("bidirectional", 2), ("self-consistency", 3), ("permutation", 3)])
async def test_several_paths_a_run_keep_in_step_by_their_place_in_their_order(
    several: Several, name: str, paths: int
) -> None:
    names = ["a", "b"]
    worlds = [several.world(name, ms=ms) for name, ms in zip(names, (1, 25), strict=True)]
    await asyncio.gather(*(several.run(world, name) for world in worlds))
    n_chunks = worlds[0].n_chunks
    begun = [read for read in several.journal if read.begins]
    rounds = [begun[n : n + 2 * paths] for n in range(0, len(begun), 2 * paths)]
    assert len(rounds) == n_chunks
    for together in rounds:
        per_run = [sorted(read.chunk for read in together if read.run == name) for name in names]
        assert per_run[0] == per_run[1], "a chunk's prefix is asked for by both runs at the same time"


async def test_two_passes_keep_in_step(several: Several) -> None:
    worlds = [several.world(name, ms=p, options=ReadOptions(passes=2)) for name, p in (("a", 1), ("b", 30))]
    await asyncio.gather(*map(several.run, worlds))
    n_chunks = worlds[0].n_chunks
    begun = [read for read in several.journal if read.begins]
    expected = [chunk for chunk in [*range(n_chunks), *range(n_chunks)] for _ in range(2)]
    assert [read.chunk for read in begun] == expected


async def test_a_run_that_was_resumed_further_on_waits_and_holds_nobody_up(several: Several) -> None:
    ahead = several.world("ahead", fails_at=3)
    with pytest.raises(ModelUnavailable):
        await several.run(ahead)
    assert several.begun("ahead") == [0, 1, 2, 3]
    several.journal.clear()
    ahead.model._fails_at = None
    behind = several.world("behind", ms=5)
    await asyncio.gather(several.run(ahead), several.run(behind))
    n_chunks = behind.n_chunks
    assert several.begun("ahead") == list(range(3, n_chunks))
    assert several.begun("behind") == list(range(n_chunks))
    first_ahead = several.journal.index(Read("ahead", 3, True))
    assert Read("behind", 2, False) in several.journal[:first_ahead]
    assert several.in_step(["ahead", "behind"], range(3, n_chunks))


async def test_a_run_that_fails_lets_the_others_go_on(several: Several) -> None:
    failing, well = several.world("failing", fails_at=1), several.world("well")
    outcomes = await asyncio.wait_for(
        asyncio.gather(several.run(failing), several.run(well), return_exceptions=True), timeout=60
    )
    assert isinstance(outcomes[0], ModelUnavailable)
    assert several.begun("well") == list(range(well.n_chunks))


async def test_a_run_that_is_cancelled_while_it_reads_or_waits_lets_the_others_go_on(several: Several) -> None:
    reads, waits, well = several.world("reads"), several.world("waits"), several.world("well")
    reads.model.gate = asyncio.Event()
    async with running(several.run(reads), several.run(waits), several.run(well)) as (reading, waiting, going):
        await _until(lambda: several.has_read("waits", 0) and several.has_read("well", 0))
        assert several.begun("waits") == several.begun("well") == [0]
        waiting.cancel()
        await asyncio.wait([waiting], timeout=30)
        assert waiting.cancelled()
        assert several.begun("well") == [0]
        reading.cancel()
        assert (await asyncio.wait_for(going, 60))["coverage"]["read"] == well.n_chunks


async def test_a_run_that_waits_stops_without_beginning_a_chunk_and_is_resumed_where_it_stood(
    several: Several,
) -> None:
    slow, waits = several.world("slow"), several.world("waits")
    slow.model.gate = asyncio.Event()
    async with running(several.run(slow), several.run(waits)) as (reading, waiting):
        await _until(lambda: several.has_read("waits", 0) and bool(several.begun("slow")))
        assert several.begun("waits") == [0]
        waits.drain("SIGTERM")
        with pytest.raises(RunDrained) as drained:
            await asyncio.wait_for(waiting, 30)
        assert drained.value.run_id == "waits"
        slow.model.gate.set()
        await asyncio.wait_for(reading, 60)
    assert several.begun("waits") == [0]
    await several.run(waits)
    assert several.begun("waits") == list(range(waits.n_chunks)), "no chunk is paid for twice"


async def test_a_run_that_its_budget_ends_lets_the_others_go_on(several: Several) -> None:
    # Room for three readings, each of which could take two calls, and the answer.
    poor, well = several.world("poor", budget=Budget(max_calls=5)), several.world("well")
    outputs = await asyncio.wait_for(asyncio.gather(several.run(poor), several.run(well)), 60)
    assert outputs[0]["stopped"] == "the limit of 5 calls"
    assert several.begun("well") == list(range(well.n_chunks))


async def test_a_run_that_writes_its_answer_holds_nobody_up(several: Several) -> None:
    short, long = several.world("short", n_paragraphs=2), several.world("long")
    answering = asyncio.Event()
    complete: Callable[..., Awaitable[Completion]] = short.model.complete

    async def stuck(prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        if not prompt.prefix:
            await answering.wait()
        return await complete(prompt, decoding, on_text=on_text)

    short.model.complete = stuck
    short.options = ReadOptions(passes=1)
    async with running(several.run(short), several.run(long)) as (stuck_run, going):
        last = short.n_chunks - 1
        await _until(lambda: several.has_read("short", last) and several.begun("long")[-1:] == [last + 1])
        answering.set()
        await asyncio.wait_for(stuck_run, 60)
        await asyncio.wait_for(going, 60)


@pytest.mark.parametrize("name", ["tree", "merge", "alr2", "rag"])
async def test_strategies_without_an_order_neither_wait_nor_hold_up(several: Several, name: str) -> None:
    slow, other = several.world("slow"), several.world("other")
    slow.model.gate = asyncio.Event()
    async with running(several.run(slow), several.run(other, name)) as (_, free):
        output = await asyncio.wait_for(free, 60)
    assert output["stopped"] is None
    several.journal.clear()
    chain, stuck = several.world("chain"), several.world("stuck")
    stuck.model.gate = asyncio.Event()
    async with running(several.run(stuck, name), several.run(chain)) as (_, free):
        await asyncio.wait_for(free, 60)
    assert several.begun("chain") == list(range(chain.n_chunks))


async def test_a_run_that_waits_holds_no_share_of_its_budget(several: Several) -> None:
    slow, waits = several.world("slow"), several.world("waits", budget=Budget(max_calls=40))
    slow.model.gate = asyncio.Event()
    async with running(several.run(slow), several.run(waits)) as (reading, waiting):
        await _until(lambda: several.has_read("waits", 0))
        assert [e.index for e in waits.events if isinstance(e, ChunkStarted)] == [0]
        # All that is not spent or kept for the answer can be reserved by somebody else.
        left = 40 - waits.context.spent.calls - waits.context.manager_demand.calls
        demand = waits.context.demand(waits.context.worker, waits.plan.parts[0].chunks[0], waits.question, None)
        taken = [demand] * (left // demand.calls)
        assert [await waits.context.reserve(each) for each in taken] == [None] * len(taken)
        for each in taken:
            waits.context.release(each, type(waits.context.spent)())
        slow.model.gate.set()
        await asyncio.wait_for(asyncio.gather(reading, waiting), 60)


async def test_a_companion_that_stopped_is_told_so_rather_than_kept_waiting() -> None:
    group = Together()
    ahead, behind = group.join(), group.join()

    async def reads_on() -> None:
        for step in range(2):
            with ahead.taking(Turn(0, 1, step)):
                await ahead.wait()

    with behind.taking(Turn(0, 1, 0)):
        waiting = asyncio.create_task(reads_on())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        ahead.stop()
        with pytest.raises(WaitEnded):
            await waiting


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("chain", ReadOptions(), lambda n: [list(range(at + 1, n)) for at in range(n - 1)]),
        (
            "chain",
            ReadOptions(passes=2),
            lambda n: (
                [*(list(range(at + 1, n)) for at in range(n - 1)), list(range(n))]
                + [list(range(at + 1, n)) for at in range(n - 1)]
            ),
        ),
        (
            "bidirectional",
            ReadOptions(),
            lambda n: [x for at in range(n - 1) for x in (list(range(at + 1, n)), list(range(n - 2 - at, -1, -1)))],
        ),
        ("tree", ReadOptions(), lambda n: []),
    ],
)
async def test_what_a_path_reads_next_is_told_when_a_chunk_is_begun(
    world: Make, name: str, options: ReadOptions, expected: Callable[[int], list[list[int]]]
) -> None:
    run = world(options=options)
    told: list[list[int]] = []
    make_context = run.new_context

    def listening(name: str) -> ReadContext:
        context: ReadContext = make_context(name)
        context.upcoming = lambda chunks: told.append([chunk.index for chunk in chunks])
        return context

    run.new_context = listening
    await run.run(name)
    assert told == expected(run.n_chunks)
    told.clear()
    await run.run(name)
    assert told == [], "nothing is to be read any more"
