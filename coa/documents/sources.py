"""The bytes of a document, from a path, a stream or memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

from coa.errors import DocumentError, DocumentTooLarge

__all__ = ["Source", "load"]


class Source(NamedTuple):
    """Bytes and what to call them."""

    data: bytes
    name: str


def load(source: str | Path | bytes | BinaryIO, *, name: str | None, max_bytes: int) -> Source:
    """The bytes of `source`; a str is a path. Never more than `max_bytes` are held.

    Raises DocumentError or DocumentTooLarge, whose messages name the source.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        label = name or "the given bytes"
        if len(source) > max_bytes:
            raise _too_large(label, len(source), max_bytes)
        return Source(bytes(source), label)
    if isinstance(source, (str, Path)):
        return Source(_read_file(Path(source), max_bytes), name or Path(source).name)
    label = name or _stream_name(source)
    try:
        data = source.read(max_bytes + 1)
    except OSError as exc:
        raise DocumentError(f"{label} cannot be read: {_reason(exc)}.", hint="Give another input.") from exc
    if not isinstance(data, bytes):
        raise TypeError(f"a document is read from a binary stream; this one gave {type(data).__name__}")
    if len(data) > max_bytes:
        raise _too_large(label, None, max_bytes)
    return Source(data, label)


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DocumentError(f"{_shown(path)} is a folder.", hint="Name a file in it.")
        if status.st_size > max_bytes:
            raise _too_large(_shown(path), status.st_size, max_bytes)
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as exc:
        raise DocumentError(f"There is no file {_shown(path)}.", hint="Check the path's spelling.") from exc
    except PermissionError as exc:
        raise DocumentError(
            f"{_shown(path)} may not be read by this user.", hint="Change its permissions or copy it."
        ) from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise DocumentError(f"{_shown(path)} cannot be read: {_reason(exc)}.", hint="Check the path.") from exc
    if len(data) > max_bytes:  # a pipe or a device has no size to check first, and a file may have grown
        raise _too_large(_shown(path), None, max_bytes)
    return data


def _too_large(label: str, size: int | None, max_bytes: int) -> DocumentTooLarge:
    has = "more" if size is None else f"{size / 1e6:,.1f} MB"
    return DocumentTooLarge(
        f"{label} holds {has} where at most {max_bytes / 1e6:,.1f} MB are read.",
        hint="Split it, or raise the limit for the size of a document.",
    )


def _stream_name(stream: BinaryIO) -> str:
    name = getattr(stream, "name", None)
    if not isinstance(name, str):
        return "the given stream"
    return "stdin" if name == "<stdin>" else os.path.basename(name)  # noqa: PTH119 - may be no path at all


def _shown(path: Path) -> str:
    """`path` on one line, whatever its name holds."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _reason(exc: Exception) -> str:
    return (getattr(exc, "strerror", None) or str(exc)).lower()
