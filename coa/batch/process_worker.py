"""A process that works on a batch for a driver on the same machine: `python -m coa.batch.process_worker FD [LOCK]`.

FD is the socket to the driver. When it is closed the process ends at once, so that none outlives its driver.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from coa.api import StopSignal
from coa.batch.driving import Driven
from coa.batch.ledger import Lease
from coa.batch.placed_worker import PlacedWorker, WorkerPlace, WorkOrder
from coa.batch.processing import Worked
from coa.llm.litellm_model import load_litellm
from coa.llm.rates import Grant, RateLimit, set_local_limiter

__all__ = ["main"]

_DRIVER_GONE = 70


class _Driver:
    """The driver, as its process sees it; also the `RateLimiter` that it shares with the others."""

    def __init__(self, connection: Connection, *, gone: Callable[[int], object] = os._exit) -> None:
        """`gone` is called, on any thread, when the driver is."""
        self._connection = connection
        self._gone = gone
        self._sending = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._grants: dict[int, asyncio.Future[Grant]] = {}
        self.order: asyncio.Future[tuple[WorkOrder, int]] = self._loop.create_future()
        self.stop = StopSignal()
        self.working = False
        threading.Thread(target=self._listen, daemon=True, name="coa-driver").start()

    def tell(self, *message: Any) -> None:
        """Sends; from any thread."""
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:
                self._gone(_DRIVER_GONE)

    def on_work(self, lease: Lease, worked: Worked | None) -> None:
        """Tells of a document that is begun or over."""
        self.tell("work", lease, worked)

    async def book(self, limits: Sequence[RateLimit], tokens: int) -> Grant:
        """See `RateLimiter`."""
        number = next(self._numbers)
        self._grants[number] = self._loop.create_future()
        try:
            self.tell("book", number, tuple(limits), tokens)
            return await self._grants[number]
        except asyncio.CancelledError:
            given_up = self._grants[number]
            if given_up.done() and not given_up.cancelled():
                self.tell("settle", given_up.result(), None)
            raise
        finally:
            del self._grants[number]

    async def settle(self, grant: Grant, tokens: int | None) -> None:
        """See `RateLimiter`."""
        if grant.limits:
            self.tell("settle", grant, tokens)

    async def close(self) -> None:
        """See `RateLimiter`."""

    def _listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                self._gone(_DRIVER_GONE)
                return
            self._loop.call_soon_threadsafe(self._take, *message)

    def _take(self, kind: str, *told: Any) -> None:
        match kind:
            case "order":
                self.order.set_result((told[0], told[1]))
            case "stop":
                self.stop.request(told[0])
                if not self.working:  # what is being loaded is of no more use
                    self.tell("ended", Driven("stopped"))
            case "grant":
                self._granted(*told)

    def _granted(self, number: int, grant: Grant) -> None:
        waiting = self._grants.get(number)
        if waiting is None or waiting.done():
            self.tell("settle", grant, None)  # for a call that is not made any more
        else:
            waiting.set_result(grant)


class _Told(logging.Handler):
    """Has the driver log what is logged here."""

    def __init__(self, driver: _Driver) -> None:
        super().__init__()
        self._driver = driver

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self._driver.tell("log", record)


def _load() -> None:
    """What takes seconds to import."""
    from coa.graphs import running  # noqa: F401

    load_litellm()


async def _work(connection: Connection) -> None:
    driver = _Driver(connection)
    driver.tell("placed", WorkerPlace(socket.gethostname(), os.getpid()))
    await asyncio.to_thread(_load)
    order, level = await driver.order
    logger = logging.getLogger("coa")
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(_Told(driver))
    set_local_limiter(driver)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, driver.stop.request, "SIGTERM")
    worker = PlacedWorker(order, stop=driver.stop, on_work=driver.on_work)
    driver.working = True
    driver.tell("ended", await worker.run())


def main(arguments: Sequence[str] | None = None) -> int:
    """Works until the driver has no more use for it."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal tells all its processes; the driver passes it on
        signal.signal(number, signal.SIG_IGN)
    descriptor, *locks = map(int, sys.argv[1:] if arguments is None else arguments)
    for held in (descriptor, *locks):
        os.set_inheritable(held, False)
    asyncio.run(_work(Connection(descriptor)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
