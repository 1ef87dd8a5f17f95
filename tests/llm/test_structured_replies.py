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
