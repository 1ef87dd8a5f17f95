"""Writing files so that a crash at any byte leaves either the old content or the new."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from coa.errors import StorageError

__all__ = [
    "append_line",
    "append_lines",
    "appended",
    "fields_of",
    "json_in_lines",
    "json_of",
    "read_json",
    "read_lines",
    "storage_errors",
    "write_atomically",
]


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns OSError into StorageError with what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Free some space, then `coa resume`; finished chunks are kept."
        elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
            hint = "Choose a writable folder with COA_HOME."
        else:
            hint = "Check the folder, or choose another one with COA_HOME."
        reason = error.strerror or type(error).__name__
        raise StorageError(f"{path}: {reason}.", hint=hint) from error


def write_atomically(path: Path, text: str, *, wait: bool = True) -> None:
    """Replaces the file at `path`; its folder is made. Without `wait` the disk is not waited for: a process may be
    killed, but when the machine loses its power the file may be old, empty or missing. Raises: StorageError."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                if wait:
                    file.flush()
                    os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@functools.cache
def _names_of(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def fields_of(value: object) -> dict[str, object]:
    """A dataclass as a mapping of its fields, which are left as they are. Raises: TypeError for anything else."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"a {type(value).__name__} cannot be written as JSON.")
    return {name: getattr(value, name) for name in _names_of(type(value))}


def json_of(value: object) -> str:
    """`value` as JSON, on one line. Dataclasses in it, or it itself, are objects of their fields, as by `asdict`, which
    copies all that they hold and takes longer than the writing."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=fields_of)


def json_in_lines(value: object) -> str:
    """A mapping from texts, or a dataclass, as by `json_of`, with a line for each key: to be read by people, without
    what Python's encoder takes to indent."""
    items = value.items() if isinstance(value, Mapping) else fields_of(value).items()
    return "{\n" + ",\n".join(f" {json_of(key)}: {json_of(held)}" for key, held in items) + "\n}\n"


def append_line(path: Path, value: object) -> None:
    """Adds one JSON line and waits until it is on the disk. Raises: StorageError.

    A torn last line, left by a crash, is cut off first.
    """
    append_lines(path, [value])


def append_lines(path: Path, values: Iterable[object]) -> None:
    """Adds a JSON line for each value, all at once; otherwise as `append_line`."""
    with appended(path, values) as file:
        os.fsync(file)


@contextlib.contextmanager
def appended(path: Path, values: Iterable[object]) -> Iterator[int]:
    """As `append_lines`, for a caller who waits for the disk himself: within, the lines are written and the file is
    open. An OSError within takes them back. Raises: StorageError."""
    lines = "".join(json_of(value) + "\n" for value in values).encode()
    # By the system's own calls: a Python file makes three times as many, and at each the interpreter changes hands.
    with storage_errors(path):
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            end = _end_of_lines(file)
            try:
                _write_all(file, lines)
                yield file
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, end)
                raise
        finally:
            os.close(file)


def _end_of_lines(file: int) -> int:
    """Where the last whole line ends; what follows it is cut off."""
    end = os.lseek(file, 0, os.SEEK_END)
    if end and os.pread(file, 1, end - 1) != b"\n":
        with open(file, "rb", closefd=False) as torn:
            torn.seek(0)
            end = torn.read().rfind(b"\n") + 1
        os.ftruncate(file, end)
    return end


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises: StorageError, also when it holds none."""
    with storage_errors(path):
        data = path.read_bytes()
    try:
        value = json.loads(data)
    except ValueError as error:
        raise StorageError(f"{path}: is damaged ({error}).", hint="Remove the run and start it again.") from error
    if not isinstance(value, dict):
        raise StorageError(f"{path}: is damaged (no JSON object).", hint="Remove the run and start it again.")
    return value


def read_lines(path: Path) -> list[dict[str, object]]:
    """The JSON objects of a file written by `append_line`; a torn last line is left out. Raises: StorageError."""
    if not path.exists():
        return []
    with storage_errors(path):
        data = path.read_bytes()
    found: list[dict[str, object]] = []
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
