"""Calls that wait for a seat while deployments fail, and what the Router is told then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coa.cache import waiting
from coa.cache.bookings import Booking
from coa.llm.pacing import Admission, Deadline, Pacing
from tests.cache.kv_world import DECODING, PROMPT, World, world


class Calls:
    """Some calls to the group, and the paces of its deployments."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.pacing = Pacing({}, {}, limiter=None, sleep=asyncio.sleep)

    def booking(self) -> Booking:
        booking = self.w.cache.reserve("m", PROMPT, DECODING)
        assert booking is not None
        return booking

    def admission(self, booking: Booking, avoid: frozenset[str] = frozenset()) -> Admission:
        return Admission(self.pacing, Deadline(total_s=60.0), tokens=0, avoid=avoid, reservation=booking)

    async def fail(self, deployment: str) -> None:
        pace = self.pacing.pace(deployment)
        pace.leave(await pace.enter(), "failed")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setattr(waiting, "_LOOK_AGAIN_S", 0.01)
    return Calls(world(tmp_path, "a", "b", saves=False))


async def test_a_call_that_waits_is_not_sent_to_a_deployment_that_has_failed_meanwhile(calls: Calls) -> None:
    await calls.w.call(deployment="b")
    first, second, third = (calls.booking() for _ in range(3))
    assert await first.choose(["a", "b"]) == "b"
    await second.seat("a")
    choosing = asyncio.create_task(calls.admission(third).preferred(["a", "b"]))
    await asyncio.sleep(0.05)
    await calls.fail("b")
    await first.done(None)
    await asyncio.sleep(0.05)
    assert not choosing.done(), "the one that has its prefix is free, and has failed"
    await second.done(None)
    assert await asyncio.wait_for(choosing, 1) == ["a"]
    assert third.engine is calls.w.cache.engines["a"]
    await third.done(None)
    assert not any(calls.w.index.booked.values())


async def test_when_all_have_failed_meanwhile_the_others_are_looked_at_again(calls: Calls) -> None:
    first, second, third = (calls.booking() for _ in range(3))
    await first.seat("a")
    await second.seat("b")
    await calls.fail("b")
    choosing = asyncio.create_task(calls.admission(third).preferred(["a", "b"]))
    await asyncio.sleep(0.05)
    calls.pacing.pace("b").leave(await calls.pacing.pace("b").enter(), "ok")
    await calls.fail("a")
    await first.done(None)
    await asyncio.sleep(0.05)
    assert not choosing.done()
    await second.done(None)
    assert await asyncio.wait_for(choosing, 1) == ["b"]
    await third.done(None)


async def test_where_none_is_well_one_is_taken_all_the_same(calls: Calls) -> None:
    await calls.fail("a")
    await calls.fail("b")
    booking = calls.booking()
    assert len(await asyncio.wait_for(calls.admission(booking).preferred(["a", "b"]), 1)) == 1
    await booking.done(None)


async def test_a_call_that_has_no_choice_is_booked_and_waits_in_the_same_line(calls: Calls) -> None:
    await calls.w.call(deployment="a")
    first, second, third, fourth = (calls.booking() for _ in range(4))
    await first.seat("a")
    await second.seat("b")
    line = asyncio.create_task(calls.admission(third).preferred(["a", "b"]))
    await asyncio.sleep(0.02)
    alone = asyncio.create_task(calls.admission(fourth, avoid=frozenset({"b"})).preferred(["a", "b"]))
    await asyncio.sleep(0.02)
    assert fourth.id in calls.w.index.booked["a", calls.w.cache.engines["a"].replica.epoch]
    await first.done(None)
    assert await asyncio.wait_for(line, 1) == ["a"], "it came first"
    assert not alone.done()
    await third.done(None)
    assert await asyncio.wait_for(alone, 1) == ["a"]
    await second.done(None)
    await fourth.done(None)
    assert not any(calls.w.index.booked.values())
