"""Contradictions found by code: numbers, denials and opposites where the rest stands alike, and nothing beyond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.agents.contradiction import clash, said_in_order
from coa.agents.quantities import tokens_of


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("two hundred and forty of them", ["240"]),
        ("240 pans, 3,000 pounds, 1851", ["240", "3000", "1851"]),
        ("twenty-one ships and three boats", ["21", "3"]),
        ("two or three men, six and four", ["2", "3", "6", "4"]),
        ("one of them, and one hundred and one nights", ["101"]),
        ("forty-two thousand three hundred and seven", ["42307"]),
        ("nineteen hundred, two hundred thousand", ["1900", "200000"]),
        ("the third day, the 4th night", ["3.", "4."]),
        ("twice a dozen", ["2", "12"]),
        ("einundzwanzig Schiffe und drei Boote", ["21", "3"]),
        ("vingt et un ans, dieciocho años", ["21", "18"]),
        ("他有三个儿子，十二年，一样", ["3", "12"]),
        ("no number of any kind", []),
    ],
)
def test_numbers_are_read_in_figures_and_in_words(text: str, numbers: list[str]) -> None:
    assert [t.number for t in tokens_of(text) if t.number is not None] == numbers


@given(st.integers(min_value=2, max_value=999_999))
def test_a_number_in_words_is_the_number(n: int) -> None:
    assert [t.number for t in tokens_of(f"He counted {_in_words(n)} of them.") if t.number is not None] == [str(n)]


def _in_words(n: int) -> str:
    small = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    small += " seventeen eighteen nineteen"
    tens = "twenty thirty forty fifty sixty seventy eighty ninety"
    if n >= 1000:
        rest = n % 1000
        joined = "" if not rest else f" and {_in_words(rest)}" if rest < 100 else f" {_in_words(rest)}"
        return f"{_in_words(n // 1000)} thousand{joined}"
    if n >= 100:
        return f"{_in_words(n // 100)} hundred" + (f" and {_in_words(n % 100)}" if n % 100 else "")
    if n >= 20:
        return tens.split()[n // 10 - 2] + (f"-{_in_words(n % 10)}" if n % 10 else "")
    return small.split()[n]


@pytest.mark.parametrize(
    ("statement", "source", "kind"),
    [
        (
            "The town had three hundred salt pans between reeds and harbour.",
            "Between the reeds and the harbour the town had salt pans, two hundred and forty of them.",
            "number",
        ),
        ("The lamp was lit at seven.", "The lamp was lit at eight.", "number"),
        ("Ada was twenty years old when she left Rome.", "Ada was thirty years old when she left Rome.", "number"),
        ("他有三个儿子在城里", "他有五个儿子在城里", "number"),
        ("Ada sailed to Rome.", "Ada never sailed to Rome.", "denial"),
        ("Ada did not sail to Rome.", "In spring Ada sailed to Rome with her brother.", "denial"),
        ("Gregor verwandelte sich in einen Käfer.", "Gregor verwandelte sich nicht in einen Käfer.", "denial"),
        ("Ada sailed to Rome in May.", "Ada sailed to Rome in June.", "opposite"),
        ("The key was made of iron.", "The key was made of brass.", "opposite"),
        ("The door of the tower was open.", "The door of the tower was closed that night.", "opposite"),
        ("Nick sees a green light on the dock.", "Nick sees a yellow light on the dock.", "opposite"),
        ("Bo was the first man on the island.", "Bo was the last man on the island.", "opposite"),
    ],
)
def test_what_differs_in_one_closed_word_contradicts(statement: str, source: str, kind: str) -> None:
    found = clash(statement, source)
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize(
    ("statement", "source"),
    [
        ("Ada sailed to Rome.", "Ada sailed to Rome."),
        ("Ada sailed to Rome.", "Ada sailed to Rome, but Bo did not follow."),
        ("Ada sailed to Rome.", "Not only Ada sailed to Rome."),
        ("The lamp was lit at seven.", "The lamp was lit at seven by eight men."),
        ("Ada bought a red cap in Rome.", "Ada bought a blue book in Rome."),
        ("The blue table stood near the cap.", "The red cap lay near the blue table."),
        ("The walls were grey in the tower.", "The walls were gray in the tower."),
        ("Ada came with three brothers.", "Ada came with her sisters."),
        ("Ada liked the open sea.", "The tower was closed in winter."),
        ("Bo was born in 1840.", "Ada was 12 years old and came from Rome."),
        ("", "Ada never sailed."),
        ("Yes.", "No."),
    ],
)
def test_what_says_something_else_does_not(statement: str, source: str) -> None:
    assert clash(statement, source) is None


def test_notes_contradict_only_where_neither_says_much_more() -> None:
    short = "The lamp was lit at seven."
    long = "The lamp was lit at eight, when the ships of the northern fleet had come home from the herring grounds."
    assert clash(short, long) is not None
    assert clash(short, long, both_ways=True) is None
    assert clash(short, "The lamp was lit at eight.", both_ways=True) is not None


def test_the_order_of_words_tells_who_gave_and_who_got() -> None:
    assert said_in_order("Ada gave Bo the key.", "That night Ada gave old Bo the key.") == 1.0
    assert said_in_order("Ada gave Bo the key.", "Bo gave Ada the key.") <= 0.75
    assert said_in_order("Who was it?", "It was Ada.") == 0.0


WORDS = st.sampled_from(["Ada", "sailed", "never", "not", "seven", "eight", "red", "blue", "cap", "Rome", "but"])
STATEMENTS = st.lists(WORDS, max_size=10).map(" ".join)


@given(STATEMENTS, STATEMENTS)
def test_nothing_contradicts_itself_and_any_words_can_be_compared(one: str, other: str) -> None:
    assert clash(one, one) is None
    clash(one, other, both_ways=True)
    assert 0.0 <= said_in_order(one, other) <= 1.0
    assert said_in_order(one, one) in (0.0, 1.0)
