"""An answer taken apart: its sentences, each with the citations that stand in it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Container, Iterator

from coa.sentences import split_sentences
from coa.types import Claim, Span

__all__ = ["claims_of"]

_MARK = re.compile(r"[^\S\n]*\[(\d{1,6})\]")
_HEADING = re.compile(r"[^\S\n]*#{1,6}[^\S\n]")
_RULE = re.compile(r"[\W_]*$")
# A line that begins an item of a list, and what of it is no part of the sentence.
_ITEM = re.compile(r"[^\S\n]*(?:[-*+•]|\d{1,3}[.)])[^\S\n]+|[^\S\n]*>[^\S\n]?")


def claims_of(text: str, *, numbers: Container[int], language: str | None = None) -> tuple[Claim, ...]:
    """The sentences of `text` in order, headings apart, with the numbers of the `[n]` marks that stand in each.

    A mark after a full stop belongs to the sentence before it. Marks of a number that is not in `numbers` are
    left in the sentence: they are no citations. `language` is ISO 639-1.
    """
    plain, marks = _unmarked(text, numbers)
    spans = [span for line in _blocks(plain) for span in _sentences(plain, line, language)]
    cited: dict[int, dict[int, None]] = {}
    starts = [span.start for span in spans]
    for offset, number in marks:
        # The sentence that the last character before the mark is in; the first one for a mark before all text.
        at = max(0, bisect_left(starts, offset) - 1)
        if spans:
            cited.setdefault(at, {}).setdefault(number)
    return tuple(
        Claim(" ".join(plain[span.start : span.end].split()), tuple(cited.get(at, ()))) for at, span in enumerate(spans)
    )


def _unmarked(text: str, numbers: Container[int]) -> tuple[str, list[tuple[int, int]]]:
    """`text` without citation marks, and for each mark the offset where it stood."""
    pieces: list[str] = []
    marks: list[tuple[int, int]] = []
    done = length = 0
    for match in _MARK.finditer(text):
        if int(match.group(1)) not in numbers:
            continue
        pieces.append(text[done : match.start()])
        length += match.start() - done
        marks.append((length, int(match.group(1))))
        done = match.end()
    return "".join(pieces) + text[done:], marks


def _blocks(text: str) -> Iterator[Span]:
    """Stretches that no sentence crosses: paragraphs and items of lists, without headings."""
    start = at = 0
    for line in [*text.splitlines(keepends=True), "\n"]:
        if not line.strip() or _HEADING.match(line) or _ITEM.match(line):
            if start < at:
                yield Span(start, at)
            start = at + len(line) if not line.strip() or _HEADING.match(line) else at
        at += len(line)


def _sentences(text: str, block: Span, language: str | None) -> Iterator[Span]:
    item = _ITEM.match(text, block.start, block.end)
    first = item.end() if item else block.start
    for start, end in split_sentences(text[first : block.end], language):
        sentence = text[first + start : first + end]
        if _RULE.fullmatch(sentence):
            continue
        begin = first + start + len(sentence) - len(sentence.lstrip())
        yield Span(begin, begin + len(sentence.strip()))
