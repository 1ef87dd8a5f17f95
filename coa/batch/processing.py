"""Working on leased documents: what every engine runs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Mapping

from coa.api import StopSignal
from coa.batch.items import FATAL, ItemDesk, Job, Worked, even_shares
from coa.batch.ledger import Lease, Ledger, Spending, SpendingLimits
from coa.batch.outcomes import plus
from coa.batch.parts import WHOLE, Part
from coa.batch.reading import DocumentReader
from coa.batch.record import BatchRecord
from coa.batch.remote import RemoteUnavailable
from coa.batch.results import ResultFolder
from coa.batch.sessions import Sessions, Share
from coa.config import Settings
from coa.errors import CoaError, ConfigError
from coa.llm.turns import Turn
from coa.runs import RunStore
from coa.types import Document

__all__ = ["LEASE_S", "Desk", "Worked"]

_log = logging.getLogger(__name__)

LEASE_S = 60.0
"""How long a document is held without a sign of life."""
_SIGN_OF_LIFE_S = LEASE_S / 4
_WAITS_S = (5.0, 30.0, 120.0)
_ELSEWHERE_WAIT_S = 5.0
_BUDGET_WAIT_S = 0.5
_LIMITS_HOLD_S = 1.0
_NO_LIMITS = SpendingLimits()


class Desk:
    """Works on one leased document after the other, any number side by side; an async context manager."""

    def __init__(
        self,
        record: BatchRecord,
        present: Settings,
        ledger: Ledger,
        results: ResultFolder,
        runs: RunStore,
        *,
        part: Part = WHOLE,
    ) -> None:
        """`present` are the settings of this process, for what a record does not hold: secrets and coa's folder.
        `part` is this process's, where several work for one driver."""
        self._record = record
        self._ledger = ledger
        self._sessions = Sessions(record, present, runs, part=part)
        self._reader = DocumentReader(record.settings_of(record.config, present))
        self._items = ItemDesk(record, self._sessions, ledger, results, runs)
        self._last_limits, self._limits_at = _NO_LIMITS, -math.inf
        self._places = itertools.count()
        self._turns: set[Turn] = set()

    async def __aenter__(self) -> Desk:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.close()
        await self._items.close()
        await self._sessions.close()

    @property
    def sessions(self) -> Sessions:
        """The open models."""
        return self._sessions

    @property
    def reader(self) -> DocumentReader:
        """What reads the documents."""
        return self._reader

    async def report(self, *, others_s: float | None = None) -> int:
        """See `ItemDesk.report`."""
        return await self._items.report(others_s=others_s)

    def no_others(self) -> None:
        """There is no document to begin any more: of those in hand the ones begun last go first from now on. They have
        the most before them, and what is left of the others fits in beside their ends."""
        for turn in self._turns:
            turn.place = -abs(turn.place)

    async def work(self, lease: Lease, stop: StopSignal, progress: asyncio.Event | None = None) -> Worked:
        """What came of the lease, which is over then, whatever happens; a stop gives back what is not done.

        `progress` is set with the first chunk that is read. Raises: `FATAL` errors, and what opening the models raises.
        """
        started = time.monotonic()
        job = Job(lease, stop, Worked(lease), open={item.key: item for item in lease.items})
        job.progress = progress or job.progress
        working = asyncio.create_task(self._within_time(job))
        beating = asyncio.create_task(self._signs_of_life(job, working))
        try:
            await working
        except asyncio.CancelledError:
            if not (job.lost and working.cancelled()):
                await self._ledger.release(lease)
                raise
        except BaseException:
            with contextlib.suppress(CoaError):
                await self._ledger.release(lease)
            raise
        else:
            await self._give_back(job)
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            job.worked.seconds = time.monotonic() - started
        return job.worked

    async def _signs_of_life(self, job: Job, working: asyncio.Task[None]) -> None:
        """Keeps the lease, and tells of the first progress at once; ends the work where the lease is lost."""
        told = False
        while True:
            if told:
                await asyncio.sleep(_SIGN_OF_LIFE_S)
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(job.progress.wait(), _SIGN_OF_LIFE_S)
            progress = job.progress.is_set()
            try:
                held = await self._ledger.heartbeat(job.lease, seconds=LEASE_S, progress=progress)
            except CoaError:
                await asyncio.sleep(1)
                continue  # the next one may come through; a lease takes several
            told = told or progress
            if not held:
                job.lost = True
                working.cancel()
                return

    async def _within_time(self, job: Job) -> None:
        limit = self._record.options.max_seconds
        try:
            async with asyncio.timeout(limit):
                await self._done(job)
        except TimeoutError:
            await self._items.fail_all(job, f"took more than {limit:g} seconds.", "timeout")

    async def _give_back(self, job: Job) -> None:
        if not job.open or job.lost:
            return
        error = job.worked.passing
        if error is None:
            job.worked.drained = True
            await self._ledger.release(job.lease)
        elif isinstance(error, ConfigError):  # another process works on its run
            await self._ledger.release(job.lease, wait_s=_ELSEWHERE_WAIT_S)
        else:
            tries = max(item.tries for item in job.open.values())
            wait_s = _WAITS_S[min(tries, len(_WAITS_S) - 1)]
            await self._ledger.release(job.lease, cause=error.message, kind=type(error).__name__, wait_s=wait_s)

    async def _done(self, job: Job) -> None:
        turn = Turn(next(self._places))
        self._turns.add(turn)
        try:
            with turn.taken(), self._items.short_work():
                await self._worked_on(job)
        finally:
            self._turns.discard(turn)

    async def _worked_on(self, job: Job) -> None:
        await self._items.found_again(job)
        if not job.open or job.stop.requested:
            return
        document = await self._read(job)
        if document is None or job.stop.requested:
            return
        job.told = {"document": document.name, "document_sha256": document.sha256, "language": document.language}
        with self._sessions.reading(document):
            shares = await self._shares(job, document)
            if not shares:
                return
            try:
                await self._items.ask(job, document, shares)
            finally:
                await self._items.tidied(job)

    async def _read(self, job: Job) -> Document | None:
        """The document; None where it cannot be read, and the items are told so."""
        try:
            return await self._reader.read(job.lease, self._ledger)
        except RemoteUnavailable as error:
            for item in list(job.open.values()):
                await self._items.failed(job, item, error)
        except FATAL:
            raise
        except CoaError as error:
            await self._items.fail_all(job, str(error), type(error).__name__)
        except Exception as error:
            _log.exception("%s: unexpected %s", job.lease.sources[0], type(error).__name__)
            await self._items.fail_all(job, f"unexpected {type(error).__name__}: {error}", type(error).__name__)
        return None

    async def _limits(self) -> SpendingLimits:
        """The batch's budget, a second old at most."""
        now = time.monotonic()
        if now - self._limits_at > _LIMITS_HOLD_S:
            self._last_limits, self._limits_at = await self._ledger.limits(), now
        return self._last_limits

    async def _shares(self, job: Job, document: Document) -> Mapping[str, SpendingLimits]:
        """What each open item may take, set aside in the batch's budget; empty where there is too little left, or
        a stop came while it waited for its share."""
        each = even_shares(self._record.options.document_limits, list(job.open.values()))
        whole = await self._limits()
        if whole == _NO_LIMITS:
            return dict.fromkeys(job.open, each)
        shares: dict[str, Share] = {}
        for item in list(job.open.values()):
            try:
                shares[item.key] = await self._sessions.share(item, document, given=each, whole=whole)
            except FATAL:
                raise
            except CoaError as error:
                await self._items.failed(job, item, error, document=document)
            except Exception as error:
                _log.exception("%s: unexpected %s", job.lease.sources[0], type(error).__name__)
                cause = f"unexpected {type(error).__name__}: {error}"
                await self._items.fail_all(job, cause, type(error).__name__, items=[item])
        wanted = Spending()
        for share in shares.values():
            wanted = plus(wanted, share.wanted)
        while shares and (said := await self._ledger.reserve(job.lease, wanted)) != "granted":
            if said == "never":
                if not await self._ledger.heartbeat(job.lease, seconds=LEASE_S):  # it is said of a lost lease, too
                    job.lost = True
                    return {}
                expected = f"{wanted.calls} calls, {wanted.tokens:,} tokens" + (
                    f", ${wanted.cost_usd:.4g}" if wanted.cost_usd else ""
                )
                cause = f"the batch's budget leaves too little: up to {expected} were expected."
                await self._items.fail_all(job, cause, "budget")
                return {}
            if job.stop.requested:
                return {}
            await asyncio.sleep(_BUDGET_WAIT_S)
        return {key: share.limits for key, share in shares.items()}
