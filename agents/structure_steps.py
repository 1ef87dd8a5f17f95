"""How structures stand among a run's steps; apart from the graphs, which take seconds to import."""

from __future__ import annotations

from collections.abc import Sequence

from coa.agents.structure import Structure
from coa.runs import StoredStep

__all__ = ["step_key", "structures_of"]

_PREFIX = "structure/"


def step_key(part: int, position: int) -> str:
    """The step that a chunk's structure is stored as; `position` is the chunk's place in its part."""
    return f"{_PREFIX}{part}/{position}"


def structures_of(steps: Sequence[StoredStep]) -> dict[str, Structure]:
    """The structures among a run's steps, by their keys; chunks that failed have none."""
    return {
        step.key: Structure.from_json(step.payload["structure"])
        for step in steps
        if step.key.startswith(_PREFIX) and step.cause is None
    }
