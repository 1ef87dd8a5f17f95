"""BM25 as in the textbook: the ranking that a control has to make do with.

Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", section 3; k1 1.2, b 0.75, a word of the
query counted once. coa's own ranking (`coa.agents.preselection`) knows headings, neighbours and endings; this does not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from coa.evaluation.normalising import plain_tokens

__all__ = ["ranked"]

_K1 = 1.2
_B = 0.75


def ranked(texts: Sequence[str], query: str) -> list[int]:
    """Places of `texts`, the best first; equal ones in their order."""
    counts = [Counter(plain_tokens(text)) for text in texts]
    holding = Counter(word for count in counts for word in count)
    mean = sum(count.total() for count in counts) / max(1, len(texts)) or 1.0
    wanted = {
        word: math.log(1 + (len(texts) - holding[word] + 0.5) / (holding[word] + 0.5))
        for word in dict.fromkeys(plain_tokens(query))
        if word in holding
    }

    def score(at: int) -> float:
        count = counts[at]
        norm = _K1 * (1 - _B + _B * count.total() / mean)
        return math.fsum(rarity * count[w] * (_K1 + 1) / (count[w] + norm) for w, rarity in wanted.items() if count[w])

    scores = [score(at) for at in range(len(texts))]
    return sorted(range(len(texts)), key=lambda at: (-scores[at], at))
