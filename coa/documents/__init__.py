"""Readers: bytes to a document with canonical text, structure and warnings."""

from coa.documents.canonical import canonical
from coa.documents.reader import read_document

__all__ = ["canonical", "read_document"]
