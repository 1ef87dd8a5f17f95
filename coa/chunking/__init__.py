"""Chunks of a document: what one worker reads at a time."""

from coa.chunking.packing import chunk_document

__all__ = ["chunk_document"]
