"""Reading a batch's documents, each in a process that may be killed."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from coa.batch.ledger import Lease, Ledger
from coa.batch.remote import fetch, is_url, name_of
from coa.batch.sources import local_stamp
from coa.config import Settings
from coa.documents.isolation import read_document_isolated
from coa.errors import DocumentError
from coa.types import Document

__all__ = ["DocumentChanged", "DocumentReader"]


class DocumentChanged(DocumentError):
    """The source is no longer what it was when it was added: its result would stand under another's digest."""


class DocumentReader:
    """Reads documents in threads of its own, as many at once as there are cores: a file that takes its whole time
    limit holds up no run's notes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="coa-batch-read")

    async def read(self, lease: Lease, ledger: Ledger) -> Document:
        """The leased document, from the first of its sources that can be read.

        Raises: DocumentError, the first source's; DocumentChanged, RemoteUnavailable.
        """
        failed: DocumentError | None = None
        for source in lease.sources:
            try:
                return await self._read(source, ledger)
            except DocumentError as error:
                failed = failed or error
        assert failed is not None  # noqa: S101 - a lease has a source
        raise failed

    def close(self) -> None:
        """Waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _read(self, source: str, ledger: Ledger) -> Document:
        loop, settings = asyncio.get_running_loop(), self._settings
        known = await ledger.known(source)
        data: str | bytes = source
        if is_url(source):
            fetching = partial(fetch, source, max_bytes=settings.max_document_bytes)
            data = await loop.run_in_executor(self._threads, fetching)
        stamp = known.stamp if known is not None and isinstance(data, str) else None
        return await loop.run_in_executor(self._threads, self._read_now, source, data, stamp)

    def _read_now(self, source: str, data: str | bytes, stamp: str | None) -> Document:
        """Blocking. `stamp` is what a file's has to be."""
        if stamp is not None and local_stamp(source) != stamp:
            raise DocumentChanged(f"{source} has changed since it was added.", hint="Start the batch again.")
        return read_document_isolated(
            data,
            name=name_of(source) if isinstance(data, bytes) else None,
            max_bytes=self._settings.max_document_bytes,
            limits=self._settings.document_limits,
            reader=self._settings.reader,
        )
