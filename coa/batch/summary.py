"""The summary of a batch: counts, tokens, cost, the slowest, failures by cause."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from coa.batch.asking import question_of
from coa.batch.estimating import Expected
from coa.batch.ledger import Ledger, LedgerStatus, Spending
from coa.batch.record import BatchRecord
from coa.runs import now

__all__ = ["SCHEMA_VERSION", "spending_object", "state_of", "status_object", "summary_of"]

SCHEMA_VERSION = 1
_N_EXAMPLES = 3
_N_LOOKED_AT = 1000


def state_of(record: BatchRecord, status: LedgerStatus) -> str:
    """One word: "done", "partial", "failed", "cancelled", "open" or "running"."""
    if status.control == "cancelled" and status.open:
        return "cancelled"
    if status.open:
        return "running" if status.owners else "open"
    if not record.scanned:
        return "open"
    if status.counts["failed"] or status.counts["partial"]:
        return "partial" if status.counts["done"] or status.counts["partial"] else "failed"
    return "done"


def spending_object(spent: Spending) -> dict[str, object]:
    """As the `usage` of an answer."""
    return {
        "calls": spent.calls,
        "prompt_tokens": spent.prompt_tokens,
        "cached_tokens": spent.cached_tokens,
        "completion_tokens": spent.completion_tokens,
        "cost_usd": None if spent.unpriced else spent.cost_usd,
        "unpriced_calls": spent.unpriced,
        "reused": spent.reused,
    }


def status_object(record: BatchRecord, status: LedgerStatus) -> dict[str, object]:
    """What `coa batch status --json` prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        "batch": record.batch_id,
        "task": record.task,
        "created": record.created,
        "out": record.out,
        "model": record.settings.get("model"),
        "state": state_of(record, status),
        "scanned": record.scanned,
        "documents": status.documents,
        "items": sum(status.counts.values()),
        "counts": dict(status.counts),
        "usage": spending_object(status.spent),
        "set_aside": spending_object(status.reserved),
        "limits": record.options.limits._asdict(),
        "workers": dict(status.owners),
        "causes": dict(status.causes),
        "slowest": [{"seconds": round(s.seconds, 3), "source": s.source, "key": s.key} for s in status.slowest],
    }


async def summary_of(
    record: BatchRecord, ledger: Ledger, *, seconds: float, ending: str, expected: Expected | None = None
) -> dict[str, Any]:
    """What stands in summary.json; `seconds` is this process's share."""
    status = await ledger.status()
    found = status_object(record, status)
    del found["set_aside"], found["workers"]
    return {
        **found,
        "ended": now(),
        "ending": ending,
        "seconds": round(seconds, 3),
        "expected": None if expected is None else asdict(expected),
        "failures": await _failures(ledger, status.causes),
    }


async def _failures(ledger: Ledger, causes: Mapping[str, int]) -> list[dict[str, object]]:
    """Each cause with how many items it struck, and a few of them."""
    examples: dict[str, list[dict[str, object]]] = {kind: [] for kind in causes}
    looked_at = 0
    if causes:
        async for row in ledger.rows({"failed", "partial"}):
            looked_at += 1
            of_kind = examples.setdefault(row.kind or "unknown", [])
            if len(of_kind) < _N_EXAMPLES:
                told: dict[str, object] = {"source": row.sources[0], "state": row.state, "cause": row.cause}
                of_kind.append({**told, "question": question_of(row.payload), "key": row.key})
            if looked_at >= _N_LOOKED_AT or _enough(examples.values()):
                break
    return [{"kind": kind, "items": n, "examples": examples[kind]} for kind, n in causes.items()]


def _enough(examples: Collection[list[dict[str, object]]]) -> bool:
    return all(len(of_kind) >= _N_EXAMPLES for of_kind in examples)
