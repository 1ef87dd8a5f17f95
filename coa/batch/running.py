"""A batch from its inputs to its summary, by the process that runs it or has others work on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from coa.api import StopSignal
from coa.batch.driving import Driven, OnWork, Patience, drive, owner_name
from coa.batch.estimating import Expected, Sample, expected_of
from coa.batch.ledger import Entry, ItemState, Known, Lease, Ledger
from coa.batch.opening import is_shared, open_ledger
from coa.batch.processing import Desk, Worked
from coa.batch.record import BatchRecord, BatchStore
from coa.batch.results import ResultFolder
from coa.batch.sources import entry_of, sources_of
from coa.batch.summary import summary_of
from coa.config import Settings
from coa.errors import CoaError, ConfigError

if TYPE_CHECKING:
    from coa.batch.processes import Processes

__all__ = ["BatchEnd", "Listener", "only_estimated", "open_again", "run_batch", "scan"]

Confirm = Callable[[Expected], Awaitable[bool]]
"""Whether what is expected may be spent."""

Before = Callable[[Ledger, ResultFolder], Awaitable[None]]

_PAGE = 128


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told how the batch goes on; called on the event loop's thread."""

    on_stage: Callable[[str], None] = lambda _: None
    on_scanned: Callable[[int, int], None] = lambda documents, items: None
    """Documents looked at so far, and new items among them."""
    on_ledger: Callable[[Ledger], None] = lambda _: None
    """The ledger is open: its status may be asked for."""
    on_expected: Callable[[Expected], None] = lambda _: None
    on_work: OnWork = lambda lease, worked: None


@dataclass(frozen=True, slots=True)
class BatchEnd:
    """How it came out."""

    summary: Mapping[str, Any]
    ending: str
    """As in `Driven`; "stopped" also where what was expected was too much."""
    error: CoaError | None = None

    @property
    def exit_code(self) -> int:
        """0 for all done, 3 with failed or partial items, 6 for the budget, 75 for what is to be gone on with."""
        if self.error is not None:
            return self.error.exit_code
        if self.ending in {"stopped", "cancelled"} and self.summary["state"] != "done":
            return 75
        if self.ending == "budget" or "budget" in self.summary["causes"]:
            return 6
        return 0 if self.summary["state"] == "done" else 3


async def run_batch(
    record: BatchRecord,
    present: Settings,
    *,
    stop: StopSignal | None = None,
    listener: Listener | None = None,
    confirm: Confirm | None = None,
    new_documents: bool = True,
    only_changed: bool = False,
    estimate: bool = True,
    patience: Patience | None = None,
    before: Before | None = None,
) -> BatchEnd:
    """How the batch came out: its documents are added to the ledger (`new_documents`; also where an earlier process
    did not come to their end), what they take is estimated and confirmed, and all open items are worked on. To be
    called again after any interruption. `before` is done first, when nobody else works on a ledger in a file.

    Raises: ConfigError where another process works on the batch, and what opening the models or the inputs raises.
    """
    listener, stop = listener or Listener(), stop or StopSignal()
    started = time.monotonic()
    store = BatchStore(present.home)
    async with _ledger_of(record, present, store) as (ledger, lock), _crew_of(record, present, lock) as crew:
        listener.on_ledger(ledger)
        results = ResultFolder(Path(record.out))
        await _made_ready(record, ledger, results, before)
        sample = Sample()
        if new_documents or not record.scanned:
            listener.on_stage("looking at the documents")
            known = only_changed or not new_documents
            record = await scan(record, ledger, store, sample=sample, stop=stop, listener=listener, only_changed=known)
        async with Desk(record, present, ledger, results, store.runs_of(record)) as desk:
            await desk.report()
            expected: Expected | None = None
            driven = Driven("stopped" if stop.requested else "finished")
            if not stop.requested and (await ledger.status()).open:
                if estimate or confirm is not None:
                    expected = await _expected(desk, ledger, sample, listener)
                if confirm is not None and expected is not None and not await confirm(expected):
                    driven = Driven("stopped")
                else:
                    driven = await _driven(
                        desk, ledger, record, present, crew=crew, stop=stop, listener=listener, patience=patience
                    )
            await desk.report()
        seconds = time.monotonic() - started
        summary = await summary_of(record, ledger, seconds=seconds, ending=driven.ending, expected=expected)
        await asyncio.to_thread(results.write_summary, summary)
        return BatchEnd(summary, driven.ending, driven.error)


async def _made_ready(record: BatchRecord, ledger: Ledger, results: ResultFolder, before: Before | None) -> None:
    """The ledger lets work begin, within the record's budget; what an earlier one had no room for is open again."""
    if before is not None:
        await before(ledger, results)
    if await ledger.limits() != record.options.limits:
        await ledger.set_limits(record.options.limits)
        await open_again(ledger, results, {"failed"}, kinds={"budget"})
    await ledger.set_control("run")


async def only_estimated(record: BatchRecord, present: Settings) -> Expected:
    """What the open items are expected to take, with the documents that are new; makes no call.

    Raises: as `run_batch`.
    """
    store = BatchStore(present.home)
    async with _ledger_of(record, present, store) as (ledger, _):
        sample = Sample()
        record = await scan(record, ledger, store, sample=sample)
        results = ResultFolder(Path(record.out))
        async with Desk(record, present, ledger, results, store.runs_of(record)) as desk:
            return await expected_of(desk, ledger, sample)


