"""The documents of a batch: folders, globs, manifests and URLs, one after the other, never all of them at once."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coa.batch.asking import item_key, question_payload
from coa.batch.ledger import Entry, Known, NewItem
from coa.batch.remote import file_at, files_at, is_url
from coa.errors import ConfigError, DocumentError

__all__ = ["Source", "absolute_input", "entry_of", "local_stamp", "sources_of"]

_GLOB = frozenset("*?[")
_MANIFESTS = (".jsonl", ".ndjson")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A document as an input names it."""

    place: str
    """An absolute path, or a URL."""
    payloads: tuple[str, ...] = ()
    """What is asked of it; empty: what is asked of all."""
    stamp: str | None = None
    """What the store told of it when it listed it."""
    n_bytes: int | None = None


def absolute_input(given: str, cwd: Path) -> str:
    """`given` so that it means the same from any folder. Raises: ConfigError where it is nothing."""
    if is_url(given) or given == "-":
        return given
    if not given:
        raise ConfigError("an input is empty.", hint="Name a folder, a glob, a manifest.jsonl or a file.")
    path = cwd / Path(given).expanduser()
    if not path.exists() and not _GLOB.intersection(given):
        raise ConfigError(f"{given}: there is no such file or folder.", hint="Check the spelling.")
    return str(path)


def sources_of(given: str, *, skip: Path | None = None, manifest: str = "") -> Iterator[Source]:
    """The documents that `given` names: the files of a folder and of the folders in it, in order; of a glob; of a
    manifest (.jsonl), or "-" for `manifest`; a file; or what is at a URL.

    Names that begin with a dot are left out, and what lies in the folder `skip`. Raises: ConfigError for a manifest
    that is not what it should be, DocumentError where there is nothing at a URL.
    """
    if given == "-":
        yield from _manifest(manifest.splitlines(), "standard input", Path.cwd())
        return
    if is_url(given):
        for file in files_at(given):
            yield Source(file.url, stamp=file.version or f"size={file.size}", n_bytes=file.size)
        return
    path = Path(given)
    if path.is_dir():
        yield from (Source(_told(file)) for file in _files(path, skip))
    elif path.suffix.lower() in _MANIFESTS and path.exists():
        with _readable(path) as lines:
            yield from _manifest(lines, given, path.parent)
    elif path.exists():
        yield Source(str(path))
    else:
        found = (Path(name) for name in glob.iglob(given, recursive=True))  # noqa: PTH207 - absolute, lazily
        yield from (Source(_told(file)) for file in found if file.is_file() and not _within(file, skip))


def entry_of(
    source: Source, payloads: Sequence[str], config: str, *, known: Callable[[str], Known | None] | None = None
) -> Entry:
    """What goes into the ledger.

    Blocking: a file is read for its digest, unless `known` says that it has not changed since it was added. One that
    cannot be read has an entry all the same; reading it as a document tells why.
    """
    if is_url(source.place):
        stamp, n_bytes = _remote_stamp(source)
        digest = _digest_of_text(f"{source.place} {stamp}")
    else:
        stamp, n_bytes = local_stamp(source.place), _size(source.place)
        before = known(source.place) if known is not None else None
        digest = before.digest if before is not None and before.stamp == stamp else _digest(source.place, stamp)
    asked = source.payloads or tuple(payloads)
    items = tuple(NewItem(item_key(digest, config, payload), payload, config) for payload in asked)
    return Entry(source.place, digest, stamp, n_bytes, items)


def _remote_stamp(source: Source) -> tuple[str, int]:
    """What the store tells of a URL's version, asked where it has not been told; and the bytes."""
    if source.stamp is not None:
        return source.stamp, source.n_bytes or 0
    try:
        file = file_at(source.place)
    except DocumentError as error:
        return f"unreadable: {error.message}", 0
    return file.version or f"size={file.size}", file.size or 0


def local_stamp(place: str) -> str:
    """Size and time of change of a file; of a folder, those of its files."""
    try:
        status = Path(place).stat()
        if not Path(place).is_dir():
            return f"{status.st_size} {status.st_mtime_ns}"
        told = [f"{file} {local_stamp(str(file))}" for file in _files(Path(place), None)]
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return _digest_of_text("\n".join(told))


def _size(place: str) -> int:
    try:
        return Path(place).stat().st_size
    except OSError:
        return 0


def _digest(place: str, stamp: str) -> str:
    digest = hashlib.sha256()
    try:
        if Path(place).is_dir():
            return _digest_of_text(f"folder {place} {stamp}")
        with Path(place).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return _digest_of_text(f"unreadable {place} {stamp}")
    return digest.hexdigest()


def _digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _files(folder: Path, skip: Path | None) -> Iterator[Path]:
    """The files below a folder in order, a folder's own between its neighbours; links to folders are not followed."""
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        found = []
    for entry in found:
        path = Path(entry.path)
        if entry.name.startswith(".") or path == skip:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(path, skip)
        elif not entry.is_dir():
            yield path


def _told(path: Path) -> str:
    """The path as text that can be written down; one that is not UTF-8 cannot be opened by that, and fails so."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _within(file: Path, folder: Path | None) -> bool:
    return folder is not None and folder in file.parents


def _readable(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error


def _manifest(lines: Iterable[str], name: str, folder: Path) -> Iterator[Source]:
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _listed(line.strip(), f"{name}, line {number}", folder)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 (byte {error.start}).") from error


def _listed(line: str, where: str, folder: Path) -> Source:
    """A line of a manifest: a path or URL, or a JSON object with one and perhaps questions of its own."""
    if not line.startswith("{"):
        return Source(_place(line, folder))
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not valid JSON: {error.msg}.") from error
    place = next((row[key] for key in ("path", "url", "document", "source", "file") if row.get(key)), None)
    if not isinstance(place, str):
        raise ConfigError(f'{where}: has no "path" or "url".')
    given = row.get("questions", [row["question"]] if row.get("question") is not None else [])
    if not isinstance(given, list) or not all(isinstance(q, str) and q.strip() for q in given):
        raise ConfigError(f'{where}: "questions" is a list of texts, "question" a text.')
    named = None if row.get("id") is None else str(row["id"])
    questions = [" ".join(question.split()) for question in given]
    return Source(_place(place, folder), tuple(question_payload(question, item_id=named) for question in questions))


def _place(place: str, folder: Path) -> str:
    return place if is_url(place) else str(folder.absolute() / Path(place).expanduser())
