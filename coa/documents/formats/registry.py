"""Which reader takes which kind of file: coa's own, and those that are installed beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from coa.documents.formats.raw import FormatReader, RawText
from coa.documents.limits import ReadingLimits
from coa.errors import ConfigError

__all__ = ["FORMATS", "plugin_for", "plugin_named"]

_GROUP = "coa.readers"


class _Lazy:
    """A reader whose module, and the libraries it needs, are imported at its first use."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __call__(self, data: bytes, *, name: str, limits: ReadingLimits) -> RawText:
        reader = cast("FormatReader", import_module(self._module).read)
        return reader(data, name=name, limits=limits)


FORMATS: dict[str, FormatReader] = {
    kind: _Lazy(f"coa.documents.formats.{module}")
    for kind, module in (("epub", "epub"), ("html", "html"), ("docx", "docx"), ("pdf", "pdf"), ("zip", "archive"))
}
"""Keys are what `coa.documents.signatures.kind_of` returns."""

_BY_NAME: dict[str, FormatReader] = {"docling": _Lazy("coa.documents.formats.docling")}
"""Readers that no content chooses."""


def plugin_named(name: str) -> FormatReader:
    """The reader of that name: docling's, or an installed one from the entry points of the group `coa.readers`.

    Raises ConfigError where there is none, or where it cannot be imported.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    for point in entry_points(group=_GROUP, name=name):
        try:
            return cast("FormatReader", point.load())
        except Exception as exc:
            raise ConfigError(
                f"The reader {name!r} cannot be loaded: {type(exc).__name__}: {exc}.", hint="Install it again."
            ) from exc
    known = ", ".join(sorted({*FORMATS, *_BY_NAME, *(p.name for p in entry_points(group=_GROUP))}))
    raise ConfigError(f"There is no reader {name!r}.", hint=f"Known are {known}.")


def plugin_for(data: bytes, *, name: str) -> FormatReader | None:
    """The first installed reader whose `recognises(data, name=name)` is true; None where there is none.

    It is asked only for files that no reader of coa's own takes. A reader without `recognises` has to be named.
    """
    for point_name in _installed(tuple(sys.path), entry_points):
        reader = plugin_named(point_name)
        recognises = getattr(reader, "recognises", None)
        if recognises is not None and recognises(data, name=name):
            return reader
    return None


@lru_cache(maxsize=4)
def _installed(path: tuple[str, ...], find: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the installed readers, looked for once on each import path: it opens a file of every distribution, which
    takes longer than reading a short text."""
    return tuple(point.name for point in find(group=_GROUP))
