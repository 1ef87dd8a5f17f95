"""Two printings of the same words are one string, and each of its characters leads back to the source."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents.normalising import normalised


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("“Well,” said he, “come in.”", "'Well,' said he, 'come in.'"),
        ("« Oui », dit-il ; non ?", "»Oui«, dit-il; non?"),
        ("don’t", "don't"),
        ("come in—now", "come in -- now"),
        ("come in—now", "come in – now"),
        ("an exam-\n  ple of it", "an example of it"),
        ("an exam- ple of it", "an example of it"),
        ("a well-known\nsea", "a well‑known sea"),
        ("THE LAMP", "the  lamp"),
        ("Straße", "STRASSE"),
        ("ﬁne oﬀer", "fine offer"),
        ("Paradiſe", "paradise"),
        ("İstanbul'da IŞIK", "istanbul'da ışık"),
        ("ＡＢＣ　５０％", "abc 50%"),
        ("ｶﾞﾗｽ", "ガラス"),
        ("wait . . . what", "wait… what"),
        ("the _very_ *same*", "the very same"),
        ("l'_Henrietta_", "l’Henrietta"),
        ("他说：“好。”", "他说:「好｡」"),
        ("第一\n　回　终", "第一回终"),
        ("I ❤️ it", "I ❤ it"),
        ("cafe\u0301", "café"),
    ],
)
def test_typography_makes_no_difference(one: str, other: str) -> None:
    # Documents and quotes come in NFC.
    assert normalised(unicodedata.normalize("NFC", one)).text == normalised(unicodedata.normalize("NFC", other)).text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10²", "102"),
        ("2½", "21/2"),
        ("x₂", "x2"),
        ("1914-18", "191418"),
        ("1914-\n18", "191418"),
        ("3. 5", "3.5"),
        ("it was -5 then", "it was 5 then"),
        ("café", "cafe"),
        ("sûr", "sur"),
        ("I can't", "I cant"),
        ("He left?", "He left."),
        ("now here", "nowhere"),
    ],
)
def test_what_carries_meaning_stays(one: str, other: str) -> None:
    assert normalised(one).text != normalised(other).text


@pytest.mark.parametrize(
    ("source", "part", "expected"),
    [
        ("in der Straße steht", "strasse", "Straße"),
        ("in der Straße steht", "ss", "ß"),
        ("a ﬁne day", "fine", "ﬁne"),
        ("an exam-\n  ple of", "example", "exam-\n  ple"),
        ("in—now", "in-now", "in—now"),
        ("İstanbul", "i", "İ"),
        ("他说：“好。”", "好.", "好。"),
        ("ｶﾞﾗｽ の", "ガ", "ｶﾞ"),
        ("👍🏽 ok 👩‍👩‍👧", "👩‍👩‍👧", "👩‍👩‍👧"),
        ("e\u0323\u0302x", "ệ", "e\u0323\u0302"),
        ("５０％", "50", "５０"),
    ],
)
def test_a_part_leads_back_to_whole_characters_of_the_source(source: str, part: str, expected: str) -> None:
    made = normalised(source)
    start = made.text.index(part)
    assert source[slice(*made.span(start, start + len(part)))] == expected


# Pieces that change, in every order: most of the work is at their borders.
_CHARS = list("aß1İﬁ.,? \n-—“”'’«_*他。ガ½…\u00a0\u3000\u0301")
_PIECES = st.sampled_from([*_CHARS, "Bc", "e\u0301", "...", "  ", "--", "ｶﾞ", "5²", "❤️", "👍🏽", "हि", "ก็"])
TEXTS = st.one_of(
    st.lists(_PIECES, max_size=30).map("".join),
    st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=60),
).map(lambda text: unicodedata.normalize("NFC", text))


@settings(deadline=None, max_examples=150)
@given(TEXTS)
def test_spans_are_in_order_cover_their_characters_and_stay_inside(text: str) -> None:
    made = normalised(text)
    before = 0
    for at in range(len(made.text)):
        start, end = made.span(at, at + 1)
        assert 0 <= start < end <= len(text)
        assert start >= before
        assert made.offset(start) <= at < max(at + 1, made.offset(end))
        before = start
    if made.text:
        first, last = made.span(0, 1)[0], made.span(len(made.text) - 1, len(made.text))[1]
        assert made.span(0, len(made.text)) == (first, last)


def test_an_empty_text_has_an_empty_form() -> None:
    made = normalised("")
    assert made.text == ""
    assert made.offset(0) == 0
