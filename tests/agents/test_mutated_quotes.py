"""A hundred mutated quotes from real books; `tests/tools/verify_quotes.py` measures thousands."""

from __future__ import annotations

import statistics

import pytest

from tests.tools.verify_quotes import (
    BOOKS,
    DAMAGED,
    DATA,
    SLOWEST_MEDIAN_S,
    SURE,
    invented,
    load_book,
    measured,
    share,
)

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "books").is_dir(), reason="COA_TEST_DATA is not there"),
]


@pytest.mark.parametrize("language", BOOKS)
def test_true_quotes_are_found_and_invented_ones_are_not(language: str) -> None:
    tallies = measured([load_book(language)], 28, seed=5)
    wrong = {kind: [(q.text, v.status) for _, q, v in t.wrong] for kind, t in tallies.items() if t.wrong}
    assert share(tallies, SURE) == 1.0, wrong
    assert share(tallies, DAMAGED) >= 0.8, wrong
    assert share(tallies, invented()) == 1.0, wrong
    assert all(t.n for kind, t in tallies.items() if (kind, language) != ("misspelt", "zh"))
    assert statistics.median(s for t in tallies.values() for s in t.seconds) < SLOWEST_MEDIAN_S
