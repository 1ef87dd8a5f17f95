"""A batch worked on by several processes of this machine, over its ledger in a file or in Redis.

Each is a clean interpreter that is told everything over a socket and ends when that is closed: with the driver,
however it dies. The driver watches (`coa.batch.watching`), keeps the rates of calls for all of them, and holds the
lock of a ledger in a file, which its processes hold open: another driver waits until the last of them is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from coa.batch.driving import Driven, OnWork, Patience
from coa.batch.items import Worked
from coa.batch.ledger import Lease, Ledger
from coa.batch.placed_worker import WorkerPlace, WorkOrder
from coa.batch.record import BatchRecord
from coa.batch.watching import WorkerLost, watch_workers
from coa.config import Settings
from coa.errors import ConfigError
from coa.llm.gateway import models_named
from coa.llm.opening import starts_engine
from coa.llm.rates import RateLimit, local_limiter
from coa.stopping import StopSignal

__all__ = ["Processes", "drive_in_processes", "n_processes_of", "started_processes"]

_CALLS_OF_PROCESS = 32
"""For "auto": what a process can well keep under way; more of them take no more calls, and memory each."""
_ENDS_WITHIN_S = 10.0


def n_processes_of(record: BatchRecord, present: Settings) -> int:
    """How many processes the batch is to be worked on by; 1 is the driver itself.

    Raises: ConfigError where coa serves the batch's model itself, which each process would load anew.
    """
    wanted = record.extra.get("processes") or 1
    settings = [record.settings_of(config, present) for config in record.configs]
    if wanted == "auto":
        if any(_served_here(one) for one in settings):
            return 1
        calls = settings[0].max_parallel_calls
        return max(1, min(os.cpu_count() or 1, calls // _CALLS_OF_PROCESS))
    served = [name for one in settings for name in _served_here(one)] if int(wanted) > 1 else []
    if served:
        raise ConfigError(
            f"--processes {wanted}: coa serves {served[0]!r} itself, and each process would load it anew.",
            hint="Leave --processes out: the model's engine takes all there is of the machine already.",
        )
    return int(wanted)


def _served_here(settings: Settings) -> list[str]:
    main, roles = models_named(settings)
    return [name for name in dict.fromkeys([main, *roles.values()]) if starts_engine(name, settings)]


async def drive_in_processes(
    processes: Processes,
    record: BatchRecord,
    present: Settings,
    ledger: Ledger,
    *,
    n_processes: int,
    stop: StopSignal,
    on_work: OnWork | None = None,
    patience: Patience | None = None,
) -> Driven:
    """As `drive`, with processes in place of this one; documents and calls at once are shared out among them.

    Raises: WorkersFailed where they die again and again.
    """
    processes.on_work = on_work
    return await watch_workers(processes, record, present, ledger, n_workers=n_processes, stop=stop, patience=patience)


@contextlib.contextmanager
def started_processes(n: int, *, lock: int | None) -> Iterator[Processes]:
    """Processes that begin to load what they need, `n` of them; killed at the end. On an event loop.

    `lock` is the number of an open file that each of them holds open as long as it lives.
    """
    processes = Processes(lock)
    try:
        processes.prepare(n)
        yield processes
    finally:
        processes.close()


class Processes:
    """Processes of this machine, as a `Cluster`."""

    hint = "What they wrote on standard error tells why"

    def __init__(self, lock: int | None) -> None:
        self._lock = lock
        self._spare: list[_Process] = []
        self._all: list[_Process] = []
        self.on_work: OnWork | None = None

    def prepare(self, n: int) -> None:
        """Starts processes that will be placed later."""
        self._spare += [self._started() for _ in range(n)]

    def place(self, order: WorkOrder) -> _Process:
        """See `Cluster`; raises OSError where the machine has no room for another process."""
        process = self._spare.pop(0) if self._spare else self._started()
        process.begin(order, self.on_work)
        return process

    def close(self) -> None:
        """Kills all of them, and waits until they are gone."""
        for process in self._all:
            process.kill()
        for process in self._all:
            process.wait()
        self._all.clear()

    def _started(self) -> _Process:
        process = _Process(self._lock)
        self._all = [*(other for other in self._all if not other.gone), process]
        return process


class _Process:
    def __init__(self, lock: int | None) -> None:
        ours, theirs = socket.socketpair()
        passed = (theirs.fileno(), *(() if lock is None else (lock,)))
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "coa.batch.process_worker", *map(str, passed)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # it is for results, which are the driver's to print
                pass_fds=passed,
                env=_environment(),
            )
        self._connection = Connection(ours.detach())
        self._loop = asyncio.get_running_loop()
        self._placed: asyncio.Future[WorkerPlace] = self._loop.create_future()
        self._ended: asyncio.Future[Driven] = self._loop.create_future()
        self._leases: dict[int, Lease] = {}
        self._on_work: OnWork | None = None
        self._booking: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._connection.fileno(), self._received)

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def begin(self, order: WorkOrder, on_work: OnWork | None) -> None:
        """Gives it its work."""
        self._on_work = on_work
        level = logging.getLogger("coa").getEffectiveLevel()
        with contextlib.suppress(WorkerLost):  # told to whoever asks for its place
            self._send("order", order, level)

    async def place(self) -> WorkerPlace:
        return await asyncio.shield(self._placed)

    async def run(self) -> Driven:
        return await asyncio.shield(self._ended)

    async def stop(self, reason: str) -> None:
        self._send("stop", reason)

    def kill(self) -> None:
        if not self._connection.closed:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
        self._process.kill()
        for future in (self._placed, self._ended):
            future.cancel()

    def wait(self) -> None:
        """Until it is gone, after `kill`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDS_WITHIN_S)

    def _send(self, *message: Any) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise WorkerLost(self._last_words()) from error

    def _received(self) -> None:
        try:
            kind, *told = self._connection.recv()
            self._take(kind, told)
        except Exception as error:  # whatever it sent, it is of no use any more
            self._is_lost(error)

    def _take(self, kind: str, told: list[Any]) -> None:
        match kind:
            case "placed":
                self._placed.set_result(told[0])
            case "ended" if not self._ended.done():
                self._ended.set_result(told[0])
            case "work":
                self._worked(*told)
            case "log":
                logging.getLogger(told[0].name).handle(told[0])
            case "book":
                task = self._loop.create_task(self._book(*told))
                self._booking.add(task)
                task.add_done_callback(self._booking.discard)
            case "settle":
                task = self._loop.create_task(local_limiter().settle(*told))
                self._booking.add(task)
                task.add_done_callback(self._booking.discard)

    def _worked(self, lease: Lease, worked: Worked | None) -> None:
        if worked is None:
            self._leases[lease.token] = lease
        else:
            self._leases.pop(lease.token, None)
        if self._on_work is not None:
            self._on_work(lease, worked)

    async def _book(self, number: int, limits: tuple[RateLimit, ...], tokens: int) -> None:
        grant = await local_limiter().book(limits, tokens)
        with contextlib.suppress(WorkerLost):
            self._send("grant", number, grant)

    def _is_lost(self, error: Exception) -> None:
        self._loop.remove_reader(self._connection.fileno())
        self._connection.close()
        self._process.kill()
        self._process.wait()
        lost = WorkerLost(self._last_words())
        lost.__cause__ = error
        for future in (self._placed, self._ended):
            if not future.done():
                future.set_exception(lost)
                future.exception()  # nobody may ever ask
        leases, self._leases = self._leases, {}
        for lease in leases.values():
            self._worked(lease, Worked(lease))

    def _last_words(self) -> str:
        code = self._process.poll()
        if code is None:
            return f"process {self._process.pid} does not answer"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"process {self._process.pid} ended with {how}"


def _environment() -> dict[str, str]:
    """Ours, with the import path of this process."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([root, *(p for p in sys.path if p)]))}
