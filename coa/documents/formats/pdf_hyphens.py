"""Joining the lines of a paragraph: words broken at line ends, and text without spaces."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["Joiner"]

_HYPHENS = "-\u2010\u00ad"
_PART_BEFORE = re.compile(r"([^\W\d_]+(?:['’][^\W\d_]+)?)[-\u2010\u00ad]$")
_PART_AFTER = re.compile(r"^[^\W\d_]+")
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010][^\W\d_]+)*")
# A web address that a line end cut behind a mark: no sentence goes on like that.
_OPEN_ADDRESS = re.compile(r"(?:https?://|www\.)\S*[/_=?&#%~]$")
_WIDE = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff01-\uff60]")


class Joiner:
    """Joins lines by what words the rest of the document has."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._known: Counter[str] = Counter()
        broken: list[tuple[str, str]] = []
        last = ""
        for line in lines:
            # The last word may be broken, and so the first of the next line: these are no evidence.
            words = _WORD.findall(line.casefold())
            self._known.update(words[:-1] if line[-1:] in _HYPHENS else words)
            if parts := _parts(last, line):
                broken.append(parts)
            last = line
        whole = sum(1 for left, right in broken if self._known[left + right])
        hyphened = sum(1 for left, right in broken if self._known[f"{left}-{right}"])
        # A document that breaks no words has line ends at real hyphens only.
        self._breaks_words = whole >= hyphened

    def join(self, text: str, following: str, *, soft: bool = False) -> str:
        """`text` and the line after it. `soft` is the file's own word that the hyphen only breaks the word."""
        if not text or not following:
            return text + following
        if text[-1] in _HYPHENS and len(text) > 1 and not text[-2].isspace():
            return self._joined(text, following, soft)
        if _OPEN_ADDRESS.search(text[-200:]):
            return text + following
        if _WIDE.match(text[-1]) and _WIDE.match(following[0]):
            return text + following
        return f"{text} {following}"

    def _joined(self, text: str, following: str, soft: bool) -> str:
        parts = _parts(text[-200:], following)
        if parts is None:
            # "1990-" and "1995", "pre-/post-", "Anglo-" and "Saxon": the hyphen is a character of its own.
            return text + following
        left, right = parts
        whole, hyphened = self._known[left + right], self._known[f"{left}-{right}"]
        if soft or whole > hyphened:
            return text[:-1] + following
        compound = text[-2 - len(left) : -1 - len(left)] in ("-", "\u2010")  # "state-of-the-"
        if hyphened or compound or not self._breaks_words:
            return text + following
        return text[:-1] + following


def _parts(text: str, following: str) -> tuple[str, str] | None:
    """The halves of the word that may be broken between the lines, in lower case."""
    if text[-1:] not in _HYPHENS or not text:
        return None
    before, after = _PART_BEFORE.search(text), _PART_AFTER.match(following)
    if before is None or after is None or (after[0][0].isupper() and not before[1].isupper()):
        return None
    return before[1].casefold(), after[0].casefold()
