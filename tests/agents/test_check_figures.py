"""Statements made from the example novel's sentences; `tests/tools/check_figures.py` measures whole books."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.check_figures import MUTATIONS, figures

NOVEL = Path(__file__).parents[2] / "examples" / "novel" / "the-salt-ledger.txt"


@pytest.mark.slow
async def test_by_words_what_was_made_false_is_hardly_ever_true_and_what_stands_there_never_false() -> None:
    found = await figures([NOVEL], 15)
    true = [found[kind] for kind, (truth, _) in MUTATIONS.items() if truth == "true"]
    made_false = [found[kind] for kind, (truth, _) in MUTATIONS.items() if truth == "made false"]
    assert all(labels.total() >= 10 for labels in found.values())
    assert sum(labels["true"] for labels in true) >= 0.95 * sum(labels.total() for labels in true)
    assert sum(labels["true"] for labels in made_false) <= 0.05 * sum(labels.total() for labels in made_false)
    assert sum(labels["false"] for labels in made_false) >= 0.5 * sum(labels.total() for labels in made_false)
    assert found["a word exchanged"]["true"] <= 1
