"""What the prefix cache did over many runs: counted in memory, added up in a file that all processes share.

The file is lines of JSON, each a sum of what one process counted since its last; now and then one process folds them
into one line. Appending and folding take turns by a lock that ends with its holder, and a line that a kill tore is
skipped: counts may be lost with the process that made them, but none counts twice and none is made up.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Counts", "KvStats", "Reason", "Totals", "kv_stats_file"]

_log = logging.getLogger(__name__)

_FOLD_BYTES = 64_000
_FLUSH_S = 2.0
_LOCK_S = 2.0
_MOST_NAMES = 500
"""Documents, replicas or reasons that are kept apart; of more, those counted longest ago are in the total alone."""

Reason = Literal["missed", "discarded", "refused"]
"""Of a call that found nothing to re-use; of a state that was taken out; of a state that was not taken in."""


def kv_stats_file(home: Path) -> Path:
    """Where the counts are kept below coa's folder."""
    return home / "cache" / "kv-stats.jsonl"


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums; what is not counted is 0."""

    calls: int = 0
    """With a reading prefix."""
    prompt_tokens: int = 0
    predicted_tokens: int = 0
    """Of the prompts, what the index said to be held already."""
    cached_tokens: int = 0
    """Of the prompts, what the engine did not compute for the call itself."""
    computed_tokens: int = 0
    """By the calls themselves and for them, prefilled and not."""
    restored_tokens: int = 0
    """Read from saved states."""
    ahead_tokens: int = 0
    """Computed before the call that wanted them."""
    restored: int = 0
    """States."""
    saved: int = 0
    saved_bytes: int = 0
    evicted: int = 0
    evicted_bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in _NAMES))


_NAMES = tuple(f.name for f in fields(Counts))


@dataclass
class Totals:
    """Everything that was counted."""

    since: float = 0.0
    """Unix time of the first count; 0: nothing was counted."""
    total: Counts = Counts()
    documents: dict[str, Counts] = field(default_factory=dict)
    """By sha256 of the text; the one counted last comes last."""
    replicas: dict[str, Counts] = field(default_factory=dict)
    reasons: dict[Reason, dict[str, int]] = field(default_factory=dict)
    """How often, by what happened and why."""

    def top(self, reason: Reason) -> list[tuple[str, int]]:
        """Why it happened, the most frequent first."""
        return sorted(self.reasons.get(reason, {}).items(), key=lambda pair: (-pair[1], pair[0]))

    def add(self, counts: Counts, *, document: str = "", replica: str = "") -> None:
        """Counts for the whole, and for a document and a replica where they are named."""
        self.total += counts
        for table, name in ((self.documents, document), (self.replicas, replica)):
            if name:
                table[name] = table.pop(name, Counts()) + counts

    def because(self, what: Reason, why: str, times: int = 1) -> None:
        """Counts a reason."""
        table = self.reasons.setdefault(what, {})
        table[why] = table.pop(why, 0) + times

    def merge(self, other: Totals) -> None:
        """Adds what was counted elsewhere, later."""
        self.since = min(self.since or other.since, other.since or self.since)
        self.total += other.total
        for table, more in ((self.documents, other.documents), (self.replicas, other.replicas)):
            for name, counts in more.items():
                table[name] = table.pop(name, Counts()) + counts
        for what, whys in other.reasons.items():
            for why, times in whys.items():
                self.because(what, why, times)

    def __bool__(self) -> bool:
        return bool(self.since)


class KvStats:
    """The counts of this process, on their way to the file. Made without touching the disk; safe in threads.

    `SlotFiles` and `RedisStates` count what becomes of states: saved, evicted, discarded, refused. All else is for
    who makes the calls to count. Nothing here raises.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, flush_s: float = _FLUSH_S) -> None:
        self.path = path
        self._clock = clock
        self._flush_s = flush_s
        self._lock = threading.Lock()
        self._fresh = Totals()
        self._due = 0.0
        self._writing: asyncio.Future[None] | None = None

    def add(self, counts: Counts, *, document: str = "", replica: str = "") -> None:
        """Counts, and every few seconds has a thread write down what was counted."""
        with self._lock:
            self._began().add(counts, document=document, replica=replica)
        self._write_sometimes()

    def missed(self, why: str) -> None:
        """A call found nothing to re-use."""
        self._because("missed", why)

    def discarded(self, why: str) -> None:
        """A state turned out to be of no use."""
        self._because("discarded", why)

    def refused(self, why: str) -> None:
        """A state was not taken in."""
        self._because("refused", why)

    async def flush(self) -> None:
        """Writes down what was counted; what is being written down already is waited for."""
        writing = self._writing
        if writing is not None and writing.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([writing])
        await asyncio.to_thread(self.flush_now)

    def flush_now(self) -> None:
        """As `flush`, here and now; what cannot be written down stays counted for the next time."""
        with self._lock:
            fresh, self._fresh = self._fresh, Totals()
        if not fresh:
            return
        try:
            self._append(fresh)
        except OSError as error:
            _log.debug("counts of the prefix cache are not written down: %s", error)
            with self._lock:
                fresh.merge(self._fresh)
                self._fresh = fresh

    def totals(self) -> Totals:
        """Everything that was written down, and what this process has not written down yet."""
        found = _read(self.path)
        with self._lock:
            found.merge(self._fresh)
        return found

    def clear(self) -> None:
        """Begins anew."""
        with self._lock:
            self._fresh = Totals()
        if self.path.exists():
            with contextlib.suppress(OSError), self._alone():
                self.path.unlink(missing_ok=True)

    def _began(self) -> Totals:
        if not self._fresh:
            self._fresh.since = self._clock()
        return self._fresh

    def _because(self, what: Reason, why: str) -> None:
        with self._lock:
            self._began().because(what, why)
        self._write_sometimes()

    def _write_sometimes(self) -> None:
        """A loop's thread writes no file itself; without a loop, `flush_now` is the caller's."""
        now = time.monotonic()
        if now < self._due or (self._writing is not None and not self._writing.done()):
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._due = now + self._flush_s
        with contextlib.suppress(RuntimeError):  # a loop that is being closed
            self._writing = loop.run_in_executor(None, self.flush_now)

    def _append(self, fresh: Totals) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = _line(fresh)
        with self._alone():
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                line = b"\n" + line if torn else line
                if os.write(handle, line) < len(line):
                    os.ftruncate(handle, size)
                    raise OSError("the disk is full")
            finally:
                os.close(handle)
            if size + len(line) > _FOLD_BYTES:
                self._fold()

    def _fold(self) -> None:
        """One line in place of all; a crash leaves the one file or the other."""
        whole = _read(self.path)
        tables: list[dict[str, Any]] = [whole.documents, whole.replicas, *whole.reasons.values()]
        for table in tables:
            for name in list(table)[: max(0, len(table) - _MOST_NAMES)]:
                del table[name]
        folded = self.path.with_name(f".{self.path.name}.folded")
        with folded.open("wb") as file:
            file.write(_line(whole))
            file.flush()
            os.fsync(file.fileno())
        folded.replace(self.path)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes out. Raises: OSError when one of them takes too long."""
        handle = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
            yield
        finally:
            os.close(handle)


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    counted: Totals


def _line(totals: Totals) -> bytes:
    return _Line(format=1, counted=totals).model_dump_json(exclude_defaults=True).encode() + b"\n"


def _read(path: Path) -> Totals:
    """The sum of a file's lines; a line that is torn, or not of this form, counts for nothing."""
    whole = Totals()
    try:
        data = path.read_bytes()
    except OSError:
        return whole
    for line in data.splitlines():
        with contextlib.suppress(ValidationError):
            whole.merge(_Line.model_validate_json(line).counted)
    return whole
