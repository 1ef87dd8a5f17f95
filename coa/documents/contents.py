"""Tables of contents: to keep their lines from being taken for chapters, and to find chapters by them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from coa.documents.headings import Block, Heading

__all__ = ["drop_contents", "headings_by_contents"]

# The line over a table of contents.
_TITLE = re.compile(
    r"^[\s*_=#\[-]*(?:table of )?(?:contents|inhalt|inhaltsverzeichnis|table des mati[eè]res|sommaire"
    r"|[ií]ndice(?: general)?|sommario|sumário|inhoud|目录|目錄|目次|содержание|оглавление)[\s*_=.:\]-]*$",
    re.IGNORECASE,
)
# Entries of a table stand closer than chapters are long, in code points.
_CLOSE = 200
_FEWEST_ENTRIES = 3
_REPEATED_RATIO = 0.7
_FOUND_RATIO = 0.6
_LONGEST_ENTRY = 100
_MOST_ENTRIES = 400
_LEADERS = re.compile(r"(?:[\s.·…]{2,}|\s+p\.?\s*)\d{1,4}\s*$|\s+\d{1,4}\s*$")
_NUMBERING = re.compile(r"^\s*(?:(?:[IVXLC]+|\d{1,3})[.):—-]*\s+)")
_NOT_WORDS = re.compile(r"[\W_]+")


def drop_contents(text: str, headings: list[Heading]) -> list[Heading]:
    """`headings` without those that stand close together as a list and come again later."""
    dropped: set[int] = set()
    for style in {h.style for h in headings}:
        alike = [h for h in headings if h.style == style]
        for run in _close_runs(text, alike):
            listed = {h.span.start for h in run}
            last = max(listed)
            later = {h.number for h in headings if h.span.start > last}
            repeated = sum(1 for h in run if h.number in later)
            if repeated >= _REPEATED_RATIO * len(run) or _under_contents(text, run[0].span.start):
                dropped |= listed
    return [h for h in headings if h.span.start not in dropped]


def headings_by_contents(text: str, found: Sequence[Block]) -> list[Heading]:
    """Blocks that repeat the entries of a table of contents, in its order; empty where most entries are not found."""
    at = next((i for i, b in enumerate(found) if b.lines and _TITLE.match(b.lines[0])), None)
    if at is None:
        return []
    entries, after = _entries(found, at)
    if len(entries) < _FEWEST_ENTRIES:
        return []
    headings: list[Heading] = []
    wanted = {key: i for i, key in reversed(list(enumerate(entries)))}
    expected = 0
    for block in found[after:]:
        if not block.lines or expected >= len(entries):
            continue
        label = " ".join(line.strip() for line in block.lines)
        position = wanted.get(_key(label))
        if position is not None and position >= expected:
            headings.append(Heading(block.span, None, label, label, "contents", bare=False))
            expected = position + 1
    return headings if len(headings) >= max(_FEWEST_ENTRIES, _FOUND_RATIO * len(entries)) else []


def _close_runs(text: str, headings: list[Heading]) -> list[list[Heading]]:
    """Runs of headings with hardly any text between them and rising numbers."""
    runs: list[list[Heading]] = []
    run: list[Heading] = []
    for heading in headings:
        close = run and heading.span.start - run[-1].span.end < _CLOSE
        # The number falls where the list ends and its first chapter follows.
        if close and (heading.number or 0) > (run[-1].number or 0):
            run.append(heading)
        else:
            runs.append(run)
            run = [heading]
    runs.append(run)
    return [r for r in runs if len(r) >= _FEWEST_ENTRIES]


def _under_contents(text: str, start: int) -> bool:
    before = text[max(0, start - 300) : start].split("\n")
    return any(_TITLE.match(line) for line in before)


def _entries(found: Sequence[Block], at: int) -> tuple[list[str], int]:
    """The entries below the title at block `at`, and the first block after them."""
    entries: list[str] = []
    lines = list(found[at].lines[1:])
    after = at + 1
    while True:
        entries += [key for line in lines if (key := _key(line)) and len(line) <= _LONGEST_ENTRY]
        if after >= len(found) or len(entries) > _MOST_ENTRIES:
            return entries, after
        block = found[after]
        # The first block that begins like the table again opens the text.
        if not block.lines or _key(block.lines[0]) in entries[:1]:
            return entries, after
        lines = list(block.lines)
        after += 1


def _key(line: str) -> str:
    """A line's words alone, without its number, leaders and page."""
    line = _NUMBERING.sub("", _LEADERS.sub("", line))
    return _NOT_WORDS.sub(" ", line).strip().casefold()
