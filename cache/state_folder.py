"""A folder of saved states: an engine's files, each with a manifest beside it.

Of a state `<name>.<nonce>` the engine writes `<name>.<nonce>.kv`; it is a state from the moment on in which
`<name>.<nonce>.json` is there, which is renamed into place last and taken away first. What has no manifest is a save
that is under way, or one that ended with its process. No name is ever written twice, so processes need no lock to
read; one is taken where room is made, so that together they keep to the budget.

A truncated file aborts llama.cpp's process when it is restored, and an altered one is restored as it is: so the size
and the digest are checked before each file is given out for the first time, and its inode and time on each use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coa.cache.states import Manifest, StateKey, StateOrigin

__all__ = ["ENDING", "Held", "StateFolder", "StateRemoved", "Unusable", "file_digest", "saved_tokens"]

ENDING = ".kv"
_MANIFEST = ".json"
_NEW = ".new"
_ENDINGS = (_NEW, _MANIFEST, ENDING)
_GRACE_S = 120.0
"""How long a file without a manifest may be a save that is under way, since it was last written to."""
_MIN_FREE_BYTES = 256_000_000
"""Left on the disk for others. An engine that runs out of space may say that it saved: that cannot happen above."""
_LOCK_S = 2.0
_MOMENT_NS = 100_000_000
"""Within which a file system may give two changes of a folder the same time."""
_READ_BYTES = 1 << 20


class Unusable(Exception):
    """A state that cannot be restored; the text is the reason, in a few words that are always the same."""


class StateRemoved(NamedTuple):
    """What was taken out of a store."""

    states: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Held:
    """One file of the folder with what belongs to it."""

    stem: str
    n_bytes: int
    """Manifest included."""
    used: float
    """Unix time of the last use, or of the last byte written where it is no state (yet)."""
    whole: bool
    """Whether it is a state."""

    @property
    def name(self) -> str:
        """Of the key."""
        return self.stem.rpartition(".")[0]


class _Files:
    """What there is of one stem."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._times: dict[str, float] = {}

    def add(self, ending: str, stat: os.stat_result) -> None:
        self.n_bytes += stat.st_size
        self._times[ending] = stat.st_mtime

    @property
    def used(self) -> float:
        return self._times.get(_MANIFEST, max(self._times.values()))

    @property
    def whole(self) -> bool:
        return ENDING in self._times and _MANIFEST in self._times


