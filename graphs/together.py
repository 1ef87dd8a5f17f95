"""Several runs over one document, in step: all of them read a chunk before any of them reads the next.

A chunk's reading prefix serves every question, so the runs that read it at the same time share one prefill, however
little of the document the engine can keep. One that reads in no order, has come to its answer, failed, or was stopped
holds nobody up; one that was resumed further on waits for the others and they not for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Companion", "Together", "Turn", "WaitEnded"]


class WaitEnded(Exception):
    """The run was asked to stop while it waited for the others; seen by nobody outside."""


class Turn(NamedTuple):
    """A place in the order that a strategy reads in, the same for all its runs over the same chunks."""

    part: int
    reading: int
    """1 for the first of several over the same chunks."""
    step: int
    """Along the path, which need not be the document's own order."""


class Together:
    """Runs that keep in step; used on one event loop."""

    def __init__(self) -> None:
        self._companions: set[Companion] = set()
        self._moved = asyncio.Event()

    def join(self) -> Companion:
        """A run's end of it, for which the others wait from now on; let it `leave` where the run reads in no order, and
        when it is over."""
        companion = Companion(self)
        self._counts(companion, counts=True)
        return companion

    def _counts(self, companion: Companion, *, counts: bool) -> None:
        if counts:
            self._companions.add(companion)
        else:
            self._companions.discard(companion)
        self._moved.set()

    def _all_there(self, companion: Companion) -> bool:
        """Whether no other run has anything to read before the turn that `companion` is at."""
        return all(c is companion or c._reaches(companion._turn, companion._before) for c in self._companions)

    async def _movement(self) -> None:
        self._moved.clear()
        await self._moved.wait()


_BEFORE_ALL = Turn(0, 1, -1)


class Companion:
    """One run among several."""

    def __init__(self, group: Together) -> None:
        self._group = group
        self._turn = _BEFORE_ALL
        self._before = _BEFORE_ALL
        """What all have to be through with, for this run to read at its turn."""
        self._under_way = 0
        self._stopped = False

    @contextlib.contextmanager
    def taking(self, turn: Turn) -> Iterator[None]:
        """While the run is at `turn`, several times at once where it reads along several paths; an error takes it out
        of the group until it reads again."""
        if turn > self._turn:
            # The first of a part follows on whatever the run read last, however many that part had.
            follows = turn.step == 0 and self._turn != _BEFORE_ALL
            self._before = self._turn if follows else turn._replace(step=turn.step - 1)
            self._turn = turn
        self._under_way += 1
        self._group._counts(self, counts=True)
        try:
            yield
        except BaseException:
            self._under_way -= 1
            self.leave()
            raise
        self._under_way -= 1
        self._group._counts(self, counts=True)

    async def wait(self) -> None:
        """Until all others have read what comes before this turn. Raises: WaitEnded."""
        while not self._group._all_there(self):
            if self._stopped:
                raise WaitEnded
            await self._group._movement()

    def _reaches(self, turn: Turn, before: Turn) -> bool:
        return self._turn >= (turn if self._under_way else before)

    def leave(self) -> None:
        """Holds nobody up any more, unless it reads again; may be called twice."""
        self._group._counts(self, counts=False)

    def stop(self) -> None:
        """Ends waiting for good: the run is to stop before the next chunk rather than after it."""
        self._stopped = True
        self._group._moved.set()
