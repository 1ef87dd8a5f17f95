"""What stands in quotation marks, in the marks of several languages; and the sentences of an answer."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.agents.claims import claims_of
from coa.agents.quotations import is_checkable, quoted_parts


@pytest.mark.parametrize(
    ("text", "quotes"),
    [
        ("He said “the lamp was lit at seven” and left.", ["the lamp was lit at seven"]),
        ('He said "the lamp was lit" and "nobody slept at all".', ["the lamp was lit", "nobody slept at all"]),
        ("Er sagte: „Die Lampe brannte um ‚sieben Uhr‘ abends.“ Ja.", ["Die Lampe brannte um ‚sieben Uhr‘ abends."]),
        ("»Die Lampe brannte um sieben Uhr«, sagte er.", ["Die Lampe brannte um sieben Uhr"]),
        ("Il dit : « La lampe était allumée à sept heures ».", ["La lampe était allumée à sept heures"]),
        ("”Lampan tändes klockan sju”, sa han.", ["Lampan tändes klockan sju"]),
        ("他说：「灯在七点钟点亮了」，『大家都走了吧』。", ["灯在七点钟点亮了", "大家都走了吧"]),
        ("他说：“灯在七点钟点亮了”，走了。", ["灯在七点钟点亮了"]),
        ("The boys' books say 'lit at seven o'clock' and 'tis so.", ["lit at seven o'clock"]),
        ("He said ‘the lamp that wasn’t lit’ twice.", ["the lamp that wasn’t lit"]),
        ("“She said ‘I am not at all afraid’ to him”", ["She said ‘I am not at all afraid’ to him"]),
        ("So:\n> The lamp was lit\n> at seven.\nEnd.", ["The lamp was lit\nat seven."]),
        ("> He said “the lamp was lit at seven”.", ["He said “the lamp was lit at seven”."]),
        ("“It breaks off right here\n\nand “this is closed now”", ["It breaks off right here", "this is closed now"]),
    ],
)  # fmt: skip
def test_quotations_are_found_in_the_marks_of_many_languages(text: str, quotes: list[str]) -> None:
    found = quoted_parts(text)
    assert [q.text for q in found] == quotes
    for quotation in found:
        assert quotation.text.replace("\n", "") in text[quotation.start : quotation.end].replace("\n> ", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No marks at all, but the boys' toys and the dogs' bones in it.",
        'A 5" nail and a 6" one, and the "brass telescope" of Ada.',
        "“Yes.” “No.” “好的。”",
        "It's what they're saying that isn't so.",
        'An odd " mark alone in a long line of words',
    ],
)
def test_apostrophes_inches_and_single_terms_are_no_quotations(text: str) -> None:
    assert quoted_parts(text) == []


@pytest.mark.parametrize(
    ("quote", "checkable"),
    [
        ("the brass telescope", True),
        ("the brass key", False),
        ("Dostoyevskys Grossinquisitor", False),
        ("灯在七点亮", True),
        ("灯在七点", False),
        ("", False),
    ],
)
def test_short_quotes_are_not_checkable(quote: str, checkable: bool) -> None:
    assert is_checkable(quote) is checkable


@given(st.text(alphabet="“”„«»'\"‘’「」『』> ab,.\n", max_size=80))
def test_quotations_are_in_order_and_never_overlap(text: str) -> None:
    found = quoted_parts(text.replace("a", "some words to be quoted"))
    assert all(a.end <= b.start for a, b in pairwise(found))


@pytest.mark.parametrize("mark", ["“", '"', "'", "« ", "> x\n"])
def test_marks_that_never_close_take_no_time(mark: str) -> None:
    started = time.process_time()
    quoted_parts(mark * 20_000)
    assert time.process_time() - started < 10


def _claims(text: str, n: int = 9, language: str = "en") -> list[tuple[str, tuple[int, ...]]]:
    return [(c.text, c.citations) for c in claims_of(text, numbers=range(1, n + 1), language=language)]


def test_each_sentence_has_the_citations_that_stand_in_it() -> None:
    assert _claims("Ada came [1]. She left [2][1], at once. Nobody saw it.") == [
        ("Ada came.", (1,)),
        ("She left, at once.", (2, 1)),
        ("Nobody saw it.", ()),
    ]


def test_a_mark_after_the_full_stop_belongs_to_the_sentence_before_it() -> None:
    assert _claims("Ada came. [1] She left.[2] Nobody saw it. [3]") == [
        ("Ada came.", (1,)),
        ("She left.", (2,)),
        ("Nobody saw it.", (3,)),
    ]


def test_headings_are_no_claims_and_items_of_lists_are_their_own() -> None:
    text = "## Chapter 1\n\nAda came [1].\n\n- a brass lamp [2]\n- Mr. Hook's hat\n2. the key [1]\n\n---\n"
    assert _claims(text) == [
        ("Ada came.", (1,)),
        ("a brass lamp", (2,)),
        ("Mr. Hook's hat", ()),
        ("the key", (1,)),
    ]


def test_chinese_sentences_are_told_apart() -> None:
    assert _claims("灯亮了[1]。没有人睡觉[2]。", language="zh") == [("灯亮了。", (1,)), ("没有人睡觉。", (2,))]


def test_numbers_that_are_no_citation_stay_in_the_words() -> None:
    assert _claims("In [1984] she left [1].", n=3) == [("In [1984] she left.", (1,))]
    assert _claims("") == []
    assert _claims("[1]") == []
