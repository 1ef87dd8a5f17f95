"""Replies that are not in form: the right structure or the plain text, and every sentence exactly once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents.structure import Description, Draft, Structure, completed, covered
from coa.agents.structure_parsing import parse_ranges
from coa.agents.structurizer import Structurizer
from coa.limits import FULL, Limits
from coa.llm.scripted import ScriptedModel
from coa.types import Chunk, Document

pytestmark = pytest.mark.slow

Book = Callable[..., tuple[Document, list[Chunk]]]
N = 12
THREE = [("The tower", 1, 4), ("The boy and the key", 5, 9), ("The doctor", 10, 12)]
TITLES = [title for title, _, _ in THREE]
FALLBACK: None = None


def _lines(form: str) -> str:
    return "\n".join(form.format(n=n, title=t, a=a, b=b) for n, (t, a, b) in enumerate(THREE, 1))


BODIES = {
    "as asked": "Scope: a death\n" + _lines("{n}. {title} [{a}-{b}]"),
    "en dashes": "Scope: a death\n" + _lines("{n}. {title} [{a}–{b}]"),
    "round brackets": "Scope: a death\n" + _lines("{n}) {title} ({a}-{b})"),
    "bullets": "Scope: a death\n" + _lines("- {title} [{a}-{b}]"),
    "words": "Scope: a death\n" + _lines("{n}. {title} (sentences {a} to {b})"),
    "bold": "**Scope:** a death\n\n" + _lines("{n}. **{title}** [{a}-{b}]"),
    "colon": "Scope: a death\n" + _lines("{n}. {title}: {a}-{b}"),
    "ids of the prompt": "Scope: a death\n" + _lines("{n}. {title} [{a}]-[{b}]"),
    "range in front": "Scope: a death\n" + _lines("[{a}-{b}] {title}"),
    "range on its own line": "Scope: a death\n" + _lines("{n}. {title}\n   Sentences: {a}-{b}"),
    "labels": "Scope: a death\n" + _lines("Title: {title}\nSentences: {a}-{b}\n"),
    "headings": "# Scope: a death\n" + _lines("## {n}. {title} [{a}-{b}]"),
    "json": json.dumps({"scope": "a death", "aspects": [{"title": t, "first": a, "last": b} for t, a, b in THREE]}),
    "json, StruXGPT's keys": json.dumps(
        {
            "Scope": "a death",
            "Aspects": [{"AspectName": t, "SentenceRange": {"start": a, "end": b}} for t, a, b in THREE],
        }
    ),
    "json, numbers as text": json.dumps(
        {"scope": "a death", "aspects": [{"title": t, "sentences": f"{a}-{b}"} for t, a, b in THREE]}
    ),
    "json, lists of numbers": json.dumps(
        {"scope": "a death", "aspects": [{"title": t, "sentences": list(range(a, b + 1))} for t, a, b in THREE]}
    ),
}
WRAPPERS = {
    "bare": "{}",
    "fenced": "```\n{}\n```",
    "talk in front": "Sure! Here is the structure:\n\n{}",
    "talk behind": "{}\n\nLet me know if you want another division.",
    "blank lines and blanks": "\n\n  \n{}  \n\n",
}
RIGHT = {
    f"{body}, {wrapper}": WRAPPERS[wrapper].replace("{}", BODIES[body])
    for body, wrapper in itertools.product(BODIES, WRAPPERS)
}

BROKEN: dict[str, tuple[str, list[str] | None]] = {
    "nothing": ("", FALLBACK),
    "blanks": (" \n\t\n", FALLBACK),
    "a refusal": ("I cannot do that.", FALLBACK),
    "a summary": ("The keeper of the clock is found dead by a clerk who counts everything twice.", FALLBACK),
    "only a scope": ("Scope: a death", FALLBACK),
    "titles without ranges": ("Scope: x\n1. One\n2. Two\n3. Three", FALLBACK),
    "one sentence of twelve": ("Scope: x\n1. One [3-3]", FALLBACK),
    "ranges that do not exist": ("Scope: x\n1. One [40-50]\n2. Two [51-60]", FALLBACK),
    "zero": ("Scope: x\n1. One [0-0]", FALLBACK),
    "a number as long as a book": ("Scope: x\n1. One [1-99999999999999999999]", ["One"]),
    "beyond the end": ("Scope: x\n1. One [1-6]\n2. Two [7-99]", ["One", "Two"]),
    "reversed": ("Scope: x\n1. One [6-1]\n2. Two [12-7]", ["One", "Two"]),
    "overlap": ("Scope: x\n1. One [1-8]\n2. Two [5-12]", ["One", "Two"]),
    "the same twice": ("Scope: x\n1. One [1-12]\n2. Two [1-12]", ["One"]),
    "a gap of two": ("Scope: x\n1. One [1-5]\n2. Two [8-12]", ["One", "Two"]),
    "no first sentence": ("Scope: x\n1. One [2-6]\n2. Two [7-12]", ["One", "Two"]),
    "no last sentence": ("Scope: x\n1. One [1-6]\n2. Two [7-11]", ["One", "Two"]),
    "wrong numbers of items": ("Scope: x\n1. One [1-6]\n7. Two [7-12]", ["One", "Two"]),
    "the same number again": ("Scope: x\n1. One [1-6]\n1. Two [7-12]", ["One", "Two"]),
    "unordered": ("Scope: x\n1. Two [7-12]\n2. One [1-6]", ["One", "Two"]),
    "cut off in a range": ("Scope: x\n1. One [1-6]\n2. Two [7-12]\n3. Thr [1", ["One", "Two"]),
    "cut off in a title": ("Scope: x\n1. One [1-6]\n2. Two [7-12]\n3. Th", ["One", "Two"]),
    "no scope": ("1. One [1-6]\n2. Two [7-12]", ["One", "Two"]),
    "scope behind": ("1. One [1-6]\n2. Two [7-12]\nScope: x", ["One", "Two"]),
    "scope twice": ("Scope: x\nScope: y\n1. One [1-6]\n2. Two [7-12]", ["One", "Two"]),
    "lists of numbers": ("Scope: x\n1. One [1, 2, 3, 4, 5, 6]\n2. Two [7, 8, 9, 10, 11, 12]", ["One", "Two"]),
    "ranges in two pieces": ("Scope: x\n1. One [1-3, 10-12]\n2. Two [4-9]", ["One", "Two"]),
    "chunk and sentence": ("Scope: x\n1. One [1.1-1.6]\n2. Two [1.7-1.12]", ["One", "Two"]),
    "unclosed brackets": ("Scope: x\n1. One [1-6\n2. Two [7-12", ["One", "Two"]),
    "full-width brackets": ("范围：x\n1. 一 【1-6】\n2. 二 【7-12】", ["一", "二"]),
    "German": ("Umfang: x\n1. Eins (Sätze 1 bis 6)\n2. Zwei (Sätze 7 bis 12)", ["Eins", "Zwei"]),
    "a table": ("| Aspect | Sentences |\n|---|---|\n| One | 1-6 |\n| Two | 7-12 |", ["One", "Two"]),
    "carriage returns": ("Scope: x\r\n1. One [1-6]\r\n2. Two [7-12]\r\n", ["One", "Two"]),
    "quoted titles": ('Scope: "x"\n1. "One" [1-6]\n2. “Two” [7-12]', ["One", "Two"]),
    "letters for numbers": ("Scope: x\na) One [1-6]\nb) Two [7-12]", ["One", "Two"]),
    "parts": ("Scope: x\n1. One [1-6]\n1.1. In [1-3]\n1.2. Out [4-6]\n2. Two [7-12]", ["One", "Two"]),
    "parts as bullets": ("Scope: x\n1. One [1-6]\n   - In [1-3]\n   - Out [4-6]\n2. Two [7-12]", ["One", "Two"]),
    "parts without their aspect": ("Scope: x\n1.1. One [1-6]\n1.2. Two [7-12]", ["One"]),
    "parts outside of their aspect": ("Scope: x\n1. One [1-3]\n1.1. In [4-6]\n2. Two [7-12]", ["One", "Two"]),
    "aspects that are only parts": ("Scope: x\n1. One\n1.1. In [1-6]\n2. Two\n2.1. Out [7-12]", ["One", "Two"]),
    "no titles": ("Scope: x\n1. [1-6]\n2. [7-12]", ["…", "…"]),
    "ids alone": ("[1] [2] [3] [4] [5] [6] [7] [8] [9] [10] [11] [12]", ["…"]),
    "one aspect a sentence": (
        "Scope: x\n" + "\n".join(f"{n}. Title{n} [{n}-{n}]" for n in range(1, 13)),
        [f"Title{n}" for n in range(1, 13)],
    ),
    "the same line for ever": ("Scope: x\n" + "1. One [1-12]\n" * 400, ["One"]),
    "json cut off": ('{"scope":"x","aspects":[{"title":"One","first":1,"last":6},{"title":"Two","first":7,"la',
                     ["One", "Two", "…"]),
    "json without quotes": ("{scope: x, aspects: [{title: One, first: 1, last: 6}, {title: Two, first: 7, last: 12}]}",
                            ["One", "Two"]),
    "json with single quotes": ("{'scope': 'x', 'aspects': [{'title': 'One', 'first': 1, 'last': 6},"
                                " {'title': 'Two', 'first': 7, 'last': 12},]}", ["One", "Two"]),
    "json, a bare list": ('[{"title": "One", "range": [1, 6]}, {"title": "Two", "range": [7, 12]}]', ["One", "Two"]),
    "json, a mapping": ('{"scope": "x", "aspects": {"One": "1-6", "Two": "7-12"}}', ["One", "Two"]),
    "json, strings": ('{"scope": "x", "aspects": ["One [1-6]", "Two [7-12]"]}', ["One", "Two"]),
    "json, text for numbers": ('{"scope":"x","aspects":[{"title":"One","first":"1","last":"sentence 6"},'
                               '{"title":"Two","first":"7","last":"12"}]}', ["One", "Two"]),
    "json, nested": ('{"scope":"x","aspects":[{"title":"One","parts":[{"title":"In","first":1,"last":6}]},'
                     '{"title":"Two","first":7,"last":12}]}', ["One", "Two"]),
    "json, another shape": ('{"answer": 42}', FALLBACK),
    "json, null": ("null", FALLBACK),
    "json, nulls": ('{"scope":null,"aspects":[{"title":null,"first":null,"last":null}]}', FALLBACK),
    "json, true for a number": ('{"scope":"x","aspects":[{"title":"One","first":true,"last":true}]}', FALLBACK),
    "json, empty": ('{"scope":"x","aspects":[]}', FALLBACK),
    "json, deep": ("[" * 20_000, FALLBACK),
    "json, deep objects": ('{"aspects":[' * 3_000, FALLBACK),
    "braces": ("{" * 3_000 + "}" * 3_000, FALLBACK),
    "no text": ("\x00\x07\u202e\ufeff", FALLBACK),
    "half a surrogate": ("Scope: \ud800\n1. One [1-12]", ["One"]),
    "html": ("<ol><li>One [1-6]</li><li>Two [7-12]</li></ol>", ["One", "Two"]),
    "YAML": ("Scope: x\nAspects:\n- AspectName: One\n  SentenceRange: 1-6\n- AspectName: Two\n  SentenceRange: 7-12",
             ["One", "Two"]),
    "YAML, StruXGPT's": ("Scope: x\nAspects:\n- AspectName: One\n  SentenceRange:\n    start: 1\n    end: 6\n"
                         "- AspectName: Two\n  SentenceRange:\n    start: 7\n    end: 12\n", ["One", "Two"]),
}  # fmt: skip


def _once(structure: Structure, n: int) -> bool:
    return sorted(s for a in structure.aspects for s in a.sentences()) == list(range(n))


async def _made(book: Book, limits: Limits, reply: str) -> tuple[Structure, str, int]:
    _, (chunk,) = book([f"The {word} lay under the {word} stone." for word in "abcdefghijkl"])
    model = ScriptedModel(respond=lambda *_: reply)
    made = await Structurizer(model, limits, FULL).structurize(chunk)
    return made.structure, made.how, len(model.calls)


@pytest.mark.parametrize("reply", RIGHT.values(), ids=RIGHT.keys())
async def test_the_structure_is_read_however_it_is_dressed(book: Book, limits: Limits, reply: str) -> None:
    structure, how, n_calls = await _made(book, limits, reply)
    assert [a.title for a in structure.aspects] == TITLES
    assert [(a.sentences()[0] + 1, a.sentences()[-1] + 1) for a in structure.aspects] == [(a, b) for _, a, b in THREE]
    assert structure.scope == "a death"
    assert (how in {"strict", "repaired"}, n_calls) == (True, 1)
    assert _once(structure, N)


@pytest.mark.parametrize(("reply", "titles"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_reply_gives_a_structure_or_the_plain_text(
    book: Book, limits: Limits, reply: str, titles: list[str] | None
) -> None:
    structure, how, n_calls = await _made(book, limits, reply)
    assert _once(structure, N)
    if titles is FALLBACK:
        assert (how, structure.made_by, len(structure.aspects), n_calls) == ("fallback", "plain", 1, 2)
    else:
        found = [a.title if a.origin == "model" else "…" for a in structure.aspects]
        assert found == titles
        assert structure.made_by == "ids"


def test_the_table_has_a_hundred_rows_and_more() -> None:
    assert len(RIGHT) + len(BROKEN) >= 140


PIECES = st.one_of(
    st.sampled_from(
        ["Scope:", "\n", " ", "1.", "1.1.", "-", "[", "]", "(", ")", "{", "}", '"', ":", ",", "```", "**", "to"]
    ),
    st.integers(-3, 10**9).map(str),
    st.text(max_size=8),
    st.sampled_from(list(BODIES.values())).flatmap(lambda s: st.integers(0, len(s)).map(lambda at: s[:at])),
)


@settings(deadline=None, max_examples=200)
@given(reply=st.lists(PIECES, max_size=25).map("".join), n=st.integers(1, 40))
def test_no_reply_crashes_the_parser_or_loses_a_sentence(reply: str, n: int) -> None:
    parsed = parse_ranges(reply, n)
    structure = completed(parsed.scope, parsed.drafts, n, lambda a, b: f"{a}-{b}", made_by="ids")
    assert _once(structure, n)
    assert Structure.from_json(json.loads(json.dumps(structure.to_json()))) == structure


RANGES = st.builds(Description, st.integers(-5, 30), st.integers(-5, 30), st.sampled_from(["", "said"]))
DRAFTS = st.recursive(
    st.builds(Draft, st.sampled_from(["", "One", "Two"]), st.lists(RANGES, max_size=3)),
    lambda inner: st.builds(Draft, st.just("Outer"), st.lists(RANGES, max_size=2), st.lists(inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(drafts=st.lists(DRAFTS, max_size=5), n=st.integers(0, 25))
def test_any_draft_becomes_a_structure_with_each_sentence_once(drafts: list[Draft], n: int) -> None:
    structure = completed("x", drafts, n, lambda a, b: f"{a}-{b}", made_by="ids")
    assert _once(structure, n)
    assert [a.first for a in structure.aspects] == sorted(a.first for a in structure.aspects)
    assert covered(drafts, n) <= n


def test_forgotten_sentences_join_what_stands_before_them_and_many_get_a_title_of_their_own() -> None:
    drafts = [Draft("One", [Description(2, 5)]), Draft("Two", [Description(7, 9)])]
    structure = completed("x", drafts, 14, lambda a, b: f"{a}-{b}", made_by="ids")
    assert [(a.title, a.origin, a.sentences()) for a in structure.aspects] == [
        ("One", "model", [0, 1, 2, 3, 4, 5, 6]),
        ("Two", "model", [7, 8]),
        ("9-14", "code", [9, 10, 11, 12, 13]),
    ]


def test_a_sentence_of_two_aspects_goes_to_the_first_and_in_it_to_the_part_that_names_it() -> None:
    inner = Draft("In", [Description(1, 3)])
    drafts = [Draft("One", [Description(0, 6)], [inner]), Draft("Two", [Description(4, 8)])]
    structure = completed("x", drafts, 8, lambda a, b: f"{a}-{b}", made_by="ids")
    one, two = structure.aspects
    assert [(d.start, d.end) for d in one.descriptions] == [(0, 1)]
    assert [a.sentences() for a in one.aspects] == [[1, 2, 3, 4, 5]]
    assert two.sentences() == [6, 7]


def test_a_structure_cannot_be_built_with_a_sentence_missing_or_twice() -> None:
    raw = completed("x", [Draft("One", [Description(0, 3)])], 3, lambda a, b: "", made_by="ids").to_json()
    for changed in ([[0, 2]], [[0, 3], [2, 3]], [[0, 4]], [[2, 1]], [], [["a", 3]], [None]):
        broken = json.loads(json.dumps(raw))
        broken["aspects"][0]["descriptions"] = changed
        with pytest.raises((ValueError, TypeError)):
            Structure.from_json(broken)
