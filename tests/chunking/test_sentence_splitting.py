"""Sentences."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.sentences import split_sentences
from tests.tools.growth import growth

PROSE = st.text(
    alphabet=st.one_of(st.sampled_from("ab .!?\n\n \t“”\"'()。！？”\u3000\u2003é́DrM#"), st.characters(codec="utf-8"))
)


def _sentences(text: str, language: str | None = "en") -> list[str]:
    return [text[a:b] for a, b in split_sentences(text, language)]


@given(PROSE, st.sampled_from(["en", "de", "zh", "ja", "ar", "xx", None]))
def test_sentences_tile_the_text(text: str, language: str | None) -> None:
    spans = split_sentences(text, language)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)
    assert all(x[1] == y[0] for x, y in pairwise(spans))


@given(PROSE)
def test_white_space_alone_is_a_sentence_only_where_there_is_nothing_else(text: str) -> None:
    for start, end in split_sentences(text, "en"):
        assert text[start:end].strip() or not text.strip()
        assert start == 0 or not text[start].isspace()


@given(PROSE)
def test_a_blank_line_always_ends_a_sentence(text: str) -> None:
    for start, end in split_sentences(text, "en"):
        assert not any(not line.strip() for line in text[start:end].strip().split("\n")[1:])


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Mr. and Mrs. Bennet met Dr. Who. He left.", ["Mr. and Mrs. Bennet met Dr. Who. ", "He left."]),
        ("en", "He saw Mr.\nBennet there. And\nthen left.", ["He saw Mr.\nBennet there. ", "And\nthen left."]),
        ("en", "“Stop! Now!” he said. She did.", ["“Stop! Now!” he said. ", "She did."]),
        ("en", "It cost 3.50 in 1999. He paid.", ["It cost 3.50 in 1999. ", "He paid."]),
        ("en", "CHAPTER I. The Hole\n\nShe fell. So!", ["CHAPTER I. The Hole\n\n", "She fell. ", "So!"]),
        ("en", "# Title\nOne. Two.", ["# Title\n", "One. ", "Two."]),
        ("en", "A title\n\n  and text", ["A title\n\n  ", "and text"]),
        (
            "de",
            "Er kam z.B. am 3. Mai zu Dr. Bö. »Was?« dachte er.",
            ["Er kam z.B. am 3. Mai zu Dr. Bö. ", "»Was?« dachte er."],
        ),
        ("fr", "M. Fogg et Mme. Aouda partirent. Oui.", ["M. Fogg et Mme. Aouda partirent. ", "Oui."]),
        ("es", "¿Qué? El Sr. García vio a D. Juan. Sí.", ["¿Qué? ", "El Sr. García vio a D. Juan. ", "Sí."]),
        (
            "zh",
            "他说：“好水！好水！”又道：“谁？”众猴听得。次日。",
            ["他说：“好水！好水！”", "又道：“谁？”", "众猴听得。", "次日。"],
        ),
        ("ja", "彼は言った。「はい。」そして去った。", ["彼は言った。", "「はい。」", "そして去った。"]),
        (None, "One. Two.", ["One. ", "Two."]),
        ("tlh", "One. Two.", ["One. ", "Two."]),
        ("en", "\n \n", ["\n \n"]),
        ("en", "", []),
    ],
)
def test_sentences_of(language: str | None, text: str, expected: list[str]) -> None:
    assert _sentences(text, language) == expected


def test_offsets_are_code_points() -> None:
    assert _sentences("Ä𝔘😀 one. 😀😀 Two. Three.") == ["Ä𝔘😀 one. ", "😀😀 Two. ", "Three."]


def test_wrapping_does_not_move_sentences() -> None:
    text = "She came at noon. Nobody was there, so Mr. Bell left. It rained. Then the sun came out again."
    words = text.split()
    flat = _sentences(text)
    for width in (1, 2, 3, 5, 8):
        wrapped = "\n".join(" ".join(words[i : i + width]) for i in range(0, len(words), width))
        assert [" ".join(s.split()) for s in _sentences(wrapped)] == [s.strip() for s in flat]


def test_lines_longer_than_any_wrapping_are_paragraphs() -> None:
    line = "no full stop here " * 12
    assert len(_sentences(f"{line}\n{line}\n{line}")) == 3
    assert len(_sentences("却说美猴王荣归故里" * 12 + "\n" + "却说美猴王荣归故里" * 12, "zh")) == 2


def test_sentences_longer_than_the_window_are_whole() -> None:
    long = "word " * 3000 + "end. "
    assert _sentences("Short one. " + long + "Short two.") == ["Short one. ", long, "Short two."]


def test_no_sentence_border_is_lost_between_windows() -> None:
    text = "Some words stand here, and then it ends. " * 1000
    assert len(_sentences(text)) == 1000


@pytest.mark.parametrize("unit", ["a", "a ", "“", "“a ", "\n", "\n ", "x.\n", "第", "(", "# a\n", "Mr. "])
def test_time_grows_with_the_length_only(unit: str) -> None:
    split_sentences(unit * 100, "en")
    # Were it the square, 16.
    assert growth(lambda n: split_sentences((unit * n)[:n], "en"), 40_000, 160_000, enough=8) < 8


@pytest.mark.slow
def test_five_megabytes_without_a_full_stop_take_seconds() -> None:
    start = time.process_time()
    assert len(split_sentences("a" * 5_000_000, "en")) == 1
    assert time.process_time() - start < 10
