"""Answers and events as JSON values, the same for the command line, the service and files."""

from __future__ import annotations

import re
from dataclasses import asdict

from coa.events import Event
from coa.types import Answer, Citation, Usage

__all__ = ["SCHEMA_VERSION", "answer_object", "event_object", "usage_object"]

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")

SCHEMA_VERSION = 1
"""Of the JSON objects; raised when a key goes or changes its meaning, not when one is added."""


def usage_object(usage: Usage) -> dict[str, object]:
    """The `usage` key of an answer."""
    return {
        "calls": usage.calls,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usage.cost_usd,
        "seconds": round(usage.seconds, 3),
        "reasoning_tokens": usage.reasoning_tokens,
        "reused": usage.reused,
    }


def answer_object(answer: Answer, *, language: str | None = None, notes: bool = False) -> dict[str, object]:
    """The answer after design/cli.md; `ok` is true when every chunk was read."""
    result: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "ok": answer.coverage.complete,
        "run_id": answer.run_id,
        "strategy": answer.strategy,
        "strategy_reason": answer.strategy_reason,
        "model": answer.model,
        "document": answer.document,
        "document_sha256": answer.document_sha256,
        "language": language,
        "question": answer.question,
        "answer": answer.text,
        "citations": [_citation_object(citation) for citation in answer.citations],
        "claims": [{"text": claim.text, "citations": list(claim.citations)} for claim in answer.claims],
        "quotes_not_found": answer.quotes_not_found,
        "verdict": answer.verdict,
        "coverage": {
            "chunks": answer.coverage.chunks,
            "read": answer.coverage.read,
            "skipped": [{"index": s.index, "cause": s.cause} for s in answer.coverage.skipped],
            "unselected": answer.coverage.unselected,
        },
        "usage": usage_object(answer.usage),
        "estimate": None if answer.estimate is None else asdict(answer.estimate),
        "seconds": round(answer.seconds, 3),
        "prompts": dict(answer.prompts),
        "warnings": list(answer.warnings),
    }
    if notes:
        result["notes"] = [
            {"chunk": note.chunk, "text": note.text, "informative": note.informative, "path": note.path}
            for note in answer.notes
        ]
    return result


def _citation_object(citation: Citation) -> dict[str, object]:
    return {
        "quote": citation.quote,
        "start": citation.start,
        "end": citation.end,
        "chapter": citation.chapter,
        "page": citation.page,
        "status": citation.status,
        "origin": citation.origin,
        "score": citation.score,
    }


def event_object(event: Event) -> dict[str, object]:
    """An event with its `type` ("chunk_read", "answer_token", …) and its fields."""
    kind = _CAPITAL.sub("_", type(event).__name__).lower()
    return {"type": kind, **asdict(event)}
