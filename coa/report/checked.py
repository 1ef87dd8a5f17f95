"""Checked statements as markup: each with its label, and the sentences that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from coa.agents.checked import Checked
from coa.report.facts import RunFacts
from coa.report.page import escaped
from coa.report.source import Mark
from coa.types import Citation, Span

__all__ = ["checked_html", "checked_marks"]

_LABELS = {"true": "true", "false": "false", "not_in_text": "not in the text", None: "not judged"}
_CLASSES = {"true": "good", "false": "bad", "not_in_text": "wary", None: "dim"}


class _Rest(NamedTuple):
    """A citation of a statement, and the page's names for it."""

    citation: Citation
    mark: str
    quote: str
    label: str


def checked_html(facts: RunFacts, prefix: str) -> str:
    """The statements as a list, the counts of their labels above it."""
    labels = [one.label for one in facts.checked]
    counts = ", ".join(f"{labels.count(label)} {name}" for label, name in _LABELS.items() if label in labels)
    items = "".join(_item(one, n, prefix) for n, one in enumerate(facts.checked, 1))
    return (
        f'<section class="panel" aria-label="Statements">\n<p>{counts}</p>\n'
        f'<ol class="checked">\n{items}</ol></section>\n'
    )


def checked_marks(facts: RunFacts, prefix: str) -> list[Mark]:
    """What the statements rest on, as places to be marked in the text."""
    return [
        Mark(rest.mark, Span(rest.citation.start, rest.citation.end), rest.label, rest.quote, f"Back to statement {n}")
        for n, one in enumerate(facts.checked, 1)
        for rest in _rests(one, n, prefix)
    ]


def _item(one: Checked, n: int, prefix: str) -> str:
    quotes = "".join(
        f'<li id="{rest.quote}"><a href="#{rest.mark}">{_one_line(rest.citation.quote)}</a>'
        f"{_where(rest.citation)}</li>\n"
        for rest in _rests(one, n, prefix)
    )
    told = escaped(one.cause or one.reason, quotes=False)
    return (
        f'<li><p dir="auto"><strong class="{_CLASSES[one.label]}">{_LABELS[one.label]}</strong>: '
        f"{escaped(one.text, quotes=False)}</p>\n"
        + (f'<p class="dim small">{told}</p>\n' if told else "")
        + (f'<ul class="evidence">\n{quotes}</ul>\n' if quotes else "")
        + "</li>\n"
    )


def _one_line(text: str) -> str:
    return escaped(" ".join(text.split()), quotes=False)


def _where(citation: Citation) -> str:
    told = [" ".join(citation.chapter.split()) if citation.chapter else ""]
    told += [f"page {citation.page}"] if citation.page is not None else []
    shown = escaped(" · ".join(filter(None, told)), quotes=False)
    return f' <span class="dim small">{shown}</span>' if shown else ""


def _rests(one: Checked, n: int, prefix: str) -> Iterator[_Rest]:
    several = len(one.citations) > 1
    for m, citation in enumerate(one.citations, 1):
        label = f"{n}{chr(ord('a') + (m - 1) % 26)}" if several else str(n)
        yield _Rest(citation, f"{prefix}k{n}c{m}", f"{prefix}k{n}q{m}", label)
