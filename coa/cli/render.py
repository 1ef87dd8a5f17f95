"""Answers and plans as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from coa.answer_json import SCHEMA_VERSION, answer_object, usage_object
from coa.cli.terminal import paint, printable

if TYPE_CHECKING:
    from coa.cli.api_types import PlanLike
    from coa.types import Answer, Citation, CitationStatus

__all__ = [
    "SCHEMA_VERSION",
    "answer_object",
    "answer_text",
    "compared_text",
    "cost_text",
    "details_text",
    "plan_object",
    "plan_text",
    "summary_line",
    "to_json",
    "usage_object",
]

_STATUSES: dict[CitationStatus, str] = {
    "exact": "word for word",
    "normalised": "other typography",
    "fuzzy": "fuzzy: not word for word",
    "moved": "moved: not where the answer puts it",
    "not_found": "not found",
}


def to_json(value: object, *, compact: bool = False) -> str:
    """One JSON text with a line break at its end; `compact` keeps it on one line."""
    return json.dumps(value, ensure_ascii=False, indent=None if compact else 2) + "\n"


def answer_text(answer: Answer, *, colour: bool = False, markdown: bool = False, notes: bool = False) -> str:
    """The whole answer for people: text, then citations, then notes if wanted."""
    body = printable(answer.text).strip()
    return body + "\n" + details_text(answer, colour=colour, markdown=markdown, notes=notes)


def details_text(answer: Answer, *, colour: bool = False, markdown: bool = False, notes: bool = False) -> str:
    """What follows the answer's text: numbered citations, and the notes if wanted; empty without either."""
    parts: list[str] = []
    if answer.citations:
        lines = [_citation_line(n, c, colour=colour) for n, c in enumerate(answer.citations, 1)]
        if markdown:
            lines = [f"{line}  " for line in lines]
        parts.append("\n".join(lines))
    if notes and answer.notes:
        heading = "## Notes" if markdown else paint("Notes", "bold", colour=colour)
        lines = [f"[chunk {note.chunk + 1}] {_one_line(note.text)}" for note in answer.notes]
        parts.append("\n".join([heading, "", *lines]) if not markdown else "\n\n".join([heading, *lines]))
    return "".join(f"\n{part}\n" for part in parts)


def _citation_line(number: int, citation: Citation, *, colour: bool) -> str:
    where = f"offset {citation.start}-{citation.end}"
    if citation.page is not None:
        where = f"page {citation.page}, {where}"
    if citation.status != "exact":
        where += f", {_STATUSES[citation.status]}"
    if citation.origin == "located":
        where += ", found by its words"
    chapter = f"{_one_line(citation.chapter)}: " if citation.chapter else ""
    return f'[{number}] {chapter}"{_one_line(citation.quote)}" ' + paint(f"({where})", "dim", colour=colour)


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def summary_line(answer: Answer) -> str:
    """What the answer took, for stderr."""
    usage, coverage = answer.usage, answer.coverage
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    kept = f", {usage.reused} {'reply' if usage.reused == 1 else 'replies'} kept from before" if usage.reused else ""
    parts = [
        f"{coverage.read} of {coverage.chunks} chunks read",
        f"{usage.calls} {'call' if usage.calls == 1 else 'calls'}{kept}",
        f"{usage.prompt_tokens:,} tokens in{cached}, {usage.completion_tokens:,} out",
        duration(answer.seconds),
        cost_text(usage.cost_usd),
        f"run {answer.run_id}",
    ]
    return " | ".join(parts)


def compared_text(answer: Answer) -> str | None:
    """What the run was expected to take beside what it took; None where nothing was expected."""
    expected, usage = answer.estimate, answer.usage
    if expected is None:
        return None
    reused = f" and {usage.reused:,} kept replies" if usage.reused else ""
    return (
        f"{expected.calls:,} calls (took {usage.calls:,}{reused}), "
        f"{expected.prompt_tokens:,} tokens in (took {usage.prompt_tokens:,}), "
        f"at most {expected.completion_tokens_max:,} out (took {usage.completion_tokens:,})"
    )


def cost_text(cost_usd: float | None) -> str:
    """A price for people; None is "unknown price", 0 is "free"."""
    if cost_usd is None:
        return "unknown price"
    return "free" if cost_usd == 0 else f"${cost_usd:.4f}" if cost_usd < 1 else f"${cost_usd:,.2f}"


def duration(seconds: float) -> str:
    """`3.4 s`, `2:05 min`, `1:02:05 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02} h"


def plan_object(plan: PlanLike, question: str | None) -> dict[str, object]:
    """A --dry-run as JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "dry_run": True,
        "question": question,
        "document": plan.document,
        "document_sha256": plan.sha256,
        "strategy": plan.strategy,
        "model": plan.model,
        "window": plan.window,
        "tokenizer": plan.tokenizer,
        "exact": plan.exact,
        "chapters": plan.chapters,
        "chunks": plan.n_chunks,
        "chunk_tokens": plan.chunk_tokens,
        "calls": plan.calls,
        "prompt_tokens": plan.prompt_tokens,
        "completion_tokens_max": plan.completion_tokens_max,
        "cacheable_ratio": plan.cacheable_ratio,
        "cost_usd": plan.cost_usd,
        "seconds": plan.seconds,
    }


def plan_text(plan: PlanLike, question: str | None) -> str:
    """A --dry-run for people."""
    counted = "" if plan.exact else ", estimated"
    time = "unknown" if plan.seconds is None else "about " + duration(plan.seconds)
    rows = {
        "document": plan.document,
        "question": question or "none (a summary)",
        "model": f"{plan.model} (window of {plan.window:,} tokens)",
        "strategy": plan.strategy,
        "chunks": f"{plan.n_chunks:,} of at most {plan.chunk_tokens:,} tokens, {plan.chapters} chapters",
        "calls": f"{plan.calls:,}",
        "tokens in": f"{plan.prompt_tokens:,} ({plan.cacheable_ratio:.0%} cacheable; by {plan.tokenizer}{counted})",
        "tokens out": f"at most {plan.completion_tokens_max:,}",
        "cost": cost_text(plan.cost_usd),
        "time": time,
    }
    return table_text([(name, _one_line(value)) for name, value in rows.items()]) + "nothing was called\n"


def table_text(rows: Sequence[Sequence[str]], *, header: Sequence[str] = ()) -> str:
    """Rows in columns, two spaces apart; the last column is as wide as it likes."""
    lines = [*([header] if header else []), *rows]
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip() + "\n"
        for line in lines
    )


def mapping_text(values: Mapping[str, object]) -> str:
    """`key  value` lines."""
    return table_text([(key, _one_line(str(value))) for key, value in values.items()])
