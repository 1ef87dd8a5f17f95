"""The list of results, written by many items side by side: those that end together are written together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from coa.batch.ledger import Ledger
from coa.batch.results import ResultFolder

__all__ = ["ResultLines"]


class _Line(NamedTuple):
    key: str
    row: Mapping[str, Any]
    written: asyncio.Future[None]


class ResultLines:
    """Adds lines to the list; for one event loop."""

    def __init__(self, results: ResultFolder, ledger: Ledger) -> None:
        self._results = results
        self._ledger = ledger
        self._waiting: list[_Line] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Adds an item's line; on the disk, and reported to the ledger, when it returns.

        While some are written others wait, and go to the disk at once. Raises: StorageError, CacheError.
        """
        line = _Line(key, row, asyncio.get_running_loop().create_future())
        self._waiting.append(line)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await line.written

    async def close(self) -> None:
        """Waits for what is being written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        try:
            while self._waiting:
                lines, self._waiting = self._waiting, []
                error: BaseException | None = None
                try:
                    await asyncio.to_thread(self._results.append, [line.row for line in lines])
                    await self._ledger.reported([line.key for line in lines])
                except BaseException as found:  # whatever it is: who waits for a line must not wait for ever
                    error = found
                if isinstance(error, asyncio.CancelledError):
                    lines, self._waiting = [*lines, *self._waiting], []
                for line in lines:
                    if line.written.done():  # nobody waits for it any more
                        continue
                    if error is None:
                        line.written.set_result(None)
                    elif isinstance(error, asyncio.CancelledError):
                        line.written.cancel()
                    else:
                        line.written.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise error
        finally:
            self._writing = None
