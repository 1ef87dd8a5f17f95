"""The quotations in a text that a model wrote: what stands between quotation marks, or in a block quote.

Quotation marks of English, German, French, Spanish, the Nordic languages, Chinese and Japanese are known, straight
ones too. An apostrophe is no quotation mark. Of nested ones the outermost counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from coa.agents.matching import tokens_of
from coa.agents.normalising import is_unspaced, normalised

__all__ = ["Quotation", "is_checkable", "quoted_parts"]

_CLOSERS = {
    "“": "”",
    "„": "“”",
    "‟": "”",
    "”": "”",
    "‘": "’",
    "‚": "‘’",
    "«": "»",
    "»": "«»",
    "‹": "›",
    "›": "‹›",
    "「": "」",
    "『": "』",
    "〝": "〞〟",
    '"': '"',
    "＂": "＂",
    "'": "'",
}
"""What may open a quotation, and what then closes it."""
_ONE_WAY = frozenset("“„‟«‹「『〝")
"""Marks that open even where the text breaks off before they are closed; the others may be stray."""
_MARK = re.compile(r"[“”„‟‘’‚«»‹›「」『』〝〞〟\"'＂]|\n[^\S\n]*\n")
_BLOCK = re.compile(r"(?:^[^\S\n]*>[^\n]*(?:\n|$))+", re.MULTILINE)
_BLOCK_MARK = re.compile(r"^[^\S\n]*>[^\S\n]?", re.MULTILINE)
_AFTER_OPENING = re.compile(r"[\s,.;:)\]]|$")
_DEEPEST = 8

_FEWEST_WORDS = 3
_FEWEST_UNSPACED = 5
_FEWEST_LETTERS = 12


class Quotation(NamedTuple):
    """A quotation in a text."""

    text: str
    """Without its marks."""
    start: int
    """Of the opening mark in the text that it stands in; of the first line of a block quote."""
    end: int
    """After the closing mark; half-open."""


class _Open(NamedTuple):
    mark: str
    at: int


def quoted_parts(text: str) -> list[Quotation]:
    """The outermost quotations of `text` that are long enough to be looked up, in order. Linear in its length.

    Long enough are three words with twelve letters, or five characters of a script without spaces: shorter ones
    are names, terms and titles.
    """
    found = [*map(_block, _BLOCK.finditer(text)), *_between_marks(text)]
    found.sort(key=lambda q: (q.start, -q.end))
    outermost: list[Quotation] = []
    for quotation in found:
        if not outermost or quotation.start >= outermost[-1].end:
            outermost.append(quotation)
    return [q for q in outermost if is_checkable(q.text)]


def is_checkable(quote: str) -> bool:
    """True for a quote that is long enough to tell whether it is one."""
    words = [token.text for token in tokens_of(normalised(quote).text)]
    unspaced = sum(is_unspaced(word[0]) for word in words)
    if unspaced >= _FEWEST_UNSPACED:
        return True
    return len(words) - unspaced >= _FEWEST_WORDS and sum(map(len, words)) >= _FEWEST_LETTERS


def _block(match: re.Match[str]) -> Quotation:
    return Quotation(_BLOCK_MARK.sub("", match.group()).strip(), match.start(), match.end())


def _between_marks(text: str) -> Iterator[Quotation]:
    """All quotations, nested ones before those that they stand in."""
    opened: list[_Open] = []
    for match in _MARK.finditer(text):
        mark, at = match.group(), match.start()
        if mark[0] == "\n":
            yield from _unclosed(text, opened, at)
            opened.clear()
            continue
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        if mark in "'’‘" and before.isalnum() and after.isalnum():
            continue
        depth = _closes(opened, mark, before, after)
        if depth is not None:
            start = opened[depth].at
            del opened[depth:]
            yield Quotation(text[start + 1 : at].strip(), start, at + 1)
        elif mark in _CLOSERS and len(opened) < _DEEPEST and _may_open(mark, before, after):
            opened.append(_Open(mark, at))
    yield from _unclosed(text, opened, len(text))


def _closes(opened: list[_Open], mark: str, before: str, after: str) -> int | None:
    """The depth of what `mark` closes; None where it closes nothing."""
    for depth in range(len(opened) - 1, -1, -1):
        if mark in _CLOSERS[opened[depth].mark]:
            either_way = mark in "\"'＂’" or opened[depth].mark == mark
            if either_way and (before.isspace() or (mark in "'’" and after.isalnum())):
                return None
            return depth
    return None


def _may_open(mark: str, before: str, after: str) -> bool:
    """True where `mark` stands before a word and not right after one."""
    if mark in "「『〝":
        return True
    if mark == "«":
        return bool(after)
    if mark in "»›":
        return not before.isalnum() and not after.isspace() and bool(after)
    return _AFTER_OPENING.match(after) is None and (not before.isalnum() or is_unspaced(before))


def _unclosed(text: str, opened: list[_Open], end: int) -> Iterator[Quotation]:
    """The outermost quotation that goes to the end of its paragraph."""
    for mark, at in opened:
        if mark in _ONE_WAY:
            yield Quotation(text[at + 1 : end].strip(), at, at + 1 + len(text[at + 1 : end].rstrip()))
            return
