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
from coa.graphs.chain import build_chain
from coa.graphs.context import ReadContext
from coa.graphs.estimates import Estimating, chain_estimate
from coa.graphs.state import ReadInput, ReadOutput

__all__ = ["ENTRY_POINT_GROUP", "STRATEGIES", "Strategy", "strategies", "strategy"]

ENTRY_POINT_GROUP = "coa.strategies"
"""Packages name a `Strategy`, or a function that returns one, under this group."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way of reading, as a graph."""

    name: str
    description: str
    build: Callable[[], StateGraph[Any, ReadContext, Any, Any]]
    """The uncompiled graph; it ends with the node of `coa.graphs.citing.add_citing`."""
    agents: frozenset[str] = frozenset({"worker", "manager"})
    """The roles that its context has to hold."""
    estimate: Estimating = chain_estimate
    input_schema: type[Any] = ReadInput
    output_schema: type[Any] = ReadOutput
    context_schema: type[Any] = ReadContext


STRATEGIES: dict[str, Strategy] = {
    s.name: s
    for s in (
        Strategy(
            "chain",
            "Chain of Agents: workers read the chunks in order, each hands its notes on, a manager answers",
            build_chain,
        ),
    )
}
"""coa's own."""


def strategies() -> Mapping[str, Strategy]:
    """coa's own strategies, then those of installed packages. Raises: ConfigError for a package's that is none."""
    return {**_installed(), **STRATEGIES}


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises: ConfigError, with the names there are."""
    if name in STRATEGIES:
        return STRATEGIES[name]
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
