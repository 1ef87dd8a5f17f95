"""Agents: plain async callables over a ChatModel, with their prompts as files.

Names are loaded when they are first used: a host that embeds one graph imports no other's agents.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coa.agents.checker import Checker
    from coa.agents.fact_manager import FactManager
    from coa.agents.fact_worker import FactWorker
    from coa.agents.grounding import Grounding, ground
    from coa.agents.lexical_checker import LexicalChecker
    from coa.agents.manager import Manager, ManagerReply
    from coa.agents.prompting import PromptTemplate
    from coa.agents.quoting import QuotingManager, QuotingWorker, quotes_of
    from coa.agents.references import Reference
    from coa.agents.verification import QuoteVerifier, Verified
    from coa.agents.worker import Worker, WorkerReply

__all__ = [
    "Checker",
    "FactManager",
    "FactWorker",
    "Grounding",
    "LexicalChecker",
    "Manager",
    "ManagerReply",
    "PromptTemplate",
    "QuoteVerifier",
    "QuotingManager",
    "QuotingWorker",
    "Reference",
    "Verified",
    "Worker",
    "WorkerReply",
    "ground",
    "quotes_of",
]

_HOME = {
    "Checker": "coa.agents.checker",
    "FactManager": "coa.agents.fact_manager",
    "FactWorker": "coa.agents.fact_worker",
    "Grounding": "coa.agents.grounding",
    "ground": "coa.agents.grounding",
    "LexicalChecker": "coa.agents.lexical_checker",
    "Manager": "coa.agents.manager",
    "ManagerReply": "coa.agents.manager",
    "PromptTemplate": "coa.agents.prompting",
    "QuotingManager": "coa.agents.quoting",
    "QuotingWorker": "coa.agents.quoting",
    "quotes_of": "coa.agents.quoting",
    "Reference": "coa.agents.references",
    "QuoteVerifier": "coa.agents.verification",
    "Verified": "coa.agents.verification",
    "Worker": "coa.agents.worker",
    "WorkerReply": "coa.agents.worker",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'coa.agents' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
