"""langgraph graphs built from agents.

`build_chain()` returns an uncompiled StateGraph, so that a host can add nodes and its own checkpointer.
"""

from coa.graphs.chain import build_chain
from coa.graphs.context import Answering, InMemoryNotes, NoteStore, ReadContext, Reading
from coa.graphs.registry import STRATEGIES, Strategy, strategy
from coa.graphs.state import ChainInput, ChainOutput, ChainState

__all__ = [
    "STRATEGIES",
    "Answering",
    "ChainInput",
    "ChainOutput",
    "ChainState",
    "InMemoryNotes",
    "NoteStore",
    "ReadContext",
    "Reading",
    "Strategy",
    "build_chain",
    "strategy",
]
