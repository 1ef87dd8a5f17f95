"""The reading strategies by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langgraph.graph import StateGraph

from coa.errors import ConfigError
from coa.graphs.chain import build_chain

__all__ = ["STRATEGIES", "Strategy", "strategy"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way of reading, as a graph."""

    name: str
    description: str
    build: Callable[[], StateGraph[Any, Any, Any, Any]]


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


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises: ConfigError, with the names there are."""
    try:
        return STRATEGIES[name]
    except KeyError:
        close = difflib.get_close_matches(name, STRATEGIES, n=1)
        raise ConfigError(
            f"there is no strategy {name!r}" + (f"; did you mean {close[0]!r}?" if close else "."),
            hint=f"Strategies: {', '.join(STRATEGIES)}.",
        ) from None
