"""Strategies as graphs to look at: compiled, drawn, their schemas."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from coa.graphs.registry import Strategy, strategy

__all__ = ["graph", "mermaid", "schemas"]


def graph(name: str) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The compiled graph of a strategy, without a checkpointer: a host's server gives its own. It is made once.

    Raises: ConfigError for a name that is none.
    """
    return _compiled(strategy(name))


@cache
def _compiled(found: Strategy) -> CompiledStateGraph[Any, Any, Any, Any]:
    return found.build().compile(name=found.name)


def mermaid(name: str) -> str:
    """The strategy's graph as Mermaid, subgraphs spelt out; made without going online. Raises: as `graph`."""
    return graph(name).get_graph(xray=True).draw_mermaid()


def schemas(name: str) -> dict[str, Any]:
    """What the strategy's graph takes and gives, as JSON schemas, and the fields of its runtime context.

    The context holds live objects (agents, the note store), so its fields are told by their types' names.
    Raises: as `graph`.
    """
    compiled = graph(name)
    context = strategy(name).context_schema
    fields = dataclasses.fields(context) if dataclasses.is_dataclass(context) else ()
    return {
        "input": compiled.get_input_jsonschema(),
        "output": compiled.get_output_jsonschema(),
        "context": {f.name: str(f.type) for f in fields if f.init},
        "agents": sorted(strategy(name).agents),
    }
