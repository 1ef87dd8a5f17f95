"""Saved states in a folder that llama.cpp reads and writes (`--slot-save-path`), shared by any number of processes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from coa.cache.blocks import segment_hash
from coa.cache.kv_stats import Counts, KvStats
from coa.cache.state_folder import ENDING, StateFolder, StateRemoved, Unusable, file_digest, saved_tokens
from coa.cache.states import Manifest, StateKey, StateOrigin

__all__ = ["SlotFiles"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_UNKNOWN = StateOrigin()
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class SlotFiles:
    """See `StateStore`. Made without touching the disk; for one event loop.

    A state is found where its manifest lies, whoever put it there: other processes' states too, on a look at the
    folder whenever nothing is known of a key.
    """

    def __init__(
        self,
        folder: Path | StateFolder,
        max_bytes: int,
        *,
        stats: KvStats | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix time."""
        self._folder = folder if isinstance(folder, StateFolder) else StateFolder(folder, clock=clock)
        self._max_bytes = max_bytes
        self._stats = stats
        self._clock = clock
        self._stems: dict[str, set[str]] = {}
        self._checked: dict[tuple[str, int, int, int], str] = {}
        """Digests of files that were read, by name, inode, time and size."""
        self._looked: int | None = None
        self._begun: dict[str, set[str]] = {}
        self._said: set[str] = set()

    @property
    def folder(self) -> Path:
        """See `StateStore`."""
        return self._folder.path

    async def find(self, key: StateKey) -> Manifest | None:
        """See `StateStore`; a file is read whole the first time."""
        return await self._run(lambda: self._find(key), None)

    async def begin(self, key: StateKey) -> str:
        """See `StateStore`."""
        stem = await self._run(lambda: self._folder.new_stem(key), None)
        if stem is None:  # the engine will say that it cannot write there
            return f"{key.name}.{os.urandom(8).hex()}{ENDING}"
        self._begun.setdefault(key.name, set()).add(stem)
        return f"{stem}{ENDING}"

    async def commit(self, key: StateKey, file: str, origin: StateOrigin = _UNKNOWN) -> Manifest | None:
        """See `StateStore`. Keeps what is there already where another process saved the same prefix meanwhile."""
        return await self._run(lambda: self._commit(key, file, origin), None)

    async def discard(self, key: StateKey, cause: str) -> None:
        """See `StateStore`; takes away, too, what an engine left of a save of this process that failed."""
        await self._run(lambda: self._discard(key, cause), None)

    async def pin(self, keys: Sequence[StateKey], *, until: float) -> None:
        """See `StateStore`; holds for all processes."""
        await self._run(lambda: self._folder.pin([key.name for key in keys], until), None)

    async def manifests(self) -> list[Manifest]:
        """All states, unchecked, the one not used for longest first."""
        return await self._run(self._manifests, [])

    async def prune(self, max_bytes: int | None = None, *, unused_s: float | None = None) -> StateRemoved:
        """Removes what was not used for `unused_s` seconds, then the longest unused until `max_bytes` (the budget
        where None) are held; and what dead processes left."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        removed = await self._run(lambda: self._folder.make_room(limit, unused_s=unused_s), None)
        return removed or StateRemoved(0, 0)

    async def close(self) -> None:
        """Takes away what was begun and never committed."""
        await self._run(self._abandon, None)

    async def _run(self, work: Callable[[], _T], otherwise: _T) -> _T:
        def guarded() -> _T:
            try:
                return work()
            except OSError as error:
                self._say(f"saved states cannot be used: {self.folder}: {error.strerror or error}")
                return otherwise

        return await asyncio.to_thread(guarded)

    def _abandon(self) -> None:
        begun, self._begun = self._begun, {}
        for stem in set().union(*begun.values()):
            self._folder.remove(stem)

    def _find(self, key: StateKey) -> Manifest | None:
        for look_again in (False, True):
            if look_again:
                self._look()
            for stem in sorted(self._stems.get(key.name, ())):
                try:
                    manifest = self._usable(key, stem)
                except FileNotFoundError:
                    # Another process made room; another look-up may have noticed already.
                    self._stems.get(key.name, set()).discard(stem)
                    continue
                except Unusable as cause:
                    self._take_out(key, stem, str(cause))
                    continue
                self._folder.touch(stem)
                return manifest
        return None

    def _look(self) -> None:
        """Learns what is there, where the folder changed since the last look."""
        changed = self._folder.changed()
        if changed is not None and changed == self._looked:
            return
        stems: dict[str, set[str]] = {}
        for stem in self._folder.stems():
            stems.setdefault(stem.rpartition(".")[0], set()).add(stem)
        self._stems, self._looked = stems, changed

    def _usable(self, key: StateKey, stem: str) -> Manifest:
        """The manifest of a file that is what it says. Raises: Unusable; FileNotFoundError as `StateFolder.read`."""
        manifest = self._folder.read(stem)
        if manifest.key != key:
            raise Unusable("another identity")
        path = self.folder / manifest.file
        try:
            size = path.stat().st_size
            if size != manifest.n_bytes:
                raise Unusable("truncated" if size < manifest.n_bytes else "altered")
            if self._digest(path) != manifest.digest:
                raise Unusable("altered")
        except FileNotFoundError:
            self._folder.read(stem)  # a state that is taken out loses its manifest first
            raise Unusable("vanished") from None
        return manifest

    def _digest(self, path: Path) -> str:
        """Of the file as it is now: read once as long as nobody changes it."""
        stat = path.stat()
        seen = (path.name, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen not in self._checked:
            self._checked[seen] = file_digest(path)
        return self._checked[seen]

    def _commit(self, key: StateKey, file: str, origin: StateOrigin) -> Manifest | None:
        stem = file.removesuffix(ENDING)
        self._begun.get(key.name, set()).discard(stem)
        if (there := self._find(key)) is not None:
            self._folder.remove(stem)
            return there
        try:
            manifest = self._taken_in(key, file, origin)
        except (Unusable, OSError) as error:
            full = isinstance(error, OSError) and error.errno in _FULL
            cause = "disk full" if full else str(error) if isinstance(error, Unusable) else "folder cannot be written"
            self._folder.remove(stem)
            self._say(f"a state of {key.n_tokens} tokens is not kept: {cause}")
            if self._stats is not None:
                self._stats.refused(cause)
            return None
        self._stems.setdefault(key.name, set()).add(stem)
        if self._stats is not None:
            self._stats.add(Counts(saved=1, saved_bytes=manifest.n_bytes), document=origin.document)
        return manifest

    def _taken_in(self, key: StateKey, file: str, origin: StateOrigin) -> Manifest:
        """The state that `file` is from now on. Raises: Unusable, OSError."""
        path = self.folder / file
        try:
            before = path.stat()
            if before.st_size == 0:
                raise Unusable("empty")
            if before.st_size > self._max_bytes:
                raise Unusable("larger than the budget")
            if not self._holds(key, path):
                raise Unusable("holds other tokens")
            digest = self._digest(path)
            removed = self._folder.make_room(self._max_bytes, besides=path.stem)
            after = path.stat()
        except FileNotFoundError:
            raise Unusable("vanished") from None
        if removed is None:
            raise Unusable("disk full")
        if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
            raise Unusable("still written to")
        if removed.states and self._stats is not None:
            self._stats.add(Counts(evicted=removed.states, evicted_bytes=removed.bytes))
        manifest = Manifest(key, file, before.st_size, digest, self._clock(), origin)
        self._folder.write(manifest)
        return manifest

    def _holds(self, key: StateKey, path: Path) -> bool:
        """Whether the file's tokens begin with the key's, as far as the file tells: another call may have had the
        slot before it was saved."""
        tokens = saved_tokens(path)
        return tokens is None or segment_hash(tokens[: key.n_tokens], key.identity) == key.hash

    def _discard(self, key: StateKey, cause: str) -> None:
        for stem in self._begun.pop(key.name, set()):
            self._folder.remove(stem)
        self._look()
        for stem in self._stems.get(key.name, set()).copy():
            self._take_out(key, stem, cause)

    def _take_out(self, key: StateKey, stem: str, cause: str) -> None:
        self._stems.get(key.name, set()).discard(stem)
        self._folder.remove(stem)
        if not cause:
            return
        self._say(f"a state of {key.n_tokens} tokens is discarded: {cause}")
        if self._stats is not None:
            self._stats.discarded(cause)

    def _manifests(self) -> list[Manifest]:
        found = []
        for held in sorted((h for h in self._folder.listing() if h.whole), key=lambda h: h.used):
            try:
                found.append(self._folder.read(held.stem))
            except (Unusable, FileNotFoundError):
                continue
        return found

    def _say(self, what: str) -> None:
        """Once at the level that people see."""
        _log.log(logging.DEBUG if what in self._said else logging.WARNING, "%s.", what)
        self._said.add(what)
