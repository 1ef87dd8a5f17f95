"""Reading a document in a process of its own, so that no file can crash, hang or fill up the caller's."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import coa.errors
from coa.documents.limits import DEFAULT_LIMITS, ReadingLimits
from coa.documents.reader import parse_document
from coa.documents.signatures import kind_of, not_text
from coa.documents.sources import load
from coa.documents.worker import receive, send
from coa.errors import CoaError, DocumentError, DocumentTooLarge
from coa.types import Document, LeftOut, Place, Section, Span

__all__ = ["ReaderFailed", "end_workers", "read_document_isolated"]

# Text below this size is read in place: decoding it and looking for headings harms nobody.
_IN_PLACE_BYTES = 1_000_000
_MOST_IDLE = 2
_START_S = 60.0
# What the worker has on top of a document's own seconds to send it.
_GRACE_S = 5.0
_STDERR_TAIL = 4000
_ABORTS = (-signal.SIGABRT, -signal.SIGTRAP, -signal.SIGILL, -signal.SIGSEGV)
_STARVED_RATIO = 0.25
# API keys in the environment are no business of a process that reads strangers' files.
_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "XDG_CACHE_HOME",
    "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS", "MALLOC_ARENA_MAX",
    "DOCLING_ARTIFACTS_PATH", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE",
)  # fmt: skip


class ReaderFailed(Exception):
    """What became of the process that read: its signal or traceback. The cause of a `DocumentError`."""


class _UsedWorkerDied(Exception):
    """A worker that had read other documents before is gone."""


def read_document_isolated(
    source: str | Path | bytes | BinaryIO,
    *,
    name: str | None = None,
    encoding: str | None = None,
    max_bytes: int = 50_000_000,
    limits: ReadingLimits = DEFAULT_LIMITS,
    reader: str | None = None,
) -> Document:
    """The document that `source` holds, as `coa.documents.read_document` gives it.

    Everything but small plain text is read in a worker process, which is killed when it takes longer than
    `limits.max_seconds`, and cannot take more memory than `limits.max_memory_bytes`. Workers are used again; may
    be called from several threads at once.

    Raises as `read_document`; also DocumentTooLarge where time or memory ran out, and DocumentError where the
    reader crashed, with a `ReaderFailed` as its cause.
    """
    request: dict[str, Any] = {
        "path": None,
        "name": name,
        "encoding": encoding,
        "reader": reader,
        "max_bytes": max_bytes,
        "limits": asdict(limits),
    }
    path = Path(source) if isinstance(source, (str, Path)) else None
    if path is not None and _is_left_to_worker(path, min(max_bytes, limits.max_bytes)):
        request |= {"path": str(path.absolute()), "name": name or (path.resolve() if path.is_dir() else path).name}
        return _read(request, b"", limits)
    data, label = load(source, name=name, max_bytes=min(max_bytes, limits.max_bytes))
    if reader is None and _is_harmless(data):
        return parse_document(data, name=label, encoding=encoding, limits=limits)
    return _read(request | {"name": label}, data, limits)


def end_workers() -> None:
    """Ends the workers that wait for documents; the next document starts a new one."""
    with _lock:
        ended = [*_idle]
        _idle.clear()
    for worker in ended:
        worker.end()


def _is_left_to_worker(path: Path, max_bytes: int) -> bool:
    """True for folders and for large files, whose bytes the caller's process need not hold."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    large = stat.S_ISREG(status.st_mode) and _IN_PLACE_BYTES < status.st_size <= max_bytes
    return stat.S_ISDIR(status.st_mode) or (large and os.access(path, os.R_OK))


def _is_harmless(data: bytes) -> bool:
    if len(data) > _IN_PLACE_BYTES or kind_of(data) is not None:
        return False
    return not_text(data) is None or not entry_points(group="coa.readers")


def _read(request: dict[str, Any], data: bytes, limits: ReadingLimits) -> Document:
    label = request["name"]
    try:
        header, payload = _reply(request, data, limits, fresh=False)
    except _UsedWorkerDied:
        # What an earlier document left behind, or somebody who killed an idle process: no fault of this file.
        header, payload = _reply(request, data, limits, fresh=True)
    if "error" in header:
        raise _told(header, label, limits)
    return _unpacked(header["document"], payload)


def _reply(
    request: dict[str, Any], data: bytes, limits: ReadingLimits, *, fresh: bool
) -> tuple[dict[str, Any], bytearray]:
    label = request["name"]
    with _worker(fresh=fresh) as worker:
        used = worker.used
        try:
            return worker.ask(request, data, limits)
        except TimeoutError as exc:
            raise _took_too_long(label, limits) from exc
        except (EOFError, OSError) as exc:
            if used:
                raise _UsedWorkerDied from exc
            error = _crashed(worker, label, limits)
            raise error from (error.__cause__ or exc)
        except ValueError as exc:
            raise DocumentError(f"{label} could not be read: the reader's reply is broken.") from exc


def _took_too_long(label: str, limits: ReadingLimits) -> DocumentTooLarge:
    return DocumentTooLarge(
        f"{label} takes more than {limits.max_seconds:g} seconds to read.",
        hint="Split it, or raise max_seconds in the setting reading_limits.",
    )


