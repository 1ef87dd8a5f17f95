"""The reading strategies by name: coa's own, and those that installed packages bring."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from langgraph.graph import StateGraph

from coa.errors import ConfigError
from coa.graphs.alr2 import alr2_estimate, build_alr2
from coa.graphs.auto import build_auto
from coa.graphs.chain import build_chain
from coa.graphs.check import CheckOutput, build_check, check_estimate
from coa.graphs.context import ReadContext
from coa.graphs.direct import build_direct
from coa.graphs.estimates import (
    Estimating,
    bidirectional_estimate,
    chain_estimate,
    direct_estimate,
    merge_estimate,
    paths_estimate,
    tree_estimate,
)
from coa.graphs.merge import build_merge
from coa.graphs.paths import build_bidirectional, build_permutation, build_self_consistency
from coa.graphs.rag import build_rag, rag_estimate
from coa.graphs.state import ReadInput, ReadOutput
from coa.graphs.structured import build_structured, structured_estimate
from coa.graphs.structuring import build_outline_graph, outline_estimate
from coa.graphs.tree import build_tree

__all__ = ["CHECK", "ENTRY_POINT_GROUP", "OUTLINE", "STRATEGIES", "Strategy", "strategies", "strategy"]

ENTRY_POINT_GROUP = "coa.strategies"
"""Packages name a `Strategy`, or a function that returns one, under this group."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way of reading, as a graph."""

    name: str
    description: str
    build: Callable[[], StateGraph[Any, ReadContext, Any, Any]]
    """The uncompiled graph; it ends with the node of `coa.graphs.citing.add_citing`. All runs share what it gives."""
    agents: frozenset[str] = frozenset({"worker", "manager"})
    """The roles that its context has to hold."""
    estimate: Estimating = chain_estimate
    input_schema: type[Any] = ReadInput
    output_schema: type[Any] = ReadOutput
    context_schema: type[Any] = ReadContext
    in_order: bool = False
    """Whether every run reads all chunks, in an order that the document settles (by `Turn`s): several of them can keep
    in step from the first chunk on."""


_PATHS = frozenset({"worker", "manager", "judge"})

STRATEGIES: dict[str, Strategy] = {
    s.name: s
    for s in (
        Strategy(
            "chain",
            "Chain of Agents: workers read the chunks in order, each hands its notes on, a manager answers",
            build_chain,
            in_order=True,
        ),
        Strategy(
            "bidirectional",
            "two chains, one from each end; a judge, or a vote, chooses between their answers",
            build_bidirectional,
            _PATHS,
            bidirectional_estimate,
            in_order=True,
        ),
        Strategy(
            "self-consistency",
            "several sampled chains in the same order; a judge, or a vote, chooses among their answers",
            build_self_consistency,
            _PATHS,
            paths_estimate,
            in_order=True,
        ),
        Strategy(
            "permutation",
            "several chains over the chunks in random orders; a judge, or a vote, chooses among their answers",
            build_permutation,
            _PATHS,
            paths_estimate,
            in_order=True,
        ),
        Strategy(
            "tree",
            "every chunk by itself, notes merged level by level, then the answer",
            build_tree,
            frozenset({"worker", "manager", "merger"}),
            tree_estimate,
        ),
        Strategy(
            "merge",
            "every chunk answered by itself, and a majority over the answers",
            build_merge,
            frozenset({"passages", "judge"}),
            merge_estimate,
        ),
        Strategy(
            "direct",
            "the whole text in one call, where it fits",
            build_direct,
            frozenset({"passages"}),
            direct_estimate,
        ),
        Strategy(
            "alr2",
            "evidence by sentence ids from every chunk, checked; the answer from the evidence alone, in rounds",
            build_alr2,
            frozenset({"retriever", "reasoner"}),
            alr2_estimate,
        ),
        Strategy(
            "rag",
            "one answer call over the passages that a ranking by words puts first",
            build_rag,
            frozenset({"reasoner"}),
            rag_estimate,
        ),
        Strategy(
            "structured",
            "every chunk structured once (scope, aspects, sentences) and kept; reads the aspects that are needed",
            build_structured,
            frozenset({"structurizer", "chooser", "worker", "manager"}),
            structured_estimate,
        ),
        Strategy(
            "auto",
            "direct, alr2 or chain, by the text's length, the window and the kind of question; says why",
            build_auto,
            frozenset({"worker", "manager", "passages", "retriever", "reasoner"}),
        ),
    )
}
"""coa's own."""

OUTLINE = Strategy(
    "outline",
    "every chunk structured and nothing asked: what `coa structure` runs",
    build_outline_graph,
    frozenset({"structurizer"}),
    outline_estimate,
)
"""Found by its name like a strategy, but none to ask with; so is the next one."""

CHECK = Strategy(
    "check",
    "statements, one a line, judged by the sentences that may decide them: what `coa check` runs",
    build_check,
    frozenset({"checker"}),
    check_estimate,
    output_schema=CheckOutput,
)


def strategies() -> Mapping[str, Strategy]:
    """coa's own strategies, then those of installed packages. Raises: ConfigError for a package's that is none."""
    return {**_installed(), **STRATEGIES}


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises: ConfigError, with the names there are."""
    if name in STRATEGIES:
        return STRATEGIES[name]
    for task in (OUTLINE, CHECK):
        if name == task.name:
            return task
    known = strategies()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    raise ConfigError(
        f"there is no strategy {name!r}" + (f"; did you mean {close[0]!r}?" if close else "."),
        hint=f"Strategies: {', '.join(known)}.",
    )


@cache
def _installed() -> Mapping[str, Strategy]:
    found: dict[str, Strategy] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            made = entry.load()
            made = made if isinstance(made, Strategy) else made()
        except Exception as error:
            raise ConfigError(
                f"the strategy {entry.name!r} of {entry.value} cannot be loaded ({type(error).__name__}: {error}).",
                hint="Mend or uninstall the package that brings it.",
            ) from error
        if not isinstance(made, Strategy):
            raise ConfigError(f"the entry point {entry.value} gives a {type(made).__name__}, not a Strategy.")
        found[made.name] = made
    return found
