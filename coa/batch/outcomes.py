"""What became of an item, as it is written down: for the ledger, the document's file and the list of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from coa.agents.checked import checked_of
from coa.agents.outline_rendering import outline_to_json
from coa.answer_json import answer_object
from coa.api import Session
from coa.batch.asking import id_of, question_of, task_of
from coa.batch.ledger import LeasedItem, Outcome, Row, Spending
from coa.batch.remote import is_url, name_of
from coa.errors import BudgetExceeded, CoaError, VerificationFailed
from coa.run_notes import DiskNotes
from coa.runs import RunStore
from coa.types import Answer, Document, Usage

__all__ = [
    "answer_entry",
    "entry_of_row",
    "failure_entry",
    "failure_of",
    "line_of",
    "more_than",
    "outcome_of",
    "plus",
    "spending_of",
    "spent_by",
    "told_again",
]

_State = Literal["done", "partial", "failed"]


def spending_of(usage: Usage) -> Spending:
    """A run's sums as the ledger keeps them."""
    return Spending(
        calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        cost_usd=usage.cost_usd or 0.0,
        unpriced=usage.calls if usage.cost_usd is None else 0,
        reused=usage.reused,
    )


def spent_by(runs: RunStore, run_id: str) -> Spending:
    """What a run has paid for so far, by what it has stored. Blocking."""
    return spending_of(DiskNotes(runs, run_id).spent) if runs.has(run_id) else Spending()


def plus(one: Spending, other: Spending) -> Spending:
    """What both took."""
    return Spending(*(a + b for a, b in zip(asdict(one).values(), asdict(other).values(), strict=True)))


def more_than(before: Spending, now: Spending) -> Spending:
    """What came on top of `before`."""
    return Spending(*(max(0, b - a) for a, b in zip(asdict(before).values(), asdict(now).values(), strict=True)))


def answer_entry(
    session: Session, document: Document, item: LeasedItem, answer: Answer, seconds: float
) -> dict[str, Any]:
    """An item that has an answer: done, or partial with its cause. Blocking."""
    cause: str | None = None
    kind: str | None = None
    if not answer.coverage.complete:
        skipped = answer.coverage.skipped
        first = f": {skipped[0].cause}" if skipped else ""
        cause = f"{answer.coverage.read} of {answer.coverage.chunks} chunks were read{first}"
        kind = "skipped"
    entry = _entry(item, "partial" if cause else "done", cause, kind, seconds)
    entry |= answer_object(answer, language=document.language)
    if task_of(item.payload) == "structure":
        entry["outline"] = outline_to_json(session.outline(answer.run_id), document)
    elif task_of(item.payload) == "check":
        (part,) = session.runs.plan(answer.run_id, document).parts
        checked = checked_of(document, part.chunks, answer.question or "", session.runs.stored_steps(answer.run_id))
        entry["checks"] = [asdict(one) for one in checked]
    return entry


def failure_of(error: CoaError) -> tuple[_State, Answer | None, str]:
    """The state that an error leaves an item in, the answer that it carries, and the kind that it is counted as."""
    if isinstance(error, BudgetExceeded):
        return "partial" if error.answer is not None else "failed", error.answer, "document budget"
    answer = error.answer if isinstance(error, VerificationFailed) else None
    return "failed", answer, type(error).__name__


def failure_entry(item: LeasedItem, cause: str, kind: str, spent: Spending, seconds: float) -> dict[str, Any]:
    """An item that failed."""
    entry = _entry(item, "failed", cause, kind, seconds)
    usage = {"calls": spent.calls, "prompt_tokens": spent.prompt_tokens, "cached_tokens": spent.cached_tokens}
    usage |= {"completion_tokens": spent.completion_tokens, "reused": spent.reused}
    return entry | {"usage": {**usage, "cost_usd": None if spent.unpriced else spent.cost_usd}}


def _entry(item: LeasedItem, state: _State, cause: str | None, kind: str | None, seconds: float) -> dict[str, Any]:
    return {
        "key": item.key,
        "id": id_of(item.payload),
        "task": task_of(item.payload),
        "question": question_of(item.payload),
        "state": state,
        "cause": cause,
        "kind": kind,
        "config": item.config,
        "generation": item.generation,
        "seconds": round(seconds, 3),
        "answer": None,
    }


def outcome_of(entry: Mapping[str, Any], item: LeasedItem, spent: Spending) -> Outcome:
    """What the ledger is told; `spent` is of the item's whole run."""
    return Outcome(
        key=item.key,
        state=entry["state"],
        spent=more_than(item.spent, spent),
        cause=entry["cause"],
        kind=entry["kind"],
        seconds=entry["seconds"],
    )


def told_again(stored: Mapping[str, Any], item: LeasedItem, batch_id: str) -> Outcome | None:
    """The outcome of an item whose result is on the disk already, done and of the same configuration; else None.

    What another batch has paid is none of this one's spending.
    """
    same = stored.get("config") == item.config and stored.get("generation") == item.generation
    if not same or stored.get("state") != "done":
        return None
    usage = dict(stored.get("usage") or {}) if stored.get("batch") == batch_id else {}
    usage.pop("seconds", None)
    return outcome_of(stored, item, spending_of(Usage(**usage)))


def line_of(entry: Mapping[str, Any], digest: str, sources: Sequence[str]) -> dict[str, Any]:
    """An item's line in the list of results; an outline is in the document's file alone."""
    name = name_of(sources[0]) if is_url(sources[0]) else Path(sources[0]).name
    told = {"document": name, **{key: value for key, value in entry.items() if key != "outline"}}
    told |= {"source": sources[0], "digest": digest, "file": f"documents/{digest[:2]}/{digest}.json"}
    return told | ({"sources": list(sources)} if len(sources) > 1 else {})


def entry_of_row(row: Row) -> dict[str, Any]:
    """An item that the ledger ended by itself."""
    item = LeasedItem(row.key, row.payload, row.config, row.tries, row.generation, row.spent)
    return failure_entry(item, row.cause or "", row.kind or "unknown", row.spent, row.seconds)
