"""Drawings of an evaluation as inline SVG: every point has a shape of its own beside its colour, and words beside both.

Lengths are attributes and colours are classes (`report.css`), since the page's policy allows no inline style.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coa.evaluation.report_tables import SCORE_NAMES
from coa.evaluation.summary import Summary, ordered_values
from coa.report.page import escaped

__all__ = ["N_STYLES", "Point", "cost_plot", "legend_mark", "slice_plot"]

N_STYLES = 8
"""Colours and shapes that arms are told apart by; a ninth arm begins anew."""
_WIDTH, _HEIGHT = 360, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 40
_TOPS = (0.1, 0.2, 0.5, 1.0)
_SHAPES: tuple[Callable[[float, float], str], ...] = (
    lambda x, y: f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>',
    lambda x, y: f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 6:.1f}l5.5 10h-11z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6-6z"/>',
    lambda x, y: f'<path d="M{x:.1f} {y + 6:.1f}l5.5-10h-11z"/>',
    lambda x, y: f'<path d="M{x - 2:.1f} {y - 6:.1f}h4v4h4v4h-4v4h-4v-4h-4v-4h4z"/>',
    lambda x, y: f'<rect x="{x - 6:.1f}" y="{y - 3:.1f}" width="12" height="6"/>',
    lambda x, y: f'<rect x="{x - 3:.1f}" y="{y - 6:.1f}" width="6" height="12"/>',
)


@dataclass(frozen=True, slots=True)
class Point:
    """A mark in a drawing."""

    style: int
    x: float
    y: float
    low: float | None
    high: float | None
    label: str


def legend_mark(style: int) -> str:
    """The mark of an arm, for a legend."""
    return f'<svg class="mark" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{_mark(style, 7, 7)}</svg>'


def cost_plot(summary: Summary, set_name: str) -> str | None:
    """A set's first score against the tokens of a question, on a logarithmic axis; None where nothing has a score."""
    metrics = summary.metrics(set_name)
    points = []
    for n, arm in enumerate(summary.arms):
        cell = summary.cell(set_name, arm, metrics[0]) if metrics else None
        cost = next((c for c in summary.costs if (c.set, c.arm) == (set_name, arm)), None)
        if cell is not None and cost is not None and cost.answered:
            tokens = (cost.usage.prompt_tokens + cost.usage.completion_tokens) / cost.answered
            estimate = cell.estimate
            label = f"{arm}: {100 * estimate.mean:.1f} % at {tokens:,.0f} tokens"
            points.append(Point(n, max(1.0, tokens), estimate.mean, estimate.low, estimate.high, label))
    if not points:
        return None
    first = math.floor(math.log10(min(p.x for p in points)))
    last = max(first + 1, math.ceil(math.log10(max(p.x for p in points))))

    def place(x: float) -> float:
        return _LEFT + 8 + (math.log10(x) - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT - 16)

    ticks = [(place(10.0**power), _short(10**power)) for power in range(first, last + 1)]
    top = _top(points)
    body = "".join(_point(p, place(p.x), top) for p in points)
    name = SCORE_NAMES.get(metrics[0], metrics[0])
    title = f"{set_name}: {name} against cost. " + "; ".join(p.label for p in points)
    return _drawn(title, "tokens per question", name, ticks, body, top=top)


def slice_plot(summary: Summary, set_name: str, by: str) -> str | None:
    """A set's first score by "position" or "length", a line for each arm; None with fewer than two values."""
    found = {value: [c for c in cells if c.set == set_name] for value, cells in summary.by[by].items()}
    values = ordered_values(by, (value for value, cells in found.items() if cells))
    if len(values) < 2:
        return None
    step = (_WIDTH - _LEFT - _RIGHT) / len(values)
    places = {value: _LEFT + step * (n + 0.5) for n, value in enumerate(values)}
    lines: list[list[Point]] = []
    for n, arm in enumerate(summary.arms):
        cells = [(v, c) for v in values for c in found[v] if c.arm == arm]
        # Arms stand a little beside each other, so that intervals do not cover one another.
        shift = (n - (len(summary.arms) - 1) / 2) * min(7.0, step / (len(summary.arms) + 1))
        points = [
            Point(
                n,
                places[v] + shift,
                c.estimate.mean,
                c.estimate.low,
                c.estimate.high,
                f"{arm}, {v}: {100 * c.estimate.mean:.1f} % of {c.estimate.n}",
            )
            for v, c in cells
        ]
        lines += [points] if points else []
    top = _top([p for points in lines for p in points])
    body = "".join(_line(points, top) for points in lines)
    told = ["; ".join(p.label for p in points) for points in lines]
    metric = next(c.metric for cells in found.values() for c in cells)
    name = SCORE_NAMES.get(metric, metric)
    ticks = [(places[value], value) for value in values]
    title = f"{set_name}: {name} by {by}. " + ". ".join(told)
    return _drawn(title, _AXES[by], name, ticks, body, top=top)


_AXES = {"position": "where the evidence begins", "length": "length of the document"}


def _drawn(title: str, x_name: str, y_name: str, ticks: Sequence[tuple[float, str]], body: str, *, top: float) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{_y(share):.1f}" y2="{_y(share):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{_y(share) + 4:.1f}" text-anchor="end">{share * top:.0%}</text>'
        for share in (0, 0.2, 0.4, 0.6, 0.8, 1)
    )
    narrow = len(ticks) > 3 and any(len(label) > 8 for _, label in ticks)
    labels = "".join(
        f'<text class="tick" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{escaped(_first(label, narrow))}</text>'
        for x, label in ticks
    )
    middle = (_LEFT + right) / 2
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escaped(title)}</title>'
        f"{grid}{labels}"
        f'<text x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escaped(x_name)}</text>{body}</svg>'
        f"<figcaption>{escaped(y_name)} against {escaped(x_name)}</figcaption>"
    )


def _line(points: Sequence[Point], top: float) -> str:
    way = " ".join(f"{p.x:.1f},{_y(p.y / top):.1f}" for p in points)
    style = points[0].style % N_STYLES
    return f'<polyline class="line s{style}" points="{way}"/>' + "".join(_point(p, p.x, top) for p in points)


def _point(point: Point, x: float, top: float) -> str:
    whisker = ""
    if point.low is not None and point.high is not None:
        y1, y2 = _y(point.high / top), _y(point.low / top)
        whisker = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'
    mark = _mark(point.style, x, _y(point.y / top))
    return f'<g class="point s{point.style % N_STYLES}"><title>{escaped(point.label)}</title>{whisker}{mark}</g>'


def _top(points: Sequence[Point]) -> float:
    """Where the axis of scores ends; it always begins at 0."""
    highest = max(p.y if p.high is None else p.high for p in points)
    return next(top for top in _TOPS if highest <= top or top == _TOPS[-1])


def _mark(style: int, x: float, y: float) -> str:
    return f'<g class="shape s{style % N_STYLES}">{_SHAPES[style % N_STYLES](x, y)}</g>'


def _y(share: float) -> float:
    return _TOP + (1 - min(1.0, max(0.0, share))) * (_HEIGHT - _TOP - _BOTTOM)


def _first(label: str, narrow: bool) -> str:
    return label.split(maxsplit=1)[0] if narrow else label


def _short(number: float) -> str:
    if number >= 1_000_000:
        return f"{number / 1_000_000:g}M"
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"
