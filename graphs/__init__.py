"""langgraph graphs built from agents.

Every `build_…()` returns an uncompiled StateGraph, so that a host can add nodes and its own checkpointer; `graph(name)`
is a compiled one without a checkpointer. They take a question and give an answer with citations and coverage
(`ReadInput`, `ReadOutput`); what they read, and with which agents, stands in the runtime context (`ReadContext`),
which `coa.Session.prepared` makes or a host puts together. Events come on langgraph's custom stream, typed as
`coa.events.Event`. The names of nodes are kept within a major version, and states carry `STATE_VERSION`.

Names are loaded when they are first used: a host that embeds one graph imports no other.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coa.graphs.alr2 import build_alr2
    from coa.graphs.auto import build_auto
    from coa.graphs.chain import build_chain
    from coa.graphs.check import build_check
    from coa.graphs.context import Answering, InMemoryNotes, NoteStore, ReadContext, Reading, ReadOptions
    from coa.graphs.describing import graph, mermaid, schemas
    from coa.graphs.direct import build_direct
    from coa.graphs.merge import build_merge
    from coa.graphs.paths import build_bidirectional, build_permutation, build_self_consistency
    from coa.graphs.rag import build_rag
    from coa.graphs.registry import STRATEGIES, Strategy, strategies, strategy
    from coa.graphs.state import STATE_VERSION, ReadInput, ReadOutput, ReadState
    from coa.graphs.tree import build_tree

__all__ = [
    "STATE_VERSION",
    "STRATEGIES",
    "Answering",
    "InMemoryNotes",
    "NoteStore",
    "ReadContext",
    "ReadInput",
    "ReadOptions",
    "ReadOutput",
    "ReadState",
    "Reading",
    "Strategy",
    "build_alr2",
    "build_auto",
    "build_bidirectional",
    "build_chain",
    "build_check",
    "build_direct",
    "build_merge",
    "build_permutation",
    "build_rag",
    "build_self_consistency",
    "build_tree",
    "graph",
    "mermaid",
    "schemas",
    "strategies",
    "strategy",
]

_HOME = {
    "coa.graphs.alr2": {"build_alr2"},
    "coa.graphs.auto": {"build_auto"},
    "coa.graphs.chain": {"build_chain"},
    "coa.graphs.check": {"build_check"},
    "coa.graphs.context": {"Answering", "InMemoryNotes", "NoteStore", "ReadContext", "ReadOptions", "Reading"},
    "coa.graphs.describing": {"graph", "mermaid", "schemas"},
    "coa.graphs.direct": {"build_direct"},
    "coa.graphs.merge": {"build_merge"},
    "coa.graphs.paths": {"build_bidirectional", "build_permutation", "build_self_consistency"},
    "coa.graphs.rag": {"build_rag"},
    "coa.graphs.registry": {"STRATEGIES", "Strategy", "strategies", "strategy"},
    "coa.graphs.state": {"ReadInput", "ReadOutput", "ReadState", "STATE_VERSION"},
    "coa.graphs.tree": {"build_tree"},
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            value: object = getattr(importlib.import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'coa.graphs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
