"""A process that joins a batch whose ledger is shared: it leases documents beside others, wherever they run, and ends
with the batch. Any number may come and go; who is killed leaves leases behind, which run out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from coa.api import StopSignal
from coa.batch.driving import Driven, OnWork, Patience, drive, owner_name
from coa.batch.ledger import Ledger
from coa.batch.opening import is_shared, open_ledger
from coa.batch.parts import WHOLE, Part
from coa.batch.processing import Desk
from coa.batch.record import BatchRecord, BatchStore
from coa.batch.results import ResultFolder
from coa.batch.running import BatchEnd
from coa.batch.summary import summary_of
from coa.config import Settings
from coa.errors import ConfigError

__all__ = ["Place", "join_batch", "worker_place"]


class Place(NamedTuple):
    """What a worker works with."""

    record: BatchRecord
    ledger: Ledger
    desk: Desk
    results: ResultFolder


async def join_batch(
    batch: str,
    present: Settings,
    *,
    jobs: int | None = None,
    stop: StopSignal | None = None,
    on_work: OnWork | None = None,
    patience: Patience | None = None,
) -> BatchEnd:
    """How the batch stood when this worker left it: with every item ended, stopped, cancelled or out of budget.

    `batch` is an id, the beginning of one, or the folder of the results; `jobs` is how many documents this worker
    reads at once (None: as many as the batch was started with). Raises: RunNotFound, ConfigError for a batch whose
    ledger is a file, CacheError where Redis does not answer, and what opening the models raises.
    """
    started = time.monotonic()
    async with worker_place(batch, present) as (record, ledger, desk, results):
        driven = Driven("finished")
        if (await ledger.status()).open:
            await desk.sessions.session(record.config)
            driven = await drive(
                desk,
                ledger,
                owner=owner_name(),
                jobs=jobs or record.options.jobs,
                stop=stop or StopSignal(),
                on_work=on_work,
                patience=patience,
            )
            await desk.report()
        summary = await summary_of(record, ledger, seconds=time.monotonic() - started, ending=driven.ending)
        await asyncio.to_thread(results.write_summary, summary)
        return BatchEnd(summary, driven.ending, driven.error)


@contextlib.asynccontextmanager
async def worker_place(batch: str, present: Settings, *, part: Part | None = None) -> AsyncIterator[Place]:
    """What a worker of the batch works with, closed at the end; `part` for one of several that have a driver, who
    keeps others away from a ledger in a file, and sees to the list of results. Raises: as `join_batch`."""
    store = BatchStore(present.home)
    record = store.get(batch)
    if part is None and not is_shared(record):
        raise ConfigError(
            f"the ledger of batch {record.batch_id} is a file, which one process works with.",
            hint="Start the batch with COA_REDIS_URL set to share it; or go on with `coa batch resume`.",
        )
    async with contextlib.AsyncExitStack() as stack:
        ledger = await open_ledger(record, present, store)
        stack.push_async_callback(ledger.close)
        results = ResultFolder(Path(record.out))
        desk = Desk(record, present, ledger, results, store.runs_of(record), part=part or WHOLE)
        await stack.enter_async_context(desk)
        if part is None:
            await desk.report()
        yield Place(record, ledger, desk, results)
