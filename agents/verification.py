"""Whether a quote that a model wrote stands in a document, and where.

A ladder, from the surest step to the loosest:

1. exact: the very characters of the canonical text;
2. normalised: the same words but for typography (see `coa.agents.normalising`);
3. fuzzy: words of one place in order, some left out or misspelt (see `coa.agents.alignment`), or several such
   pieces joined by an ellipsis, in order and close together;
4. moved: any of these, but not where the quote was said to be;
5. not found.

Every step wants whole words: "happy" is no quote of "unhappy", nor "18" of "1851". Numbers, negations and limiting
words are never a matter of degree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

from coa.agents.alignment import Alignment, aligned
from coa.agents.guarded_words import denies
from coa.agents.matching import TokenIndex, tokens_of
from coa.agents.normalising import Normalised, is_mark, is_unspaced, normalised
from coa.documents.canonical import canonical
from coa.types import CitationStatus, Span

__all__ = ["Match", "QuoteVerifier", "Verified", "word_count"]

Match = Literal["exact", "normalised", "fuzzy"]

_FEWEST_WORDS = 5
"""Of a quote that may be damaged; a character of a script without spaces is half a word."""
_MOST_WORDS = 2000
_MOST_OCCURRENCES = 200
_FEWEST_PART_WORDS = 2
_MOST_PARTS = 8
_MOST_ANCHORS = 20
_LONGEST_OMISSION = 300
"""Characters that one ellipsis may stand for; it never stands for a paragraph's end."""
_PART_STRETCH = 1.5

_OUTER = re.compile(r"^(?:[\s.,;:…()\[\]{}]|-(?!\d))+|[\s.,;:…()\[\]{}-]+$")
_EDITORIAL_DOTS = re.compile(r"[\[(]\s*(?:\.\s?\.\s?\.|…)\s*[\])]")
_EDITORIAL_LETTER = re.compile(r"\[(\w)\]")
_SENTENCE_END = re.compile(r"[.!?。！？]")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_NEGATING = frozenset("不没沒無无未非莫勿弗毋")


class Verified(NamedTuple):
    """What became of a quote."""

    status: CitationStatus
    span: Span | None
    """Where it stands in the document; None where it does not."""
    score: float
    """Likeness of the quote to the source, 0..1; 1 for exact and normalised ones, 0 where nothing was found."""
    match: Match | None = None
    """How it was found, "moved" ones too."""


class _Found(NamedTuple):
    span: Span
    score: float
    match: Match


_NOT_FOUND = Verified("not_found", None, 0.0)


