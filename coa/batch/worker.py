"""A process that joins a batch whose ledger is shared: it leases documents beside others, wherever they run, and ends
with the batch. Any number may come and go; who is killed leaves leases behind, which run out."""

from __future__ import annotations

import asyncio
import contextlib
import math
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

_LOOK_S = 0.5
_NO_NEWS_S = 60.0
"""Without a new document whoever looked for them is taken for dead."""


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
    """How the batch stood when this worker left it: with every item ended, stopped, cancelled or out of budget. As
    long as its documents are still being looked for there may be more to come.

    `batch` is an id, the beginning of one, or the folder of the results; `jobs` is how many documents this worker
    reads at once (None: as many as the batch was started with). Raises: RunNotFound, ConfigError for a batch whose
    ledger is a file, CacheError where Redis does not answer, and what opening the models raises.
    """
    started, stop = time.monotonic(), stop or StopSignal()
    store = BatchStore(present.home)
    async with worker_place(batch, present) as (record, ledger, desk, results):
        driven = Driven("finished")
        while driven.ending == "finished" and await _more_to_come(store, record.batch_id, ledger, stop):
            await desk.sessions.session(record.config)
            driven = await drive(
                desk,
                ledger,
                owner=owner_name(),
                jobs=jobs or record.options.jobs,
                stop=stop,
                on_work=on_work,
                patience=patience,
            )
            await desk.report()
        told = await asyncio.to_thread(store.get, record.batch_id)
        if driven.ending == "finished" and not told.scanned:
            driven = Driven("stopped")
        summary = await summary_of(told, ledger, seconds=time.monotonic() - started, ending=driven.ending)
        await asyncio.to_thread(results.write_summary, summary)
        return BatchEnd(summary, driven.ending, driven.error)


async def _more_to_come(store: BatchStore, batch_id: str, ledger: Ledger, stop: StopSignal) -> bool:
    """Whether there are open items; waits for some as long as documents are still found."""
    n_items, until = -1, math.inf
    while time.monotonic() < until and not stop.requested:
        scanned = (await asyncio.to_thread(store.get, batch_id)).scanned
        status = await ledger.status()
        if status.open or scanned:
            return status.open > 0
        if sum(status.counts.values()) != n_items:
            n_items, until = sum(status.counts.values()), time.monotonic() + _NO_NEWS_S
        await asyncio.sleep(_LOOK_S)
    return False


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
