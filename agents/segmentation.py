"""The parts of a chunk, found by code: where its words change, at the borders of its paragraphs.

After TextTiling (Hearst 1997, sections 5.1 to 5.3): the words before and behind each gap are compared, and a gap
counts for as much as its similarity is lower than the peaks beside it. The borders are chosen all at once
so that they lie in deep gaps and the parts are of a readable length, rather than by a threshold.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from coa.agents.lexical import content_words
from coa.types import Chunk

__all__ = ["is_heading", "segments", "sentence_texts"]

_BLOCK = 6
"""Sentences on either side of a gap that are compared."""
_FITTING = 9
_LONGEST = 24
# A border inside a paragraph costs this much depth, since a reader sees none there.
_INSIDE = 0.35
_LENGTH_WEIGHT = 0.5
_HEADING_CHARS = 90
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_END_MARK = re.compile(r"[.!?:;,…。！？：；，][\"'”’»)\]]*$|[\"”’»」』]$")
_NUMBER_ALONE = re.compile(r"[IVXLCDM]{1,8}[.)]?|\d{1,4}[.)]?|[A-Z][.)]")
_MARKS_HEADING = re.compile(
    r"#{1,6}\s|(?:chapter|part|book|section|kapitel|teil|chapitre|capítulo|第)\b", re.IGNORECASE
)


def sentence_texts(chunk: Chunk) -> list[str]:
    """The chunk's sentences as they stand in the source, white space behind them included."""
    return [chunk.text[s.start - chunk.span.start : s.end - chunk.span.start] for s in chunk.sentences]


def is_heading(sentence: str) -> bool:
    """True for a short paragraph of its own without an end mark, and for lines marked as headings."""
    text = sentence.strip()
    if len(text) > _HEADING_CHARS or not text:
        return False
    if _MARKS_HEADING.match(text) is not None:
        return True
    alone = _PARAGRAPH.search(sentence) is not None
    return alone and (_END_MARK.search(text) is None or _NUMBER_ALONE.fullmatch(text) is not None)


def segments(sentences: Sequence[str]) -> list[tuple[int, int]]:
    """Half-open ranges of sentence numbers, in order, without gaps; empty for none.

    `sentences` carry the white space behind them: a blank line there ends a paragraph. A heading always begins a
    part, and headings that follow each other stay together.
    """
    n = len(sentences)
    headings = [is_heading(s) for s in sentences]
    forced = {0, n} | {at for at in range(1, n) if headings[at] and not headings[at - 1]}
    depths = _depths(sentences)
    worth = {
        at: depths[at] - (0.0 if _PARAGRAPH.search(sentences[at - 1]) else _INSIDE)
        for at in range(1, n)
        if not headings[at - 1]
    }
    found: list[tuple[int, int]] = []
    borders = sorted(forced)
    for start, end in pairwise(borders):
        found += _split(start, end, worth)
    return found


def _split(start: int, end: int, worth: dict[int, float]) -> list[tuple[int, int]]:
    """The cheapest division of start..end: what borders are worth against lengths that do not fit."""
    best: dict[int, tuple[float, int]] = {start: (0.0, start)}
    for at in range(start + 1, end + 1):
        if at != end and at not in worth:
            continue
        reward = worth.get(at, 0.0) if at != end else 0.0
        options = [
            (cost - reward + _misfit(at - before), before)
            for before, (cost, _) in best.items()
            if at - before <= _LONGEST or before == start
        ]
        best[at] = min(options)
    found = []
    at = end
    while at > start:
        before = best[at][1]
        found.append((before, at))
        at = before
    return found[::-1]


def _misfit(length: int) -> float:
    return _LENGTH_WEIGHT * abs(math.log(length / _FITTING)) if length else 0.0


def _depths(sentences: Sequence[str]) -> list[float]:
    """How deep the similarity dips at the gap in front of each sentence; 0 at the first."""
    words = [content_words(s) for s in sentences]
    held = Counter(w for found in words for w in found)
    rarity = {w: math.log(1 + len(sentences) / count) for w, count in held.items()}
    similar = [1.0] + [_similarity(words, rarity, at) for at in range(1, len(sentences))]
    depths = [0.0]
    for at in range(1, len(sentences)):
        left = right = similar[at]
        for before in range(at - 1, 0, -1):
            if similar[before] < left:
                break
            left = similar[before]
        for behind in range(at + 1, len(sentences)):
            if similar[behind] < right:
                break
            right = similar[behind]
        depths.append(left + right - 2 * similar[at])
    return depths


def _similarity(words: Sequence[set[str]], rarity: dict[str, float], at: int) -> float:
    """The cosine of the blocks before and behind `at`."""
    before = Counter(w for found in words[max(0, at - _BLOCK) : at] for w in found)
    behind = Counter(w for found in words[at : at + _BLOCK] for w in found)
    shared = math.fsum(before[w] * behind[w] * rarity[w] ** 2 for w in before.keys() & behind.keys())
    norms = [math.sqrt(math.fsum((c * rarity[w]) ** 2 for w, c in side.items())) for side in (before, behind)]
    return shared / (norms[0] * norms[1]) if all(norms) else 0.0
