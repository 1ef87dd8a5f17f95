"""StruXGPT's free form: its parser as published, its repair, and the way back to the sentences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents.structure import completed
from coa.agents.structure_statements import Statement, aligned, parse_statements
from coa.agents.structurizer import Structurizer
from coa.errors import LimitsError
from coa.limits import FULL, Limits
from coa.llm.scripted import ScriptedModel
from coa.types import Chunk, Document

Book = Callable[..., tuple[Document, list[Chunk]]]
SENTENCES = [
    "The keeper lay at the foot of the tower stair.",
    "He was seventy-one years old.",
    "A brass lantern hung unlit on its peg.",
    "The boy hid a small key behind his back.",
    "He had carried water to the rakers for a farthing.",
]
RIGHT = """## Statement's scope:
```
a death in the tower
```

## Statement's main aspects and corresponding descriptions:
```
1. The dead keeper
    1.1. The keeper, who was seventy-one years old, lay at the foot of the tower stair.
    1.2. A brass lantern hung unlit on its peg.
2. The boy
    2.1. The boy hid a small key behind his back.
    2.2. He had carried water to the rakers for a farthing.
```
"""
LIST = RIGHT.split("```")[-2]


def test_the_published_form_is_read_as_it_stands() -> None:
    found = parse_statements(RIGHT)
    assert found.fault is None
    assert found.scope == "a death in the tower"
    assert [s.aspect for s in found.aspects] == ["The dead keeper", "The boy"]
    assert [len(s.descriptions) for s in found.aspects] == [2, 2]


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (LIST, "code fence"),
        (RIGHT.replace("1.1.", "1.1"), "1.1"),
        (RIGHT.replace("    1.1.", "  1.1."), "1.1"),
        (RIGHT.replace("2. The boy", "3. The boy"), "out of order"),
        (RIGHT.replace("1.2.", "1.3."), "out of order"),
        (RIGHT.replace("2.1.", "1.3."), "out of order"),
        (RIGHT.replace("    2.1. The boy hid a small key behind his back.\n", "")
              .replace("    2.2. He had carried water to the rakers for a farthing.\n", ""), "no description"),
        (RIGHT.replace("a death in the tower", "a death\nin the tower"), "scope"),
    ],
    ids=["no fences", "no dot", "indentation", "aspect number", "description number", "another's description",
         "aspect without descriptions", "scope of two lines"],
)  # fmt: skip
def test_what_keeps_not_to_the_form_is_named_and_still_read(reply: str, fault: str) -> None:
    found = parse_statements(reply)
    assert found.fault is not None
    assert fault in found.fault
    assert found.aspects
    assert found.aspects[0].aspect == "The dead keeper"


@pytest.mark.parametrize(
    "reply",
    [
        LIST,
        "# Scope: a death in the tower\n\n" + LIST.replace("    ", "  - ").replace("1.1. ", "").replace("1.2. ", ""),
        "**The dead keeper**\n" + LIST,
        LIST.replace("    ", ""),
        LIST.replace(".1.", ".1").replace(".2.", ".2"),
    ],
    ids=["bare list", "bullets", "a heading in front", "no indentation", "no dots"],
)
def test_lists_in_other_dress_give_the_same_aspects(reply: str) -> None:
    assert {"The dead keeper", "The boy"} >= {s.aspect for s in parse_statements(reply).aspects}
    drafts = aligned(parse_statements(reply), SENTENCES)
    structure = completed("x", drafts, len(SENTENCES), lambda a, b: "…", made_by="free")
    assert [a.sentences() for a in structure.aspects] == [[0, 1, 2], [3, 4]]


def test_sentences_are_led_back_to_what_restates_them_wherever_it_stands() -> None:
    found = parse_statements(RIGHT)._replace(
        aspects=(
            Statement("The boy", (SENTENCES[4], SENTENCES[3])),
            Statement("The keeper", ("The keeper lay dead at the foot of the tower stair.", "A lantern of brass.")),
        )
    )  # fmt: skip
    drafts = aligned(found, SENTENCES)
    assert [[(r.start, r.end) for r in d.ranges] for d in drafts] == [[(3, 4), (4, 5)], [(0, 1)]]


async def test_statements_stand_beside_the_sentences_and_never_for_them(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(SENTENCES)
    model = ScriptedModel([RIGHT])
    made = await Structurizer(model, limits, FULL, form="free").structurize(chunk)
    assert (made.how, made.structure.made_by) == ("strict", "free")
    first = made.structure.aspects[0].descriptions[0]
    assert (first.start, first.end) == (0, 2)
    assert first.statement == "The keeper, who was seventy-one years old, lay at the foot of the tower stair."
    assert [a.sentences() for a in made.structure.aspects] == [[0, 1, 2], [3, 4]]


async def test_a_restatement_of_another_text_is_not_taken(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Nothing here is about any tower at all.", "Ships sail.", "Rain fell on us.", "It ended."])
    model = ScriptedModel(respond=lambda *_: RIGHT)
    made = await Structurizer(model, limits, FULL, form="free").structurize(chunk)
    assert (made.how, len(model.calls)) == ("fallback", 2)


async def test_a_chunk_too_long_to_be_restated_is_refused_with_the_sum(book: Book) -> None:
    _, (chunk,) = book(SENTENCES * 20)
    with pytest.raises(LimitsError, match="restating it takes about"):
        await Structurizer(ScriptedModel(), Limits(4096, 2000, 256, 400, 300, 500), FULL, form="free").structurize(
            chunk
        )


@settings(deadline=None, max_examples=150)
@given(
    reply=st.lists(st.sampled_from([*RIGHT.splitlines(), *SENTENCES, "```", "", "1.", "    1.1.", "#"])).map("\n".join)
)
def test_no_reply_crashes_the_parser_or_loses_a_sentence(reply: str) -> None:
    drafts = aligned(parse_statements(reply), SENTENCES)
    structure = completed("x", drafts, len(SENTENCES), lambda a, b: "…", made_by="free")
    assert sorted(n for a in structure.aspects for n in a.sentences()) == [0, 1, 2, 3, 4]
