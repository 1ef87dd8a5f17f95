"""What became of the statements that a run checked, by its steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from coa.agents.checker import CheckLabel
from coa.agents.places import sentence_citation
from coa.agents.statements import statements_from
from coa.runs import StoredStep
from coa.types import Chunk, Citation, Document

__all__ = ["Checked", "check_key", "checked_of"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a statement."""

    text: str
    id: str | None
    label: CheckLabel | None
    """None where it was not judged."""
    reason: str
    """One sentence, for people."""
    citations: tuple[Citation, ...] = ()
    """What the label rests on, the most telling first."""
    cause: str | None = None
    """Why it was not judged."""


def checked_of(
    document: Document,
    chunks: Sequence[Chunk],
    question: str,
    steps: Iterable[StoredStep],
    *,
    stopped: str | None = None,
) -> list[Checked]:
    """What became of each statement of `question`, in order, by the steps of a run; `stopped` is the limit that ended
    it."""
    stored = {step.key: step for step in steps}
    found = []
    for n, statement in enumerate(statements_from(question)):
        step = stored.get(check_key(n))
        if step is None or step.cause is not None:
            cause = (step.cause if step else None) or ("not judged" if stopped is None else f"stopped by {stopped}")
            found.append(Checked(statement.text, statement.id, None, "", cause=cause))
            continue
        spans = [chunks[c - 1].sentences[s - 1] for c, s in step.payload["references"]]
        origin: Literal["model", "located"] = "model" if step.usage.calls or step.usage.reused else "located"
        citations = tuple(sentence_citation(document, span, origin=origin) for span in spans)
        found.append(Checked(statement.text, statement.id, step.payload["label"], step.payload["reason"], citations))
    return found


def check_key(n: int) -> str:
    """The step that the `n`th statement, from 0, is stored as."""
    return f"check/{n}"