def _took_too_much(label: str, limits: ReadingLimits) -> DocumentTooLarge:
    return DocumentTooLarge(
        f"{label} takes more than {limits.max_memory_bytes / 1e6:,.0f} MB of memory to read.",
        hint="Split it, or raise max_memory_bytes in the setting reading_limits.",
    )


def _crashed(worker: _Worker, label: str, limits: ReadingLimits) -> DocumentError:
    code, said, held = worker.post_mortem()
    if code == -signal.SIGXCPU:
        return _took_too_long(label, limits)
    # Native code ends the process where it gets no memory, and seldom says why.
    starved = code in _ABORTS and held > _STARVED_RATIO * limits.max_memory_bytes
    if starved or "MemoryError" in said or "bad_alloc" in said:
        return _took_too_much(label, limits)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    error = DocumentError(
        f"{label} made the reader crash ({how}): the file is damaged or hostile.", hint="Save it anew, or convert it."
    )
    error.__cause__ = ReaderFailed(f"{how}\n{said}".strip())
    return error


def _told(header: dict[str, Any], label: str, limits: ReadingLimits) -> CoaError:
    """The error that the worker reports."""
    kind = header["error"]
    if kind == "MemoryError":
        return _took_too_much(label, limits)
    known = getattr(coa.errors, kind, None) if kind in coa.errors.__all__ else None
    if isinstance(known, type) and issubclass(known, CoaError):
        return known(str(header["message"]), hint=header["hint"])
    error = DocumentError(
        f"{label} could not be read: the reader failed ({header.get('message', kind)}).",
        hint="The file is damaged, or coa has a bug: please report it.",
    )
    error.__cause__ = ReaderFailed(header.get("trace", ""))
    return error


def _unpacked(fields: dict[str, Any], text: bytearray) -> Document:
    fields["text"] = text.decode("utf-8")
    fields["sections"] = tuple(Section(**{**s, "span": Span(*s["span"])}) for s in fields["sections"])
    fields["left_out"] = tuple(LeftOut(**{**p, "span": Span(*p["span"])}) for p in fields["left_out"])
    fields["places"] = tuple(Place(**{**p, "span": Span(*p["span"])}) for p in fields["places"])
    fields["warnings"] = tuple(fields["warnings"])
    return Document(**fields)


class _Ending(NamedTuple):
    """How a process ended."""

    code: int
    """Negative for a signal."""
    said: str
    """The end of what it wrote on standard error."""
    held: int
    """The most memory it held at a time, in bytes."""


class _Worker:
    """A worker process and the socket to it."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-X", "faulthandler", "-m", "coa.documents.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                start_new_session=True,
            )
        self._ready = False

    def ask(self, request: dict[str, Any], data: bytes, limits: ReadingLimits) -> tuple[dict[str, Any], bytearray]:
        """The worker's reply. Raises TimeoutError, EOFError, OSError or ValueError; the worker is of no use then."""
        if not self._ready:
            receive(self._connection, max_bytes=1000, deadline=time.monotonic() + _START_S)
            self._ready = True
        deadline = time.monotonic() + limits.max_seconds + _GRACE_S
        self._connection.settimeout(limits.max_seconds + _GRACE_S)
        try:
            send(self._connection, request, data)
            header, payload = receive(
                self._connection, max_bytes=8 * limits.max_unpacked_bytes + (1 << 20), deadline=deadline
            )
        finally:
            self._ready = False
        self._ready = not header.pop("retire", False)
        return header, payload

    @property
    def used(self) -> bool:
        """True where the worker has read a document before."""
        return self._ready

    @property
    def usable(self) -> bool:
        """True where the worker waits for the next document."""
        return self._ready and self._process.poll() is None

    def post_mortem(self) -> _Ending:
        """How the process ended; it is killed where it has not."""
        deadline = time.monotonic() + _GRACE_S
        killed = False
        while True:
            pid, status, used = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline and not killed:
                self._process.kill()
                killed = True
            time.sleep(0.005)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _STDERR_TAIL))
        said = self._stderr.read().decode("utf-8", errors="replace")
        unit = 1 if sys.platform == "darwin" else 1024
        return _Ending(self._process.returncode, said, used.ru_maxrss * unit)

    def end(self) -> None:
        """Kills the process, if it lives, and frees what belongs to it."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._stderr.close()


def _environment() -> dict[str, str]:
    kept = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    root = str(Path(__file__).resolve().parents[2])
    return kept | {"PYTHONPATH": os.pathsep.join(dict.fromkeys([root, *(p for p in sys.path if p)]))}


_idle: list[_Worker] = []
_lock = threading.Lock()


@contextmanager
def _worker(*, fresh: bool) -> Iterator[_Worker]:
    """A worker for one document: one that waits, unless a `fresh` one is wanted, else a new one."""
    with _lock:
        worker = _idle.pop() if _idle and not fresh else None
    if worker is not None and not worker.usable:
        worker.end()
        worker = None
    if worker is None:
        worker = _Worker()
    try:
        yield worker
    finally:
        with _lock:
            kept = worker.usable and len(_idle) < _MOST_IDLE
            if kept:
                _idle.append(worker)
        if not kept:
            worker.end()


def _forget() -> None:
    """In a forked child: the workers are the parent's."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _idle.clear()


atexit.register(end_workers)
with contextlib.suppress(AttributeError):
    os.register_at_fork(after_in_child=_forget)
