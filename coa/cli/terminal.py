"""What is written where: stdout for results, stderr for people, files at once or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from enum import StrEnum
from pathlib import Path

import typer

from coa.errors import ConfigError, StorageError

__all__ = [
    "BROKEN_PIPE",
    "INTERRUPTED",
    "Colour",
    "check_writable",
    "paint",
    "printable",
    "uses_colour",
    "write_error",
    "write_file",
    "write_note",
    "write_result",
]

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended, as most do whose reader went away."""


class Colour(StrEnum):
    """Values of --color."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """`text` without control characters: a book or a model must not be able to steer the terminal."""
    return _CONTROL.sub("", text)


def uses_colour(stream_is_terminal: bool, colour: Colour) -> bool:
    """After --color, then NO_COLOR, FORCE_COLOR and TERM=dumb (no-color.org)."""
    if colour is not Colour.AUTO:
        return colour is Colour.ALWAYS
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream_is_terminal and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, *, colour: bool) -> str:
    """`text` in an ANSI style ("bold", "dim"), or as it is."""
    codes = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33}
    return f"\x1b[{codes[style]}m{text}\x1b[0m" if colour else text


def write_result(text: str) -> None:
    """Writes to stdout and flushes.

    Raises:
        typer.Exit: nobody reads stdout any more.
        StorageError: stdout goes to a place that takes no more (a full disk).
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        raise typer.Exit(BROKEN_PIPE) from None
    except OSError as exc:
        _drop_stdout()
        raise StorageError(f"cannot write to standard output: {exc.strerror}.") from exc


def _drop_stdout() -> None:
    """Keeps the interpreter's own flush at exit from failing once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_note(text: str, *, style: str | None = None, label: str = "") -> None:
    """One line to stderr; a closed stderr is no reason to stop.

    `style` is that of the text, or of the label in front of it where there is one.
    """
    text = printable(text)
    if style is not None:
        text = text if label else paint(text, style, colour=True)
        label = paint(label, style, colour=True) if label else ""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{label} {text}\n" if label else f"{text}\n")
        sys.stderr.flush()


def write_error(text: str) -> None:
    """`error: ...` on one line of stderr."""
    write_note("error: " + " ".join(text.split()))


def check_writable(path: Path) -> None:
    """Refuses, before any call is paid for, a file that could not be written.

    Raises:
        ConfigError: a folder, in a folder that is missing, or without permission.
    """
    folder = path.parent
    if path.is_dir():
        raise ConfigError(f"--output {path}: is a folder; name a file in it.")
    if not folder.is_dir():
        raise ConfigError(f"--output {path}: the folder {folder} does not exist.")
    target = path if path.exists() and not path.is_file() else folder
    if not os.access(target, os.W_OK):
        raise ConfigError(f"--output {path}: no permission to write to {target}.")


def write_file(path: Path, text: str) -> None:
    """Writes `path` whole or not at all; what stood there stays until the new text is on the disk.

    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")  # a pipe or a device: nothing to replace
            return
        _replace(path.resolve(), text)
    except OSError as exc:
        raise StorageError(f"cannot write {path}: {exc.strerror}.") from exc


def _replace(path: Path, text: str) -> None:
    import tempfile

    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        else:
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
