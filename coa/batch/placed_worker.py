"""A worker of a batch that a driver has placed in another process, of this machine or of a cluster. Knows nothing of
how it is called."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coa.api import StopSignal
from coa.batch.driving import Driven, OnWork, Patience, drive, take_threads
from coa.batch.parts import Part
from coa.batch.worker import worker_place
from coa.config import Settings
from coa.errors import CoaError, RunNotFound

__all__ = ["PlacedWorker", "WorkOrder", "WorkerPlace"]


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What a worker is told when it is placed."""

    batch_id: str
    settings: Mapping[str, Any]
    """Of the driver, as JSON values, with its secrets: they go from process to process and are written nowhere."""
    owner: str
    """What the worker is called in the ledger; the driver has to know it when the worker is dead."""
    jobs: int
    part: Part
    """Of the calls at once."""
    patience: Patience


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Where a worker runs."""

    host: str
    pid: int


class PlacedWorker:
    """Reads documents of one batch until there are none left. Its methods run side by side on one event loop."""

    def __init__(self, order: WorkOrder, *, stop: StopSignal | None = None, on_work: OnWork | None = None) -> None:
        self._order = order
        self._on_work = on_work
        self._stop = stop or StopSignal()

    async def place(self) -> WorkerPlace:
        """Where it runs; also says that it is up."""
        return WorkerPlace(socket.gethostname(), os.getpid())

    async def run(self) -> Driven:
        """How it ended; errors of coa's are told in it, not raised."""
        order = self._order
        take_threads()
        try:
            present = Settings.model_validate(order.settings)
            async with worker_place(order.batch_id, present, part=order.part) as (record, ledger, desk, _):
                await desk.sessions.session(record.config)
                return await drive(
                    desk,
                    ledger,
                    owner=order.owner,
                    jobs=order.jobs,
                    stop=self._stop,
                    on_work=self._on_work,
                    patience=order.patience,
                )
        except RunNotFound as error:
            where = f"{socket.gethostname()}: {error.message}"
            return Driven("error", RunNotFound(where, hint="COA_HOME has to be on storage that all nodes share."))
        except CoaError as error:
            return Driven("error", error)

    async def stop(self, reason: str) -> None:
        """Lets the chunks in hand be finished and gives the rest back; `run` returns then."""
        self._stop.request(reason)
