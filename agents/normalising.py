"""A text without its typography, and the way back from each of its characters to the source.

Two printings of the same words differ in quotation marks, dashes, line breaks, hyphens at line ends, case, width
and ligatures. `normalised` makes them the same string and keeps, for every stretch that it changed, where it came
from, so that a match in it is a span of the very source. What carries meaning stays: numbers (a superscript never
joins the number before it), minus signs, accents, question marks.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import lru_cache

__all__ = ["UNSPACED", "Normalised", "is_mark", "is_unspaced", "marks_class", "normalised"]

UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Scripts that put no space between words, as the inside of a character class."""

_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2e3a\u2e3b\ufe58\ufe63\uff0d"
_HYPHENS = "-\u2010\u2011"
_MINUS = "-\u2212\uff0d"
_APOSTROPHES = "'\u2019\u2018\u02bc\uff07\u0060\u00b4"
_QUOTES = (
    _APOSTROPHES
    + '"\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\u00ab\u00bb\u2039\u203a\u300c-\u300f\u301d-\u301f\uff02'
)
_MARKUP = "_*"
_GAP = rf"\s{re.escape(_DASHES)}{_QUOTES}{re.escape(_MARKUP)}"
_PUNCTUATION = str.maketrans({"。": ".", "｡": ".", "、": ",", "､": ",", "…": "…", "⋯": "…", "․": "."})
_KEPT_FORMS = ("<super>", "<sub>", "<fraction>", "<circle>")


