"""Readers: bytes to a document with canonical text, structure and warnings.

`read_document` is loaded when it is first used: agents need `canonical` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coa.documents.canonical import canonical

if TYPE_CHECKING:
    from coa.documents.reader import read_document

__all__ = ["canonical", "read_document"]


def __getattr__(name: str) -> object:
    if name == "read_document":
        from coa.documents.reader import read_document

        globals()[name] = read_document
        return read_document
    raise AttributeError(f"module 'coa.documents' has no attribute {name!r}")
