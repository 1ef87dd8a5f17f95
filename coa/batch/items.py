"""Items of a leased document: asked, kept, and told to the ledger, in this order, so that a kill at any moment loses
no result and pays for none twice."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from coa.api import StopSignal
from coa.batch.asking import ask_item, question_of, task_of
from coa.batch.ledger import Lease, LeasedItem, Ledger, Outcome, Row, Spending, SpendingLimits
from coa.batch.opening import is_shared
from coa.batch.outcomes import (
    answer_entry,
    entry_of_row,
    failure_entry,
    failure_of,
    line_of,
    outcome_of,
    plus,
    spending_of,
    spent_by,
    told_again,
)
from coa.batch.record import BatchRecord
from coa.batch.remote import RemoteUnavailable
from coa.batch.result_lines import ResultLines
from coa.batch.results import ListedKeys, ResultFolder
from coa.batch.sessions import Sessions
from coa.blocking import off_loop, short_work_at_once
from coa.errors import (
    AuthenticationFailed,
    BadOutput,
    CacheError,
    CoaError,
    ConfigError,
    ContentRefused,
    ModelError,
    ModelNotFound,
    RunDrained,
    StorageError,
)
from coa.events import ChunkRead, Event
from coa.llm.whole_replies import whole_replies
from coa.runs import RunStore
from coa.types import Answer, Document

__all__ = ["FATAL", "ItemDesk", "Job", "Worked", "even_shares", "run_id_of"]

_log = logging.getLogger(__name__)

FATAL = (AuthenticationFailed, ModelNotFound, StorageError, CacheError)
"""No document is to blame for these, and going on would only fail all the others."""

_OTHERS_S = 1.0
"""What another worker takes at most from telling the ledger of an item to having its line on the disk."""
_ROWS_AT_ONCE = 2_000
"""Reported at once: some 20 MB, with their lines."""


@dataclass
class Worked:
    """What came of a lease."""

    lease: Lease
    states: Counter[str] = field(default_factory=Counter)
    """Of the items that ended."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Causes of those that failed or are partial."""
    passing: CoaError | None = None
    """Why it was given back to be tried again; None where it was not."""
    drained: bool = False
    """It was given back because of a stop."""
    spent: Spending = field(default_factory=Spending)
    seconds: float = 0.0


@dataclass
class Job:
    """A lease in work."""

    lease: Lease
    stop: StopSignal
    worked: Worked
    open: dict[str, LeasedItem]
    """Items that have not ended."""
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    told: dict[str, Any] = field(default_factory=dict)
    """Of the document, for its file of results."""
    done_with: list[Path] = field(default_factory=list)
    """Folders of runs that are of no more use."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while that file is replaced: items may end at the same time."""

    def on_event(self, event: Event) -> None:
        """Sees whether anything was done."""
        if isinstance(event, ChunkRead) and not event.reused:
            self.progress.set()


def run_id_of(item: LeasedItem) -> str:
    """The id of the run that an item is done by: the same for whoever does it, so that it is known before the run's
    first call, and another one for each generation."""
    return f"{item.key[:32]}-{item.generation}"


