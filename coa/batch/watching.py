"""Watching workers that were placed in other processes, which lease documents from the ledger by themselves.

Whatever dies, nothing is lost but the chunk in hand: a dead worker's leases are taken back and another takes its
place; when the driver dies its workers end with it, and any other driver of the batch goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from coa.api import StopSignal
from coa.batch.driving import Driven, Patience
from coa.batch.ledger import Ledger
from coa.batch.parts import Part, most_parts, share
from coa.batch.placed_worker import WorkerPlace, WorkOrder
from coa.batch.record import BatchRecord
from coa.config import Settings
from coa.errors import CoaError

__all__ = ["Cluster", "Placed", "WorkerLost", "WorkersFailed", "watch_workers"]

_log = logging.getLogger(__name__)
_PLACED_WITHIN_S = 60.0
_MOST_LOST = 10
"""Workers in a row, with nothing done by any of them, after which their hosts or the documents are at fault."""
_PAUSE_S = 1.0
_LAST_WORDS_S = 5.0
"""For the others to end, where one has found everything done."""


class WorkersFailed(CoaError):
    """The workers of a batch die again and again."""


class WorkerLost(Exception):
    """A worker, its machine, or the way to it is gone."""


class Placed(Protocol):
    """A worker somewhere. All raise WorkerLost where it is gone."""

    async def place(self) -> WorkerPlace:
        """Where it runs, once it runs."""
        ...

    async def run(self) -> Driven:
        """See `PlacedWorker.run`."""
        ...

    async def stop(self, reason: str) -> None:
        """See `PlacedWorker.stop`."""
        ...

    def kill(self) -> None:
        """Ends it at once; may be called when it is gone."""
        ...


class Cluster(Protocol):
    """Where workers are placed."""

    @property
    def hint(self) -> str:
        """Where is told why its workers die."""
        ...

    def place(self, order: WorkOrder) -> Placed:
        """A new worker, placed when there is room for it."""
        ...


async def watch_workers(
    cluster: Cluster,
    record: BatchRecord,
    present: Settings,
    ledger: Ledger,
    *,
    n_workers: int,
    stop: StopSignal,
    patience: Patience | None = None,
) -> Driven:
    """How the batch ended, worked on by `n_workers` at any time: fewer where there are not as many calls or documents
    at once to share out. Raises: WorkersFailed where they die again and again."""
    jobs = record.options.jobs
    n_parts = min([n_workers, *(most_parts(record.settings_of(c, present), jobs) for c in record.configs)])
    if n_parts < n_workers:
        _log.warning("%d workers, not %d: no more calls at once can be shared out.", n_parts, n_workers)

    def order(part: Part) -> WorkOrder:
        return WorkOrder(
            batch_id=record.batch_id,
            settings=present.model_dump(mode="json"),
            owner=f"{record.engine}-{secrets.token_hex(4)}-{part.number}",
            jobs=share(jobs, part),
            part=part,
            patience=patience or Patience(),
        )

    watch = _Watch(cluster, ledger, order, n_parts, stop)
    try:
        return await watch.run()
    finally:
        watch.kill_all()


@dataclass
class _Held:
    """A worker that works."""

    order: WorkOrder
    worker: Placed
    running: asyncio.Task[Driven]


class _Watch:
    def __init__(
        self, cluster: Cluster, ledger: Ledger, order: Callable[[Part], WorkOrder], n_workers: int, stop: StopSignal
    ) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._order = order
        self._n_workers = n_workers
        self._held: list[_Held] = []
        self._ending: Driven | None = None
        self._n_lost = 0
        self._ended_before = -1
        self._loop = asyncio.get_running_loop()
        self._telling: set[asyncio.Task[None]] = set()
        stop.listen(self._stop_asked)

    def _stop_asked(self, reason: str) -> None:
        """On any thread, or in a signal handler."""
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._end, Driven("stopped"))

    async def run(self) -> Driven:
        for number in range(self._n_workers):
            self._place(Part(number, self._n_workers))
        while self._held:
            # Where all is done nobody is waited for any longer: a worker may never have been placed.
            limit = _LAST_WORDS_S if self._ending == Driven("finished") else None
            working = [held.running for held in self._held]
            ended, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED, timeout=limit)
            if not ended:
                break
            for held in [held for held in self._held if held.running in ended]:
                self._held.remove(held)
                await self._take(held)
        return self._ending or Driven("finished")

    def kill_all(self) -> None:
        for held in self._held:
            held.running.cancel()
            held.worker.kill()

    def _place(self, part: Part) -> None:
        order = self._order(part)
        worker = self._cluster.place(order)
        self._held.append(_Held(order, worker, asyncio.create_task(self._run(worker))))

    async def _run(self, worker: Placed) -> Driven:
        try:
            async with asyncio.timeout(_PLACED_WITHIN_S):
                place = await worker.place()
        except TimeoutError:
            _log.warning("there has been no room for a worker for %g s; waiting.", _PLACED_WITHIN_S)
            place = await worker.place()
        _log.info("a worker is on %s, process %d.", place.host, place.pid)
        return await worker.run()

    async def _take(self, held: _Held) -> None:
        """Sees to a worker that has ended or is gone."""
        try:
            driven = held.running.result()
        except WorkerLost as error:
            held.worker.kill()
            await self._replace(held, error)
            return
        held.worker.kill()  # its process is of no more use
        if driven.ending != "stopped":
            self._end(driven)
        elif self._ending is None:  # somebody asked this one alone
            self._place(held.order.part)

    async def _replace(self, held: _Held, error: WorkerLost) -> None:
        n = await self._ledger.expire(owner=held.order.owner)
        _log.warning("a worker is gone (%s); %d documents of it are taken back.", error, n)
        status = await self._ledger.status()
        n_ended = sum(status.counts.values()) - status.open
        self._n_lost = 1 if n_ended > self._ended_before else self._n_lost + 1
        self._ended_before = n_ended
        if self._n_lost >= _MOST_LOST:
            raise WorkersFailed(
                f"{self._n_lost} workers in a row died with nothing done ({error}).",
                hint=f"{self._cluster.hint}; go on with `coa batch resume`.",
            )
        if self._ending is None and status.open:
            await asyncio.sleep(_PAUSE_S * (self._n_lost - 1))
            if self._ending is None:
                self._place(held.order.part)

    def _end(self, driven: Driven) -> None:
        """No worker is placed any more; where something is open, those that work are asked to stop. The first reason
        counts."""
        if self._ending is not None:
            return
        self._ending = driven
        if driven.ending != "finished":
            for held in self._held:
                task = self._loop.create_task(_told(held.worker, driven.ending))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)


async def _told(worker: Placed, reason: str) -> None:
    with contextlib.suppress(WorkerLost, CoaError):
        await worker.stop(reason)