class QuoteVerifier:
    """Verifies quotes against one document.

    Reading `text` takes time linear in its length: the normalised form is made at the first quote that is not
    exact, the index of word pairs at the first one that is not normalised either. Then a quote costs one search of
    the text for each, and an alignment with a handful of places, whatever it holds.
    """

    def __init__(self, text: str) -> None:
        """`text` is a document's canonical text; all spans refer to it."""
        self._text = text

    def verify(self, quote: str, near: Span | None = None) -> Verified:
        """Where `quote` stands; `near` is where it was said to stand (a chunk, a chapter), None for anywhere.

        Verbatim words elsewhere are preferred to damaged ones in `near`. An empty quote is not found.
        """
        quote = _EDITORIAL_LETTER.sub(r"\1", _EDITORIAL_DOTS.sub("…", canonical(quote))).strip()
        bare = _OUTER.sub("", normalised(quote).text)
        if not bare:
            return _NOT_FOUND
        for place in (near, None) if near is not None else (None,):
            found = self._exact(quote, place) or self._typographic(quote, bare, place)
            if found is not None:
                return _verified(found, near)
        damaged = self._pieced(bare, near) or self._damaged(bare, near)
        return _NOT_FOUND if damaged is None else _verified(damaged, near)

    @cached_property
    def _normalised(self) -> Normalised:
        return normalised(self._text)

    @cached_property
    def _index(self) -> TokenIndex:
        return TokenIndex(self._normalised.text)

    def _exact(self, quote: str, near: Span | None) -> _Found | None:
        low, high = (0, len(self._text)) if near is None else near
        for start in _occurrences(self._text, quote, low, high):
            return _Found(Span(start, start + len(quote)), 1.0, "exact")
        return None

    def _typographic(self, quote: str, bare: str, near: Span | None) -> _Found | None:
        for start, end in self._plain(bare, near):
            return _Found(self._span(start, end, quote), 1.0, "normalised")
        return None

    def _plain(self, bare: str, near: Span | None) -> Iterator[tuple[int, int]]:
        """Where `bare` stands in the normalised text."""
        text = self._normalised.text
        low, high = (0, len(text)) if near is None else map(self._normalised.offset, near)
        for start in _occurrences(text, bare, low, high):
            yield start, start + len(bare)

    def _damaged(self, bare: str, near: Span | None) -> _Found | None:
        words = [token.text for token in tokens_of(bare)]
        if not _FEWEST_WORDS <= word_count(words) <= _MOST_WORDS:
            return None
        index = self._index
        stretch = None if near is None else tuple(index.at(self._normalised.offset(offset)) for offset in near)
        found: Alignment | None = None
        for low, high in index.places(words, near=None if stretch is None else (stretch[0], stretch[1])):
            one = aligned(words, index, low, high, named=self._may_be_name)
            if one is not None and (found is None or one.score > found.score):
                found = one
                if stretch is not None and stretch[0] <= one.first < stretch[1]:
                    break
        return None if found is None else self._of_tokens(found, bare)

    def _pieced(self, bare: str, near: Span | None) -> _Found | None:
        """A quote with an ellipsis inside: its parts in order, close together."""
        parts = [part for piece in bare.split("…") if (part := _OUTER.sub("", piece))]
        counts = [word_count([token.text for token in tokens_of(part)]) for part in parts]
        if not 2 <= len(parts) <= _MOST_PARTS or min(counts) < _FEWEST_PART_WORDS:
            return None
        anchor = max(range(len(parts)), key=lambda at: len(parts[at]))
        for start, end, score in self._anchors(parts[anchor], near):
            scores, first, last = [score], start, end
            for part in reversed(parts[:anchor]):
                before = self._beside(
                    part, first - _LONGEST_OMISSION - int(len(part) * _PART_STRETCH), first, last=True
                )
                if before is None or not self._may_omit(before[1], first):
                    break
                first = before[0]
                scores.append(before[2])
            for part in parts[anchor + 1 :]:
                after = self._beside(part, last, last + _LONGEST_OMISSION + int(len(part) * _PART_STRETCH), last=False)
                if after is None or not self._may_omit(last, after[0]):
                    break
                last = after[1]
                scores.append(after[2])
            if len(scores) == len(parts):
                return _Found(self._span(first, last, bare), sum(scores) / len(scores), "fuzzy")
        return None

    def _anchors(self, part: str, near: Span | None) -> Iterator[tuple[int, int, float]]:
        """Where a part stands in the normalised text, and how alike; places in `near` first."""
        n = 0
        for place in (near, None) if near is not None else (None,):
            for start, end in self._plain(part, place):
                yield start, end, 1.0
                n += 1
                if n % _MOST_ANCHORS == 0:
                    break
        if n == 0:
            words = [token.text for token in tokens_of(part)]
            if _FEWEST_WORDS <= word_count(words) <= _MOST_WORDS:
                for low, high in self._index.places(words):
                    found = aligned(words, self._index, low, high, named=self._may_be_name)
                    if found is not None:
                        yield *self._token_stretch(found), found.score

    def _beside(self, part: str, low: int, high: int, *, last: bool) -> tuple[int, int, float] | None:
        """Where a part stands in a stretch of the normalised text, the first or the last time; and how alike."""
        text = self._normalised.text
        low, high = max(0, low), min(len(text), high)
        starts = [at for at in _occurrences(text, part, low, high) if low <= at and at + len(part) <= high]
        if starts:
            start = starts[-1 if last else 0]
            return start, start + len(part), 1.0
        words = [token.text for token in tokens_of(part)]
        if not _FEWEST_WORDS <= word_count(words) <= _MOST_WORDS:
            return None
        one = aligned(words, self._index, self._index.at(low), self._index.at(high), named=self._may_be_name)
        if one is None:
            return None
        start, end = self._token_stretch(one)
        return (start, end, one.score) if low <= start and end <= high else None

    def _may_omit(self, start: int, end: int) -> bool:
        """True where an ellipsis may stand for what it left out: no "not" of the same sentence, no new paragraph."""
        omitted = self._normalised.text[start:end]
        if end > start and _PARAGRAPH.search(self._text, *self._normalised.span(start, end)):
            return False
        return _SENTENCE_END.search(omitted) is not None or not denies([t.text for t in tokens_of(omitted)])

    def _may_be_name(self, token: int) -> bool:
        """True for words with a capital, and for those of scripts without capitals."""
        at = self._index.starts[token]
        return not self._text[self._normalised.span(at, at + 1)[0]].islower()

    def _of_tokens(self, found: Alignment, bare: str) -> _Found:
        start, end = self._token_stretch(found)
        return _Found(self._span(start, end, bare), found.score, "fuzzy")

    def _token_stretch(self, found: Alignment) -> tuple[int, int]:
        return self._index.starts[found.first], self._index.ends[found.end - 1]

    def _span(self, start: int, end: int, quote: str) -> Span:
        """The source's stretch; with the punctuation after it where the quote ends in the same."""
        after = self._normalised.text[end : end + 1]
        if after and after in ".,;:!?…" and normalised(quote[-1]).text == after:
            end += 1
        return Span(*self._normalised.span(start, end))