class ItemDesk:
    """Works on items."""

    def __init__(
        self, record: BatchRecord, sessions: Sessions, ledger: Ledger, results: ResultFolder, runs: RunStore
    ) -> None:
        self._record = record
        self._sessions = sessions
        self._ledger = ledger
        self._results = results
        self._runs = runs
        self._lines = ResultLines(results, ledger)

    async def ask(self, job: Job, document: Document, shares: Mapping[str, SpendingLimits]) -> None:
        """Asks the items that have a share and keeps what came of each as soon as it is known; those that are to be
        tried again stay open. Questions of one configuration are read together, chunk by chunk.

        Raises: `FATAL` errors, when all items have come to their end.
        """
        if self._record.options.keep_runs:
            await asyncio.to_thread(self._runs.save_document, document)
        else:
            self._runs.save_document(document)
        groups: dict[tuple[str, str], list[LeasedItem]] = {}
        for item in (job.open[key] for key in shares):
            together = task_of(item.payload) == "ask"
            groups.setdefault((item.config, "" if together else item.key), []).append(item)
        asking = [
            self._asked(job, document, items, _largest([shares[i.key] for i in items])) for items in groups.values()
        ]
        with whole_replies():
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _asked(self, job: Job, document: Document, items: Sequence[LeasedItem], share: SpendingLimits) -> None:
        """Asks items of one configuration, which are questions where there are several."""
        started = time.monotonic()
        keeping: list[asyncio.Task[None]] = []

        def on_answer(number: int, outcome: Answer | CoaError) -> None:
            ended = self._ended(job, items[number], document, outcome, time.monotonic() - started)
            keeping.append(asyncio.create_task(ended))

        session = await self._sessions.view(items[0].config, share, on_event=job.on_event, stop=job.stop)
        try:
            if len(items) > 1:
                questions = [question_of(item.payload) or "" for item in items]
                run_ids = [run_id_of(item) for item in items]
                await session.ask_many(document, questions, run_ids=run_ids, on_answer=on_answer)
            else:
                try:
                    on_answer(0, await ask_item(session, document, items[0].payload, run_id=run_id_of(items[0])))
                except CoaError as error:
                    on_answer(0, error)
        except FATAL:
            raise
        except Exception as error:  # a bug that one document brings out is no reason to stop all the others
            _log.exception("%s: unexpected %s", job.lease.sources[0], type(error).__name__)
            cause = f"unexpected {type(error).__name__}: {error}"
            left = [item for item in items if item.key in job.open]
            await self.fail_all(job, cause, type(error).__name__, items=left)
        finally:
            kept = await asyncio.gather(*keeping, return_exceptions=True)
        for outcome in kept:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _ended(
        self, job: Job, item: LeasedItem, document: Document, outcome: Answer | CoaError, seconds: float
    ) -> None:
        if isinstance(outcome, RunDrained):
            return
        if isinstance(outcome, FATAL):
            raise outcome
        if isinstance(outcome, CoaError):
            await self.failed(job, item, outcome, document=document, seconds=seconds)
            return
        session = await self._sessions.session(item.config)
        entry_of = partial(answer_entry, session, document, item, outcome, seconds)
        entry = await self._kept(job, item, entry_of, spending_of(outcome.usage), chars=len(document.text))
        if entry["state"] == "done" and item.key not in job.open:
            job.done_with.append(self._runs.path(outcome.run_id))

    async def failed(
        self, job: Job, item: LeasedItem, error: CoaError, *, document: Document | None = None, seconds: float = 0.0
    ) -> None:
        """Ends an item by an error, or leaves it open where that may pass and there are tries left."""
        run_id = run_id_of(item)
        if isinstance(error, ConfigError) and await asyncio.to_thread(self._is_run_elsewhere, run_id):
            job.worked.passing = error
            return
        if _may_pass(error) and item.tries + 1 < self._record.options.max_tries:
            job.worked.passing = error
            return
        state, answer, kind = failure_of(error)
        cause = f"{error.message} ({item.tries + 1} tries)" if _may_pass(error) else str(error)
        spent = await off_loop(spent_by, 0, self._runs, run_id)
        entry_of = partial(failure_entry, item, cause, kind, spent, seconds)
        if answer is not None and document is not None:
            session = await self._sessions.session(item.config)
            entry_of = partial(answer_entry, session, document, item, answer, seconds)
        chars = 0 if document is None else len(document.text)
        await self._kept(job, item, entry_of, spent, chars=chars, state=state, cause=cause, kind=kind)

    async def fail_all(self, job: Job, cause: str, kind: str, *, items: Sequence[LeasedItem] | None = None) -> None:
        """Ends `items`, or all that are open, by one cause."""
        for item in list(job.open.values()) if items is None else items:
            spent = await off_loop(spent_by, 0, self._runs, run_id_of(item))
            await self._kept(job, item, partial(failure_entry, item, cause, kind, spent, 0.0), spent)

    def short_work(self) -> AbstractContextManager[None]:
        """Around the work on a document. Runs that are kept are waited for until they are on the disk, which nobody
        does on the event loop's own thread."""
        return nullcontext() if self._record.options.keep_runs else short_work_at_once()

    async def found_again(self, job: Job) -> None:
        """Ends the items whose results are on the disk: somebody was killed before the ledger was told, or the ledger
        was lost. They may have a line or not, which `report` sees to, for all of them at once."""
        stored = (await off_loop(self._results.document, 0, job.lease.digest)).get("items", {})
        for item in list(job.open.values()):
            if item.key not in stored:
                continue
            outcome = told_again(stored[item.key], item, self._record.batch_id)
            if outcome is not None:
                await self._told(job, outcome)

    async def tidied(self, job: Job) -> None:
        """Removes the runs of items that are done."""
        folders, job.done_with = job.done_with, []
        if folders and not self._record.options.keep_runs:
            await off_loop(_removed, 0, folders)

    async def close(self) -> None:
        """Waits for lines that are being written."""
        await self._lines.close()

    async def report(self, *, others_s: float | None = None) -> int:
        """The number of items that had ended without a line in the list of results, and have one now: whoever ended
        them was killed in between, or had only found their results (`found_again`).

        Others who work on the batch are given `others_s` to write their lines; None: where the ledger is shared.
        """
        if others_s is None:
            others_s = _OTHERS_S if is_shared(self._record) else 0.0
        await self._lines.close()
        listed = ListedKeys(self._results.lines)
        n_all = 0
        while rows := await self._left_over(others_s):
            there = await asyncio.to_thread(listed.read_on)
            lines = [await self._line_of(row) for row in rows if row.key not in there]
            n_all += await asyncio.to_thread(self._results.append_missing, lines, listed)
            await self._ledger.reported([row.key for row in rows])
        return n_all

    async def _left_over(self, others_s: float) -> Sequence[Row]:
        """Items without a line, by the ledger, that nobody is just about to write."""
        rows = await self._ledger.unreported(_ROWS_AT_ONCE)
        if rows and others_s:
            await asyncio.sleep(others_s)
            still = {row.key for row in await self._ledger.unreported(_ROWS_AT_ONCE)}
            rows = [row for row in rows if row.key in still]
        return rows

    async def _line_of(self, row: Row) -> dict[str, Any]:
        """The line of an ended item, whose result is written where the ledger ended it by itself."""
        stored = (await asyncio.to_thread(self._results.document, row.digest)).get("items", {}).get(row.key)
        if stored is None or stored["state"] != row.state:
            stored = {**entry_of_row(row), "batch": self._record.batch_id}
            told = {"digest": row.digest, "sources": list(row.sources)}
            await asyncio.to_thread(self._results.save, row.digest, told, {row.key: stored})
        return line_of(stored, row.digest, row.sources)

    async def _kept(
        self,
        job: Job,
        item: LeasedItem,
        entry_of: Callable[[], dict[str, Any]],
        spent: Spending,
        *,
        chars: int = 0,
        **changes: object,
    ) -> dict[str, Any]:
        """What `entry_of` gives, which goes through `chars` of text, with `changes`: in the document's file, the ledger
        and the list."""
        lease = job.lease
        told = {"digest": lease.digest, "sources": list(lease.sources), **job.told}

        entry = {**await off_loop(entry_of, chars), **changes, "batch": self._record.batch_id}
        async with job.writing:
            await asyncio.to_thread(self._results.save, lease.digest, told, {item.key: entry})
        # The ledger first: it refuses what somebody else has taken over, and then there is no second line.
        if await self._told(job, outcome_of(entry, item, spent)):
            await self._lines.add(item.key, line_of(entry, lease.digest, lease.sources))
        return entry

    async def _told(self, job: Job, outcome: Outcome) -> bool:
        """Whether the ledger has taken it."""
        if not await self._ledger.record(job.lease, [outcome]):
            job.lost = True
            return False
        job.open.pop(outcome.key, None)
        job.worked.states[outcome.state] += 1
        if outcome.kind is not None:
            job.worked.kinds[outcome.kind] += 1
        job.worked.spent = plus(job.worked.spent, outcome.spent)
        return True

    def _is_run_elsewhere(self, run_id: str) -> bool:
        return self._runs.has(run_id) and self._runs.get(run_id).state == "running"


