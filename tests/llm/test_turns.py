"""Whose turn it is where more calls are wanted than may be made at once."""

from __future__ import annotations

import asyncio

from coa.llm.turns import Slots, Turn


class _Calls:
    """Calls that last until they are let go."""

    def __init__(self, n: int) -> None:
        self.slots = Slots(n)
        self.begun: list[str] = []
        self.go = asyncio.Semaphore(0)

    async def call(self, name: str) -> None:
        async with self.slots:
            self.begun.append(name)
            await self.go.acquire()

    def begin(self, name: str, turn: Turn | None = None) -> asyncio.Task[None]:
        if turn is None:
            return asyncio.create_task(self.call(name))
        with turn.taken():
            return asyncio.create_task(self.call(name))

    async def end(self, n: int = 1) -> None:
        for _ in range(n):
            self.go.release()
        for _ in range(5):
            await asyncio.sleep(0)


async def test_calls_without_a_turn_go_in_the_order_that_they_were_asked_for() -> None:
    calls = _Calls(2)
    tasks = [calls.begin(str(n)) for n in range(5)]
    await calls.end(0)
    assert calls.begun == ["0", "1"], "as many as are allowed"
    await calls.end(5)
    assert calls.begun == ["0", "1", "2", "3", "4"]
    await asyncio.gather(*tasks)


async def test_work_that_was_begun_first_goes_first() -> None:
    calls, old, new = _Calls(1), Turn(0), Turn(1)
    tasks = [calls.begin("at work"), calls.begin("new", new), calls.begin("old", old)]
    await calls.end(0)
    await calls.end(3)
    assert calls.begun == ["at work", "old", "new"]
    await asyncio.gather(*tasks)


async def test_work_that_wants_many_calls_at_once_leaves_others_their_share() -> None:
    calls, many = _Calls(4), Turn(0)
    tasks = [calls.begin(f"many {n}", many) for n in range(40)]
    tasks += [calls.begin(f"other {n}", Turn(1 + n)) for n in range(20)]
    await calls.end(0)
    for _ in range(16):
        await calls.end()
    assert sum(name.startswith("other") for name in calls.begun) >= 10
    await calls.end(60)
    await asyncio.gather(*tasks)
    assert many.calls == 0


async def test_places_may_change_for_calls_that_wait_already() -> None:
    calls, turns = _Calls(1), [Turn(n) for n in range(3)]
    first = calls.begin("at work")
    await calls.end(0)
    tasks = [calls.begin(name, turns[int(name)]) for name in "2012"]
    await calls.end(0)
    for turn in turns:
        turn.place = -turn.place
    await calls.end(5)
    assert calls.begun == ["at work", *"2102"], "a second call of the same work goes four places behind"
    await asyncio.gather(first, *tasks)


async def test_a_call_that_is_given_up_leaves_its_place_to_the_next() -> None:
    calls, turn = _Calls(1), Turn(0)
    tasks = [calls.begin("at work"), calls.begin("given up", turn), calls.begin("next", Turn(1))]
    await calls.end(0)
    tasks[1].cancel()
    await calls.end(1)
    assert calls.begun == ["at work", "next"]
    tasks.append(calls.begin("late", turn))
    await calls.end(0)
    calls.go.release()
    await tasks[2]
    tasks[3].cancel()  # when it has been let in, or is about to be
    await asyncio.gather(*tasks, return_exceptions=True)
    assert turn.calls == 0
    last = calls.begin("last")
    await calls.end(1)
    await last
    assert calls.begun[-1] == "last"
