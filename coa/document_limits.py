"""What a document may cost to read."""

from __future__ import annotations

from dataclasses import dataclass

from coa.errors import ConfigError

__all__ = ["DEFAULT_LIMITS", "ReadingLimits"]


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """Bounds against hostile and runaway input; what is over one of them is a `DocumentError`.

    Raises `ConfigError` where a limit is not above 0.
    """

    max_bytes: int = 200_000_000
    """Of the file itself."""
    max_archive_ratio: float = 200.0
    """Unpacked bytes of an archive's entry per packed byte; entries under a megabyte may have more."""
    max_archive_entries: int = 20_000
    max_unpacked_bytes: int = 1_000_000_000
    """Of all entries of an archive that are read, and of the text that comes out of any file."""
    max_pages: int = 20_000
    max_seconds: float = 300.0
    """Of reading one document, in the worker process: wall clock, and processor time."""
    max_memory_bytes: int = 4_000_000_000
    """Address space of the worker process."""
    max_depth: int = 100
    """Of nested headings, lists, tables, archives and outlines."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"The reading limit {name} has to be above 0: {value}.")


DEFAULT_LIMITS = ReadingLimits()