class _Origin(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    document: str
    chunk: int | None


class _ManifestFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    identity: str = Field(pattern="^[0-9a-f]{32}$")
    hash: str = Field(pattern="^[0-9a-f]{32}$")
    n_tokens: int = Field(ge=0)
    file: str
    n_bytes: int = Field(ge=0)
    digest: str
    created: float
    origin: _Origin


class StateFolder:
    """The folder at `path`, made when it is needed. Methods block, may be called in threads, and raise OSError."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        grace_s: float = _GRACE_S,
        min_free_bytes: int = _MIN_FREE_BYTES,
    ) -> None:
        """`clock` gives Unix time."""
        self.path = path
        self._clock = clock
        self._grace_s = grace_s
        self._min_free_bytes = min_free_bytes

    def new_stem(self, key: StateKey) -> str:
        """A name that nothing else has, without its ending."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # states hold what documents say
        return f"{key.name}.{secrets.token_hex(8)}"

    def listing(self) -> list[Held]:
        """All files of states, in no order; whatever else lies in the folder is left alone."""
        found: dict[str, _Files] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                stem, dot, ending = entry.name.rpartition(".")
                if f"{dot}{ending}" in _ENDINGS and "." in stem:
                    with contextlib.suppress(FileNotFoundError):
                        found.setdefault(stem, _Files()).add(f".{ending}", entry.stat())
        return [Held(stem, files.n_bytes, files.used, files.whole) for stem, files in found.items()]

    def stems(self) -> set[str]:
        """Of the states."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            names = {entry.name for entry in entries}
            stems = (name.removesuffix(_MANIFEST) for name in names if name.endswith(_MANIFEST))
            return {stem for stem in stems if "." in stem and f"{stem}{ENDING}" in names}
        return set()

    def changed(self) -> int | None:
        """A number that is another one after files came or went; None where that cannot be told, as it is for a
        moment after each change."""
        try:
            changed = self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        return changed if time.time_ns() - changed > _MOMENT_NS else None

    def read(self, stem: str) -> Manifest:
        """The manifest of a state. Raises: Unusable; FileNotFoundError where somebody took the state out."""
        try:
            told = _ManifestFile.model_validate_json((self.path / f"{stem}{_MANIFEST}").read_bytes())
        except ValidationError:
            raise Unusable("manifest is damaged") from None
        key = StateKey(bytes.fromhex(told.identity), bytes.fromhex(told.hash), told.n_tokens)
        if told.file != f"{stem}{ENDING}" or key.name != stem.rpartition(".")[0]:
            raise Unusable("manifest is another state's")
        origin = StateOrigin(told.origin.model, told.origin.document, told.origin.chunk)
        return Manifest(key, told.file, told.n_bytes, told.digest, told.created, origin)

    def write(self, manifest: Manifest) -> None:
        """Makes a state of its file."""
        told = _ManifestFile(
            format=1,
            identity=manifest.key.identity.hex(),
            hash=manifest.key.hash.hex(),
            n_tokens=manifest.key.n_tokens,
            file=manifest.file,
            n_bytes=manifest.n_bytes,
            digest=manifest.digest,
            created=manifest.created,
            origin=_Origin(model=manifest.origin.model, document=manifest.origin.document, chunk=manifest.origin.chunk),
        )
        stem = manifest.file.removesuffix(ENDING)
        new = self.path / f"{stem}{_NEW}"
        try:
            with new.open("xb") as file:
                file.write(told.model_dump_json().encode())
                file.flush()
                os.fsync(file.fileno())
            os.utime(new, (self._clock(),) * 2)
            new.rename(self.path / f"{stem}{_MANIFEST}")
        except BaseException:
            new.unlink(missing_ok=True)
            raise

    def touch(self, stem: str) -> None:
        """Books a use."""
        with contextlib.suppress(OSError):
            os.utime(self.path / f"{stem}{_MANIFEST}", (self._clock(),) * 2)

    def remove(self, stem: str) -> None:
        """Takes a state out; who reads its file now reads it to the end."""
        for ending in _ENDINGS:
            (self.path / f"{stem}{ending}").unlink(missing_ok=True)

    def pin(self, names: Sequence[str], until: float) -> None:
        """Keeps states of these names, there or not, for last until Unix time `until`; never shortens it."""
        pins = self.path / "pins"
        pins.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.locked():
            for name in names:
                os.close(os.open(pins / name, os.O_WRONLY | os.O_CREAT, 0o600))
                if (pins / name).stat().st_mtime < until:
                    os.utime(pins / name, (until, until))

    def make_room(self, max_bytes: int, *, besides: str = "", unused_s: float | None = None) -> StateRemoved | None:
        """Removes what is left of dead saves, states unused for `unused_s` seconds, then the longest unused until all
        together take `max_bytes`; None, and nothing removed for it, where the disk would be too full even then.

        `besides` is a stem that counts, and stays.
        """
        with self.locked():
            now = self._clock()
            held = [h for h in self.listing() if h.stem != besides]
            gone = [h for h in held if not h.whole and h.used < now - self._grace_s]
            states = [h for h in held if h.whole]
            if unused_s is not None:
                gone += [h for h in states if h.used < now - unused_s]
                states = [h for h in states if h.used >= now - unused_s]
            going = sum(h.n_bytes for h in gone)
            surplus = sum(h.n_bytes for h in held) + self._size(besides) - going - max_bytes
            if besides:
                lacking = self._min_free_bytes - self._free() - going
                if lacking > sum(h.n_bytes for h in states):
                    return None
                surplus = max(surplus, lacking)
            pinned = self._pinned(now)
            for state in sorted(states, key=lambda h: (h.name in pinned, h.used)):
                if surplus <= 0:
                    break
                gone.append(state)
                surplus -= state.n_bytes
            for each in gone:
                self.remove(each.stem)
            return StateRemoved(sum(h.whole for h in gone), sum(h.n_bytes for h in gone))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from making room at the same time; goes on without, where one takes long."""
        if not self.path.is_dir():
            yield
            return
        handle = os.open(self.path / "room.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_S
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.005)
            yield
        finally:
            os.close(handle)

    def _free(self) -> int:
        return shutil.disk_usage(self.path).free

    def _size(self, stem: str) -> int:
        return (self.path / f"{stem}{ENDING}").stat().st_size if stem else 0

    def _pinned(self, now: float) -> set[str]:
        """Names that are pinned; pins that are over are removed."""
        found = set()
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path / "pins") as pins:
            for pin in pins:
                with contextlib.suppress(FileNotFoundError):
                    if pin.stat().st_mtime > now:
                        found.add(pin.name)
                    else:
                        Path(pin.path).unlink()
        return found


def file_digest(path: Path) -> str:
    """blake2b-16 of a file, hexadecimal."""
    state = blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            state.update(piece)
    return state.hexdigest()


def saved_tokens(path: Path) -> list[int] | None:
    """The tokens that a state file of llama.cpp says to hold; None for a file of another make.

    Source: llama_state_seq_save_file (magic, version, count, tokens), in which the server since 2026 packs
    -1, 1, the count and the tokens of a prompt.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"qsgg":
            return None
        (count,) = struct.unpack("<I", head[8:])
        data = file.read(4 * count)
    if len(data) < 4 * count:
        return []
    words = list(struct.unpack(f"<{count}I", data))
    if words[:2] == [0xFFFFFFFF, 1]:
        return words[3 : 3 + words[2]]
    return words
