"""Exact match and token F1 against values worked out by hand from the official definitions."""

from __future__ import annotations

from fractions import Fraction

import pytest

from coa.evaluation.metrics import (
    best_subspan_em,
    exact_match,
    label_found,
    match_all,
    match_part,
    token_f1,
    word_f1_zh,
)

# SQuAD v1.1: lower case, no ASCII punctuation, no articles, white space squeezed.
EXACT = [
    ("Paris", ["Paris"], 1),
    ("paris", ["Paris"], 1),
    ("The Paris", ["Paris"], 1),
    ("Paris.", ["Paris"], 1),
    ("in Paris", ["Paris"], 0),
    ("an apple", ["the apple"], 1),
    ("U.S.A.", ["USA"], 1),
    ("well-known", ["wellknown"], 1),  # the hyphen goes without a blank in its place
    ("well-known", ["well known"], 0),
    ("  two   words ", ["two words"], 1),
    ("", [""], 1),
    ("the", [""], 1),
    ("42", ["42", "forty-two"], 1),
    ("forty two", ["42", "forty-two"], 0),
    ("theory", ["ory"], 0),  # no article inside of a word
    ("Über", ["über"], 1),
    ("“Paris”", ["Paris"], 0),  # typographic quotes are no ASCII punctuation
    ("$5", ["5"], 1),
    ("5%", ["5 %"], 1),
    ("A a an the", [""], 1),
]

# (reply, answers, 2 * shared / (tokens of the reply + tokens of the answer)), the best over the answers.
TOKENS = [
    ("Paris", ["Paris"], Fraction(1)),
    ("Paris France", ["Paris"], Fraction(2 * 1, 2 + 1)),
    ("Paris", ["Paris France"], Fraction(2 * 1, 1 + 2)),
    ("London", ["Paris"], Fraction(0)),
    ("the cat sat", ["cat sat down"], Fraction(2 * 2, 2 + 3)),
    ("cat cat", ["cat"], Fraction(2 * 1, 2 + 1)),
    ("cat cat", ["cat cat cat"], Fraction(2 * 2, 2 + 3)),
    ("a b c", ["b c d"], Fraction(2 * 2, 2 + 3)),  # "a" is an article
    ("", ["x"], Fraction(0)),
    ("the", ["the"], Fraction(1)),  # both without a token
    ("red green blue", ["red", "green blue"], Fraction(2 * 2, 3 + 2)),
    ("He was born in 1964.", ["1964"], Fraction(2 * 1, 5 + 1)),
    ("1,200", ["1200"], Fraction(1)),
    ("twenty-one", ["twenty one"], Fraction(0)),
    ("John Smith", ["Smith, John"], Fraction(1)),  # a bag has no order
    ("yes it is", ["yes"], Fraction(2 * 1, 3 + 1)),
    ("no", ["yes", "no"], Fraction(1)),
    ("one two three four", ["three four five six seven"], Fraction(2 * 2, 4 + 5)),
    ("The quick brown fox jumps", ["quick brown dog"], Fraction(2 * 2, 4 + 3)),
    ("x x y y", ["x y z"], Fraction(2 * 2, 4 + 3)),
]

CHARACTERS = [
    ("北京", ["北京"], Fraction(1)),
    ("北京市", ["北京"], Fraction(2 * 2, 3 + 2)),
    ("在北京", ["北京市"], Fraction(2 * 2, 3 + 3)),
    ("上海", ["北京"], Fraction(0)),
    ("北京。", ["北京"], Fraction(1)),
    ("《红楼梦》", ["红楼梦"], Fraction(1)),
    ("红楼梦", ["红楼"], Fraction(2 * 2, 3 + 2)),
    ("136 次", ["136次"], Fraction(1)),  # a number is one token
    ("136", ["136次"], Fraction(2 * 1, 1 + 2)),
    ("308分", ["308"], Fraction(2 * 1, 2 + 1)),
    ("ABC公司", ["abc公司"], Fraction(1)),
    ("1964年的朵拉飓风", ["朵拉飓风"], Fraction(2 * 4, 7 + 4)),
    ("北非和西非", ["西非和北非"], Fraction(1)),
    ("", ["北"], Fraction(0)),
    ("，。", [""], Fraction(1)),
    ("大大", ["大"], Fraction(2 * 1, 2 + 1)),
    ("一二三", ["三四", "二三四五"], Fraction(2 * 2, 3 + 4)),
    ("不知道", ["知道"], Fraction(2 * 2, 3 + 2)),
    ("人 民", ["人民"], Fraction(1)),
    ("“你好”", ["你好"], Fraction(1)),
]


@pytest.mark.parametrize(("reply", "answers", "expected"), EXACT)
def test_exact_match_is_that_of_squad(reply: str, answers: list[str], expected: int) -> None:
    assert exact_match(reply, answers) == expected


@pytest.mark.parametrize(("reply", "answers", "expected"), TOKENS)
def test_token_f1_is_that_of_squad(reply: str, answers: list[str], expected: Fraction) -> None:
    assert token_f1(reply, answers, language="en") == pytest.approx(float(expected))


@pytest.mark.parametrize(("reply", "answers", "expected"), CHARACTERS)
def test_chinese_f1_counts_characters(reply: str, answers: list[str], expected: Fraction) -> None:
    assert token_f1(reply, answers, language="zh") == pytest.approx(float(expected))


def test_chinese_exact_match_leaves_chinese_punctuation_and_blanks_aside() -> None:
    assert exact_match("「红 楼 梦」！", ["红楼梦"], language="zh") == 1
    assert exact_match("红楼", ["红楼梦"], language="zh") == 0


def test_words_of_chinese_are_those_of_jieba() -> None:
    # 我 / 爱 / 北京 / 天安门 against 北京 / 天安门
    assert word_f1_zh("我爱北京天安门。", ["北京天安门"]) == pytest.approx(2 * 2 / (4 + 2))
    assert word_f1_zh("上海", ["北京天安门"]) == 0


@pytest.mark.parametrize(
    ("reply", "answers", "expected"),
    [
        ("It is the Eiffel Tower.", ["Eiffel Tower"], 1),
        ("It is the Eiffel  tower", ["the Eiffel Tower!"], 1),
        ("Eiffel's tower", ["Eiffel Tower"], 0),
        ("a tower", ["nothing", "tower"], 1),
        ("anything", ["the"], 0),  # an answer that normalises to nothing occurs nowhere
    ],
)
def test_best_subspan_looks_for_a_normalised_answer(reply: str, answers: list[str], expected: int) -> None:
    assert best_subspan_em(reply, answers) == expected


def test_ruler_matches_strings_as_they_are_but_for_case() -> None:
    assert match_all("Blue, GREEN and red", ["green", "blue", "black", "pink"]) == 0.5
    assert match_part("It is Green.", ["black", "green"]) == 1
    assert match_part("It is Gr een.", ["black", "green"]) == 0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("The milk is in the garden.", 1),
        ("garden", 1),
        ("The milk is in the garden or the kitchen.", 0),
        ("The milk is in the garden. Then it went to the kitchen.", 1),  # only the first sentence counts
        ("The milk was moved from the office to the garden.", 1),  # the question names the office itself
        ("gardener", 0),
        ("", 0),
    ],
)
def test_babi_label_is_the_only_one_named(reply: str, expected: int) -> None:
    labels = ["garden", "kitchen", "office", "hallway"]
    question = "Where was the milk after the office?"
    assert label_found(reply, "garden", labels, question) == expected
