"""langgraph graphs built from agents.

Every `build_…()` returns an uncompiled StateGraph, so that a host can add nodes and its own checkpointer; `graph(name)`
is a compiled one without a checkpointer. They take a question and give an answer with citations and coverage
(`ReadInput`, `ReadOutput`); what they read, and with which agents, stands in the runtime context (`ReadContext`),
which `coa.Session.prepared` makes or a host puts together. Events come on langgraph's custom stream, typed as
`coa.events.Event`. The names of nodes are kept within a major version, and states carry `STATE_VERSION`.
"""

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
