"""Calls at once, and whose turn it is where more are wanted.

Readers that take turns call by call all come to their end at once, and leave the engine without work while what they
have read is put away and others begin. So work that was begun first goes first, and each call that it has under way
beside others puts it back by a few places: whoever asks for a hundred calls at once takes no more than a share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Slots", "Turn"]

_PLACES = 4
"""That a call puts its work's next one back."""


@dataclass(eq=False)
class Turn:
    """The place of a piece of work among others, for the calls within `taken`, also those of tasks begun within."""

    place: float
    """The lowest goes first, and among equals whoever asked first; it may change, for calls that wait already too."""
    calls: int = 0
    """Of this work, waiting or under way."""

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Around the work."""
        token = _TURN.set(self)
        try:
            yield
        finally:
            _TURN.reset(token)


_TURN: ContextVar[Turn | None] = ContextVar("coa_turn", default=None)


class Slots:
    """So many calls at once; an async context manager around each. For one event loop."""

    def __init__(self, n: int) -> None:
        self._free = n
        self._waiting: list[_Waiting] = []

    async def __aenter__(self) -> None:
        turn = _TURN.get()
        behind = 0
        if turn is not None:
            behind = _PLACES * turn.calls
            turn.calls += 1
        try:
            await self._enter(turn, behind)
        except BaseException:
            if turn is not None:
                turn.calls -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        turn = _TURN.get()
        if turn is not None:
            turn.calls -= 1
        self._leave()

    async def _enter(self, turn: Turn | None, behind: int) -> None:
        if self._free:
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(turn, behind, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._leave()  # it had been let in meanwhile
            raise

    def _leave(self) -> None:
        self._waiting = [one for one in self._waiting if not one.let_in.done()]
        if not self._waiting:
            self._free += 1
            return
        first = min(self._waiting, key=_place)  # the one that asked first, of equals
        self._waiting.remove(first)
        first.let_in.set_result(None)


@dataclass(eq=False, slots=True)
class _Waiting:
    turn: Turn | None
    behind: int
    """Places that other calls of the same work put it back."""
    let_in: asyncio.Future[None]


def _place(waiting: _Waiting) -> float:
    return waiting.behind + (0.0 if waiting.turn is None else waiting.turn.place)
