"""Who looks for a seat first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.cache import waiting
from coa.cache.waiting import Line


class Room:
    """Some seats, and guests who take one where they accept it."""

    def __init__(self, n_seats: int) -> None:
        self.free = set(range(n_seats))
        self.line = Line(lambda: bool(self.free))
        self.seated: list[str] = []
        self.looks: list[str] = []

    async def guest(self, name: str, accepts: Callable[[int], bool] = lambda _: True) -> int:
        with self.line.joined() as place:
            while True:
                await place.turn()
                self.looks.append(name)
                await asyncio.sleep(0)  # looking takes a moment, in which others come
                for seat in sorted(self.free):
                    if accepts(seat):
                        self.free.remove(seat)
                        self.seated.append(name)
                        return seat

    def give_back(self, seat: int) -> None:
        self.free.add(seat)
        self.line.tell()


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_seat_goes_to_whoever_has_waited_longest_not_to_whoever_comes_just_then() -> None:
    room = Room(0)
    guests = [asyncio.create_task(room.guest(name)) for name in "abc"]
    await settled()
    for turn in range(3):
        room.give_back(turn)
        guests.append(asyncio.create_task(room.guest(f"late {turn}")))
        await settled()
    assert room.seated == ["a", "b", "c"]
    for seat in range(3):
        room.give_back(seat)
    await asyncio.gather(*guests)
    assert room.seated[3:] == ["late 0", "late 1", "late 2"]


async def test_only_as_many_look_as_there_may_be_seats_for() -> None:
    room = Room(0)
    guests = [asyncio.create_task(room.guest(name)) for name in "abc"]
    await settled()
    room.give_back(0)
    await settled()
    assert room.looks == ["a", "b", "c", "a"]
    for seat in (1, 2):
        room.give_back(seat)
    await asyncio.gather(*guests)


async def test_a_seat_that_the_first_one_does_not_want_goes_to_the_next() -> None:
    room = Room(0)
    choosy = asyncio.create_task(room.guest("choosy", lambda seat: seat == 1))
    other = asyncio.create_task(room.guest("other"))
    await settled()
    room.give_back(0)
    assert await asyncio.wait_for(other, 1) == 0
    room.give_back(1)
    assert await asyncio.wait_for(choosy, 1) == 1


async def test_whoever_comes_finds_the_seat_that_nobody_before_wanted() -> None:
    room = Room(1)
    choosy = asyncio.create_task(room.guest("choosy", lambda seat: seat == 1))
    await settled()
    assert await asyncio.wait_for(room.guest("other"), 0.5) == 0
    choosy.cancel()


async def test_everybody_looks_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_AGAIN_S", 0.01)
    room = Room(0)
    guests = [asyncio.create_task(room.guest(name)) for name in "ab"]
    await settled()
    room.free = {0, 1}  # given back by another process, which tells nobody
    await asyncio.wait_for(asyncio.gather(*guests), 1)
    assert room.seated == ["a", "b"]


@settings(deadline=None)
@given(
    n_guests=st.integers(1, 6),
    steps=st.lists(st.one_of(st.just("free"), st.integers(0, 5), st.just("step")), max_size=30),
)
def test_whoever_gives_up_is_passed_over_and_holds_nobody_up(n_guests: int, steps: list[str | int]) -> None:
    async def play() -> None:
        room = Room(0)
        guests = [asyncio.create_task(room.guest(str(i))) for i in range(n_guests)]
        await settled()
        for number, step in enumerate(steps):
            if step == "free":
                room.give_back(number)
            elif isinstance(step, int):
                guests[step % n_guests].cancel()
            else:
                await asyncio.sleep(0)
        for number in range(n_guests):
            room.give_back(100 + number)
        told = await asyncio.wait_for(asyncio.gather(*guests, return_exceptions=True), 5)
        assert all(isinstance(each, int | asyncio.CancelledError) for each in told)
        assert room.seated == sorted(room.seated)

    asyncio.run(play())
