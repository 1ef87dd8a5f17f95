"""The report of an evaluation as one HTML file: tables, drawings, and every question with what each arm said.

It loads nothing, works from a disk, and whatever came out of a document or a model is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

from coa.evaluation.report_plots import cost_plot, legend_mark, slice_plot
from coa.evaluation.report_questions import questions_html
from coa.evaluation.report_tables import Table, change_table, shown_tables
from coa.evaluation.summary import Summary
from coa.evaluation.verdicts import Change
from coa.report.page import escaped, page

__all__ = ["report_html"]

_READING = """
<details class="no-print"><summary>How to read this</summary>
<p>Scores are means over questions, in percent. Intervals are 95 % bootstraps over documents: questions about one
document stand and fall together, so with one document there is none, and with few it is wide. Differences are paired:
the same questions for both arms; p is of a permutation test over documents, the last column after Holm's correction for
comparing several. A question without an answer counts as wrong. Evidence recall and citations are measured against the
evidence that the set gives; positions are known only where it can be found in the text.</p>
<p>The arms closed_book (no text), full_context (one call, the middle left out where the text is too long), bm25 (one
call over the passages that BM25 puts first) and single_chunk (one worker, then the manager) are controls: a strategy
that does not beat them is not worth its cost here.</p></details>
"""


def report_html(summary: Summary, changed: Sequence[Change] = ()) -> str:
    """The whole page; `changed` is what differs from a baseline."""
    name = str(summary.suite["name"])
    against = change_table(changed)
    sets = "".join(_set(summary, n, set_name) for n, set_name in enumerate(summary.sets))
    links = "".join(f'<li><a href="#set-{n}">{escaped(s)}</a></li>' for n, s in enumerate(summary.sets))
    body = (
        '<a class="skip" href="#sets">To the scores</a>'
        f"<header><h1>Evaluation: {escaped(name)}</h1>{_overview(summary)}</header>"
        f'<nav aria-label="Contents"><ul>{links}<li><a href="#questions">questions, one by one</a></li></ul></nav>'
        f"<main>{_READING}{_legend(summary)}"
        + (f'<section class="panel">{_table(against)}</section>' if against is not None else "")
        + f'<div id="sets">{sets}</div>'
        f'<section id="questions" aria-label="Questions"><h2>Questions, one by one</h2>{questions_html(summary)}'
        "</section></main>"
    )
    return page(f"{name}: evaluation", body, style=_resource("report.css"), script=_resource("report.js"))


def _overview(summary: Summary) -> str:
    n_questions = len({(s.told.set, s.told.question.id) for s in summary.scored})
    models = sorted({str(arm["model"]) for arm in summary.suite["arms"]})
    told = [
        f"{n_questions} questions in {len(summary.sets)} sets, {len(summary.arms)} arms",
        f"models: {', '.join(models)}",
    ]
    if summary.suite.get("judge"):
        told.append(f"judge: {summary.suite['judge']}")
    missing = f'<p class="wary">Answers still missing: {summary.missing}.</p>' if summary.missing else ""
    return f'<p class="dim">{escaped("; ".join(told))}.</p>{missing}'


def _legend(summary: Summary) -> str:
    def described(arm: object) -> str:
        assert isinstance(arm, dict)  # noqa: S101 - JSON of the ledger
        options = ", ".join(f"{k} {v}" for k, v in arm["options"].items())
        what = "control" if arm["control"] else f"strategy {arm['strategy']}"
        return "; ".join(filter(None, [what, str(arm["model"]), options]))

    items = "".join(
        f"<li>{legend_mark(n)} <strong>{escaped(str(arm['name']))}</strong> "
        f'<span class="dim small">{escaped(described(arm))}</span></li>'
        for n, arm in enumerate(summary.suite["arms"])
    )
    return f'<section class="panel" aria-label="Arms"><h2>Arms</h2><ul class="legend">{items}</ul></section>'


def _set(summary: Summary, n: int, name: str) -> str:
    plots = [cost_plot(summary, name), slice_plot(summary, name, "position"), slice_plot(summary, name, "length")]
    figures = "".join(f"<figure>{plot}</figure>" for plot in plots if plot is not None)
    tables = "".join(_table(table) for table in shown_tables(summary, name))
    return (
        f'<section class="panel" id="set-{n}" aria-labelledby="set-{n}-name"><h2 id="set-{n}-name">{escaped(name)}</h2>'
        f'<div class="figures">{figures}</div>{tables}</section>'
    )


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col"{"" if n == 0 else _NUMBER}>{escaped(text)}</th>' for n, text in enumerate(table.header)
    )
    rows = "".join(
        f'<tr><th scope="row">{escaped(row[0])}</th>'
        + "".join(f"<td{_NUMBER}>{escaped(c)}</td>" for c in row[1:])
        + "</tr>"
        for row in table.rows
    )
    # A table that is wider than the screen scrolls by itself, also by keyboard; its title stays where it is.
    title = escaped(table.title)
    return (
        f'<p class="title">{title}</p><div class="wide" tabindex="0" role="region" aria-label="{title}">'
        f'<table aria-label="{title}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


_NUMBER = ' class="number"'


@cache
def _resource(name: str) -> str:
    return resources.files("coa.evaluation").joinpath(name).read_text(encoding="utf-8")