def word_count(words: Sequence[str]) -> float:
    """How many words; a character of a script without spaces counts as half of one."""
    return sum(0.5 if is_unspaced(word[0]) else 1.0 for word in words)


def _verified(found: _Found, near: Span | None) -> Verified:
    moved = near is not None and not (found.span.start < near.end and near.start < found.span.end)
    return Verified("moved" if moved else found.match, found.span, found.score, found.match)


def _occurrences(text: str, needle: str, low: int, high: int) -> Iterator[int]:
    """Where `needle` stands in `text` as whole words and at least in part between `low` and `high`."""
    at = max(0, low - len(needle) + 1)
    high = min(len(text), high + len(needle) - 1)
    for _ in range(_MOST_OCCURRENCES):
        at = text.find(needle, at, high)
        if at < 0:
            return
        if _is_whole(text, at, at + len(needle)):
            yield at
        at += 1


def _is_whole(text: str, start: int, end: int) -> bool:
    """True where the stretch cuts no word, number or character in two, nor a "not" off that is a part of the word."""
    before, first = text[max(0, start - 1) : start], text[start]
    last, after = text[end - 1], text[end : end + 1]
    if is_mark(first) or (after and is_mark(after)):
        return False
    if before and is_unspaced(first):
        if before in _NEGATING:
            return False
    elif before and _is_letter(first) and _is_letter(before):
        return False
    if after and _is_letter(last) and _is_letter(after):
        return False
    if first.isdigit() and before:
        further = text[max(0, start - 2) : start - 1]
        if before in ".," and further.isdigit():
            return False
        if before in "-−" and not further.strip():
            return False
    beyond = text[end + 1 : end + 2]
    if last.isdigit() and after and after in ".," and beyond.isdigit():
        return False
    return not (last in "nN" and after and after in "'’" and beyond in {"t", "T"})


def _is_letter(char: str) -> bool:
    return (char.isalnum() or is_mark(char)) and not is_unspaced(char)
