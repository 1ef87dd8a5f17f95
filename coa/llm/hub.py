"""Downloads one file from a Hugging Face hub, going on where a broken connection left off.

Source: the hub's HTTP interface as huggingface_hub uses it: `{hub}/{repo}/resolve/{revision}/{path}` redirects
to the bytes; the first answer's X-Linked-Etag is the file's sha256 and X-Linked-Size its size.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from coa.errors import AuthenticationFailed, ModelError, ModelNotFound, ModelUnavailable, StorageError
from coa.llm.catalogue import HubFile

__all__ = ["Progress", "fetch_hub_file", "hub_address"]

Progress = Callable[[str, int, int | None], None]
"""Gets (what is going on, done so far, of how many or None): bytes for "download", tensors for "requantize"."""

DEFAULT_HUB = "https://huggingface.co"
_ATTEMPTS = 6
_MAX_REDIRECTS = 5
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Job:
    source: HubFile
    hub: str
    part: Path
    sha256: str | None
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class _Remote:
    url: str
    """Where the bytes are."""
    headers: dict[str, str]
    size: int | None
    sha256: str | None
    etag: str | None


class _Interrupted(Exception):
    """The connection or the server failed in a way that may pass."""


def hub_address(hub_url: str | None = None) -> str:
    """`hub_url`, else HF_ENDPOINT, else the public hub; without a slash at the end."""
    return (hub_url or os.environ.get("HF_ENDPOINT") or DEFAULT_HUB).rstrip("/")


def fetch_hub_file(
    source: HubFile,
    path: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    hub_url: str | None = None,
    wait_s: float = 1.0,
) -> str:
    """Writes the file to `path` and returns its sha256, which was checked against `sha256` or the hub's own.

    Bytes gather in `path` + ".part", which a later call goes on with. `wait_s` is the first pause between
    attempts; it doubles. HF_TOKEN is sent to the hub, and to no other host. Raises as `download.pull` does.
    """
    import tenacity

    part = path.with_name(path.name + ".part")
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_exponential(multiplier=wait_s, max=30.0 * wait_s) + tenacity.wait_random(0.0, wait_s / 2),
        retry=tenacity.retry_if_exception_type(_Interrupted),
        reraise=True,
    )
    try:
        with httpx.Client(timeout=httpx.Timeout(30.0, connect=15.0)) as client:
            wanted = attempts(_attempt, client, _Job(source, hub_address(hub_url), part, sha256, progress))
    except _Interrupted as exc:
        hint = "What came so far is kept; run the same command again."
        raise ModelUnavailable(f"{source.repo} could not be fetched: {exc}.", hint=hint) from exc
    found = _sha256(part)
    if wanted is not None and found != wanted:
        part.unlink()
        raise ModelError(
            f"{path.name} from {source.repo} has the checksum {found}, not {wanted}; it was thrown away.",
            hint="Pull it again; if that repeats, a proxy or mirror on the way changes the file.",
        )
    part.replace(path)
    _marker(part).unlink(missing_ok=True)
    return found


def _attempt(client: httpx.Client, job: _Job) -> str | None:
    """Completes the part and returns the checksum it has to have; asks the hub anew, for addresses expire."""
    remote = _resolve(client, job.source, job.hub)
    _check_space(remote, job.part)
    wanted = job.sha256 or remote.sha256
    _download(client, remote, job, wanted)
    return wanted


def _resolve(client: httpx.Client, source: HubFile, hub: str) -> _Remote:
    """Asks the hub for the file's size and checksum, which its store does not know, and for the store's address.

    A store's address is signed for GET alone, so it is not asked for anything here.
    """
    url = f"{hub}/{source.repo}/resolve/{quote(source.revision, safe='')}/{quote(source.path)}"
    token = os.environ.get("HF_TOKEN")
    headers = {"Accept-Encoding": "identity"}
    ours = headers | ({"Authorization": f"Bearer {token}"} if token else {})
    size: int | None = None
    sha256: str | None = None
    for _ in range(_MAX_REDIRECTS):
        try:
            reply = client.head(url, headers=ours, follow_redirects=False)
        except httpx.HTTPError as exc:
            raise _Interrupted(f"{hub} does not answer ({_why(exc)})") from exc
        _refuse(reply, source, hub)
        linked = reply.headers.get("x-linked-etag", "").strip('W/"').lower()
        sha256 = sha256 or (linked if _SHA256.fullmatch(linked) else None)
        size = size or _number(reply.headers.get("x-linked-size"))
        if not reply.is_redirect:
            size = size or _number(reply.headers.get("content-length"))
            return _Remote(url, ours, size, sha256, reply.headers.get("etag"))
        url = str(reply.url.join(reply.headers["location"]))
        if urlsplit(url)[:2] != urlsplit(hub)[:2]:
            return _Remote(url, headers, size, sha256, None)
    raise ModelUnavailable(f"{hub} redirects {source.repo} in circles.")


def _download(client: httpx.Client, remote: _Remote, job: _Job, wanted: str | None) -> None:
    """Brings `part` to its full size; what is there is kept only if it is of the same file."""
    part = job.part
    identity = wanted or remote.etag or ""
    marker = _marker(part)
    if not identity or not marker.is_file() or marker.read_text(encoding="utf-8") != identity:
        part.unlink(missing_ok=True)
        marker.write_text(identity, encoding="utf-8")
    start = part.stat().st_size if part.exists() else 0
    if remote.size is not None and start > remote.size:
        part.unlink()
        start = 0
    if start and start == remote.size:
        return
    headers = dict(remote.headers)
    if start:
        headers["Range"] = f"bytes={start}-"
        if remote.etag and not remote.etag.startswith("W/"):
            headers["If-Range"] = remote.etag
    try:
        with client.stream("GET", remote.url, headers=headers) as reply:
            if reply.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
                raise _Interrupted("the server refused to go on with the file")
            if reply.is_error:
                raise _Interrupted(f"status {reply.status_code}")
            resumed = reply.status_code == httpx.codes.PARTIAL_CONTENT
            _write(reply, part, start if resumed else 0, remote.size, job.progress)
    except httpx.HTTPError as exc:
        raise _Interrupted(_why(exc)) from exc
    length = part.stat().st_size
    if remote.size is not None and length < remote.size:
        raise _Interrupted(f"the connection ended after {length:,} of {remote.size:,} bytes")


def _write(
    reply: httpx.Response,
    part: Path,
    start: int,
    size: int | None,
    progress: Progress | None,
) -> None:
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        for piece in reply.iter_raw():  # with a size it would keep back, and lose, what it gathered
            file.write(piece)
            if progress is not None:
                progress("download", file.tell(), size)
        file.flush()
        os.fsync(file.fileno())


def _refuse(reply: httpx.Response, source: HubFile, hub: str) -> None:
    status = reply.status_code
    page = f"{hub}/{source.repo}"
    if status in (401, 403):
        raise AuthenticationFailed(
            f"{source.repo} is gated or private (status {status}).",
            hint=f"Accept its licence at {page} and set HF_TOKEN to a token of that account.",
        )
    if status == 404:
        raise ModelNotFound(
            f"{page} has no file {source.path!r} at {source.revision!r}.",
            hint="It may have been moved; any .gguf file can be named with --model.",
        )
    if reply.is_error:
        raise _Interrupted(f"{hub} answered {status}")


def _check_space(remote: _Remote, part: Path) -> None:
    if remote.size is None:
        return
    there = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if remote.size - there > free:
        raise StorageError(
            f"{part.stem} needs {(remote.size - there) / 1e9:.1f} GB more in {part.parent}, "
            f"{free / 1e9:.1f} GB are free.",
            hint="Make room, or set COA_HOME to a folder on a larger disk.",
        )


def _marker(part: Path) -> Path:
    """Names the version of the file whose bytes are in `part`."""
    return part.with_name(part.name + ".etag")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _why(exc: httpx.HTTPError) -> str:
    return str(exc) or type(exc).__name__
