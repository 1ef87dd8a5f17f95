"""Multiple choice, exams and pairs of claims, case by case."""

from __future__ import annotations

from fractions import Fraction

import pytest

from coa.evaluation.choices import choice, chosen_word, exam
from coa.evaluation.longbench_scores import classification, code_similarity, numbers
from coa.evaluation.metrics import pair_accuracy

CITIES = ("Rome", "Paris", "Berlin", "New York")

CHOICES = [
    ("B", "B", 1),
    ("B.", "B", 1),
    ("(B)", "B", 1),
    ("b", "B", 1),
    ("The answer is B.", "B", 1),
    ("Answer: (B)", "B", 1),
    ("B. Paris", "B", 1),
    ("Paris", "B", 1),
    ("It is Paris, of course.", "B", 1),
    ("Rome or Paris", "B", 0),
    ("C", "B", 0),
    ("A city in France", "A", 0),  # a word, not a choice
    ("I think it is B", "B", 1),
    ("<answer>B</answer>", "B", 1),
    ("I first thought (A). <answer>(B)</answer>", "B", 1),
    ("(A) and (B)", "B", 0),
    ("", "B", 0),
    ("new york", "D", 1),
    ("The correct option is: C", "C", 1),
    ("B", "Paris", 1),
]

EXAMS = [
    ("AC", "AC", 1.0),
    ("A", "AC", 0.25),
    ("AB", "AC", 0.0),
    ("The answer is A, C", "AC", 1.0),
    ("", "A", 0.0),  # L-Eval takes "A" for silence
    ("(B) because of the war", "B", 1.0),
]

TRUE, FALSE = True, False
PAIRS: list[tuple[list[tuple[str, bool]], Fraction | None]] = [
    ([], None),
    ([("1", TRUE), ("1", TRUE)], Fraction(1)),
    ([("1", TRUE), ("1", FALSE)], Fraction(0)),
    ([("1", FALSE), ("1", TRUE)], Fraction(0)),
    ([("1", FALSE), ("1", FALSE)], Fraction(0)),
    ([("1", TRUE), ("1", TRUE), ("2", TRUE), ("2", TRUE)], Fraction(1)),
    ([("1", TRUE), ("1", TRUE), ("2", FALSE), ("2", TRUE)], Fraction(1, 2)),
    ([("1", FALSE), ("1", TRUE), ("2", FALSE), ("2", TRUE)], Fraction(0)),
    ([("1", TRUE), ("2", TRUE), ("1", TRUE), ("2", TRUE)], Fraction(1)),  # in any order
    ([("1", TRUE), ("2", TRUE), ("1", FALSE), ("2", TRUE)], Fraction(1, 2)),
    ([("1", TRUE), ("2", TRUE), ("2", FALSE), ("1", FALSE)], Fraction(0)),
    ([(n, TRUE) for n in "112233"], Fraction(1)),
    ([("1", TRUE), ("1", TRUE), ("2", TRUE), ("2", TRUE), ("3", FALSE), ("3", TRUE)], Fraction(2, 3)),
    ([("1", TRUE), ("1", TRUE), ("2", TRUE), ("2", FALSE), ("3", FALSE), ("3", TRUE)], Fraction(1, 3)),
    ([("1", TRUE), ("1", FALSE), ("2", TRUE), ("2", FALSE), ("3", FALSE), ("3", TRUE)], Fraction(0)),
    ([(n, n != "4") for n in "11223344"], Fraction(3, 4)),
    ([(n, n not in "34") for n in "11223344"], Fraction(1, 2)),
    # Half of all claims right, one of each pair: what a model gets that always says "true".
    ([(n, right) for n in "1234" for right in (TRUE, FALSE)], Fraction(0)),
    ([("1", TRUE), ("1", TRUE), ("2", TRUE)], Fraction(1)),  # a claim without its twin is judged alone
    ([("1", TRUE), ("1", TRUE), ("2", FALSE)], Fraction(1, 2)),
]


@pytest.mark.parametrize(("reply", "answer", "expected"), CHOICES)
def test_a_choice_is_read_out_of_a_reply(reply: str, answer: str, expected: int) -> None:
    assert choice(reply, [answer], CITIES, by_words=False) == expected


@pytest.mark.parametrize(("reply", "right", "expected"), EXAMS)
def test_a_part_of_several_right_letters_is_worth_a_quarter(reply: str, right: str, expected: float) -> None:
    assert exam(reply, right, ()) == expected


@pytest.mark.parametrize(("right", "expected"), PAIRS)
def test_a_pair_counts_when_both_its_claims_are_right(right: list[tuple[str, bool]], expected: Fraction | None) -> None:
    found = pair_accuracy(right)
    assert found == (None if expected is None else pytest.approx(float(expected)))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("True", "True"),
        ("false.", "False"),
        ("The claim is true, because Amy burnt it.", "True"),
        ("It is not true. False", "True"),  # the first sentence names one option; that it denies it is not seen
        ("<explanation>It may be true.</explanation> <answer>FALSE</answer>", "False"),
        ("True or False", None),
        ("untrue", None),
        ("", None),
    ],
)
def test_a_word_is_chosen_where_one_alone_is_named(reply: str, expected: str | None) -> None:
    assert chosen_word(reply, ("True", "False")) == expected


def test_longbench_scores_classes_numbers_and_code() -> None:
    classes = ["Other location", "location", "Human being"]
    assert classification("Other location", "Other location", classes) == 1  # "location" is part of the right one
    assert classification("Other location, Human being", "Other location", classes) == 1 / 2
    assert classification("Human being", "Other location", classes) == 0
    assert numbers("Paragraph 7, or 7 or 12", "Paragraph 7") == pytest.approx(2 / 3)
    assert numbers("none", "3") == 0
    assert code_similarity("```python\n# a comment\nreturn x\n", "return x") == 1
    assert code_similarity("return y", "return x") == pytest.approx(14 / 16)
