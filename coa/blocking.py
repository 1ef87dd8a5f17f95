"""Blocking work beside an event loop: in a thread, or at once where a thread would cost more than the work.

A thread that works in Python takes the interpreter from the loop, which gets it back after 5 ms or when the thread
waits for something, and so for every request and reply that it handles meanwhile. Where hundreds of calls are under way
and a piece of work takes a millisecond, the two of them waste more time on each other than the work itself takes. So a
process that serves nobody does short work at once; a service keeps its loop free for those who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

__all__ = ["at_once", "off_loop", "short_work_at_once"]

P = ParamSpec("P")
T = TypeVar("T")

_LONG_CHARS = 64_000
"""Text that takes some 20 ms to be cut into chunks."""

_at_once: ContextVar[bool] = ContextVar("coa_short_work_at_once", default=False)


@contextmanager
def short_work_at_once() -> Iterator[None]:
    """Within, and in tasks begun within, `off_loop` does what is short on the event loop's own thread."""
    token = _at_once.set(True)
    try:
        yield
    finally:
        _at_once.reset(token)


def at_once() -> bool:
    """Whether short work is to be done on the event loop's own thread."""
    return _at_once.get()


async def off_loop(work: Callable[P, T], chars: int, /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns or raises, done in a thread; at once where that is allowed and it is short.

    `chars` is the length of the text that it goes through, 0 for work that takes about the same for every text. What
    waits for the disk (`os.fsync`) is no short work, whatever it writes: see `coa.syncing`.
    """
    if at_once() and chars <= _LONG_CHARS:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
