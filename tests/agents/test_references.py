"""Sentence ids: qualified when a note is written, checked against what can be true, renumbered in answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.agents.references import Reference, qualify, references, renumbered, without_references

KNOWN = frozenset({Reference(1, 4), Reference(2, 9)})


def _qualified(note: str) -> str:
    return qualify(note, chunk=3, n_sentences=10, known=KNOWN)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Ada left [7].", "Ada left [3.7]."),
        ("Ada left [7, 8].", "Ada left [3.7][3.8]."),
        ("Ada left [7; 2].", "Ada left [3.7][3.2]."),
        ("Ada left [7-9].", "Ada left [3.7][3.8][3.9]."),
        ("Ada left [7–8].", "Ada left [3.7][3.8]."),
        ("Ada left [ 7 ].", "Ada left [3.7]."),
        ("Ada left 【7】.", "Ada left [3.7]."),
        ("Ada left [3.7].", "Ada left [3.7]."),
        ("Ada left [3.7-9].", "Ada left [3.7][3.8][3.9]."),
        ("Ada left [3.7-3.8].", "Ada left [3.7][3.8]."),
        ("She came [1.4] and left [7].", "She came [1.4] and left [3.7]."),
        ("Twice [7][7, 7].", "Twice [3.7][3.7]."),
    ],
)
def test_ids_of_this_chunk_and_of_the_notes_stay(note: str, expected: str) -> None:
    assert _qualified(note) == expected


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("Ada left [11].", "Ada left."),
        ("Ada left [0].", "Ada left."),
        ("Ada left [1.5].", "Ada left."),
        ("Ada left [4.1].", "Ada left."),
        ("Ada left [9-11].", "Ada left [3.9][3.10]."),
        ("Ada left [2-1].", "Ada left."),
        ("Ada left [1-1000].", "Ada left."),
        ("Ada left [1.4-2.9].", "Ada left."),
        ("In [1984] she left.", "In she left."),
        ("A [99] b [98] .", "A b."),
    ],
)
def test_what_cannot_be_true_is_dropped(note: str, expected: str) -> None:
    assert _qualified(note) == expected


@pytest.mark.parametrize("note", ["He [sic] said [...] no.", "a[i] = [ ]", "[1234567]", "(7) {8}"])
def test_other_brackets_are_left_alone(note: str) -> None:
    assert _qualified(note) == note.strip()


def test_a_model_stuck_in_digits_does_no_harm() -> None:
    assert references("[" + "1" * 10_000 + "]") == []
    assert references("[1." + "1" * 10_000 + "]") == []


def test_a_profile_that_cites_nothing_keeps_no_id() -> None:
    assert qualify("One [1] two [2.1].", chunk=1, n_sentences=0, known=frozenset()) == "One two."


def test_references_come_in_order_each_once_and_never_without_a_chunk() -> None:
    assert references("x [2.1] y [1.3, 2.1] z [5] [1.1-3]") == [
        Reference(2, 1),
        Reference(1, 3),
        Reference(1, 1),
        Reference(1, 2),
    ]


def test_renumbering_gives_places_and_drops_the_rest() -> None:
    places = {Reference(2, 1): 4, Reference(1, 3): 5}
    assert renumbered("Red [2.1], blue [1.3][2.1] , none [9.9].", places) == "Red [4], blue [5][4], none."
    assert renumbered("He said [...] so [2.1].", places) == "He said [...] so [4]."
    assert without_references("Red [2.1], blue 【1.3】 .") == "Red, blue."


# Pieces rather than single characters, or hardly any text would hold an id.
_PIECES = st.sampled_from(
    [
        "[",
        "]",
        "【",
        "】",
        "1",
        "3",
        "7",
        "12",
        ".",
        ",",
        ";",
        "-",
        "–",
        " ",
        "\n",
        "a",
        "[7]",
        "[3.2]",
        "[1.4]",
        "[9.9]",
    ]
)
NOTES = st.one_of(st.lists(_PIECES, max_size=25).map("".join), st.text(max_size=60))


@given(NOTES)
def test_qualifying_twice_changes_nothing_more(note: str) -> None:
    once = _qualified(note)
    assert _qualified(once) == once


@given(NOTES)
def test_no_id_is_left_that_is_neither_of_this_chunk_nor_known(note: str) -> None:
    for reference in references(_qualified(note)):
        assert reference in KNOWN or (reference.chunk == 3 and 1 <= reference.sentence <= 10)


@given(NOTES)
def test_without_references_leaves_none(note: str) -> None:
    assert references(without_references(note)) == []
