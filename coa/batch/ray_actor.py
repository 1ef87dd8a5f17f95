"""What runs inside of a Ray actor: a worker of a batch. Knows nothing of Ray but that it is called from another
process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coa.api import StopSignal
from coa.batch.driving import Driven, Patience, drive
from coa.batch.worker import worker_place
from coa.config import Settings
from coa.errors import CoaError, RunNotFound

__all__ = ["ActorPlace", "ActorWork", "BatchActor"]


@dataclass(frozen=True, slots=True)
class ActorWork:
    """What an actor is told when it is made."""

    batch_id: str
    settings: Mapping[str, Any]
    """Of the driver, as JSON values, with its secrets: they travel inside the cluster and are written nowhere."""
    owner: str
    """What the actor is called in the ledger; the driver has to know it when the actor is dead."""
    jobs: int
    max_parallel_calls: int
    patience: Patience


@dataclass(frozen=True, slots=True)
class ActorPlace:
    """Where an actor runs."""

    host: str
    pid: int


class BatchActor:
    """Reads documents of one batch until there are none left. Its methods run side by side on one event loop."""

    def __init__(self, work: ActorWork) -> None:
        self._work = work
        self._stop = StopSignal()

    async def place(self) -> ActorPlace:
        """Where it runs; also says that it is up."""
        return ActorPlace(socket.gethostname(), os.getpid())

    async def run(self) -> Driven:
        """How it ended; errors of coa's are told in it, not raised."""
        present = Settings.model_validate({**self._work.settings, "max_parallel_calls": self._work.max_parallel_calls})
        try:
            async with worker_place(self._work.batch_id, present) as (record, ledger, desk, _):
                await desk.sessions.session(record.config)
                driven = await drive(
                    desk,
                    ledger,
                    owner=self._work.owner,
                    jobs=self._work.jobs,
                    stop=self._stop,
                    patience=self._work.patience,
                )
                await desk.report()
                return driven
        except RunNotFound as error:
            where = f"{socket.gethostname()}: {error.message}"
            return Driven("error", RunNotFound(where, hint="COA_HOME has to be on storage that all nodes share."))
        except CoaError as error:
            return Driven("error", error)

    async def stop(self, reason: str) -> None:
        """Lets the chunks in hand be finished and gives the rest back; `run` returns then."""
        self._stop.request(reason)