@dataclass(frozen=True, slots=True, eq=False)
class Normalised:
    """A normalised text with its map to the source."""

    text: str = field(repr=False)
    _at: array[int] = field(repr=False)
    """Where stretches begin in `text`, in order."""
    _from: array[int] = field(repr=False)
    """Where they begin in the source."""
    _alike: bytearray = field(repr=False)
    """1 for a stretch whose characters stand one for one."""
    _n_source: int

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The source characters that the half-open stretch `start`:`end` of `text` came from; whole characters."""
        first = bisect_right(self._at, start) - 1
        source_start = self._from[first] + (start - self._at[first] if self._alike[first] else 0)
        last = bisect_right(self._at, end - 1) - 1
        if self._alike[last]:
            return source_start, self._from[last] + end - self._at[last]
        return source_start, self._from[last + 1] if last + 1 < len(self._from) else self._n_source

    def offset(self, source: int) -> int:
        """The first place in `text` that came from the source at `source` or after it."""
        at = bisect_right(self._from, source) - 1
        if at < 0:
            return 0
        inside = source - self._from[at]
        next_at = self._at[at + 1] if at + 1 < len(self._at) else len(self.text)
        if self._alike[at]:
            return min(self._at[at] + inside, next_at)
        return self._at[at] if inside == 0 else next_at


def normalised(text: str) -> Normalised:
    """The normalised form of an NFC text. Linear in its length.

    Case is folded, compatibility forms are resolved (NFKC), dots above the Turkish i are dropped; quotation marks
    and emphasis marks go, apostrophes inside words stay as "'"; a hyphen between letters goes, at a line end with
    the line break; other dashes are "-" without white space around; white space is one blank between two words and
    goes beside punctuation and in scripts that use none; three dots are one "…".
    """
    chars = set(text)
    table, pieces = _folds(frozenset(chars))
    plain = text.translate(table)
    out: list[str] = []
    at, source, alike = array("I"), array("I"), bytearray()
    done = length = 0

    def begin(position: int, one_for_one: bool) -> None:
        at.append(length)
        source.append(position)
        alike.append(one_for_one)

    for match in pieces.finditer(text):
        start, end = match.span()
        if start > done:
            begin(done, True)
            out.append(plain[done:start])
            length += start - done
        new = _piece(match.group(), text[start - 1 : start], text[end : end + 1])
        if new:
            begin(start, False)
            out.append(new)
            length += len(new)
        done = end
    if done < len(text) or not at:
        begin(done, True)
        out.append(plain[done:])
    return Normalised("".join(out), at, source, alike, len(text))


def is_mark(char: str) -> bool:
    """True for what belongs to the character before it: accents, vowel signs, joiners, skin tones."""
    return char >= "\u0300" and (unicodedata.category(char)[0] == "M" or _is_joiner(char))


def is_unspaced(char: str) -> bool:
    """True for characters of scripts without spaces between words."""
    return char >= "\u0e00" and _UNSPACED.match(char) is not None


@lru_cache(maxsize=1)
def marks_class() -> str:
    """All combining marks, as the inside of a character class."""
    found: list[str] = []
    start: int | None = None
    for code in range(0x300, 0x1F000):
        is_one = unicodedata.category(chr(code))[0] == "M"
        if is_one and start is None:
            start = code
        elif not is_one and start is not None:
            found.append(f"{chr(start)}-{chr(code - 1)}")
            start = None
    return "".join(found) + "\U000e0100-\U000e01ef"


_UNSPACED = re.compile(f"[{UNSPACED}]")


def _is_joiner(char: str) -> bool:
    return char == "\u200d" or "\U0001f3fb" <= char <= "\U0001f3ff"


@lru_cache(maxsize=8)
def _folds(chars: frozenset[str]) -> tuple[dict[int, str], re.Pattern[str]]:
    """What single characters become one for one, and a pattern of all that has to be looked at for itself."""
    table: dict[int, str] = {}
    longer: list[str] = []
    marks: list[str] = []
    for char in chars:
        if char < "\x80":
            if char.isupper():
                table[ord(char)] = char.lower()
            elif char.isspace():
                table[ord(char)] = " "
            continue
        if unicodedata.category(char)[0] == "M" or char in "\uff9e\uff9f":
            marks.append(char)
            continue
        folded = " " if char.isspace() else _fold(char)
        if len(folded) != 1:
            longer.append(char)
        elif folded != char:
            table[ord(char)] = folded
    # Single blanks between two words are left to the table: they are most of a book's white space.
    beside = rf"[\W_{UNSPACED}]"
    found = [
        r"(?:\.[ \u00a0]?){2,}\.|[…⋯]+",
        rf"[{_GAP}]{{2,}}|[{re.escape(_DASHES)}{_QUOTES}{re.escape(_MARKUP)}]",
        rf"\s(?={beside})|(?<={beside})\s|^\s|\s$",
    ]
    if marks:
        found.insert(0, rf"[^\s{re.escape(''.join(marks))}]?[{re.escape(''.join(marks))}]+")
    if longer:
        found.append(f"[{re.escape(''.join(longer))}]")
    return table, re.compile("|".join(found))


@lru_cache(maxsize=65536)
def _fold(text: str) -> str:
    """A character with its marks, folded."""
    if unicodedata.decomposition(text[0]).startswith(_KEPT_FORMS):
        return text.casefold()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = folded.replace("i\u0307", "i").replace("ı", "i").translate(_PUNCTUATION)
    return "".join(c for c in folded if not "\ufe00" <= c <= "\ufe0f") if len(folded) > 1 else folded


def _piece(piece: str, before: str, after: str) -> str:
    """What a piece between two characters becomes."""
    first = piece[0]
    if first in ".…⋯":
        return "…"
    if first.isspace() or first in _DASHES or first in _MARKUP or _QUOTE.match(first):
        # A mark right after a blank belongs to it; there is nothing to fold in either.
        return _gap(piece, before, after)
    return _fold(piece)


_QUOTE = re.compile(f"[{_QUOTES}]")
# At a line end, or where a line end became a blank: that is how prompts show it.
_LINE_END_HYPHEN = re.compile(rf"[{_HYPHENS}]\s+")


def _gap(run: str, before: str, after: str) -> str:
    """What white space, quotation marks, dashes and emphasis marks between two characters become."""
    dashes = sum(c in _DASHES for c in run)
    if dashes:
        return _dash(run, dashes, before, after)
    space = any(c.isspace() for c in run)
    if not space and before.isalnum() and after.isalnum():
        unmarked = run.strip(_MARKUP)
        if len(unmarked) == 1 and unmarked in _APOSTROPHES and not is_unspaced(before) and not is_unspaced(after):
            return "'"
        if not unmarked:
            return run if run == "_" else ""
    if _joins(before) and _joins(after):
        return " "
    # "3. 5" is not "3.5".
    return " " if space and before in {".", ",", ":"} and after.isdigit() else ""


def _dash(run: str, dashes: int, before: str, after: str) -> str:
    if dashes == 1 and before.isalpha() and after.isalpha():
        if len(run) == 1 and run in _HYPHENS + "\u2013":
            return ""
        if _LINE_END_HYPHEN.fullmatch(run):
            return ""
    if dashes == 1 and run[-1] in _MINUS and after.isdigit() and not before.isdigit() and len(run) > 1:
        return " -"
    return "-"


def _joins(char: str) -> bool:
    """True for characters that a blank parts from one another."""
    if not char or is_unspaced(char) or _is_joiner(char) or "\ufe00" <= char <= "\ufe0f":
        return False
    return char.isalnum() or is_mark(char)
