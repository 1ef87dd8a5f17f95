"""Doubles and helpers for tests of coa and of what is built on it; nothing here goes online.

    from coa.testing import Faults, FaultServer, ScriptedModel

`ScriptedModel` stands in for a model without a server: replies in order or by function, errors to raise, and a
record of what was asked. `FaultServer` is an OpenAI-compatible server on loopback that misbehaves as a `Faults`
plan says (refusals, hangs, broken streams, wrong usage, a limit of calls a minute), in a thread of the test or as
a process: `python -m coa.testing.fault_server`. `RedisProcess` is a real redis-server of the test's own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coa.llm.scripted import ScriptedModel
    from coa.testing.fault_server import Faults, FaultServer, Reply
    from coa.testing.redis_process import RedisProcess

__all__ = ["FaultServer", "Faults", "RedisProcess", "Reply", "ScriptedModel"]

# Imported when asked for: `python -m coa.testing.fault_server` has to find its own module not yet imported.
_HOMES = {
    "FaultServer": "coa.testing.fault_server",
    "Faults": "coa.testing.fault_server",
    "RedisProcess": "coa.testing.redis_process",
    "Reply": "coa.testing.fault_server",
    "ScriptedModel": "coa.llm.scripted",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
