"""Documents at URLs (s3://, gs://, https://, …), through fsspec; the only module that imports it.

Keys come from where the protocol's own library looks for them (environment variables, instance roles, fsspec's
configuration), never from a URL: URLs stand in ledgers and results.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from coa.errors import CoaError, ConfigError, DocumentError, DocumentTooLarge

__all__ = ["RemoteFile", "RemoteUnavailable", "fetch", "file_at", "files_at", "is_url", "name_of"]

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_GLOB = re.compile(r"[*?\[]")
_DIGESTS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "generation", "version_id", "VersionId", "sha256")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified", "created")
_ATTEMPTS = 3
_PASSING = (408, 425, 429)
_T = TypeVar("_T")


class RemoteUnavailable(DocumentError):
    """The store did not answer or refused for the moment; the document itself may be in order."""


class RemoteFile(NamedTuple):
    """What a store says of a file."""

    url: str
    size: int | None
    """Bytes, where known."""
    version: str
    """Changes when the content does: the store's digest, else size and time of change; empty where it tells neither."""


def is_url(source: str) -> bool:
    """Whether `source` is to be read through fsspec rather than as a path."""
    return _URL.match(source) is not None


def name_of(url: str) -> str:
    """What to call the document to people: the last part of its path."""
    path = urlsplit(url).path.rstrip("/")
    return unquote(PurePosixPath(path).name) or url


def files_at(url: str) -> Iterator[RemoteFile]:
    """The files that `url` names: one, those below a folder, or those that a glob matches; ordered by URL.

    Names that begin with a dot are left out but where the URL names them itself; an empty folder gives none.
    Raises: ConfigError (an unknown protocol, a login in the URL, a missing library), DocumentError where nothing is
    there, RemoteUnavailable.
    """
    fs, path = _opened(url)
    if _is_glob(url):
        found: Mapping[str, Any] = _asked(url, lambda: fs.glob(path, detail=True))
    else:
        found = _asked(url, lambda: fs.find(path, detail=True))
        if path.rstrip("/") in found or (not found and not _asked(url, lambda: fs.isdir(path))):
            yield file_at(url)
            return
    hidden = re.compile(r"(^|/)\.")
    root = path.rstrip("/")
    for name in sorted(found):
        info = found[name]
        if info.get("type", "file") == "file" and not hidden.search(name.removeprefix(root)):
            yield _described(str(fs.unstrip_protocol(name)), info)


def file_at(url: str) -> RemoteFile:
    """What the store says of the one file at `url`. Raises: as `files_at`."""
    fs, path = _opened(url)
    return _described(url, _asked(url, lambda: fs.info(path)))


def fetch(url: str, *, max_bytes: int, timeout_s: float = 120.0) -> bytes:
    """The file's bytes. Blocking; what the network loses is asked for again, `timeout_s` seconds at most in all.

    Raises: as `file_at`, and DocumentTooLarge over `max_bytes`, of which never more are held.
    """
    fs, path = _opened(url)

    def read() -> bytes:
        with fs.open(path, "rb") as file:
            data: bytes = file.read(max_bytes + 1)
            return data

    def whole() -> bytes:
        data = _asked(url, read)
        if len(data) > max_bytes:
            raise DocumentTooLarge(
                f"{url} holds more than the {max_bytes / 1e6:,.1f} MB that are read.",
                hint="Split it, or raise the limit for the size of a document.",
            )
        return data

    return _within(timeout_s, whole, url)


def _is_glob(url: str) -> bool:
    parts = urlsplit(url)
    return _GLOB.search(parts.path if parts.scheme in ("http", "https") else url) is not None


def _opened(url: str) -> tuple[Any, str]:
    """The file system and the path in it."""
    if urlsplit(url).password:
        raise ConfigError(
            f"{urlsplit(url).scheme}://… holds a password, and URLs are written into results.",
            hint="Give the login by the environment or fsspec's configuration (FSSPEC_<PROTOCOL>_PASSWORD).",
        )
    try:
        import fsspec
    except ImportError as error:
        raise ConfigError(
            f"{url} needs the package fsspec.", hint="pip install 'coa-orchestrator[remote]' brings it."
        ) from error
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # of the protocol's own library; the message names it
        raise ConfigError(f"{url}: {error}.", hint="It is a package of its own (pip).") from error
    except ValueError as error:
        raise ConfigError(f"{url}: {error}.", hint="Check the URL's spelling.") from error
    return fs, str(path)


def _asked(url: str, call: Callable[[], _T]) -> _T:
    """What the store answers, asked again after a failure that may pass."""
    for attempt in range(_ATTEMPTS):
        try:
            with _store_errors(url):
                return call()
        except RemoteUnavailable:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.2, 0.5) * 2**attempt)
    raise AssertionError  # the loop ends by return or raise


@contextmanager
def _store_errors(url: str) -> Iterator[None]:
    """Turns what the many libraries below fsspec raise into errors of coa's."""
    try:
        yield
    except CoaError:
        raise
    except FileNotFoundError as error:
        # fsspec calls a file missing over HTTP whatever kept it from asking.
        raise _told(url, error.__cause__ or error) from error
    except PermissionError as error:
        raise DocumentError(f"{url} may not be read with these keys.", hint="Check the store's permissions.") from error
    except IsADirectoryError as error:
        raise DocumentError(f"{url} is a folder.", hint="Name a file in it.") from error
    except Exception as error:  # botocore, gcsfs, aiohttp and paramiko have each a tree of their own
        raise _told(url, error) from error


def _told(url: str, error: BaseException) -> DocumentError:
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return DocumentError(f"There is no file {url}.", hint="Check the URL's spelling.")
    if isinstance(status, int) and 400 <= status < 500 and status not in _PASSING:
        return DocumentError(f"{url} was refused (HTTP {status}).", hint="Check the store's permissions.")
    return RemoteUnavailable(
        f"{url} cannot be read: {type(error).__name__}.", hint="Try again later, or check the store's keys."
    )


def _within(timeout_s: float, work: Callable[[], _T], url: str) -> _T:
    """What `work` returns; a store that falls silent holds a thread that nobody waits for, and not the caller."""
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="coa-remote", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if failed:
        raise failed[0]
    if not done:
        raise RemoteUnavailable(f"{url} did not arrive within {timeout_s:g} s.", hint="Try again later.")
    return done[0]


def _described(url: str, info: Mapping[str, Any]) -> RemoteFile:
    size = info.get("size")
    marks = [f"{key}={info[key]}" for key in _DIGESTS if info.get(key)]
    if not marks:
        marks = [f"{key}={info[key]}" for key in _TIMES if info.get(key)][:1]
        marks += [f"size={size}"] if marks else []
    return RemoteFile(url, size if isinstance(size, int) else None, ";".join(marks))
