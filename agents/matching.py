"""Where in a text a damaged quote stands: words, an index of word pairs, and an alignment word by word.

A quote with words left out still has most of its pairs of neighbouring words. The index knows where each pair
stands; the places where most pairs agree on one offset are aligned with the quote word by word, and the rules of
`alignment` decide whether the difference is damage or another statement.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from coa.agents.normalising import UNSPACED, is_unspaced, marks_class

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Token", "TokenIndex", "tokens_of"]

_MOST_POSITIONS = 20_000
"""Places of seeds that one look-up goes through, the rarest seeds first."""
_MOST_PLACES = 6
_FEWEST_SEEDS = 0.25
"""Share of a quote's pairs that have to agree on a place, or it is not aligned."""
_DRIFT = 0.4
"""By how much of the quote's length words left out may shift its end."""
_LEAST_DRIFT = 4
_SENTENCE_END = re.compile(r"[.!?]")
# Odd multipliers of 64 bits: pairs and triples of word numbers become one number.
_WRAP = 1 << 64
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)


class Token(NamedTuple):
    """A word, a number, or one character of a script without spaces."""

    text: str
    start: int
    """In the normalised text."""
    end: int


@lru_cache(maxsize=1)
def _token() -> re.Pattern[str]:
    word = rf"[^\W{UNSPACED}]+(?:[{marks_class()}]+[^\W{UNSPACED}]*)*"
    number = r"(?:(?<!\S)-)?\d+(?:[.,:]\d+)*"
    return re.compile(rf"{number}|{word}(?:'{word})*|[{UNSPACED}]")


def tokens_of(text: str) -> Iterator[Token]:
    """The tokens of a normalised text; punctuation is none."""
    for match in _token().finditer(text):
        token = match.group()
        if "," in token:
            token = re.sub(r",(?=\d{3}(?!\d))", "", token)
        yield Token(token, *match.span())


class TokenIndex:
    """The tokens of a normalised text by number, and where each pair of them stands."""

    def __init__(self, text: str) -> None:
        import numpy as np

        self._numbers: dict[str, int] = {}
        ids, starts, ends = array("I"), array("I"), array("I")
        numbers = self._numbers
        for token, start, end in tokens_of(text):
            ids.append(numbers.setdefault(token, len(numbers)))
            starts.append(start)
            ends.append(end)
        self.ids, self.starts, self.ends = ids, starts, ends
        self._text = text
        self._words = list(numbers)
        numbered = np.array(ids, dtype=np.uint64)
        unspaced = np.array([is_unspaced(word[0]) for word in numbers], dtype=bool)
        keys = _keys(numbered, unspaced[numbered] if len(ids) else unspaced)
        self._order = np.argsort(keys, kind="stable").astype(np.int32)
        self._keys = keys[self._order]

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, word: str) -> bool:
        return word in self._numbers

    def word(self, at: int) -> str:
        """The token at `at`."""
        return self._words[self.ids[at]]

    def numbered(self, words: Sequence[str]) -> list[int]:
        """The words' numbers; a word that the text does not hold gets one below 0."""
        return [self._numbers.get(word, -1 - at) for at, word in enumerate(words)]

    def at(self, offset: int) -> int:
        """The first token that ends after `offset`."""
        return bisect_right(self.ends, offset)

    def crosses_sentence(self, first: int, last: int) -> bool:
        """True where a sentence ends between two tokens."""
        return _SENTENCE_END.search(self._text, self.ends[first], self.starts[last]) is not None

    def places(self, words: Sequence[str], *, near: tuple[int, int] | None = None) -> list[tuple[int, int]]:
        """Stretches of tokens that may hold `words`, those with the most pairs in common first.

        `near` is a stretch of tokens of which the best places come in any case, and first.
        """
        diagonals, n_seeds = self._diagonals(words)
        drift = max(_LEAST_DRIFT, int(len(words) * _DRIFT))
        found = _clusters(diagonals, drift, max(1.0, n_seeds * _FEWEST_SEEDS), _MOST_PLACES)
        if near is not None:
            inside = diagonals[(diagonals >= near[0] - drift) & (diagonals < near[1])]
            found = [*_clusters(inside, drift, 1.0, 2), *found]
        slack = drift + _LEAST_DRIFT
        stretches = ((max(0, d - slack), min(len(self), d + len(words) + drift + slack)) for d in found)
        return list(dict.fromkeys(stretches))

    def _diagonals(self, words: Sequence[str]) -> tuple[NDArray[np.int64], int]:
        """Where the quote would begin after each place of each of its seeds, sorted; and how many seeds it has."""
        import numpy as np

        numbers = self.numbered(words)
        unspaced = [is_unspaced(word[0]) for word in words]
        keys = _keys(np.array([n % _WRAP for n in numbers], dtype=np.uint64), np.array(unspaced, dtype=bool))
        offsets: dict[int, int] = {}
        n_seeds = 0
        for at, key in enumerate(keys.tolist()):
            seed = numbers[at : at + 2 + unspaced[at]]
            if len(seed) == 2 + unspaced[at]:
                n_seeds += 1
                if min(seed) >= 0:
                    offsets.setdefault(key, at)
        if not offsets:
            return np.empty(0, np.int64), n_seeds
        low = np.searchsorted(self._keys, np.array(list(offsets), dtype=np.uint64), "left")
        high = np.searchsorted(self._keys, np.array(list(offsets), dtype=np.uint64), "right")
        shifts = list(offsets.values())
        found: list[NDArray[np.int64]] = []
        left = _MOST_POSITIONS
        for seed_at in np.argsort(high - low, kind="stable").tolist():
            positions = self._order[low[seed_at] : min(high[seed_at], low[seed_at] + left)]
            found.append(positions.astype(np.int64) - shifts[seed_at])
            left -= len(positions)
            if left <= 0:
                break
        return np.sort(np.concatenate(found)), n_seeds


def _keys(ids: NDArray[np.uint64], unspaced: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """A number for each token with the one after it, or with the two after it in scripts without spaces."""
    import numpy as np

    pairs = ids * np.uint64(_MIX[0])
    pairs[:-1] += ids[1:] * np.uint64(_MIX[1])
    triples = pairs.copy()
    triples[:-2] += ids[2:] * np.uint64(_MIX[2])
    # The lowest bit tells the two apart.
    keys: NDArray[np.uint64] = np.where(unspaced, triples | np.uint64(1), pairs & ~np.uint64(1))
    return keys


def _clusters(diagonals: NDArray[np.int64], drift: int, least: float, most: int) -> list[int]:
    """Where runs of `diagonals` no wider than `drift` begin, the fullest first, of at least `least` members."""
    import numpy as np

    counts = np.searchsorted(diagonals, diagonals + drift, "right") - np.arange(len(diagonals))
    found: list[int] = []
    while len(diagonals) and len(found) < most:
        at = int(np.argmax(counts))
        if counts[at] < least:
            break
        first = int(diagonals[at])
        found.append(first)
        counts[np.abs(diagonals - first) <= drift] = 0
    return found