async def scan(
    record: BatchRecord,
    ledger: Ledger,
    store: BatchStore,
    *,
    sample: Sample,
    stop: StopSignal | None = None,
    listener: Listener | None = None,
    only_changed: bool = False,
) -> BatchRecord:
    """The record, which says so, and so does the store, where no stop came: all documents of its inputs are in the
    ledger now, added page by page.

    With `only_changed` files whose size and time are as they were when they were added are not opened. Raises: as
    `sources_of`, ConfigError where the inputs name nothing at all, StorageError.
    """
    loop = asyncio.get_running_loop()

    def known(source: str) -> Known | None:
        return asyncio.run_coroutine_threadsafe(ledger.known(source), loop).result()

    pages = _pages(record, known if only_changed else None)
    n_documents = 0
    while (page := await asyncio.to_thread(next, pages, None)) is not None:
        if stop is not None and stop.requested:
            return record
        n_documents += len(page)
        for entry in page:
            sample.add(entry)
        sample.n_new += await ledger.add(page)
        if listener is not None:
            listener.on_scanned(n_documents, sample.n_new)
    if not n_documents:
        raise ConfigError(f"{', '.join(record.inputs)}: no documents found.", hint="Hidden files are left out.")
    await asyncio.to_thread(store.scanned, record.batch_id)
    return replace(record, scanned=True)


async def open_again(
    ledger: Ledger,
    results: ResultFolder,
    states: Collection[ItemState],
    *,
    kinds: Collection[str] | None = None,
    config: str | None = None,
    fresh: bool = False,
) -> int:
    """The number of ended items that are pending again, see `Ledger.reopen`; and have no result."""
    keys = [row.key async for row in ledger.rows(states) if kinds is None or row.kind in kinds]
    if not keys:
        return 0
    size = await asyncio.to_thread(results.size)
    n = await ledger.reopen(states, kinds=kinds, config=config, fresh=fresh)
    await asyncio.to_thread(results.forget, keys, before=size)
    return n


def _pages(record: BatchRecord, known: Callable[[str], Known | None] | None) -> Iterator[list[Entry]]:
    page: list[Entry] = []
    for given in record.inputs:
        for source in sources_of(given, skip=Path(record.out), manifest=record.manifest):
            page.append(entry_of(source, record.payloads, record.config, known=known))
            if len(page) == _PAGE:
                yield page
                page = []
    yield page


async def _expected(desk: Desk, ledger: Ledger, sample: Sample, listener: Listener) -> Expected:
    listener.on_stage("estimating")
    expected = await expected_of(desk, ledger, sample)
    listener.on_expected(expected)
    return expected


class _Crew(NamedTuple):
    """Processes that work in place of this one."""

    processes: Processes
    n: int


@contextlib.asynccontextmanager
async def _crew_of(record: BatchRecord, present: Settings, lock: int | None) -> AsyncIterator[_Crew | None]:
    """The processes that the batch is to be worked on by, which load what they need meanwhile; None for this one."""
    if record.engine == "ray" or not record.extra.get("processes"):
        yield None
        return
    from coa.batch.processes import n_processes_of, started_processes

    n = await asyncio.to_thread(n_processes_of, record, present)
    if n == 1:
        yield None
        return
    with started_processes(n, lock=lock) as processes:
        yield _Crew(processes, n)


async def _driven(
    desk: Desk,
    ledger: Ledger,
    record: BatchRecord,
    present: Settings,
    *,
    crew: _Crew | None,
    stop: StopSignal,
    listener: Listener,
    patience: Patience | None,
) -> Driven:
    if record.engine == "ray":
        from coa.batch.ray_engine import drive_on_ray

        return await drive_on_ray(record, present, ledger, stop=stop, on_stage=listener.on_stage, patience=patience)
    if crew is not None:
        from coa.batch.processes import drive_in_processes

        def on_work(lease: Lease, worked: Worked | None) -> None:
            listener.on_stage("")
            listener.on_work(lease, worked)

        listener.on_stage(f"starting {crew.n} processes")
        return await drive_in_processes(
            crew.processes,
            record,
            present,
            ledger,
            n_processes=crew.n,
            stop=stop,
            on_work=on_work,
            patience=patience,
        )
    listener.on_stage("opening the model")
    await desk.sessions.session(record.config)
    listener.on_stage("")
    return await drive(
        desk,
        ledger,
        owner=owner_name(),
        jobs=record.options.jobs,
        stop=stop,
        on_work=listener.on_work,
        patience=patience,
    )


class _Opened(NamedTuple):
    ledger: Ledger
    lock: int | None
    """The number of the open file that who works on a ledger in a file holds open."""


@contextlib.asynccontextmanager
async def _ledger_of(record: BatchRecord, present: Settings, store: BatchStore) -> AsyncIterator[_Opened]:
    """The ledger, for this process alone where it is a file: then the leases in it are those of the dead."""
    async with contextlib.AsyncExitStack() as stack:
        lock: int | None = None
        if not is_shared(record):
            stack.enter_context(store.locked(record.batch_id))
            lock = stack.enter_context(await asyncio.to_thread(store.working, record.batch_id)).fileno()
        ledger = await open_ledger(record, present, store)
        stack.push_async_callback(ledger.close)
        if not is_shared(record):
            await ledger.expire(everyone=True)
        yield _Opened(ledger, lock)
