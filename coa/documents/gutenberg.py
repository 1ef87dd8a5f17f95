"""The header, footer and licence that Project Gutenberg puts around a text."""

from __future__ import annotations

import re
from typing import NamedTuple

from coa.documents.languages import language_code
from coa.types import LeftOut, Span

__all__ = ["Boilerplate", "find_boilerplate"]

# "*** START OF THIS PROJECT GUTENBERG EBOOK X ***", with or without blanks; long titles run over lines.
_START = re.compile(
    r"^[ \t]*\*{3}[ \t]*START OF (?:THE|THIS) PROJECT GUTENBERG[^*]{0,400}(?:\*{3}[^\n]*)?(?:\n|\Z)",
    re.MULTILINE | re.IGNORECASE,
)
# The licence of the files before 2003: "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*".
_SMALL_PRINT = re.compile(r"^[ \t]*\*{0,3}[ \t]*START\*{0,2}[ \t]*THE SMALL PRINT", re.MULTILINE | re.IGNORECASE)
_SMALL_PRINT_END = re.compile(
    r"^[ \t]*\*{1,3}[ \t]*END[ \t]*\*{0,3}[ \t]*THE SMALL PRINT[^\n]*(?:\n|\Z)", re.MULTILINE | re.IGNORECASE
)
_END = re.compile(r"^[ \t]*\*{3}[ \t]*END OF (?:THE|THIS) PROJECT GUTENBERG", re.MULTILINE | re.IGNORECASE)
_END_SENTENCE = re.compile(
    r"^[ \t]*(?:"
    r"End of (?:the |this )?(?:Project Gutenberg|PG)"
    r"|Ende (?:dieses|des) Proje[ck]t(?:e?s)? Gutenberg"
    r"|Fin (?:de ce|du) (?:livre (?:électronique )?du )?Proje[ct]t? Gutenberg"
    r"|Fin (?:de|del) (?:este )?(?:libro|Proyecto|Project)[^\n]{0,40} Gutenberg"
    r")[^\n]*",
    re.MULTILINE | re.IGNORECASE,
)
_BLANKS = re.compile(r"\s*\n(?=[^\n]*\S)|\s*\Z")
# How far before the END line its sentence may stand, in code points.
_SENTENCE_REACH = 600
_HEADER_FIELD = re.compile(r"^(Title|Language)[ \t]*:[ \t]*(\S[^\n]*(?:\n[ \t]+\S[^\n]*)*)", re.MULTILINE)


class Boilerplate(NamedTuple):
    """What Project Gutenberg added, and what its header says of the text."""

    left_out: tuple[LeftOut, ...] = ()
    title: str | None = None
    language: str | None = None


def find_boilerplate(text: str) -> Boilerplate:
    """The header up to the START line and the footer from the END line on, with title and language.

    Empty for other texts. In a file of several Gutenberg texts what stands between them is found too.
    """
    starts, ends = _starts(text), _ends(text)
    if not starts and not ends:
        return Boilerplate()
    spans: list[LeftOut] = []
    if starts and (not ends or starts[0] < ends[0]):
        spans.append(_left_out(text, 0, starts[0], "header"))
    for end in ends:
        if spans and end < spans[-1].span.end:
            continue
        following = next((s for s in starts if s > end), None)
        spans.append(_left_out(text, end, following, "footer and licence"))
    header = text[: spans[0].span.end] if spans[0].span.start == 0 else ""
    fields = {m.group(1): " ".join(m.group(2).split()) for m in reversed(list(_HEADER_FIELD.finditer(header)))}
    return Boilerplate(
        left_out=tuple(s for s in spans if s.span.length),
        title=fields.get("Title"),
        language=language_code(fields.get("Language", "")),
    )


def _left_out(text: str, start: int, end: int | None, what: str) -> LeftOut:
    """From `start` to the first line with text at or after `end`, so that no blank lines are left to read."""
    if end is None:
        end = len(text)
    elif blanks := _BLANKS.match(text, end):
        end = blanks.end()
    return LeftOut(Span(start, end), "boilerplate", f"Project Gutenberg {what}")


def _starts(text: str) -> list[int]:
    """Where texts begin: after a START line, or after the small print that follows a header."""
    starts = {m.end() for m in _START.finditer(text)}
    opened = _SMALL_PRINT.search(text)
    if opened and (closed := _SMALL_PRINT_END.search(text, opened.end())):
        starts.add(closed.end())
        starts = {s for s in starts if not opened.start() < s < closed.end()}
    return sorted(starts)


def _ends(text: str) -> list[int]:
    """Where texts end: at an END line or at the sentence that announces it."""
    ends = [m.start() for m in _END.finditer(text)]
    sentences = [m.start() for m in _END_SENTENCE.finditer(text)]
    for i, end in enumerate(ends):
        ends[i] = next((s for s in sentences if end - _SENTENCE_REACH < s < end), end)
    if not ends:
        # Files before 2003 have the sentence alone, near the end.
        ends = [s for s in sentences if s > len(text) * 0.75][:1]
    return ends
