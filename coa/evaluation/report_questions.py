"""The questions of an evaluation one by one: what was asked, what is right, and what each arm said."""

from __future__ import annotations

from collections.abc import Sequence

from coa.evaluation.items import Told
from coa.evaluation.report_tables import SCORE_NAMES
from coa.evaluation.summary import Scored, Summary
from coa.report.page import escaped

__all__ = ["questions_html"]

_LONGEST_REPLY = 3000
_LONGEST_QUOTE = 400
_MOST_CITATIONS = 6


def questions_html(summary: Summary) -> str:
    """A list of folded panels, an item a question, and the controls that narrow it down."""
    groups: dict[tuple[str, str], list[Scored]] = {}
    for one in summary.scored:
        groups.setdefault((one.told.set, one.told.question.id), []).append(one)
    items = "".join(_question(summary, found) for found in groups.values())
    sets = _select("filter-set", [("", "all"), *((name, name) for name in summary.sets)])
    scores = _select(
        "filter-score", [("", "all"), ("split", "arms differ"), ("none", "no arm right"), ("all", "all arms right")]
    )
    return (
        f'<div class="filters no-print"><label>Set {sets}</label> <label>Scores {scores}</label> '
        '<label>Words <input id="filter-text" type="search" autocomplete="off"></label> '
        f'<span id="filter-count" role="status">{len(groups)} questions</span></div>'
        f'<ul class="questions">{items}</ul>'
    )


def _select(ident: str, choices: Sequence[tuple[str, str]]) -> str:
    tag = "option"
    inner = "".join(f'<{tag} value="{escaped(value)}">{escaped(label)}</{tag}>' for value, label in choices)
    return f'<select id="{ident}">{inner}</select>'


def _question(summary: Summary, found: Sequence[Scored]) -> str:
    told = found[0].told
    metric = next(iter(summary.metrics(told.set)), None)
    firsts = [_first(one, metric) for one in found]
    known = [value for value in firsts if value is not None]
    agreement = "none" if known and max(known) == 0 else "all" if known and min(known) == 1 else "split"
    badges = "".join(f'<span class="badge {_grade(value)}">{_percent(value)}</span>' for value in firsts)
    arms = "".join(_arm(one, metric) for one in found)
    return (
        f'<li data-set="{escaped(told.set)}" data-score="{agreement}"><details><summary>'
        f'<span class="asked">{escaped(_cut(told.question.text, 300))}</span> '
        f'<span class="badges" role="img" aria-label="{escaped(_spoken(found, firsts))}">{badges}</span></summary>'
        f'{_facts(told)}<div class="wide" tabindex="0" role="group" aria-label="Replies"><table><thead><tr>'
        '<th scope="col">arm</th><th scope="col">reply</th>'
        f'<th scope="col">scores</th><th scope="col">took</th></tr></thead><tbody>{arms}</tbody></table></div>'
        "</details></li>"
    )


def _facts(told: Told) -> str:
    question = told.question
    answers = "".join(f"<li>{escaped(_cut(answer, 1000))}</li>" for answer in dict.fromkeys(question.answers))
    right = "The text does not answer it." if question.unanswerable else f"<ul>{answers}</ul>"
    rows = [("right", right), ("document", escaped(f"{question.doc_id}, {told.n_chars:,} characters"))]
    if question.kind:
        rows.append(("kind", escaped(question.kind)))
    if told.position is not None:
        rows.append(("evidence", f"begins at {told.position:.0%}"))
    if told.shown:
        quotes = "".join(f"<blockquote>{escaped(quote)}</blockquote>" for quote in told.shown)
        rows.append(("evidence says", quotes))
    rows.append(("id", f"<code>{escaped(told.set)} / {escaped(question.id)}</code>"))
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows) + "</dl>"


def _arm(one: Scored, metric: str | None) -> str:
    scores = "".join(
        f"<li>{escaped(SCORE_NAMES.get(name, name))} {100 * value:.0f}</li>" for name, value in one.scores.items()
    )
    if one.answer is None:
        reply = f'<p class="bad">{escaped(one.error or "no answer")}</p>'
        took = f"{one.seconds:.1f} s"
    else:
        usage = one.usage
        reply = f"<p>{escaped(_cut(one.answer.text, _LONGEST_REPLY)) or '<em>nothing</em>'}</p>" + _citations(one)
        took = (
            f"calls: {usage.calls}<br>{usage.prompt_tokens:,} in, {usage.cached_tokens:,} cached<br>"
            f"{usage.completion_tokens:,} out<br>{one.seconds:.1f} s<br><code>{escaped(one.answer.run_id)}</code>"
        )
    grade = _grade(_first(one, metric))
    return (
        f'<tr><th scope="row" class="{grade}">{escaped(one.arm)}</th><td>{reply}</td>'
        f'<td><ul class="plain">{scores}</ul></td><td class="small">{took}</td></tr>'
    )


def _citations(one: Scored) -> str:
    assert one.answer is not None  # noqa: S101 - asked only of answers
    shown = one.answer.citations[:_MOST_CITATIONS]
    if not shown:
        return ""
    items = "".join(f"<li>{escaped(_cut(' '.join(c.quote.split()), _LONGEST_QUOTE))}</li>" for c in shown)
    more = len(one.answer.citations) - len(shown)
    return f'<ol class="small dim">{items}</ol>' + (f'<p class="small dim">and {more} more</p>' if more else "")


def _first(one: Scored, metric: str | None) -> float | None:
    return one.scores.get("choice" if metric == "pair_accuracy" else metric or "")


def _spoken(found: Sequence[Scored], firsts: Sequence[float | None]) -> str:
    return ", ".join(f"{one.arm} {_percent(value)}" for one, value in zip(found, firsts, strict=True))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


def _grade(value: float | None) -> str:
    if value is None:
        return "dim"
    return "good" if value >= 0.75 else "wary" if value > 0 else "bad"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
