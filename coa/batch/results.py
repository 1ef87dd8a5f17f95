"""The results of a batch, in a folder of the user's:

    documents/<2 digits>/<digest>.json   one a document, with all its items by key; replaced whole
    results.jsonl                        a line for each item, as it ends; of two with one key the last counts
    summary.json                         counts, tokens, cost, the slowest, failures by cause
    batch.json                           which batch it is

Several processes may write: lines are added under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from coa.errors import StorageError
from coa.run_files import append_lines, json_in_lines, read_json, storage_errors, write_atomically

__all__ = ["ListedKeys", "ResultFolder"]


class ResultFolder:
    """The folder of results; made when the first is written. Blocking."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.lines = out / "results.jsonl"
        self.summary = out / "summary.json"

    def path(self, digest: str) -> Path:
        """Where the results of a document are."""
        return self.out / "documents" / digest[:2] / f"{digest}.json"

    def document(self, digest: str) -> dict[str, Any]:
        """All that is kept of a document, its items by key under "items"; empty where there is nothing yet, or
        nothing that can be read."""
        path = self.path(digest)
        if not path.exists():
            return {}
        try:
            return read_json(path)
        except StorageError:
            return {}  # damaged: what it held is done again

    def save(self, digest: str, told: Mapping[str, Any], items: Mapping[str, Mapping[str, Any]]) -> None:
        """Keeps what became of items, beside those kept before; `told` is of the document. Raises: StorageError."""
        before = self.document(digest)
        merged = {**before, **told, "items": {**before.get("items", {}), **items}}
        write_atomically(self.path(digest), json_in_lines(merged))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines; on the disk when it returns. Raises: StorageError."""
        with self._locked():
            append_lines(self.lines, rows)

    def append_missing(self, rows: Sequence[Mapping[str, Any]], listed: ListedKeys | None = None) -> int:
        """The number of those that had no line of their key, and have one now; nobody else adds lines meanwhile.

        `listed` is of this folder's list; where it has read most of it, others wait the shorter. Raises: StorageError.
        """
        listed = listed or ListedKeys(self.lines)
        with self._locked():
            there = listed.read_on()
            missing = {row["key"]: row for row in rows if row["key"] not in there}
            if missing:
                append_lines(self.lines, missing.values())
        return len(missing)

    def size(self) -> int:
        """Bytes of all lines. Raises: StorageError."""
        with self._locked():
            return self.lines.stat().st_size if self.lines.exists() else 0

    def forget(self, keys: Collection[str], *, before: int) -> None:
        """Takes the lines of `keys` out that begin before the byte `before`: those items are done anew, and some of
        them may have a new line by now. Raises: StorageError."""
        gone = set(keys)
        if not gone or not self.lines.exists():
            return
        with self._locked(), storage_errors(self.lines):
            rest = self.lines.with_name(f".{self.lines.name}.new")
            with self.lines.open("rb") as old, rest.open("wb") as new:
                at = 0
                for line in old:
                    row = _row_of(line)
                    if row is not None and (at >= before or row.get("key") not in gone):
                        new.write(line)
                    at += len(line)
            rest.replace(self.lines)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines, in the order they were added; a torn last one is left out. Raises: StorageError."""
        if not self.lines.exists():
            return
        with storage_errors(self.lines), self.lines.open("rb") as file:
            for line in file:
                if (row := _row_of(line)) is not None:
                    yield row

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replaces the summary. Raises: StorageError."""
        write_atomically(self.summary, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with storage_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            file = (self.out / ".lock").open("a")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class ListedKeys:
    """The keys that have a line in a list of results, some 150 bytes each. Blocking."""

    def __init__(self, lines: Path) -> None:
        self._lines = lines
        self._keys = set[str]()
        self._file = self._end = 0
        """Which file was read, and how far."""

    def read_on(self) -> Set[str]:
        """All keys by now; what has been read before is not read again, unless the list was replaced since. Raises:
        StorageError."""
        if not self._lines.exists():
            return self._keys
        with storage_errors(self._lines), self._lines.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._file or found.st_size < self._end:
                self._keys, self._file, self._end = set(), found.st_ino, 0
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):  # it is being written, or its writer was killed
                    break
                self._end += len(line)
                row = _row_of(line)
                if row is not None and "key" in row:
                    self._keys.add(row["key"])
        return self._keys


def _row_of(line: bytes) -> dict[str, Any] | None:
    """None for what is no whole line."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
