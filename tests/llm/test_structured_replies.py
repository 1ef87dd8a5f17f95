"""Replies in a form: what counts, what is repaired, asked for again, salvaged, refused."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel

from coa.errors import BadOutput, ModelUnavailable
from coa.llm.chat import Completion, Decoding
from coa.llm.json_replies import grounded, repaired
from coa.llm.schemas import json_schema, shape
from coa.llm.scripted import Reply, ScriptedModel
from coa.llm.structured import Parsed, Structured, parse_reply, structured
from coa.reading import Prompt
from coa.types import CallUsage, Usage


class Fact(BaseModel):
    text: str
    sentences: list[int] = []


class Facts(BaseModel):
    facts: list[Fact]


class Picked(BaseModel):
    sentences: list[int]


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    reason: str
    verdict: Literal["yes", "no", "unclear"]
    confidence: float | None = None


PROMPT = Prompt(tail="List the facts.", prefix="Some text.")
DECODING = Decoding(max_tokens=100)
TWO = '{"facts": [{"text": "Ada wrote it.", "sentences": [1, 2]}, {"text": "She \\"knew\\".", "sentences": [4]}]}'
BARE = TWO.removeprefix('{"facts": ').removesuffix("}")


def facts(text: str, *, cut_off: bool = False) -> list[str] | None:
    read = parse_reply(text, Facts, cut_off=cut_off)
    return [fact.text for fact in read.value.facts] if isinstance(read, Parsed) else None


def reply(text: str, finish: str = "stop", *, tokens: int = 5) -> Completion:
    return Completion(text, finish, CallUsage(prompt_tokens=10, completion_tokens=tokens), "d", 1.0)  # type: ignore[arg-type]


async def asked(*replies: Reply, form: type[BaseModel] = Facts, **options: bool) -> Structured[BaseModel]:
    return await structured(ScriptedModel(list(replies)), PROMPT, DECODING, form, **options)


BOTH = ["Ada wrote it.", 'She "knew".']

WELL_FORMED = {
    "bare": TWO,
    "pretty": json.dumps(json.loads(TWO), indent=2),
    "fenced": f"```json\n{TWO}\n```",
    "fence without a language": f"```\n{TWO}\n```",
    "fence that is never closed": f"Here you are:\n```json\n{TWO}",
    "prose before": f"Sure! These are the facts.\n{TWO}",
    "prose after": f"{TWO}\nI hope that helps {{really}} [1].",
    "an example first": f'For example {{"facts": []}}. The answer: {TWO}',
    "a smile before": f"So glad :{{ to help\n{TWO}",
    "brackets in prose": f"From [the text] and (more): {TWO}",
    "citation marks in prose": f"Sentences [1] and [2] say so. {TWO}",
    "another object before": f'{{"thoughts": "hm"}}\n{TWO}',
    "byte order mark": f"\ufeff{TWO}",
    "extra fields": TWO[:-1] + ', "note": 1}',
}

MALFORMED = {
    "trailing comma in a list": TWO[:-2] + ",]}",
    "trailing comma in an object": TWO[:-1] + ",}",
    "last bracket missing": TWO[:-1],
    "two last brackets missing": TWO[:-2],
    "all last brackets missing": TWO[:-3],
    "last brackets missing before a fence": f"```json\n{TWO[:-2]}\n```\nThat is all.",
    "unquoted keys": TWO.replace('"facts"', "facts").replace('"text"', "text"),
    "comma between items missing": TWO.replace("}, {", "} {"),
    "comma between members missing": TWO.replace('", "sentences"', '" "sentences"'),
    "comment": TWO.replace("[{", "[ // the facts\n{"),
    "bare list": BARE,
    "bare list in a fence": f"```\n{BARE}\n```",
    "lines of objects": "\n".join(json.dumps(f) for f in json.loads(TWO)["facts"]),
    "typographic quotes": TWO.replace('"facts"', "“facts”").replace('"text"', "“text”"),
    "line break in a string": TWO.replace("Ada wrote", "Ada\nwrote"),
    "one bracket too many": TWO[:-1] + "]}",
    "wrong closing bracket": TWO[:-2] + "}}",
}


@pytest.mark.parametrize("text", WELL_FORMED.values(), ids=WELL_FORMED)
def test_json_is_found_in_the_reply(text: str) -> None:
    read = parse_reply(text, Facts)
    assert isinstance(read, Parsed)
    assert read.how == "parsed"
    assert facts(text) == BOTH


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_repaired_without_loss(text: str) -> None:
    read = parse_reply(text, Facts)
    assert isinstance(read, Parsed)
    assert [" ".join(fact.text.split()) for fact in read.value.facts] == BOTH
    assert [fact.sentences for fact in read.value.facts] == [[1, 2], [4]]
    assert (read.how, read.lost) == ("repaired", 0)


CUT_OFF = {
    "inside a string": ('{"facts": [{"text": "a"}, {"text": "b"}, {"text": "c and mo', ["a", "b"], 1),
    "after a comma": ('{"facts": [{"text": "a"}, {"text": "b"},', ["a", "b"], 0),
    "after an item": ('{"facts": [{"text": "a"}, {"text": "b"}', ["a", "b"], 0),
    "after the key": ('{"facts": [{"text": "a"}, {"te', ["a"], 1),
    "inside a list of an item": ('{"facts": [{"text": "a"}, {"text": "b", "sentences": [1, 2', ["a"], 1),
    "inside a number": ('{"facts": [{"text": "a", "sentences": [1]}, {"text": "b", "sentences": [2, 1', ["a"], 1),
    "inside an escape": ('{"facts": [{"text": "a"}, {"text": "b\\', ["a"], 1),
    "in a fence": ('```json\n{"facts": [\n  {"text": "a"},\n  {"text": "b\n', ["a"], 1),
    "bare list": ('[{"text": "a"}, {"text": "b"}, {"t', ["a", "b"], 1),
    "malformed as well": ("{'facts': [{'text': 'a'}, {'text': 'b'}, {'text': 'c", ["a", "b"], 1),
    "comma missing as well": ('{"facts": [{"text": "a"} {"text": "b"}, {"text": "c', ["a", "b"], 1),
}


@pytest.mark.parametrize(("text", "kept", "lost"), CUT_OFF.values(), ids=CUT_OFF)
def test_a_list_that_was_cut_off_keeps_its_complete_items_and_counts_the_one_begun(
    text: str, kept: list[str], lost: int
) -> None:
    read = parse_reply(text, Facts, cut_off=True)
    assert isinstance(read, Parsed)
    assert (facts(text, cut_off=True), read.how, read.lost) == (kept, "salvaged", lost)


UNUSABLE = {
    "empty": "",
    "white space": " \n\t ",
    "prose": "I could not find any facts in this text.",
    "only a bracket": "{",
    "only a list's bracket": "[",
    "brackets without end": "[" * 8_000,
    "objects without end": '{"facts":' * 4_000,
    "closing brackets": "]}]}" * 1000,
    "mismatched brackets": "[" * 3000 + "}" * 3000,
    "another form": '{"answer": "yes", "reason": "it says so"}',
    "the schema itself": json.dumps(json_schema(Facts)),
    "a list of numbers": "[1, 2, 3]",
    "null": "null",
    "list that is null": '{"facts": null}',
    "list that is text": '{"facts": "none"}',
    "list of null": '{"facts": [null]}',
    "no item complete": '{"facts": [{"text": "Ada wr',
    "nothing after the key": '{"facts": ',
    "nothing in the list": '{"facts": [',
    "not a number": '{"facts": [{"text": "a", "sentences": [NaN]}]}',
    "lone surrogate": '{"facts": [{"text": "\\ud800"}]}',
    "digits without end": '{"facts": [{"text": "a", "sentences": [' + "9" * 10_000 + "]}]}",
    "backslashes": '{"facts": [{"text": "' + "\\" * 9999,
    "quotes": '"' * 9999,
    "control characters": "".join(map(chr, range(32))),
    "html": "<html><body>502 Bad Gateway</body></html>",
    "fences": "```" * 100,
    "fence without content": "```json\n```",
}


@pytest.mark.parametrize("cut_off", [False, True], ids=["ended", "cut off"])
@pytest.mark.parametrize("text", UNUSABLE.values(), ids=UNUSABLE)
def test_what_says_nothing_in_form_is_refused_with_a_reason(text: str, cut_off: bool) -> None:
    read = parse_reply(text, Facts, cut_off=cut_off)
    assert not isinstance(read, Parsed)
    assert read.problem


INVENTED = {
    "value missing": '{"facts": [{"text": }]}',
    "string never written": '{"facts": [{"text":, "sentences": [1]}]}',
    "second value missing": '{"facts": [{"text": "a", "sentences": [1]}, {"text": }]}',
}


@pytest.mark.parametrize("text", INVENTED.values(), ids=INVENTED)
def test_a_repair_that_makes_something_up_is_refused(text: str) -> None:
    assert facts(text) is None


def test_an_empty_string_that_the_reply_has_is_nobody_elses() -> None:
    assert facts('{"facts": [{"text": "",}]}') == [""]


class Loose(BaseModel):
    title: str = "untitled"


class Titles(BaseModel):
    titles: list[Loose]


def test_an_object_of_another_form_is_no_item_of_defaults() -> None:
    for text in ('{"answer": "yes"}', '[{"answer": "yes"}]', '{"a": 1}\n{"b": 2}'):
        assert not isinstance(parse_reply(text, Titles), Parsed)
    read = parse_reply('[{"title": "One"}]', Titles)
    assert isinstance(read, Parsed)
    assert [item.title for item in read.value.titles] == ["One"]


def test_an_empty_list_is_an_answer_and_a_list_that_only_began_is_none() -> None:
    assert facts('{"facts": []}') == []
    assert facts('{"facts": []', cut_off=True) == []
    assert facts('{"facts": [') is None


def test_marks_in_prose_serve_a_form_of_numbers() -> None:
    read = parse_reply("Sentences [3] and [7] say so.", Picked)
    assert isinstance(read, Parsed)
    assert read.value.sentences == [3, 7]


def test_a_root_list_is_read_with_and_without_its_brackets() -> None:
    form = RootModel[list[Fact]]
    for text in ('[{"text": "a"}]', '{"text": "a"}', '```\n[{"text": "a"},]\n```'):
        read = parse_reply(text, form)
        assert isinstance(read, Parsed)
        assert [fact.text for fact in read.value.root] == ["a"]


def test_fields_that_may_be_missing_survive_a_cut_outside_a_list() -> None:
    read = parse_reply('{"reason": "it says so", "verdict": "yes", "confidence": 0.', Verdict, cut_off=True)
    assert isinstance(read, Parsed)
    assert read.how == "salvaged"
    assert read.value == Verdict(reason="it says so", verdict="yes")
    assert not isinstance(parse_reply('{"reason": "it says so", "verd', Verdict, cut_off=True), Parsed)


_leaf = st.text(max_size=12) | st.sampled_from(['"', "\\", "[1]", "{", "}, {", "é\n", "```", "',", "null", "\u2028"])
_facts = st.lists(st.builds(lambda t, s: {"text": t, "sentences": s}, _leaf, st.lists(st.integers(0, 99), max_size=3)))


@settings(max_examples=150, deadline=None)
@given(items=_facts, cut=st.floats(0, 1), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_complete_leading_items_survive_a_cut_at_any_place(
    items: list[dict[str, object]], cut: float, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps({"facts": items}, indent=indent, ensure_ascii=ascii_only)
    start = '{"facts": [' if indent is None else '{\n "facts": ['
    end = min(len(text) - 1, int(cut * len(text)))
    complete = [
        n
        for n in range(len(items))
        if end
        >= len(json.dumps({"facts": items[: n + 1]}, indent=indent, ensure_ascii=ascii_only))
        - (len("]}") if indent is None else len("\n ]\n}"))
    ]
    read = parse_reply(text[:end], Facts, cut_off=True)
    if complete:
        assert isinstance(read, Parsed)
        assert [fact.model_dump() for fact in read.value.facts] == [items[n] for n in complete]
        assert read.lost <= 1
    elif items or end < len(start) + 1:
        assert not isinstance(read, Parsed)


@settings(max_examples=300, deadline=None)
@given(
    items=st.lists(st.text(alphabet="abcdefgh \"\\'", min_size=1, max_size=8), min_size=1, max_size=4),
    damage=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from([*"{}[]\":,\\ \n'a1", "```", "//", ""])),
        min_size=1,
        max_size=4,
    ),
    cut_off=st.booleans(),
)
def test_damaged_json_never_crashes_and_never_yields_what_the_reply_does_not_say(
    items: list[str], damage: list[tuple[float, int, str]], cut_off: bool
) -> None:
    text = json.dumps({"facts": [{"text": item, "sentences": [n]} for n, item in enumerate(items, 10)]})
    for place, n_removed, added in damage:
        at = int(place * len(text))
        text = text[:at] + added + text[at + n_removed :]
    read = parse_reply(text, Facts, cut_off=cut_off)
    if isinstance(read, Parsed):
        for fact in read.value.facts:
            assert grounded([fact.text, *fact.sentences], text)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet='{}[]":,\\ab1 \n', max_size=60), cut_off=st.booleans())
def test_any_text_at_all_is_read_or_refused(text: str, cut_off: bool) -> None:
    for form in (Facts, Verdict, RootModel[list[int]], RootModel[dict[str, list[str]]]):
        read = parse_reply(text, form, cut_off=cut_off)
        assert isinstance(read, Parsed) or read.problem
    mended = repaired(text)
    assert mended is None or grounded(mended, text)


async def test_the_engine_gets_the_schema_where_it_holds_to_schemas() -> None:
    for supports in (True, False):
        model = ScriptedModel([TWO], supports_schema=supports)
        result = await structured(model, PROMPT, DECODING, Facts)
        assert model.calls[0].decoding.schema == (json_schema(Facts) if supports else None)
        assert result.how == ("enforced" if supports else "parsed")
        assert result.warnings == ()


async def test_a_grammar_or_schema_of_the_caller_is_left_as_it_is() -> None:
    own = Decoding(max_tokens=100, grammar='root ::= "x"')
    model = ScriptedModel([TWO], supports_schema=True, supports_grammar=True)
    result = await structured(model, PROMPT, own, Facts)
    assert model.calls[0].decoding == own
    assert result.how == "enforced"


async def test_a_reply_out_of_form_is_asked_for_once_more_with_the_problem_behind_the_same_prefix() -> None:
    model = ScriptedModel([reply('{"facts": [{"words": "secret"}]}'), reply(TWO)])
    result = await structured(model, PROMPT, DECODING, Facts)
    again = model.calls[1].prompt
    assert (again.prefix, again.system) == (PROMPT.prefix, PROMPT.system)
    assert again.tail.startswith(PROMPT.tail)
    assert "facts.0.text: Field required" in again.tail
    assert shape(Facts) in again.tail
    assert "secret" not in again.tail
    assert (result.how, result.usage) == ("reasked", Usage(2, 20, 0, 10, None, 2.0))
    assert len(result.warnings) == 1


async def test_items_out_of_form_are_left_out_and_counted_when_asking_again_did_not_help() -> None:
    worse = '{"facts": [{"text": "a"}, {"words": 1}, {"words": 2}]}'
    result = await asked('{"facts": [{"text": "a"}, {"words": 1}, {"text": "b"}]}', worse)
    assert isinstance(result.value, Facts)
    assert [fact.text for fact in result.value.facts] == ["a", "b"]
    assert (result.how, result.lost, result.salvaged) == ("salvaged", 1, True)
    assert result.usage.calls == 2


async def test_a_cut_off_list_is_salvaged_without_another_call() -> None:
    result = await asked(reply('{"facts": [{"text": "a"}, {"te', "length"))
    assert (result.how, result.lost, result.finish_reason, result.usage.calls) == ("salvaged", 1, "length", 1)
    assert "cut off" in result.warnings[0]


async def test_nothing_in_form_raises_with_the_usage_of_both_calls() -> None:
    with pytest.raises(BadOutput, match="form that was asked for") as caught:
        await asked(reply("No."), reply("Still no.", tokens=7))
    assert caught.value.usage == Usage(2, 20, 0, 12, None, 2.0)
    assert "Still" not in str(caught.value)


async def test_without_repair_only_well_formed_replies_count() -> None:
    with pytest.raises(BadOutput):
        await asked(TWO[:-1], repair=False)
    assert (await asked(f"Well: {TWO}", repair=False)).how == "parsed"


async def test_a_failure_while_asking_again_counts_the_first_call_or_gives_way_to_what_can_be_salvaged() -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await asked(reply("No."), ModelUnavailable("gone", usage=Usage(1, 3)))
    assert caught.value.usage == Usage(2, 13, 0, 5, None, 1.0)
    result = await asked(reply('{"facts": [{"text": "a"}, {"words": 1}]}'), ModelUnavailable("gone"))
    assert (result.how, result.lost, result.usage.calls) == ("salvaged", 1, 1)


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


def test_schemas_are_spelt_out_closed_and_without_what_engines_do_not_need() -> None:
    assert json_schema(Facts) == {
        "type": "object",
        "properties": {
            "facts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "text": {"type": "string"},
                        "sentences": {"type": "array", "items": {"type": "integer"}},
                    },
                    "required": ["text", "sentences"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["facts"],
        "additionalProperties": False,
    }
    assert set(json_schema(Tree)["$defs"]) == {"Tree"}  # type: ignore[call-overload]


def test_shapes_say_the_form_in_one_line() -> None:
    assert shape(Facts) == '{"facts": [{"text": string, "sentences": [integer]}]}'
    assert shape(Verdict) == ('{"reason": string, "verdict": "yes" or "no" or "unclear", "confidence": number or null}')
    assert "..." in shape(Tree)
