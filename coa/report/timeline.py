"""The chain as markup: a drawing of all entries, and the list of them with notes, evidence and what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from coa.agents.references import Reference
from coa.report.answer import answer_html
from coa.report.facts import Entry, RunFacts, cached_share
from coa.report.page import escaped
from coa.report.source import anchor_id
from coa.types import Span, Usage

__all__ = ["anchors_of", "duration", "taken", "timeline_html"]

_OPEN_AT_MOST = 30
"""Entries whose notes are unfolded from the start."""
_LEAST_BUDGET = 250_000
_LEAST_SHOWN = 400
_MOST_QUOTES = 8
_LONGEST_QUOTE = 200
_BAR, _STEP, _HEIGHT = 6, 7, 60
_FEWEST_BARS = 40
_DRAWN_WHOLE = 0.95
_WORTH_TELLING_S = 0.001


def timeline_html(facts: RunFacts, *, prefix: str, heading: int) -> str:
    """All entries in order; `prefix` sets their ids apart from those of other runs in the page.

    Together the notes take at most half of the text's length, or 250,000 characters: longer ones are cut, and say so.
    """
    if not facts.entries:
        return '<p class="dim">Nothing was finished yet.</p>\n'
    budget = max(_LEAST_BUDGET, len(facts.document.text) // 2)
    most = max(_LEAST_SHOWN, budget // len(facts.entries))
    opened = len(facts.entries) <= _OPEN_AT_MOST
    parts = [_drawing(facts.entries, prefix)]
    if not opened:
        parts.append('<p class="no-print"><button type="button" data-unfold hidden>Unfold all notes</button></p>\n')
    group: tuple[int, str] | None = None
    inside = False
    for n, entry in enumerate(facts.entries):
        if (entry.part, entry.path) != group:
            group = (entry.part, entry.path)
            title = _group_title(facts, entry)
            parts.append("</ol>\n" if inside else "")
            parts.append(f"<h{heading}>{escaped(title, quotes=False)}</h{heading}>\n" if title else "")
            parts.append('<ol class="chain">\n')
            inside = True
        parts.append(_item(facts, entry, f"{prefix}e{n}", most=most, opened=opened))
    return "".join([*parts, "</ol>\n"])


def anchors_of(facts: RunFacts) -> Iterator[int]:
    """The offsets that the list links to."""
    for entry in facts.entries:
        yield from (span.start for span in entry.places.values())
        yield from (span.start for span in entry.evidence[:_MOST_QUOTES])


def duration(seconds: float) -> str:
    """`12 ms`, `3.4 s`, `2 min 5 s`, `1 h 2 min`."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes} min {left} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def taken(usage: Usage) -> str:
    """What calls took, in words."""
    kept = f"{usage.reused} {'reply' if usage.reused == 1 else 'replies'} kept from before" if usage.reused else ""
    if not usage.calls:
        return kept or "no call"
    share = cached_share(usage)
    cached = f", {share:.0%} cached" if share is not None else ""
    several = f"{usage.calls} calls, " if usage.calls > 1 else ""
    told = f"{several}{usage.prompt_tokens:,} tokens in{cached}, {usage.completion_tokens:,} out"
    return f"{told}, {kept}" if kept else told


def _group_title(facts: RunFacts, entry: Entry) -> str:
    parts = facts.plan.parts
    title = (parts[entry.part].title or "") if len(parts) > 1 and entry.part < len(parts) else ""
    return ": ".join(filter(None, [title, f"Reading “{entry.path}”" if entry.path else ""]))


def _item(facts: RunFacts, entry: Entry, element: str, *, most: int, opened: bool) -> str:
    chapter = _chapter(facts, entry)
    called = entry.usage.calls > 0 or (entry.seconds or 0.0) >= _WORTH_TELLING_S
    seconds = f"{duration(entry.seconds)} · " if entry.seconds is not None and called else ""
    line = (
        f"<b>{escaped(entry.title, quotes=False)}</b>"
        + (f' <span class="dim">{escaped(chapter, quotes=False)}</span>' if chapter else "")
        + f' <span class="took">{_state(entry)}{seconds}{taken(entry.usage)}</span>'
    )
    body = _body(facts, entry, most)
    if not body:
        return f'<li id="{element}" class="entry"><p class="head">{line}</p></li>\n'
    unfolded = " open" if opened else ""
    return f'<li id="{element}" class="entry"><details{unfolded}><summary>{line}</summary>\n{body}</details></li>\n'


def _state(entry: Entry) -> str:
    if entry.cause is not None:
        return '<strong class="bad">skipped</strong> · '
    if not entry.informative:
        return "nothing to note · "
    return ""


def _chapter(facts: RunFacts, entry: Entry) -> str:
    if len(entry.chunks) != 1 or entry.chunks[0] >= len(facts.chunks):
        return ""
    section = facts.document.section_at(facts.chunks[entry.chunks[0]].span.start)
    return " ".join(section.title.split()) if section is not None else ""


