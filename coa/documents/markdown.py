"""Markdown: telling it from plain text, and its headings."""

from __future__ import annotations

import re
from typing import NamedTuple

from coa.types import Span

__all__ = ["MarkdownHeading", "find_markdown_headings", "is_markdown"]

_ATX = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_MARKED_LINE = re.compile(r"^ {0,3}(?:#{1,6}(?:[ \t][^\n]*)?|(?:`{3}|~{3})[^\n]*|=+[ \t]*|-+[ \t]*)$", re.MULTILINE)
_LONGEST_SETEXT = 300
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")
_NO_PARAGRAPH = re.compile(r"^(?: {4}|\t| {0,3}(?:[-*+]|\d{1,9}[.)])(?:\s|$)| {0,3}>| {0,3}\|)")
_SIGNS = (
    re.compile(r"^ {0,3}(?:`{3,}|~{3,})", re.MULTILINE),
    re.compile(r"\[[^\]\n]{1,200}\]\((?:https?:|#|\.{0,2}/|[\w-]+\.)[^)\n]{0,300}\)"),
    re.compile(r"\*\*\S[^*\n]{0,200}\S\*\*"),
    re.compile(r"^ {0,3}[-*+] \S", re.MULTILINE),
    re.compile(r"^\|.+\|\n\|[ :|-]+\|$", re.MULTILINE),
    re.compile(r"(?<!`)`[^`\n]{1,100}`(?!`)"),
)
_SIGNS_WITHIN = 100_000
_LINK = re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)")
_MARKS = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)")


class MarkdownHeading(NamedTuple):
    """An ATX or setext heading, from its line's first character to its end."""

    span: Span
    level: int
    title: str
    """Without marks of emphasis, code and links."""


def is_markdown(text: str, headings: list[MarkdownHeading], *, named_so: bool) -> bool:
    """True where `text` is written in Markdown; `named_so`, the file's name, is a hint that tips the balance."""
    atx = [h for h in headings if text[h.span.start : h.span.start + 4].lstrip().startswith("#")]
    n_signs = sum(1 for sign in _SIGNS if sign.search(text[:_SIGNS_WITHIN]))
    evidence = min(len(atx), 3) + min(len(headings) - len(atx), 1) + n_signs
    if named_so:
        return evidence > 0
    # The comments of scripts and settings look like headings, but the code follows without a blank line.
    n_apart = sum(1 for h in atx if text[h.span.end : h.span.end + 2].strip() == "")
    return evidence >= 3 and (n_apart * 2 > len(atx) or (not atx and n_signs > 2))


def find_markdown_headings(text: str, span: Span) -> list[MarkdownHeading]:
    """The headings of `span` in order; none inside code fences, indented code or front matter.

    A setext heading is one line: what is underlined below several lines is a paragraph and a rule.
    """
    headings: list[MarkdownHeading] = []
    fence: str | None = None
    previous_end = start = _after_front_matter(text, span.start)
    for match in _MARKED_LINE.finditer(text, start, span.end):
        line = match.group()
        mark = _FENCE.match(line)
        if fence is not None:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = None
        elif mark:
            fence = mark[1] if mark[1][0] == "~" or "`" not in mark[2] else None
        elif atx := _ATX.match(line):
            headings.append(MarkdownHeading(Span(match.start(), match.end()), len(atx[1]), _plain(atx[2] or "")))
        elif underlined := _line_above(text, match.start(), previous_end):
            title = text[underlined.start : underlined.end]
            level = 1 if line.lstrip()[0] == "=" else 2
            headings.append(MarkdownHeading(Span(underlined.start, match.end()), level, _plain(title)))
        previous_end = match.end() + 1
    return headings


def _line_above(text: str, at: int, floor: int) -> Span | None:
    """The paragraph of one line right above `at` and not before `floor`; None where there is none."""
    end = at - 1
    start = text.rfind("\n", max(floor, end - _LONGEST_SETEXT), max(floor, end)) + 1 or floor
    line = text[start:end]
    if not line.strip() or len(line) >= _LONGEST_SETEXT or _NO_PARAGRAPH.match(line):
        return None
    before = text.rfind("\n", max(floor, start - _LONGEST_SETEXT), max(floor, start - 1)) + 1 or floor
    return None if text[before : max(before, start - 1)].strip() else Span(start, end)


def _after_front_matter(text: str, start: int) -> int:
    if start == 0 and text.startswith("---\n"):
        end = text.find("\n---\n", 3, 20_000)
        if end > 0:
            return end + 5
    return start


def _plain(title: str) -> str:
    return " ".join(_MARKS.sub("", _LINK.sub(r"\1", title)).split())
