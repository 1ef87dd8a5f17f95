"""What the reading of the smallest models finds in the example novel without any model."""

from __future__ import annotations

import pytest

from tests.tools.first_impression import measured
from tests.tools.question_sets import SETS, exact, token_f1


@pytest.mark.slow
async def test_code_alone_finds_and_answers_the_novels_questions() -> None:
    row = await measured(SETS["novel"](), None, most=30)
    assert row.questions == 30
    assert row.cited >= 21, "the right sentence is among the citations for 70 %"
    assert row.right >= 13, "and two of five answers are right"
    assert row.refused <= 1


def test_the_measure_is_the_token_f1_of_squad() -> None:
    assert token_f1("the yellow waistcoat", ["yellow"]) == pytest.approx(2 / 3)
    assert token_f1("A Yellow!", ["blue", "yellow"]) == 1.0
    assert token_f1("", ["yellow"]) == 0.0
    assert token_f1("石头下面", ["在石头下面"]) == pytest.approx(8 / 9)
    assert exact("The Heron.", ["heron"])
    assert not exact("heron key", ["heron"])
