"""coa: Chain-of-Agents reading of documents longer than a model's window.

Names are loaded when they are first used: `import coa` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coa.api import (
        Plan,
        Session,
        StopSignal,
        ask,
        ask_sync,
        check,
        check_sync,
        resume,
        resume_sync,
        structure,
        structure_sync,
        summarize,
        summarize_sync,
    )
    from coa.config import Settings, load_settings
    from coa.documents import read_document
    from coa.errors import CoaError
    from coa.types import Answer, Chunk, Citation, Coverage, Document, Usage

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Chunk",
    "Citation",
    "CoaError",
    "Coverage",
    "Document",
    "Plan",
    "Session",
    "Settings",
    "StopSignal",
    "Usage",
    "ask",
    "ask_sync",
    "check",
    "check_sync",
    "load_settings",
    "read_document",
    "resume",
    "resume_sync",
    "structure",
    "structure_sync",
    "summarize",
    "summarize_sync",
]

_HOME = {
    "coa.api": {
        "Plan",
        "Session",
        "StopSignal",
        "ask",
        "ask_sync",
        "check",
        "check_sync",
        "resume",
        "resume_sync",
        "structure",
        "structure_sync",
        "summarize",
        "summarize_sync",
    },
    "coa.config": {"Settings", "load_settings"},
    "coa.documents": {"read_document"},
    "coa.errors": {"CoaError"},
    "coa.types": {"Answer", "Chunk", "Citation", "Coverage", "Document", "Usage"},
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            value: object = getattr(importlib.import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'coa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
