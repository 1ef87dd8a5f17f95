"""Several runs over one document, in step: all of them read a chunk before any of them reads the next.

A chunk's reading prefix serves every question, so the runs that read it at the same time share one prefill, however
little of the document the engine can keep. A run counts from its first reading on and until it leaves: one that reads
in no order, has come to its answer, failed, or was stopped holds nobody up; one that was resumed further on waits for
the others and they not for it.
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
        """A run's end of it; let it `leave` when the run is over."""
        return Companion(self)

    def _counts(self, companion: Companion, *, counts: bool) -> None:
        if counts:
            self._companions.add(companion)
        else:
            self._companions.discard(companion)
        self._moved.set()

    def _slowest(self, but: Companion) -> Turn | None:
        """The least that any other run has finished; None without others."""
        return min((c.finished for c in self._companions if c is not but), default=None)

    async def _movement(self) -> None:
        self._moved.clear()
        await self._moved.wait()


_BEFORE_ALL = Turn(-1, 0, 0)


class Companion:
    """One run among several."""

    def __init__(self, group: Together) -> None:
        self._group = group
        self._turn = _BEFORE_ALL
        self._before = _BEFORE_ALL
        self._under_way = 0
        self._stopped = False

    @property
    def finished(self) -> Turn:
        """The last turn that the run is through with."""
        return self._before if self._under_way else self._turn

    @contextlib.contextmanager
    def taking(self, turn: Turn) -> Iterator[None]:
        """While the run is at `turn`, several times at once where it reads along several paths; an error takes it out
        of the group until it reads again."""
        if turn > self._turn:
            self._before = self.finished
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
        """Until all others are through with what this run read last. Raises: WaitEnded."""
        while (slowest := self._group._slowest(self)) is not None and slowest < self._before:
            if self._stopped:
                raise WaitEnded
            await self._group._movement()

    def leave(self) -> None:
        """Holds nobody up any more; may be called again."""
        self._group._counts(self, counts=False)

    def stop(self) -> None:
        """Ends waiting for good: the run is to stop before the next chunk rather than after it."""
        self._stopped = True
        self._group._moved.set()