def _body(facts: RunFacts, entry: Entry, most: int) -> str:
    parts = []
    if entry.cause is not None:
        parts.append(f'<p class="bad">{escaped(entry.cause, quotes=False)}</p>\n')
    if entry.text:
        text = entry.text if len(entry.text) <= most else entry.text[:most].rstrip() + " …"
        parts.append(f'<div class="note">{answer_html(text, _linker(entry), heading=6)}</div>\n')
    losses = [
        f"{entry.kept} {'line' if entry.kept == 1 else 'lines'} as before" if entry.kept and entry.text else "",
        f"{entry.dropped} lines dropped" if entry.dropped else "",
        "cut here: coa runs show --notes has it whole" if len(entry.text) > most else "",
    ]
    if any(losses):
        parts.append(f'<p class="dim small">{"; ".join(filter(None, losses))}</p>\n')
    parts.append(_evidence(facts, entry.evidence))
    if parts != [""] and len(entry.chunks) == 1 and entry.chunks[0] < len(facts.chunks):
        start = facts.chunks[entry.chunks[0]].span.start
        parts.append(f'<p class="small"><a href="#k{start}">Chunk {entry.chunks[0] + 1} in the text</a></p>\n')
    return "".join(parts)


def _linker(entry: Entry) -> Callable[[str], str | None]:
    """Links to the sentences whose ids stand in the entry's text."""

    def link(number: str) -> str | None:
        chunk, dot, sentence = number.partition(".")
        span = entry.places.get(Reference(int(chunk), int(sentence))) if dot else None
        return None if span is None else f'<a href="#{anchor_id(span.start)}">{number}</a>'

    return link


def _evidence(facts: RunFacts, spans: Sequence[Span]) -> str:
    """The sentences, each a link to its place."""
    if not spans:
        return ""
    lines = []
    for span in spans[:_MOST_QUOTES]:
        words = " ".join(facts.document.text[span.start : span.end].split())
        shown = words if len(words) <= _LONGEST_QUOTE else words[: _LONGEST_QUOTE - 1] + "…"
        lines.append(f'<li><a href="#{anchor_id(span.start)}">{escaped(shown, quotes=False)}</a></li>\n')
    more = f'<li class="dim">and {len(spans) - _MOST_QUOTES} more</li>\n' if len(spans) > _MOST_QUOTES else ""
    return f'<ul class="evidence">\n{"".join(lines)}{more}</ul>\n'


def _drawing(entries: Sequence[Entry], prefix: str) -> str:
    """A bar for each entry that took time: its height the time, its strong part what had to be computed."""
    timed = [(n, entry) for n, entry in enumerate(entries) if entry.seconds is not None]
    if len(timed) < 2:
        return ""
    times = sorted(entry.seconds or 0.0 for _, entry in timed)
    longest = times[-1]
    # One that waited for a model to load would leave the others flat.
    full = times[int(len(times) * _DRAWN_WHOLE)] if len(times) >= _FEWEST_BARS else longest
    bars = "".join(_bar(at, entry, f"{prefix}e{n}", full or 1.0) for at, (n, entry) in enumerate(timed))
    width = _STEP * max(_FEWEST_BARS, len(timed))
    height = (
        f"{duration(full)} at most" if full == longest else f"drawn up to {duration(full)}, {duration(longest)} at most"
    )
    names = {"computed": "computed", "cached": "cached", "idle": "no call", "skipped": "skipped", "noted": "noted"}
    legend = " ".join(_key(kind, name) for kind, name in names.items())
    told = (
        f"Bars: {len(timed)} steps in order, {duration(sum(times))} in all, the longest {duration(longest)}. "
        "The list has each one's figures."
    )
    return (
        f'<figure class="strip"><svg viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{told}">\n{bars}</svg>\n<figcaption class="small">'
        f"Height: time, {height}. {legend}</figcaption></figure>\n"
    )


def _bar(at: int, entry: Entry, element: str, full: float) -> str:
    room = _HEIGHT - 9
    height = max(1.0, room * min(1.0, (entry.seconds or 0.0) / full))
    x, top = at * _STEP, room - height
    share = cached_share(entry.usage) if entry.usage.calls else None
    if entry.cause is not None:
        bar = _rect("skipped", x, top, height)
    elif share is None:
        bar = _rect("idle", x, top, height)
    else:
        bar = _rect("cached", x, top, height * share) + _rect("computed", x, top + height * share, height * (1 - share))
    dot = _rect("noted", x, room + 3, 5.0) if entry.informative and entry.cause is None else ""
    return f'<g data-go="{element}">{_rect("ground", x, 0, float(_HEIGHT))}{bar}{dot}</g>\n'


def _rect(kind: str, x: float, y: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y:.1f}" width="{_BAR}" height="{height:.1f}"/>' if height > 0 else ""


def _key(kind: str, name: str) -> str:
    square = f'<svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{kind}" width="10" height="10"/></svg>'
    return f'<span class="key">{square} {name}</span>'
