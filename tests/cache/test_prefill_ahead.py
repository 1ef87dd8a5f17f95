"""Prefill-ahead: what is begun, when, for whom; what counts as useful; when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from coa.cache.ahead import PrefillAhead
from coa.cache.ahead_worth import AheadWorth
from coa.errors import CacheError
from coa.llm.call_labels import call_labels, labels
from coa.llm.prefixes import Measured
from coa.reading import Prompt

GROUP = "readers"
TOKENS = 100


def prompt(chunk: int, tail: str = "A") -> Prompt:
    return Prompt(prefix=f"chunk {chunk}\n", tail=tail)


CHAIN = [prompt(n) for n in range(12)]


@dataclass
class Engines:
    """Computes prefixes when `go` is set; has room as long as `room` says so."""

    room: bool = True
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    gives: int | Exception | None = TOKENS

    def has_rest(self, group: str) -> bool:
        return self.room

    async def prefill(self, group: str, wanted: Prompt, *, ahead: bool = True) -> int | None:
        assert ahead
        self.begun.append(wanted.prefix.strip())
        self.labelled.append(call_labels().get("document", ""))
        await self.go.wait()
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@dataclass
class World:
    """A chain that reads: calls begin and end by hand, looks for room happen by `look`."""

    engines: Engines
    ahead: PrefillAhead = field(init=False)
    now: float = 0.0
    _looks: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.ahead = PrefillAhead(self.engines, clock=lambda: self.now, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self._looks.clear()
        await self._looks.wait()
        self.now += seconds

    async def look(self, times: int = 1) -> None:
        await _settled()
        for _ in range(times):
            self._looks.set()
            await _settled()

    def begin(self, n: int, *, call: str = "call") -> None:
        self.ahead.upcoming(GROUP, CHAIN[n + 1 :])
        self.ahead.began(call, GROUP, prompt(n, "Another tail"))

    def end(
        self, *, cached: int = 0, call: str = "call", took: float = 1.0, completion_s: float | None = 1.0, out: int = 20
    ) -> None:
        self.now += took
        self.ahead.ended(call, GROUP, Measured(TOKENS + 20, cached, out, 0.5, completion_s))

    async def read(self, n: int, **ended: float | None) -> None:
        """One call, with two looks for room while it is under way."""
        self.begin(n)
        await self.look(2)
        self.end(**ended)  # type: ignore[arg-type]

    async def measured_once(self) -> None:
        """The first call is left alone: it shows how long one takes."""
        await self.read(0)
        assert self.engines.begun == []


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World(Engines())
    yield made
    await made.ahead.close()


async def test_the_next_chunks_are_computed_while_one_is_read_and_the_nearest_first(world: World) -> None:
    await world.measured_once()
    world.begin(1)
    assert world.engines.begun == [], "the call itself goes first"
    await world.look(5)
    assert world.engines.begun == ["chunk 2", "chunk 3"], "no more than two ahead"
    world.engines.go.set()
    await world.look()
    world.end()
    world.begin(2)
    await world.look(3)
    assert world.engines.begun == ["chunk 2", "chunk 3", "chunk 4"]


async def test_a_prefix_that_a_call_found_is_useful_and_one_that_was_gone_by_then_is_wasted(world: World) -> None:
    world.engines.go.set()
    await world.measured_once()
    await world.read(1)
    await world.read(2, cached=TOKENS)
    assert (world.ahead.counts.useful, world.ahead.counts.wasted) == (1, 0)
    assert world.ahead.counts.useful_tokens == TOKENS
    await world.read(3, cached=0)
    assert (world.ahead.counts.useful, world.ahead.counts.wasted) == (1, 1)


async def test_what_nobody_read_is_wasted(world: World) -> None:
    world.engines.go.set()
    await world.measured_once()
    await world.read(1)
    await world.ahead.close()
    assert (world.ahead.counts.begun, world.ahead.counts.wasted) == (2, 2)


async def test_nothing_is_begun_without_room_and_what_is_read_meanwhile_is_dropped(world: World) -> None:
    await world.measured_once()
    world.engines.room = False
    await world.read(1)
    world.begin(2)
    world.engines.room = True
    await world.look()
    assert world.engines.begun == ["chunk 3"], "chunk 2 is being read: there is nothing ahead about it"
    assert world.ahead.counts.dropped >= 1


async def test_nothing_is_begun_between_calls(world: World) -> None:
    await world.measured_once()
    world.begin(1)
    world.end()
    await world.look(3)
    assert world.engines.begun == []
    world.ahead.upcoming(GROUP, CHAIN[5:])
    await world.look(3)
    assert world.engines.begun == []


async def test_two_runs_that_want_the_same_chunk_have_it_computed_once(world: World) -> None:
    await world.measured_once()
    world.begin(1, call="one")
    world.begin(1, call="other")
    await world.look(3)
    world.begin(1, call="third")
    await world.look(3)
    assert world.engines.begun == ["chunk 2", "chunk 3"]


async def test_groups_do_not_stand_in_each_others_way(world: World) -> None:
    await world.measured_once()
    world.begin(1)
    world.ahead.upcoming("others", CHAIN[5:])
    await world.look(4)
    assert world.engines.begun == ["chunk 2", "chunk 3"], "nothing is read in the other group"


async def test_work_ahead_carries_the_labels_of_the_run_that_wants_it(world: World) -> None:
    await world.measured_once()
    with labels(document="book"):
        world.begin(1)
    await world.look()
    assert world.engines.labelled == ["book"]


@pytest.mark.parametrize("gives", [None, 0, CacheError("gone"), ValueError("a bug")])
async def test_work_ahead_that_fails_or_was_not_needed_is_neither_useful_nor_wasted(
    world: World, gives: int | Exception | None
) -> None:
    world.engines.go.set()
    world.engines.gives = gives
    await world.measured_once()
    await world.read(1)
    await world.read(2, cached=TOKENS)
    counts = world.ahead.counts
    assert counts.begun >= 2
    assert (counts.useful, counts.wasted, counts.tokens) == (0, 0, 0)


async def test_a_call_that_fails_is_not_measured(world: World) -> None:
    world.begin(0)
    world.ahead.ended("call", GROUP, None)
    await world.read(1)
    assert world.engines.begun == []
    world.ahead.ended("unknown", GROUP, Measured(1, 1, 1))


async def test_closing_ends_what_is_under_way(world: World) -> None:
    await world.measured_once()
    world.begin(1)
    await world.look()
    assert world.engines.begun == ["chunk 2"]
    await asyncio.wait_for(world.ahead.close(), 5)
    assert world.ahead.counts.tokens == 0


async def _hop(world: World, n: int, *, slowed: float) -> None:
    """A chunk is read while the next are computed all the time, and its reply takes `slowed` times as long."""
    world.begin(n)
    await world.look(1)
    took = slowed if world.engines.begun and world.ahead._groups[GROUP].running else 1.0
    world.end(took=took, completion_s=took, cached=TOKENS)
    world.engines.go.set()
    await world.look(2)
    world.engines.go.clear()


@pytest.mark.parametrize(("slowed", "goes_on"), [(1.0, True), (1.2, True), (4.0, False)])
async def test_it_is_given_up_where_it_slows_calls_down_by_more_than_it_spares(
    world: World, slowed: float, goes_on: bool
) -> None:
    for n in range(9):
        await _hop(world, n, slowed=slowed)
    begun = len(world.engines.begun)
    await _hop(world, 9, slowed=slowed)
    assert (len(world.engines.begun) > begun) is goes_on


def _calls(worth: AheadWorth, n: int, **call: float | bool | None) -> None:
    values = {"seconds": 2.0, "completion_s": 1.0, "completion_tokens": 50, "beside": 0.0, "helped_s": 0.0}
    for _ in range(n):
        worth.call(**{**values, "computed": True, **call})  # type: ignore[arg-type]


def test_work_ahead_waits_for_a_call_to_compare_with() -> None:
    worth = AheadWorth()
    assert not worth.helps
    _calls(worth, 1, completion_tokens=2)
    assert not worth.helps, "too short a reply to measure"
    _calls(worth, 1)
    assert worth.helps


@pytest.mark.parametrize("spares", [lambda: {"helped_s": 0.5}, lambda: {"helped_s": 5.0}])
def test_the_time_lost_is_held_against_the_time_spared(spares: Callable[[], dict[str, float]]) -> None:
    worth = AheadWorth()
    _calls(worth, 2)
    _calls(worth, 4, beside=1.0, completion_s=2.0, **spares())
    assert worth.helps is (spares()["helped_s"] > 1.0)


def test_what_was_given_up_is_tried_again_after_a_while() -> None:
    worth = AheadWorth()
    _calls(worth, 2)
    _calls(worth, 3, beside=1.0, completion_s=9.0)
    assert not worth.helps
    _calls(worth, 20)
    assert not worth.helps
    _calls(worth, 20)
    assert worth.helps


def test_now_and_then_a_call_is_left_alone_for_comparison() -> None:
    worth = AheadWorth()
    found = []
    for _ in range(70):
        _calls(worth, 1)
        found.append(worth.helps)
    assert found.count(False) == 2


def test_an_engine_that_times_nothing_is_judged_by_whole_calls() -> None:
    worth = AheadWorth()
    _calls(worth, 2, completion_s=None, seconds=3.0)
    _calls(worth, 5, completion_s=None, seconds=1.0, helped_s=2.0)
    assert worth.helps
    _calls(worth, 9, completion_s=None, seconds=4.0, helped_s=2.0)
    assert not worth.helps


def test_calls_that_found_their_prefix_anyway_say_nothing_of_what_one_takes_without() -> None:
    worth = AheadWorth()
    _calls(worth, 3, completion_s=None, seconds=0.1, computed=False)
    assert not worth.helps
