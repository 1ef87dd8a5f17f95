"""Markdown: telling it from plain text, and its headings."""

from __future__ import annotations

import re
from typing import NamedTuple

from coa.types import Span

__all__ = ["MarkdownHeading", "find_markdown_headings", "is_markdown"]

_ATX = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
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
    """The headings of `span` in order; none inside code fences, indented code or front matter."""
    headings: list[MarkdownHeading] = []
    fence: str | None = None
    before: tuple[int, str] | None = None
    """Start and words of the paragraph that a setext underline would make a heading."""
    at = _after_front_matter(text, span.start)
    while at < span.end:
        end = text.find("\n", at, span.end)
        end = span.end if end < 0 else end
        line = text[at:end]
        mark = _FENCE.match(line) if "```" in line or "~~~" in line else None
        if fence is not None:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = None
        elif mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence, before = mark[1], None
        elif atx := _ATX.match(line):
            headings.append(MarkdownHeading(Span(at, end), len(atx[1]), _plain(atx[2] or "")))
            before = None
        elif before is not None and (underline := _SETEXT.match(line)):
            level = 1 if underline[1][0] == "=" else 2
            headings.append(MarkdownHeading(Span(before[0], end), level, _plain(before[1])))
            before = None
        elif not line.strip() or (before is None and _NO_PARAGRAPH.match(line)):
            before = None
        else:
            # Only a line of its own: a paragraph's last line before "---" is one of many, and prose.
            before = (at, line.strip()) if before is None and _opens(text, at, span.start) else None
        at = end + 1
    return headings


def _opens(text: str, at: int, start: int) -> bool:
    """True where the line at `at` opens a paragraph."""
    previous = text[max(start, at - 200) : at].split("\n")[-2:-1]
    return not previous or not previous[0].strip() or previous[0].lstrip().startswith("#")


def _after_front_matter(text: str, start: int) -> int:
    if start == 0 and text.startswith("---\n"):
        end = text.find("\n---\n", 3, 20_000)
        if end > 0:
            return end + 5
    return start


def _plain(title: str) -> str:
    return " ".join(_MARKS.sub("", _LINK.sub(r"\1", title)).split())
