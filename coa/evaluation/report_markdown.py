"""The report of an evaluation as Markdown: tables for a README or a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from coa.evaluation.report_tables import Table, change_table, score_table, shown_tables
from coa.evaluation.summary import Summary
from coa.evaluation.verdicts import Change

__all__ = ["report_markdown", "scores_markdown"]

_READING = (
    "Intervals are bootstraps over documents, p-values of paired permutations over documents; with one document there "
    "are none. A question without an answer counts as wrong."
)


def scores_markdown(summary: Summary) -> str:
    """The score tables alone."""
    return "\n".join(_table(score_table(summary, name)) for name in summary.sets)


def report_markdown(summary: Summary, changed: Sequence[Change] = ()) -> str:
    """All tables."""
    parts = [f"# {_cell(str(summary.suite['name']))}\n", _READING + "\n"]
    if summary.missing:
        parts.append(f"Answers still missing: {summary.missing}.\n")
    models = ", ".join(f"{arm['name']}: {arm['model']}" for arm in summary.suite["arms"])
    parts.append(f"Arms and models: {_cell(models)}.\n")
    against = change_table(changed)
    if against is not None:
        parts.append(_table(against))
    for name in summary.sets:
        parts.append(f"## {_cell(name)}\n")
        parts += [_table(table) for table in shown_tables(summary, name)]
    return "\n".join(parts)


def _table(table: Table) -> str:
    head = "| " + " | ".join(_cell(h) for h in table.header) + " |"
    rule = "| --- |" + " ---: |" * (len(table.header) - 1)
    rows = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in table.rows]
    return f"{_cell(table.title)}\n\n" + "\n".join([head, rule, *rows]) + "\n"


def _cell(text: str) -> str:
    """`text` that cannot end its cell, nor be taken for HTML or a link."""
    for character in "\\|<>[]*_`":
        text = text.replace(character, "\\" + character) if character not in "[]_" else text
    return " ".join(text.split())
