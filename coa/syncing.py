"""Waiting until files are on the disk, for many tasks of an event loop at once (group commit).

A thread that waits for the disk has to take the interpreter from the loop before and after, which costs a busy process
more than the waiting. So those who come while some wait go to the disk together, in one turn of a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

__all__ = ["synced"]

_FEW = 4
"""As many as wait begin another turn beside those under way: a slow disk takes many writes in the time of one."""
_MOST = 16
"""In one turn."""


async def synced(file: int) -> None:
    """Waits until what was written to the open file is on the disk (`os.fsync`); it may be closed meanwhile.

    Raises: OSError.
    """
    loop = asyncio.get_running_loop()
    if loop not in _syncing:
        _syncing[loop] = _Syncing()
    await _syncing[loop].wait(file)


class _Waiting(NamedTuple):
    file: int
    """A duplicate, which the thread closes."""
    done: asyncio.Future[None]


class _Syncing:
    """Of one event loop."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._turns = 0

    def wait(self, file: int) -> asyncio.Future[None]:
        """Done when the file is on the disk."""
        waiting = _Waiting(os.dup(file), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._begin()
        return waiting.done

    def _begin(self) -> None:
        if self._waiting and (not self._turns or len(self._waiting) >= _FEW):
            taken, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            self._turns += 1
            turn = asyncio.ensure_future(asyncio.to_thread(_synced, [one.file for one in taken]))
            turn.add_done_callback(partial(self._ended, taken))

    def _ended(self, taken: Sequence[_Waiting], turn: asyncio.Future[list[OSError | None]]) -> None:
        self._turns -= 1
        broken = asyncio.CancelledError() if turn.cancelled() else turn.exception()
        errors = [broken] * len(taken) if broken is not None else turn.result()
        for one, error in zip(taken, errors, strict=True):
            if one.done.done():
                continue  # nobody waits for it any more
            if error is None:
                one.done.set_result(None)
            else:
                one.done.set_exception(error)
        self._begin()


_syncing: WeakKeyDictionary[asyncio.AbstractEventLoop, _Syncing] = WeakKeyDictionary()


def _synced(files: Sequence[int]) -> list[OSError | None]:
    found: list[OSError | None] = []
    for file in files:
        try:
            os.fsync(file)
        except OSError as error:
            found.append(error)
        else:
            found.append(None)
        finally:
            os.close(file)
    return found
