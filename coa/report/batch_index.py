"""A batch as one page: a row for each document and question, to be searched, narrowed down and sorted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from coa.report.answer import inline_html
from coa.report.page import escaped, page, resource
from coa.report.timeline import duration
from coa.report.usage import cost
from coa.types import Usage

__all__ = ["IndexRow", "batch_index"]

_SHOWN = 400
_CLASSES = {"done": "good", "partial": "wary", "failed": "bad", "cancelled": "wary"}


@dataclass(frozen=True, slots=True)
class IndexRow:
    """A document with one question, or with the task that was done on it."""

    document: str
    """Its name, or its path in the batch's folder."""
    state: str
    """One word, as "done", "partial", "failed", "waiting"."""
    question: str | None = None
    """None for a task without one."""
    answer: str = ""
    """The text; the table shows its first 400 characters."""
    link: str | None = None
    """Path of the item's own page, relative to the index's folder, "/" between its parts; None where it has none."""
    usage: Usage = field(default_factory=Usage)
    seconds: float | None = None
    error: str | None = None
    """Why there is no answer, or only part of one."""


def batch_index(rows: Sequence[IndexRow], *, title: str, details: Sequence[tuple[str, str]] = ()) -> str:
    """The whole file; `details` are named facts about the batch, as plain text, shown above the table.

    Rows keep their order until someone sorts them. Sums stand over the table; a price is unknown where one row's is.
    """
    asked = any(row.question is not None for row in rows)
    states = Counter(row.state for row in rows)
    body = (
        '<a class="skip" href="#rows">To the table</a>\n'
        f'<header><h1 dir="auto">{escaped(title, quotes=False)}</h1></header>\n<main>\n'
        f"{_details([*details, *_sums(rows, states)])}{_filters(states)}"
        f'<p id="count" class="dim small" role="status">{len(rows):,} rows</p>\n'
        '<div class="wide" role="region" aria-label="Results" tabindex="0">\n'
        f'<table id="rows">\n{_head(asked)}<tbody>\n{"".join(_row(row, asked=asked) for row in rows)}</tbody></table>\n'
        "</div>\n</main>"
    )
    return page(title, body, style=resource("index.css"), script=resource("index.js"))


def _sums(rows: Sequence[IndexRow], states: Counter[str]) -> list[tuple[str, str]]:
    total = Usage()
    for row in rows:
        total = total.merged(row.usage)
    share = f" ({total.cached_tokens / total.prompt_tokens:.0%} cached)" if total.prompt_tokens else ""
    return [
        ("Rows", ", ".join(f"{n:,} {state}" for state, n in states.most_common()) or "none"),
        ("Calls", f"{total.calls:,}" + (f", {total.reused:,} replies kept from before" if total.reused else "")),
        ("Tokens", f"{total.prompt_tokens:,} in{share}, {total.completion_tokens:,} out"),
        ("Cost", cost(total.cost_usd)),
    ]


def _details(details: Sequence[tuple[str, str]]) -> str:
    lines = "".join(
        f"<div><dt>{escaped(name, quotes=False)}</dt><dd>{escaped(value, quotes=False)}</dd></div>\n"
        for name, value in details
    )
    return f'<dl class="details">\n{lines}</dl>\n'


def _filters(states: Counter[str]) -> str:
    """Shown by the script, which they need."""
    options = "".join(f"<option>{escaped(state)}</option>" for state in sorted(states))
    return (
        '<div id="filters" hidden><label>Search <input id="words" type="search" autocomplete="off"></label>\n'
        f'<label>State <select id="state"><option value="">all</option>{options}</select></label></div>\n'
    )


def _head(asked: bool) -> str:
    names = ["Document", *(["Question"] if asked else []), "State", "Answer", "Calls", "Tokens in", "Cached", "Time"]
    numbers = {"Calls", "Tokens in", "Cached", "Time"}
    looks = {name: ' class="number"' if name in numbers else "" for name in names}
    cells = "".join(f'<th scope="col"{looks[name]}>{name}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>\n"


def _row(row: IndexRow, *, asked: bool) -> str:
    usage = row.usage
    name = escaped(row.document, quotes=False)
    # Quoted whole, a path cannot begin with a scheme ("javascript:") nor lead to another host.
    address = quote((row.link or "").lstrip("/"), safe="/", errors="surrogateescape")
    linked = f'<a href="{address}">{name}</a>' if address else name
    question = f'<td dir="auto">{escaped(row.question or "", quotes=False)}</td>' if asked else ""
    share = f"{usage.cached_tokens / usage.prompt_tokens:.0%}" if usage.prompt_tokens else ""
    numbers = (
        (usage.calls, f"{usage.calls:,}"),
        (usage.prompt_tokens, f"{usage.prompt_tokens:,}"),
        (usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else -1, share),
        (row.seconds or 0, "" if row.seconds is None else duration(row.seconds)),
    )
    cells = "".join(f'<td class="number" data-v="{value:.6g}">{shown}</td>' for value, shown in numbers)
    looks = _CLASSES.get(row.state, "dim")
    return (
        f'<tr data-state="{escaped(row.state)}"><th scope="row" dir="auto">{linked}</th>{question}'
        f'<td class="{looks}">{escaped(row.state, quotes=False)}</td><td dir="auto">{_answer(row)}</td>{cells}</tr>\n'
    )


def _answer(row: IndexRow) -> str:
    words = " ".join(row.answer.split())
    shown = words if len(words) <= _SHOWN else words[: _SHOWN - 1].rstrip() + "…"
    parts = [inline_html(shown, lambda _: None)] if shown else []
    parts += [f'<span class="bad small">{escaped(row.error, quotes=False)}</span>'] if row.error else []
    return "<br>".join(parts)
