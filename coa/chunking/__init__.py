"""Chunks of a document: what one worker reads at a time."""

from coa.chunking.packing import chunk_document, iter_chunks

__all__ = ["chunk_document", "iter_chunks"]
