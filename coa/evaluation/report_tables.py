"""What both reports show of an evaluation, as rows of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from coa.evaluation.summary import Cell, Comparison, Cost, Summary, ordered_values
from coa.evaluation.verdicts import Change

__all__ = [
    "SCORE_NAMES",
    "Table",
    "change_table",
    "comparison_table",
    "cost_table",
    "score_table",
    "score_text",
    "shown_tables",
    "slice_tables",
]

SCORE_NAMES = {
    "em": "exact match",
    "f1": "token F1",
    "f1_zh_words": "word F1 (zh)",
    "contains": "answer in the reply",
    "match_all": "answers in the reply",
    "match_part": "an answer in the reply",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeL_zh_words": "ROUGE-L (zh words)",
    "rouge_gm": "ROUGE, geometric mean",
    "choice": "right choice",
    "exam": "exam",
    "label": "BABILong label",
    "pair_accuracy": "pair accuracy",
    "classification": "classification",
    "numbers": "right numbers",
    "code_similarity": "code similarity",
    "abstention": "refusals where due",
    "wrong_refusal": "wrong refusals (less is better)",
    "evidence_recall": "evidence recall",
    "citation_precision": "citation precision",
    "citation_recall": "citation recall",
    "citation_f1": "citation F1",
    "coverage": "coverage",
    "judged_correct": "right, says the judge",
    "judged_citation_precision": "citation precision, judged",
    "judged_citation_recall": "citation recall, judged",
}
"""Of scores, for people."""


class Table(NamedTuple):
    """Rows under a header; the first column names the row, the others hold figures."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def score_text(cell: Cell | None) -> str:
    """ "41.2 [35.0, 47.9]" in percent; an en dash where there is none."""
    if cell is None:
        return "–"
    estimate = cell.estimate
    told = f"{100 * estimate.mean:.1f}"
    if estimate.low is not None and estimate.high is not None:
        told += f" [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    return told


def score_table(summary: Summary, set_name: str) -> Table:
    """Scores of a set, an arm a row."""
    metrics = summary.metrics(set_name)
    rows = []
    for arm in summary.arms:
        cost = _cost(summary, set_name, arm)
        if cost is not None:
            cells = [score_text(summary.cell(set_name, arm, metric)) for metric in metrics]
            rows.append((arm, *cells, str(cost.asked), str(cost.failed)))
    header = ("arm", *(SCORE_NAMES.get(m, m) for m in metrics), "questions", "without answer")
    return Table(f"{set_name}: scores in percent, with 95 % intervals", header, rows)


def cost_table(summary: Summary, set_name: str) -> Table:
    """What arms took over a set, per question that was answered."""
    header = ("arm", "calls", "tokens in", "cached", "tokens out", "seconds", "model seconds", "cost in all")
    rows = []
    for arm in summary.arms:
        cost = _cost(summary, set_name, arm)
        if cost is not None:
            rows.append((arm, *_cost_cells(cost)))
    return Table(f"{set_name}: cost per question", header, rows)


def comparison_table(summary: Summary, set_name: str) -> Table | None:
    """Differences between a set's arms; None with fewer than two."""
    rows = [_comparison_row(c) for c in summary.comparisons if c.set == set_name]
    if not rows:
        return None
    metric = next(c.metric for c in summary.comparisons if c.set == set_name)
    title = f"{set_name}: differences in {SCORE_NAMES.get(metric, metric)} (points), paired by document"
    return Table(title, ("arms", "difference [95 %]", "p", "p after Holm"), rows)


def change_table(changed: Sequence[Change]) -> Table | None:
    """What differs from the baseline."""
    if not changed:
        return None
    rows: list[tuple[str, ...]] = []
    for c in changed:
        gap = c.difference
        rows.append(
            (
                f"{c.set} / {c.arm}",
                SCORE_NAMES.get(c.metric, c.metric),
                f"{100 * c.before:.1f}",
                f"{100 * c.after:.1f}",
                _points(gap.mean, gap.low, gap.high),
                _p(gap.p),
            )
        )
    return Table("Against the baseline", ("set / arm", "score", "before", "now", "difference [95 %]", "p"), rows)


def slice_tables(summary: Summary, set_name: str) -> list[Table]:
    """The set's first score by kind, position and length, where there is more than one of them."""
    tables = []
    for by, found in summary.by.items():
        mine = {value: [c for c in cells if c.set == set_name] for value, cells in found.items()}
        values = ordered_values(by, (value for value, cells in mine.items() if cells))
        if len(values) < 2:
            continue
        metric = mine[values[0]][0].metric
        rows = []
        for arm in summary.arms:
            cells = [next((c for c in mine[value] if c.arm == arm), None) for value in values]
            if any(cells):
                rows.append((arm, *(_with_n(cell) for cell in cells)))
        title = f"{set_name}: {SCORE_NAMES.get(metric, metric)} by {_BY[by]} (questions in brackets)"
        tables.append(Table(title, ("arm", *values), rows))
    return tables


_BY = {"kind": "kind of question", "position": "position of the evidence", "length": "length of the document"}


def shown_tables(summary: Summary, set_name: str) -> Iterable[Table]:
    """All tables of a set, in their order."""
    yield score_table(summary, set_name)
    yield cost_table(summary, set_name)
    compared = comparison_table(summary, set_name)
    if compared is not None:
        yield compared
    yield from slice_tables(summary, set_name)


def _with_n(cell: Cell | None) -> str:
    return "–" if cell is None else f"{100 * cell.estimate.mean:.1f} ({cell.estimate.n})"


def _cost(summary: Summary, set_name: str, arm: str) -> Cost | None:
    return next((c for c in summary.costs if (c.set, c.arm) == (set_name, arm)), None)


def _cost_cells(cost: Cost) -> tuple[str, ...]:
    n, usage = max(1, cost.answered), cost.usage
    cached = usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else 0.0
    return (
        f"{usage.calls / n:.1f}",
        f"{usage.prompt_tokens / n:,.0f}",
        f"{cached:.0%}",
        f"{usage.completion_tokens / n:,.0f}",
        f"{cost.seconds / max(1, cost.asked):.1f}",
        f"{usage.seconds / n:.1f}",
        "unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}" if usage.cost_usd else "free",
    )


def _comparison_row(c: Comparison) -> tuple[str, ...]:
    gap = c.difference
    return f"{c.one} − {c.other}", _points(gap.mean, gap.low, gap.high), _p(gap.p), _p(c.adjusted_p)


def _points(mean: float, low: float | None, high: float | None) -> str:
    told = f"{100 * mean:+.1f}"
    return told if low is None or high is None else f"{told} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _p(p: float | None) -> str:
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
