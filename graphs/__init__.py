"""langgraph graphs built from agents.

`build_chain()` returns an uncompiled StateGraph, so that a host can add nodes and its own checkpointer.
"""

from coa.graphs.alr2 import build_alr2
from coa.graphs.chain import build_chain
from coa.graphs.context import Answering, InMemoryNotes, NoteStore, ReadContext, Reading, ReadOptions
from coa.graphs.rag import build_rag
from coa.graphs.registry import STRATEGIES, Strategy, strategies, strategy
from coa.graphs.state import STATE_VERSION, ReadInput, ReadOutput, ReadState

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
    "build_chain",
    "build_rag",
    "strategies",
    "strategy",
]
