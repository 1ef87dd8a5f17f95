"""Structured notes as values: their text, merging, conflicts, and making room."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents.fact_notes import Fact, FactNotes, NewNotes, Thread, merged, parse_notes
from coa.agents.fact_replies import facts_grammar, read_reply
from coa.agents.fact_room import cost_of, made_to_fit, spared
from coa.agents.references import Reference, references
from coa.tokens import EstimatedTokens


def _costs(lines: object) -> list[int]:
    return EstimatedTokens().count([f"{line}\n" for line in lines])  # type: ignore[attr-defined]


def _fact(text: str, *ids: tuple[int, int], unsure: bool = False, against: tuple[int, int] | None = None) -> Fact:
    return Fact(text, tuple(Reference(*i) for i in ids), unsure, () if against is None else (Reference(*against),))


NOTES = FactNotes(
    (
        _fact("Ada left for Rome in May.", (3, 7), (5, 2)),
        _fact("Ada left for Rome in June.", (9, 1), against=(3, 7)),
        _fact("Bo may have followed her.", (6, 4), unsure=True),
    ),
    (Thread(2, "Who paid for the passage?", (Reference(4, 1),)),),
    facts_left_out=3,
    ids_left_out=4,
    cut_off=1,
)
UNIT = """\
- Ada left for Rome in May. [3.7][5.2]
- Ada left for Rome in June. [9.1] (contradicts [3.7])
- Bo may have followed her. [6.4] (unsure)
? 2: Who paid for the passage? [4.1]
+ left out for room: 3 facts, 4 ids; cut off: 1 reply"""


def test_a_unit_reads_as_it_stands_and_is_taken_apart_again() -> None:
    assert str(NOTES) == UNIT
    assert parse_notes(UNIT) == NOTES
    assert [str(r) for r in references(UNIT)] == ["[3.7]", "[5.2]", "[9.1]", "[6.4]", "[4.1]"]
    assert parse_notes("") == FactNotes()
    assert str(FactNotes()) == ""


def test_prose_of_another_kind_of_notes_can_be_gone_on_with() -> None:
    notes = parse_notes("Ada came [1.1], and Bo [2.3].\n\nNobody slept.")
    assert [f.text for f in notes.facts] == ["Ada came, and Bo.", "Nobody slept."]
    assert notes.facts[0].references == (Reference(1, 1), Reference(2, 3))


def _read(text: str, *, cut_off: bool = False, n_sentences: int = 10, notes: FactNotes = NOTES) -> NewNotes:
    return read_reply(text, notes, chunk=10, n_sentences=n_sentences, cut_off=cut_off)


@pytest.mark.parametrize(
    ("said", "fact"),
    [
        ("- Cy sings. [7]", "- Cy sings. [10.7]"),
        ("* Cy sings [7][8].", "- Cy sings. [10.7][10.8]"),
        ("3. Cy sings [7, 8]", "- Cy sings [10.7][10.8]"),
        ("FACT: Cy sings [7]", "- Cy sings [10.7]"),
        ("[7] Cy sings.", "- Cy sings. [10.7]"),
        ("Cy sings [7] (unsure)", "- Cy sings [10.7] (unsure)"),
        ("- Cy sings. (uncertain) [7]", "- Cy sings. [10.7] (unsure)"),
        ("- Ada never left [7] (contradicts [3.7])", "- Ada never left [10.7] (contradicts [3.7])"),
        ("- Ada never left [7], contradicts [3.7] and [5.2].", "- Ada never left. [10.7] (contradicts [3.7][5.2])"),
        ("- Cy sings.", "- Cy sings. (unsure)"),
        ("- Cy sings [99].", "- Cy sings. (unsure)"),
        ("- Cy sings [7] (contradicts [88.1])", "- Cy sings [10.7]"),
        ("- - Cy sings [7]", "- Cy sings [10.7]"),
        ("[7] Cy sings, and Dee [8] dances.", "- Cy sings, and Dee dances. [10.7][10.8]"),
    ],
)
def test_a_fact_is_read_in_many_forms_with_ids_that_can_be_true(said: str, fact: str) -> None:
    (found,) = merged(NOTES, _read(said)).facts[3:]
    assert str(found) == fact


def test_prose_is_parted_where_its_ids_stand() -> None:
    new = _read("Cy sings [7]. Dee dances [8][9] and laughs [1]")
    assert [str(f) for f in new.facts] == [
        "- Cy sings [10.7]",
        "- Dee dances [10.8][10.9]",
        "- and laughs [10.1]",
    ]


def test_questions_are_opened_and_closed_by_number() -> None:
    new = _read("? Who is Cy?\nOpen question: Where is Dee [4]?\nclosed 2\n- closed: 7")
    grown = merged(NOTES, new)
    assert [str(t) for t in grown.threads] == ["? 3: Who is Cy?", "? 4: Where is Dee? [10.4]"]
    assert new.closed == {2}
    assert grown.ids_left_out == NOTES.ids_left_out


@pytest.mark.parametrize(
    "said",
    [
        "NO_INFORMATION",
        "",
        "New facts:",
        "```\n```",
        "- The text does not mention Cy.",
        "closed 9",
        "- Ada left for Rome in May. [3.7]",
        "- In May, Ada left for Rome [5.2].",
        "---",
    ],
)
def test_what_adds_nothing_changes_nothing(said: str) -> None:
    assert merged(NOTES, _read(said)) == NOTES


def test_of_a_reply_that_broke_off_the_complete_lines_are_kept_and_it_is_counted() -> None:
    new = _read("- Cy sings. [7]\n- Dee does not dance with [8]", cut_off=True)
    grown = merged(NOTES, new)
    assert [f.text for f in grown.facts[3:]] == ["Cy sings."]
    assert grown.cut_off == 2
    assert str(grown).endswith("cut off: 2 replies")
    assert not _read("- Cy sings. [7]", cut_off=True)


def test_without_ids_of_its_own_a_chunk_gives_facts_without_ids_that_are_not_doubted_for_it() -> None:
    new = _read("- Cy sings. [7]", n_sentences=0, notes=FactNotes())
    assert [str(f) for f in new.facts] == ["- Cy sings."]


@pytest.mark.parametrize(
    ("known", "said", "kept"),
    [
        ("Ada left for Rome.", "Ada left for Rome", "Ada left for Rome."),
        ("The key is made of old brass.", "Key is made of brass", "The key is made of old brass."),
        ("Ada left Rome with the key.", "Ada left Rome with the old key.", "Ada left Rome with the old key."),
    ],
)
def test_what_says_the_same_again_adds_its_ids_and_the_fuller_wording_stays(known: str, said: str, kept: str) -> None:
    notes = merged(FactNotes((_fact(known, (1, 1)),)), NewNotes((_fact(said, (2, 5)),)))
    assert notes.facts == (_fact(kept, (1, 1), (2, 5)),)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ("Ada sailed to Rome.", "Ada sailed from Rome."),
        ("Bo gave Ada the key.", "Ada gave Bo the key."),
        ("Bo sailed to Rome in May.", "Ada said Bo sailed to Rome in May."),
        ("Ada has the old key.", "Ada has not the old key."),
    ],
)
def test_what_only_sounds_the_same_stays_apart(known: str, said: str) -> None:
    notes = merged(FactNotes((_fact(known, (1, 1)),)), NewNotes((_fact(said, (2, 5)),)))
    assert [f.text for f in notes.facts] == [known, said]


def test_a_contradiction_is_kept_beside_what_it_contradicts_and_marked() -> None:
    notes = FactNotes((_fact("The lamp was lit at seven.", (1, 1)), _fact("Bo slept in the tower.", (1, 4))))
    grown = merged(notes, NewNotes((_fact("The lamp was lit at eight.", (4, 2)), _fact("Cy sings.", (4, 3)))))
    assert [str(f) for f in grown.facts[2:]] == [
        "- The lamp was lit at eight. [4.2] (contradicts [1.1])",
        "- Cy sings. [4.3]",
    ]
    shown = grown.in_document_order().facts
    assert [f.references[0] for f in shown] == [Reference(1, 1), Reference(4, 2), Reference(1, 4), Reference(4, 3)]


def test_a_contradiction_within_one_sentence_is_none() -> None:
    said = (_fact("The lamp was lit at seven.", (1, 1)), _fact("The lamp was lit at eight.", (1, 1)))
    assert [f.against for f in merged(FactNotes(), NewNotes(said)).facts] == [(), ()]


def test_the_reading_order_does_not_show_to_the_manager() -> None:
    facts = (_fact("Cy sings.", (9, 1)), _fact("Nobody knows why."), _fact("Ada came.", (1, 1)))
    assert [f.text for f in FactNotes(facts).in_document_order().facts] == [
        "Ada came.",
        "Cy sings.",
        "Nobody knows why.",
    ]


def test_what_others_tell_and_what_is_unsure_goes_first() -> None:
    notes = FactNotes(
        (
            _fact("The brass key opens the old tower.", (1, 1)),
            _fact("The old tower stands by the harbour wall.", (1, 2)),
            _fact("The tower is old.", (1, 2)),
            _fact("Somebody may be ill.", (2, 1), unsure=True),
            _fact("The key may be lost.", (2, 2), unsure=True),
        )
    )
    full = cost_of(notes, _costs)
    kept = spared(notes, "Where is the key?", full - 1, _costs)
    assert "The tower is old." not in [f.text for f in kept.facts]
    assert spared(notes, "Where is the key?", full, _costs) is notes
    least = spared(notes, "Where is the key?", 0, _costs)
    assert [f.text for f in least.facts] == [notes.facts[at].text for at in (0, 1, 4)]
    assert (least.facts_left_out, least.ids_left_out) == (2, 1)


def test_the_least_useful_goes_next_and_contradictions_stay_together() -> None:
    facts = [_fact(f"Matter {n} was spoken of by nobody at length.", (n, 1)) for n in range(1, 9)]
    facts.insert(0, _fact("The key was of brass.", (20, 1)))
    facts.insert(1, _fact("A lamp burned by the key at seven.", (21, 1)))
    facts.insert(2, _fact("A lamp burned at eight.", (22, 1), against=(21, 1)))
    kept = made_to_fit(FactNotes(tuple(facts)), "What was the key made of?", 100, _costs)
    assert [f.text for f in kept.facts[:3]] == [f.text for f in facts[:3]]
    assert 0 < kept.facts_left_out == 11 - len(kept.facts)


def test_a_summary_is_thinned_over_the_whole_text() -> None:
    facts = tuple(_fact(f"Event {n} of this long tale took place.", (n, 1)) for n in range(1, 41))
    kept = made_to_fit(FactNotes(facts), None, 200, _costs)
    chunks = [f.references[0].chunk for f in kept.facts]
    assert len(chunks) > 6
    assert max(b - a for a, b in zip([0, *chunks], [*chunks, 41], strict=True)) <= 3 * 40 / len(chunks)


SUBJECTS = st.sampled_from(["Ada", "Bo", "The brass key", "The old tower", "Nobody", "钥匙", "Der Käfer"])
DOINGS = st.sampled_from(
    ["came at seven", "came at eight", "is not red", "is red", "sings [sic]", "在伦敦 (unsure)", "?"]
)
IDS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), max_size=3)
MARKS = st.sampled_from(["- ", "* ", "", "1. ", "? ", "closed ", "+ left out for room: 2 facts; ", "- ? "])


@st.composite
def _replies(draw: st.DrawFn) -> str:
    lines = []
    for _ in range(draw(st.integers(0, 6))):
        ids = "".join(
            draw(st.sampled_from([f"[{s}]", f"[{c}.{s}]", f" (contradicts [{c}.{s}])"])) for c, s in draw(IDS)
        )
        lines.append(
            f"{draw(MARKS)}{draw(SUBJECTS)} {draw(DOINGS)} {ids}{draw(st.sampled_from(['', '.', ' (unsure)']))}"
        )
    return "\n".join(lines)


def _chain(replies: list[str], budget: int, query: str | None) -> list[FactNotes]:
    notes = [FactNotes()]
    for chunk, reply in enumerate(replies, 1):
        grown = merged(notes[-1], read_reply(reply, notes[-1], chunk=chunk, n_sentences=9, cut_off=len(reply) % 5 == 0))
        notes.append(made_to_fit(grown, query, budget, _costs))
    return notes


@settings(deadline=None, max_examples=120)
@given(st.lists(_replies(), max_size=6), st.integers(60, 300), st.sampled_from([None, "Where is the brass key?"]))
def test_any_chain_of_replies_keeps_to_its_budget_its_ids_and_its_form(
    replies: list[str], budget: int, query: str | None
) -> None:
    steps = _chain(replies, budget, query)
    for n, notes in enumerate(steps):
        assert parse_notes(str(notes)) == notes
        assert cost_of(notes, _costs) <= budget
        # No id comes from nowhere: each is a sentence of a chunk that was read.
        assert all(1 <= r.chunk <= n and 1 <= r.sentence <= 9 for r in notes.references)
        assert {r for f in notes.facts for r in f.against} <= {r for f in notes.facts for r in f.references}
        assert len({t.number for t in notes.threads}) == len(notes.threads)
    for before, after in pairwise(steps):
        # Facts are appended: those that stay keep their order, and what goes is counted.
        now = [f.text for f in after.facts]
        places = [now.index(f.text) for f in before.facts if f.text in now]
        assert places == sorted(places)
        gone = {r for f in before.facts for r in f.references} - after.references
        assert after.ids_left_out - before.ids_left_out >= len(gone)


@settings(deadline=None, max_examples=60)
@given(_replies(), _replies())
def test_merging_the_same_again_changes_nothing(first: str, second: str) -> None:
    notes = merged(FactNotes(), read_reply(first, FactNotes(), chunk=1, n_sentences=9))
    new = read_reply(second, notes, chunk=2, n_sentences=9)
    once = merged(notes, NewNotes(new.facts, (), new.closed))
    again = merged(once, NewNotes(new.facts, (), new.closed))
    assert [f.text for f in again.facts] == [f.text for f in once.facts]
    assert again.references == once.references


def test_the_grammar_is_bounded_by_the_cap_and_has_no_loops() -> None:
    few, many, wide = facts_grammar(96), facts_grammar(1024), facts_grammar(96, wide=True)
    assert "{0,7}" in many.splitlines()[0]
    assert "{0,0}" in few.splitlines()[0]
    assert "{3,32}" in wide
    assert "*" not in few.replace('"*"', "")
