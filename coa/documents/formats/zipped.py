"""Entries of a ZIP archive, read in memory and within limits; nothing is ever written to disk."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib

from coa.documents.limits import ReadingLimits
from coa.errors import DocumentError, DocumentTooLarge

__all__ = ["Archive"]

_STEP = 1 << 18
# Small entries may be packed as tightly as they like: 1000 blanks pack well, too.
_RATIO_FROM = 1_000_000
_ENCRYPTED = 0x1
# What the standard library raises for broken and for unknown compression.
_DAMAGES = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, RuntimeError,
)  # fmt: skip


class Archive:
    """A ZIP archive in memory.

    Sizes are counted while unpacking: what the headers say is not believed. Names are only ever compared, so
    "../../etc/passwd" is a name like any other.
    """

    def __init__(self, data: bytes, *, name: str, limits: ReadingLimits) -> None:
        """Raises DocumentError where `data` is no archive, DocumentTooLarge where it has too many entries."""
        self._name = name
        self._limits = limits
        self._unpacked = 0
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            infos = self._zip.infolist()
        except (*_DAMAGES, MemoryError) as exc:
            raise DocumentError(
                f"{name} is damaged: its archive has no readable directory.", hint="Get the file again."
            ) from exc
        if len(infos) > limits.max_archive_entries:
            raise DocumentTooLarge(
                f"{name} holds {len(infos):,} entries where at most {limits.max_archive_entries:,} are read.",
                hint="Split it, or raise max_archive_entries.",
            )
        # Of entries of one name the last one counts, as for every unpacker.
        self._infos = {info.filename: info for info in infos if not info.is_dir()}
        self._folded = {name.casefold(): name for name in self._infos}

    @property
    def names(self) -> list[str]:
        """The names of its files, in the archive's order."""
        return list(self._infos)

    def find(self, name: str) -> str | None:
        """The entry called `name`, or so but for capitals; None where there is none."""
        return name if name in self._infos else self._folded.get(name.casefold())

    def is_encrypted(self, name: str) -> bool:
        """True where the archive itself has a password on the entry."""
        return bool(self._infos[name].flag_bits & _ENCRYPTED)

    def read(self, name: str) -> bytes:
        """The bytes of the entry `name`, which has to be one of `names`.

        Raises DocumentTooLarge over a limit, DocumentError where the entry is damaged or encrypted.
        """
        info = self._infos[name]
        if self.is_encrypted(name):
            raise DocumentError(f"{self._name}: {_shown(name)} has a password.", hint="Unpack it first.")
        pieces: list[bytes] = []
        size = 0
        try:
            with self._zip.open(info) as file:
                while piece := file.read(_STEP):
                    size += len(piece)
                    self._check(name, size, info.compress_size)
                    pieces.append(piece)
        except _DAMAGES as exc:
            raise DocumentError(f"{self._name}: {_shown(name)} is damaged.", hint="Get the file again.") from exc
        self._unpacked += size
        return b"".join(pieces)

    def _check(self, name: str, size: int, packed: int) -> None:
        if self._unpacked + size > self._limits.max_unpacked_bytes:
            raise DocumentTooLarge(
                f"{self._name} unpacks to over {self._limits.max_unpacked_bytes / 1e6:,.0f} MB.",
                hint="If it is no archive bomb, raise max_unpacked_bytes.",
            )
        if size > _RATIO_FROM and size > self._limits.max_archive_ratio * max(packed, 1):
            raise DocumentTooLarge(
                f"{self._name}: {_shown(name)} unpacks to over {self._limits.max_archive_ratio:,.0f} times its size.",
                hint="If it is no archive bomb, raise max_archive_ratio.",
            )


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)
