"""The textbook ranking that controls use."""

from __future__ import annotations

from coa.evaluation.bm25 import ranked


def test_rare_words_count_more_than_frequent_ones() -> None:
    texts = ["the ship left the harbour", "the key lay in the harbour", "the harbour was the harbour of the ship"]
    assert ranked(texts, "the key")[0] == 1
    # By hand, with a mean length of 19/3: the first text has 0.47 * 2.2 / 2.01 + 0.134 * 2.2 / 2.01 = 0.66, the longer
    # last one 0.47 * 2.2 / 2.44 + 0.134 * 4.4 / 3.44 = 0.60, the second its harbour alone.
    assert ranked(texts, "ship harbour") == [0, 2, 1]


def test_a_long_text_is_no_better_for_its_length() -> None:
    assert ranked(["a key " + "and much more " * 50, "a key"], "key") == [1, 0]


def test_texts_without_the_words_keep_their_order_behind_the_others() -> None:
    assert ranked(["one", "two", "three key"], "key") == [2, 0, 1]
    assert ranked(["one", "two"], "key") == [0, 1]
    assert ranked([], "key") == []


def test_chinese_is_ranked_by_characters() -> None:
    assert ranked(["船离开了港口", "钥匙在蓝色的罐子里"], "钥匙在哪里？")[0] == 1
