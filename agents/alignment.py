"""When two wordings are one quote: word for word, with what may differ and what may not.

A quote may lack words of the source, have a misspelt word, split or join one, or bring an article too many. It may
not say anything else: each of its words has to be the source's, and numbers, negations and words like "almost" or
"only" have to be the very same ones on both sides. So a swapped name, a changed year, a "not" too few or halves of
two sentences are no damage but another statement, however similar the letters are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from coa.agents.guarded_words import guarded, is_guarded, is_harmless, reverses
from coa.agents.matching import TokenIndex

__all__ = ["Alignment", "IsName", "aligned"]

_MOST_LEFT_OUT = 0.25
"""Of the source's words between the first and the last one quoted."""
_LONGEST_LEFT_OUT = 6
"""Words left out at one place."""
_LONGEST_CHANGED = 12
"""Words of a quote, one after the other, that may be other than the source's."""
_SHORTEST_RUN = 3
_LEAST_RUN = 0.25
"""The longest undamaged run, of the quote's words."""
_LEAST_SCORE = 0.8

_SHORTEST_MISSPELT = 4
_SHORTEST_MISSPELT_NAME = 8
_SHORTEST_TWICE_MISSPELT = 8
_MOST_JOINED = 4
"""Words that a quote may write as one."""


class Alignment(NamedTuple):
    """Where a quote stands in the text."""

    first: int
    end: int
    """Tokens of the index, half-open."""
    score: float
    """Likeness of the two wordings, 0..1; 1 for the same letters."""


class _Word(NamedTuple):
    """A token of the source."""

    text: str
    name: bool


IsName = Callable[[int], bool]


def aligned(words: Sequence[str], index: TokenIndex, low: int, high: int, *, named: IsName) -> Alignment | None:
    """Where `words` stand between two tokens of the index; None where what stands there says something else.

    `named` tells of a token whether it may be a name: one letter makes another name of a short one.
    """
    runs = _runs(index.numbered(words), index.ids[low:high].tolist())
    if not runs or max(n for _, _, n in runs) < max(_SHORTEST_RUN, len(words) * _LEAST_RUN):
        return None

    def source_words(start: int, stop: int) -> list[_Word]:
        return [_Word(index.word(at), named(at)) for at in range(max(0, start), min(len(index), stop))]

    first, end = low + runs[0][1], low + runs[-1][1] + runs[-1][2]
    left_out = 0
    for (a, b, n), (c, d, m) in pairwise(runs):
        # One word from the sentence before or after is not left over from what was left out.
        alone = (a == runs[0][0] and n == 1) or (c == runs[-1][0] and m == 1)
        if alone and index.crosses_sentence(low + b + n - 1, low + d):
            return None
        unused = _unused(words[a + n : c], source_words(low + b + n, low + d), index)
        if unused is None or unused > _LONGEST_LEFT_OUT:
            return None
        left_out += unused
    words_after = words[runs[-1][0] + runs[-1][2] :]
    before = _edge(words[: runs[0][0]], source_words(first - runs[0][0], first), index)
    after = _edge(words_after, source_words(end, end + len(words_after)), index)
    if before is None or after is None:
        return None
    first, end = first - before, end + after
    source = [index.word(at) for at in range(first, end)]
    if left_out > len(source) * _MOST_LEFT_OUT or guarded(words) != guarded(source):
        return None
    score = _likeness(words, source)
    return Alignment(first, end, score) if score >= _LEAST_SCORE else None


def _runs(quote: list[int], source: list[int]) -> list[tuple[int, int, int]]:
    """Runs of words that both have, in order: start in the quote, start in the source, length."""
    from rapidfuzz.distance import Indel

    runs = [(b.a, b.b, b.size) for b in Indel.opcodes(quote, source).as_matching_blocks() if b.size]
    if not runs:
        return []
    # Around the longest run, so that a common word far before or after it is not taken for the quote's own.
    a, b, n = max(runs, key=lambda run: run[2])
    share = 1 / (1 - _MOST_LEFT_OUT)
    low = max(0, b - int(a * share) - 2)
    high = b + n + int((len(quote) - a - n) * share) + 2
    if low > 0 or high < len(source):
        narrow = Indel.opcodes(quote, source[low:high]).as_matching_blocks()
        runs = [(block.a, block.b + low, block.size) for block in narrow if block.size]
    return _tight(runs, source)


def _tight(runs: list[tuple[int, int, int]], source: list[int]) -> list[tuple[int, int, int]]:
    """The runs with the outermost ones as near to their neighbours as the source has their words."""
    while len(runs) > 1:
        (a, b, n), (c, d, m) = runs[0], runs[1]
        if c != a + n or source[d - n : d] != source[b : b + n]:
            break
        runs = [(a, d - n, n + m), *runs[2:]]
    while len(runs) > 1:
        (a, b, n), (c, d, m) = runs[-2], runs[-1]
        if c != a + n or source[b + n : b + n + m] != source[d : d + m]:
            break
        runs = [*runs[:-2], (a, b, n + m)]
    return runs


def _unused(quoted: Sequence[str], source: Sequence[_Word], index: TokenIndex) -> int | None:
    """How many words between two runs the quote lacks; None where it has words there that are not the source's."""
    if len(quoted) > _LONGEST_CHANGED or len(source) > _LONGEST_LEFT_OUT + _MOST_JOINED * len(quoted):
        return None
    at = used = 0
    left = list(quoted)
    while left:
        word = left.pop(0)
        for place in range(at, len(source)):
            rest = source[place : place + _MOST_JOINED]
            joined = next((n for n in range(2, len(rest) + 1) if "".join(w.text for w in rest[:n]) == word), 0)
            if left and word + left[0] == rest[0].text:
                del left[0]
                joined = 1
            if joined or _misspelt(word, rest[0], index):
                at = place + max(1, joined)
                used += max(1, joined)
                break
        else:
            if not is_harmless(word):
                return None
    return len(source) - used


def _edge(quoted: Sequence[str], source: Sequence[_Word], index: TokenIndex) -> int | None:
    """How many of the source's words at one end of the quote are its own, misspelt; None for other words."""
    if not quoted:
        return 0
    if len(quoted) == len(source) <= _LONGEST_CHANGED and all(
        _misspelt(q, s, index) for q, s in zip(quoted, source, strict=True)
    ):
        return len(source)
    return 0 if all(is_harmless(word) for word in quoted) else None


def _misspelt(quoted: str, source: _Word, index: TokenIndex) -> bool:
    """True where `quoted` can only be meant for `source`: nearly its letters, and no word of the text itself."""
    from rapidfuzz.distance import OSA

    if quoted == source.text:
        return True
    shorter, longer = sorted((quoted, source.text), key=len)
    if len(shorter) < (_SHORTEST_MISSPELT_NAME if source.name else _SHORTEST_MISSPELT):
        return False
    if quoted in index or is_guarded(quoted) or is_guarded(source.text):
        return False
    if reverses(shorter, longer):
        return False
    most = 2 if len(shorter) >= _SHORTEST_TWICE_MISSPELT and not source.name else 1
    return OSA.distance(quoted, source.text, score_cutoff=most) <= most


def _likeness(words: Sequence[str], source: Sequence[str]) -> float:
    from rapidfuzz.distance import Indel

    return Indel.normalized_similarity(" ".join(words), " ".join(source))