def _may_pass(error: CoaError) -> bool:
    """Whether another try may go better. A reply of no use may: servers and samplers have their moods."""
    if isinstance(error, ModelError):
        return error.retryable or isinstance(error, BadOutput | ContentRefused)
    return isinstance(error, RemoteUnavailable)


def _removed(folders: Sequence[Path]) -> None:
    """Blocking."""
    for folder in folders:
        try:
            for file in folder.iterdir():  # shutil takes four times as long for a few files
                file.unlink()
            folder.rmdir()
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)


def even_shares(limits: SpendingLimits, items: Sequence[LeasedItem]) -> SpendingLimits:
    """What each of `items` may take of a document's budget."""
    n = len(items)
    return SpendingLimits(
        None if limits.max_calls is None else max(1, limits.max_calls // n),
        None if limits.max_tokens is None else max(1, limits.max_tokens // n),
        None if limits.max_cost_usd is None else limits.max_cost_usd / n,
    )


def _largest(limits: Sequence[SpendingLimits]) -> SpendingLimits:
    """The least that allows each of `limits`; they are about one document and hardly differ."""
    calls = [limit.max_calls for limit in limits if limit.max_calls is not None]
    tokens = [limit.max_tokens for limit in limits if limit.max_tokens is not None]
    costs = [limit.max_cost_usd for limit in limits if limit.max_cost_usd is not None]
    return SpendingLimits(max(calls, default=None), max(tokens, default=None), max(costs, default=None))
