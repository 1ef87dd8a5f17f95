"""A run, or several over one document, as one page: what was asked, the answer, how it came about, and the text.

It can be read without its script, which opens what is folded, marks where a link led to, and goes back on Escape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coa.report.answer import answer_html, inline_html
from coa.report.checked import checked_html, checked_marks
from coa.report.facts import RunFacts
from coa.report.outline_tree import outline_html
from coa.report.page import escaped, page, resource
from coa.report.source import Mark, anchor_id, source_html
from coa.report.timeline import anchors_of, timeline_html
from coa.report.usage import usage_html
from coa.types import Citation, Document, Span

__all__ = ["run_page"]

_STATUSES = {
    "normalised": "other typography",
    "fuzzy": "not word for word",
    "moved": "not where the answer puts it",
    "not_found": "not found",
}
_VERDICTS = {
    "answered": "The text answers it.",
    "not_in_text": "The text does not say.",
    "too_little": "Too little was found to be sure.",
    "contradictory": "The text contradicts itself.",
}
_STATES = {
    "running": "is still running",
    "interrupted": "was interrupted",
    "drained": "was stopped",
    "failed": "failed",
    "done": "is done",
    "partial": "ended early",
}


def run_page(runs: Sequence[RunFacts]) -> str:
    """The whole file. Raises: ValueError without a run, and for runs over different documents."""
    if not runs or len({facts.document.sha256 for facts in runs}) != 1:
        raise ValueError("a page shows one or more runs over one document")
    document = runs[0].document
    prefixes = [f"r{n}" for n in range(1, len(runs) + 1)]
    marks = [mark for facts, prefix in zip(runs, prefixes, strict=True) for mark in _marks(facts, prefix)]
    source = source_html(document, marks=marks, anchors=_anchors(runs), cuts=_cuts(runs[0], prefixes[0]))
    name = document.title or document.name
    title = _asked(runs[0]) if len(runs) == 1 else f"{len(runs)} questions"
    articles = "".join(
        _article(facts, prefix, several=len(runs) > 1) for facts, prefix in zip(runs, prefixes, strict=True)
    )
    language = f' lang="{escaped(document.language)}"' if document.language else ""
    body = (
        '<a class="skip" href="#top">To the answer</a>\n<a class="skip" href="#source">To the text</a>\n'
        f'<header><p class="dim small">{escaped(name, quotes=False)}</p>'
        f'<h1 dir="auto">{escaped(title, quotes=False)}</h1>\n{_navigation(runs, prefixes)}</header>\n'
        f'<main>\n<div class="report" id="top">\n{articles}</div>\n'
        '<section class="source" id="source" aria-labelledby="source-title" tabindex="0">\n'
        f'<h2 id="source-title">The text</h2>\n{_source_head(document)}'
        f'<div class="text"{language}>\n{source.body}</div>\n</section>\n</main>'
    )
    return page(f"{title} — {name}", body, style=resource("run.css") + source.style, script=resource("run.js"))


def _asked(facts: RunFacts) -> str:
    record = facts.record
    if record.task == "check":
        n = len(facts.checked)
        return f"{n} statement{'s' if n != 1 else ''} checked"
    if record.question is not None:
        return " ".join(record.question.split())
    if record.task == "structure":
        return "Outline"
    return "Summary of each chapter" if record.per == "chapter" else "Summary"


def _navigation(runs: Sequence[RunFacts], prefixes: Sequence[str]) -> str:
    links = []
    if len(runs) == 1:
        facts, prefix = runs[0], prefixes[0]
        links += [("#top", "Answer")] if facts.record.task != "structure" else []
        links += [(f"#{prefix}-outline", "Outline")] if facts.outline is not None else []
        links += [(f"#{prefix}-chain", "Chain"), (f"#{prefix}-usage", "Usage")]
    else:
        links += [(f"#{prefix}", f"Question {n}") for n, prefix in enumerate(prefixes, 1)]
    links.append(("#source", "Text"))
    items = "".join(f'<li><a href="{address}">{name}</a></li>' for address, name in links)
    return f'<nav aria-label="This page"><ul>{items}</ul></nav>'


def _article(facts: RunFacts, prefix: str, *, several: bool) -> str:
    level = 3 if several else 2
    head = f'<h2 dir="auto">{escaped(_asked(facts), quotes=False)}</h2>\n' if several else ""
    sections = [_answer(facts, prefix, level)]
    if facts.checked:
        sections.append(checked_html(facts, prefix))
    sections.append(_warnings(facts, level))
    sections.append(_citations(facts, prefix, level))
    if facts.outline is not None:
        tree = outline_html(facts.outline, opened=facts.record.task == "structure")
        sections.append(_section(f"{prefix}-outline", "Outline", tree, level))
    chain = timeline_html(facts, prefix=prefix, heading=level + 1)
    sections.append(_section(f"{prefix}-chain", "The chain", chain, level))
    sections.append(_section(f"{prefix}-usage", "Usage and cost", usage_html(facts), level))
    return f'<article id="{prefix}">\n{head}{"".join(sections)}</article>\n'


def _section(element: str, title: str, content: str, level: int) -> str:
    return f'<section id="{element}">\n<h{level}>{title}</h{level}>\n{content}</section>\n'


def _answer(facts: RunFacts, prefix: str, level: int) -> str:
    answer, state = facts.answer, facts.record.state
    if answer is None:
        why = f": {escaped(facts.record.error, quotes=False)}" if facts.record.error else ""
        told = f"There is no answer: the run {_STATES[state]}{why}."
        return f'<section class="panel"><p class="wary">{told}</p></section>\n'
    if facts.record.task in {"check", "structure"}:
        return ""
    said = answer_html(answer.text, _linker(answer.citations, facts.document, prefix), heading=level + 1)
    verdict = f'<p class="dim small">{_VERDICTS[answer.verdict]}</p>\n' if answer.verdict else ""
    return (
        f'<section class="panel answer" aria-label="Answer" dir="auto">\n{said}{verdict}{_vouched(facts)}</section>\n'
    )


def _vouched(facts: RunFacts) -> str:
    claims = facts.answer.claims if facts.answer is not None else ()
    without = sum(not claim.citations for claim in claims)
    if not without:
        return ""
    told = f"{without} of {len(claims)} sentences" if len(claims) > 1 else "The answer"
    return f'<p class="wary small">{told} without a citation.</p>\n'


def _linker(citations: Sequence[Citation], document: Document, prefix: str) -> Callable[[str], str | None]:
    def link(number: str) -> str | None:
        if not number.isdecimal() or not 1 <= int(number) <= len(citations):
            return None
        n = int(number)
        where = f"{prefix}c{n}" if _found(citations[n - 1], document) else f"{prefix}q{n}"
        return f'<a class="cites" href="#{where}" aria-label="citation {n}">{n}</a>'

    return link


def _found(citation: Citation, document: Document) -> bool:
    """True where it can be marked in the text."""
    inside = 0 <= citation.start < citation.end <= len(document.text)
    return inside and bool(document.text[citation.start : citation.end].strip())


def _citations(facts: RunFacts, prefix: str, level: int) -> str:
    if facts.answer is None or not facts.answer.citations or facts.checked:
        return ""
    lines = "".join(_citation(c, n, facts.document, prefix) for n, c in enumerate(facts.answer.citations, 1))
    return _section(f"{prefix}-citations", "Citations", f'<ol class="citations">\n{lines}</ol>\n', level)


def _citation(citation: Citation, n: int, document: Document, prefix: str) -> str:
    quote = escaped(" ".join(citation.quote.split()), quotes=False)
    if _found(citation, document):
        quote = f'<a href="#{prefix}c{n}">{quote}</a>'
    facts = [
        " ".join(citation.chapter.split()) if citation.chapter else "",
        f"page {citation.page}" if citation.page is not None else "",
        _STATUSES.get(citation.status, ""),
        "found by its words" if citation.origin == "located" else "",
    ]
    told = escaped(" · ".join(filter(None, facts)), quotes=False)
    where = f'<p class="dim small">{told}</p>' if told else ""
    return f'<li id="{prefix}q{n}"><blockquote dir="auto">{quote}</blockquote>{where}</li>\n'


def _warnings(facts: RunFacts, level: int) -> str:
    answer = facts.answer
    told = list(answer.warnings) if answer is not None else []
    if answer is not None:
        told += [f"Chunk {s.index + 1} was not read: {s.cause}" for s in answer.coverage.skipped]
    if not told:
        return ""
    lines = "".join(f"<li>{inline_html(line, lambda _: None)}</li>\n" for line in told)
    return f'<section class="warnings">\n<h{level}>Warnings</h{level}>\n<ul>\n{lines}</ul></section>\n'


def _marks(facts: RunFacts, prefix: str) -> list[Mark]:
    """The citations, and what statements rest on."""
    if facts.checked:
        return checked_marks(facts, prefix)
    citations = facts.answer.citations if facts.answer is not None else ()
    return [
        Mark(f"{prefix}c{n}", Span(c.start, c.end), str(n), f"{prefix}q{n}", f"Citation {n}: back to the answer")
        for n, c in enumerate(citations, 1)
        if _found(c, facts.document)
    ]


def _anchors(runs: Sequence[RunFacts]) -> set[int]:
    """The offsets that links of the page lead to."""
    found = {offset for facts in runs for offset in anchors_of(facts)}
    for facts in runs:
        if facts.outline is not None:
            found |= {node.span.start for node in facts.outline.walk()}
    return found


def _cuts(facts: RunFacts, prefix: str) -> dict[int, str]:
    """Where the chunks begin, each linked to its first entry."""
    entries: dict[int, int] = {}
    for n, entry in enumerate(facts.entries):
        if len(entry.chunks) == 1:
            entries.setdefault(entry.chunks[0], n)
    lines = {}
    for ordinal, chunk in enumerate(facts.chunks):
        name = f"Chunk {ordinal + 1}"
        shown = f'<a href="#{prefix}e{entries[ordinal]}">{name}</a>' if ordinal in entries else name
        lines[chunk.span.start] = f'<span id="k{chunk.span.start}">{shown}</span>'
    return lines


def _source_head(document: Document) -> str:
    chapters = document.chapters()
    facts = [f"{len(document.text):,} characters"]
    facts += ["grey: left out of the reading"] if document.left_out else []
    told = f'<p class="dim small">{", ".join(facts)}.</p>\n'
    if not chapters:
        return told
    links = "".join(
        f'<li><a href="#{anchor_id(c.span.start)}">{escaped(" ".join(c.title.split()) or "…", quotes=False)}</a></li>\n'
        for c in chapters
    )
    return (
        f'{told}<details class="chapters"><summary>{len(chapters)} chapters</summary>\n<ol>\n{links}</ol></details>\n'
    )
