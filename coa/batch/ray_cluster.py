"""A Ray cluster, joined or started; the only module that imports Ray, and only when it is used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from coa.batch.driving import Driven
from coa.batch.placed_worker import PlacedWorker, WorkerPlace, WorkOrder
from coa.batch.watching import Cluster, Placed, WorkerLost
from coa.errors import CoaError, ConfigError

__all__ = ["RayFailed", "joined_cluster"]

_CPUS_OF_ACTOR = 0.25
"""An actor waits for models most of the time; documents are parsed in processes of their own."""
_CONNECT_S = 10.0
_FOLDER = "coa-ray-"
_OBJECT_STORE_BYTES = 100_000_000
"""Of a cluster that we start: nothing is kept in it."""


class RayFailed(CoaError):
    """The Ray cluster cannot be reached."""


@contextlib.contextmanager
def joined_cluster(address: str | None) -> Iterator[Cluster]:
    """The cluster at `address` (RAY_ADDRESS where None; "auto" for one on this machine), or one started for as long
    as this context lasts where neither is given. One that the process has joined before is used as it is.

    Raises: ConfigError where Ray is not installed, RayFailed where the cluster does not answer.
    """
    ray = _imported()
    if ray.is_initialized():
        yield _RayCluster(ray)
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    with contextlib.ExitStack() as stack:
        settings: dict[str, Any] = {"address": address}
        if address is None:
            os.environ.setdefault("RAY_worker_niceness", "0")  # 15 without it: the actors are what works here
            folder = _own_folder()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            settings = {
                "address": "local",
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_temp_dir": folder,
            }
        else:
            _check_reachable(address)
        try:
            with _handler_kept(), contextlib.redirect_stdout(sys.stderr):
                ray.init(**settings, namespace="coa", log_to_driver=False, configure_logging=False)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            where = "could not be started" if address is None else f"at {address} does not answer"
            raise RayFailed(f"the Ray cluster {where} ({_first_line(error)}).", hint="Check `ray status`.") from error
        stack.callback(ray.shutdown)
        stack.enter_context(_quiet(ray))
        yield _RayCluster(ray)


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Ray prints the deaths of actors on standard output, which is for results; we tell of them ourselves."""
    worker, switch = ray._private.worker, "_worker_logs_enabled"
    before = getattr(worker, switch, True)
    setattr(worker, switch, False)
    try:
        yield
    finally:
        setattr(worker, switch, before)


def _check_reachable(address: str) -> None:
    """Raises RayFailed where nobody listens; Ray itself would try for minutes, and then end the process."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not port.isdecimal():
        return  # "auto", "local"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RayFailed(f"the Ray cluster at {address} does not answer ({reason}).", hint="Check its head.") from error


def _own_folder() -> str:
    """A folder for the cluster's logs and sockets; those of processes that were killed are removed."""
    # A socket's path may have 107 bytes, and the system's own folder may be too deep for that.
    home = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())  # noqa: S108
    for left in home.glob(f"{_FOLDER}*"):
        pid = left.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=home)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _imported() -> Any:
    """The module ray. Raises: ConfigError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes out but what the user asked for
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        with _handler_kept():
            import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray.", hint="pip install 'coa-orchestrator[ray]' brings it.") from error
    return ray


@contextlib.contextmanager
def _handler_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place of the one that drains a batch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _RayCluster:
    def __init__(self, ray: Any) -> None:
        self._ray = ray

    @property
    def hint(self) -> str:
        return "The Ray logs of their nodes tell why"

    def place(self, order: WorkOrder) -> Placed:
        # Ray would start a dead actor again by itself, under its old name in the ledger: that is the driver's part.
        options = {"num_cpus": _CPUS_OF_ACTOR, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        return _RayActor(self._ray, self._ray.remote(PlacedWorker).options(**options).remote(order))


class _RayActor:
    def __init__(self, ray: Any, handle: Any) -> None:
        self._ray = ray
        self._handle = handle

    async def place(self) -> WorkerPlace:
        return cast("WorkerPlace", await self._asked(self._handle.place.remote()))

    async def run(self) -> Driven:
        return cast("Driven", await self._asked(self._handle.run.remote()))

    async def stop(self, reason: str) -> None:
        await self._asked(self._handle.stop.remote(reason))

    def kill(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(self._handle)

    async def _asked(self, reference: Any) -> Any:
        try:
            return await asyncio.wrap_future(reference.future())
        except self._ray.exceptions.RayTaskError as error:
            raise RayFailed(f"an actor failed: {_first_line(error.cause or error)}.") from error
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
