"""Leasing documents and having them worked on, so many at once, until there are none left or a reason to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from coa.api import StopSignal
from coa.batch.collecting import fewer_collections
from coa.batch.ledger import Lease, Ledger
from coa.batch.processing import LEASE_S, Desk, Worked
from coa.errors import CoaError, ConfigError, ModelUnavailable

__all__ = ["Driven", "OnWork", "Patience", "drive", "owner_name", "take_threads"]

Ending = Literal["finished", "stopped", "cancelled", "budget", "unavailable", "error"]
OnWork = Callable[[Lease, Worked | None], None]
"""Told of each lease as it begins (None) and ends."""

_POLL_S = 1.0
_N_THREADS = 24
_WRONG = frozenset({"ConfigError", "LimitsError"})


@dataclass(frozen=True, slots=True)
class Patience:
    """How much may go wrong in a row before a batch stops by itself, rather than fail one document after the other."""

    seconds: float = 60.0
    """Without any item done, where the model's server cannot be reached."""
    documents: int = 8
    """That have to be tried in vain meanwhile, at least."""
    wrong_at_first: int = 5
    """Documents whose questions the settings cannot be right for, with none done before."""
    too_dear: int = 10
    """Documents in a row that the budget has too little left for."""


@dataclass(frozen=True, slots=True)
class Driven:
    """How driving ended."""

    ending: Ending
    error: CoaError | None = None
    """For "error" and "unavailable"."""


def owner_name() -> str:
    """What this process is called in the ledger: machine and process id."""
    return f"{socket.gethostname()}-{os.getpid()}"


def take_threads() -> None:
    """Gives the running event loop threads enough for a batch: they wait for the disk most of the time, and it takes
    many writes in the time of one. For a process that does nothing else."""
    executor = ThreadPoolExecutor(_N_THREADS, thread_name_prefix="coa-batch")
    asyncio.get_running_loop().set_default_executor(executor)


async def drive(
    desk: Desk,
    ledger: Ledger,
    *,
    owner: str,
    jobs: int,
    stop: StopSignal,
    on_work: OnWork | None = None,
    patience: Patience | None = None,
) -> Driven:
    """Works on `jobs` documents at once until every item of the ledger has ended, also those that others hold.

    A stop, or a cancellation in the ledger, lets the chunks in hand be finished, and gives the rest back. Errors that
    concern all documents stop it likewise; they are returned, not raised.
    """
    driver = _Driver(desk, ledger, owner=owner, jobs=jobs, stop=stop, on_work=on_work, patience=patience or Patience())
    with fewer_collections():
        return await driver.run()


class _Driver:
    def __init__(
        self,
        desk: Desk,
        ledger: Ledger,
        *,
        owner: str,
        jobs: int,
        stop: StopSignal,
        on_work: OnWork | None,
        patience: Patience,
    ) -> None:
        self._desk = desk
        self._ledger = ledger
        self._owner = owner
        self._jobs = jobs
        self._on_work = on_work
        self._patience = patience
        self._active: dict[asyncio.Task[Worked], StopSignal] = {}
        self._ending: Driven | None = None
        self._stopped = asyncio.Event()
        self._suspect: asyncio.Event | None = None
        self._in_vain: list[float] = []
        self._any_done = False
        self._n_wrong = 0
        self._n_too_dear = 0
        self._loop = asyncio.get_running_loop()
        stop.listen(self._stop_asked)

    def _stop_asked(self, reason: str) -> None:
        """On any thread, or in a signal handler."""
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._end, Driven("stopped"))

    async def run(self) -> Driven:
        try:
            while self._ending is None:
                if await self._leased():
                    continue
                if self._ending is None:
                    await self._wait()
        except CoaError as error:  # of the ledger
            self._end(Driven("error", error))
        except BaseException:
            for task in self._active:
                task.cancel()
            await asyncio.gather(*self._active, return_exceptions=True)
            raise
        while self._active:
            await self._collect(timeout_s=None)
        return self._ending or Driven("finished")

    async def _leased(self) -> bool:
        """Whether another document was begun."""
        if len(self._active) >= self._jobs or (self._suspect is not None and not self._suspect.is_set()):
            return False
        lease = await self._ledger.lease(self._owner, seconds=LEASE_S)
        if lease is None:
            self._desk.no_others()
            if not self._active:
                status = await self._ledger.status()
                if status.open == 0:
                    self._end(Driven("finished"))
            return False
        if self._ending is not None:  # meanwhile
            await self._ledger.release(lease)
            return False
        stop, progress = StopSignal(), asyncio.Event()
        if lease.lost:
            # Its holders died before anything was done. Should it be to blame, no other is to be blamed with it:
            # until it has made progress none is begun. Such documents come last, so this holds up others like it.
            self._suspect = progress
        task = asyncio.create_task(self._desk.work(lease, stop, progress))
        task.add_done_callback(lambda _: progress.set())
        self._active[task] = stop
        if self._on_work is not None:
            self._on_work(lease, None)
        return True

    async def _wait(self) -> None:
        """Until a document ends or something may have changed."""
        await self._collect(timeout_s=_POLL_S)
        if await self._ledger.control() == "cancelled":
            self._end(Driven("cancelled"))

    async def _collect(self, *, timeout_s: float | None) -> None:
        stopped = asyncio.create_task(self._stopped.wait())
        waiting: set[asyncio.Task[Any]] = {*self._active, *([stopped] if self._ending is None else [])}
        try:
            ended, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        for task in [task for task in self._active if task in ended]:
            del self._active[task]
            self._take(task)

    def _take(self, task: asyncio.Task[Worked]) -> None:
        try:
            worked = task.result()
        except CoaError as error:
            self._end(Driven("error", error))
            return
        if self._on_work is not None:
            self._on_work(worked.lease, worked)
        if worked.states["done"] or worked.states["partial"]:
            self._any_done = True
            self._in_vain.clear()
            self._n_too_dear = 0
        elif worked.passing is not None and not isinstance(worked.passing, ConfigError):
            self._in_vain.append(time.monotonic())
            self._lose_patience(worked.passing)
        self._n_wrong += bool(_WRONG & worked.kinds.keys())
        if not self._any_done and self._n_wrong >= self._patience.wrong_at_first:
            message = f"the first {self._n_wrong} documents failed alike: their causes are in the results."
            self._end(Driven("error", ConfigError(message, hint="Mend the settings or the questions.")))
        self._n_too_dear += worked.kinds["budget"] > 0
        if self._n_too_dear >= self._patience.too_dear:
            self._end(Driven("budget"))

    def _lose_patience(self, error: CoaError) -> None:
        long_enough = self._in_vain[-1] - self._in_vain[0] >= self._patience.seconds
        if long_enough and len(self._in_vain) >= self._patience.documents:
            told = ModelUnavailable(
                f"{len(self._in_vain)} documents in a row were tried in vain: {error.message}",
                hint="Go on when the model's server answers again.",
            )
            self._end(Driven("unavailable", told))

    def _end(self, driven: Driven) -> None:
        """Begins no document any more, and lets those in hand come to a halt; the first reason counts."""
        if self._ending is not None:
            return
        self._ending = driven
        self._stopped.set()
        for stop in self._active.values():
            stop.request(driven.ending)
