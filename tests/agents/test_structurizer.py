"""The structurizer: what it asks, how often, and what it makes of the reply."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from coa.agents.segmentation import sentence_texts
from coa.agents.structurizer import Structurizer, structure_by_code
from coa.errors import ModelUnavailable
from coa.limits import FULL, SMALL, Limits
from coa.llm.chat import Completion
from coa.llm.scripted import ScriptedModel
from coa.reading import reading_prefix
from coa.types import CallUsage, Chunk, Document, Span, Usage

Book = Callable[..., tuple[Document, list[Chunk]]]
LINES = "Scope: a ferry\n1. Its master [1-6]\n2. Its cargo [7-12]"
JSON = json.dumps(
    {
        "scope": "a ferry",
        "aspects": [
            {"title": "Its master", "first": 1, "last": 6, "parts": []},
            {"title": "Its cargo", "first": 7, "last": 12, "parts": []},
        ],
    }
)


@pytest.fixture
def chunk(book: Book) -> Chunk:
    """Twelve sentences."""
    return book([f"The ferry number {n} crossed the sound with herring." for n in range(12)])[1][0]


async def test_lines_are_asked_for_behind_the_reading_prefix(chunk: Chunk, limits: Limits) -> None:
    model = ScriptedModel([LINES])
    made = await Structurizer(model, limits, FULL).structurize(chunk)
    assert (made.how, [a.title for a in made.structure.aspects]) == ("strict", ["Its master", "Its cargo"])
    (call,) = model.calls
    assert call.prompt.prefix == reading_prefix(chunk.text, chunk.sentences, offset=chunk.span.start)
    assert (call.decoding.schema, call.decoding.grammar) == (None, None)


async def test_where_the_engine_holds_to_schemas_it_is_json(chunk: Chunk, limits: Limits) -> None:
    model = ScriptedModel([JSON], supports_schema=True)
    made = await Structurizer(model, limits, FULL).structurize(chunk)
    assert (made.how, [a.title for a in made.structure.aspects]) == ("enforced", ["Its master", "Its cargo"])
    assert model.calls[0].decoding.schema is not None


async def test_the_schema_is_the_same_for_every_chunk(book: Book, limits: Limits) -> None:
    model = ScriptedModel(respond=lambda *_: JSON, supports_schema=True)
    for n in (4, 90):
        await Structurizer(model, limits, FULL).structurize(book([f"Sentence {i}." for i in range(n)])[1][0])
    assert len({json.dumps(call.decoding.schema) for call in model.calls}) == 1


async def test_a_small_model_with_grammars_gets_one_that_ends(chunk: Chunk, limits: Limits) -> None:
    from dataclasses import replace

    model = ScriptedModel([LINES], supports_grammar=True, supports_schema=True)
    made = await Structurizer(model, limits, replace(SMALL, quotes=False)).structurize(chunk)
    assert made.how == "strict"
    assert model.calls[0].decoding.grammar is not None
    assert "{1,3}" in model.calls[0].decoding.grammar


async def test_the_second_reply_is_asked_for_with_what_was_wrong(chunk: Chunk, limits: Limits) -> None:
    model = ScriptedModel(["I would rather not.", LINES])
    made = await Structurizer(model, limits, FULL).structurize(chunk)
    assert (made.how, made.usage.calls, len(made.structure.aspects)) == ("asked again", 2, 2)
    first, second = (call.prompt for call in model.calls)
    assert second.prefix == first.prefix
    assert second.tail.startswith(first.tail)
    assert "could not be used" in second.tail


@pytest.mark.parametrize("schema", [False, True], ids=["lines", "schema"])
async def test_two_replies_of_no_use_give_the_plain_text_and_are_paid(
    chunk: Chunk, limits: Limits, schema: bool
) -> None:
    model = ScriptedModel(respond=lambda *_: "no", supports_schema=schema)
    made = await Structurizer(model, limits, FULL).structurize(chunk)
    assert (made.how, made.structure.made_by, made.usage.calls) == ("fallback", "plain", 2)
    (only,) = made.structure.aspects
    assert only.sentences() == list(range(12))
    assert "ferry" in only.title.lower()


async def test_a_schema_kept_by_a_reply_about_nothing_gives_the_plain_text(chunk: Chunk, limits: Limits) -> None:
    empty = json.dumps({"scope": "x", "aspects": [{"title": "One", "first": 1, "last": 2, "parts": []}]})
    made = await Structurizer(ScriptedModel([empty], supports_schema=True), limits, FULL).structurize(chunk)
    assert (made.how, made.structure.made_by) == ("fallback", "plain")


async def test_a_reply_that_was_cut_off_keeps_what_it_says(chunk: Chunk, limits: Limits) -> None:
    text = "Scope: a ferry\n1. Its master [1-8]\n2. Its car"
    cut = Completion(text, "length", CallUsage(10, 0, 20, 0.0), "scripted", 0.1)
    made = await Structurizer(ScriptedModel([cut]), limits, FULL).structurize(chunk)
    master, rest = made.structure.aspects
    assert (master.title, master.origin, rest.origin) == ("Its master", "model", "code")


async def test_the_prompts_own_example_is_no_structure(chunk: Chunk, limits: Limits) -> None:
    model = ScriptedModel(["Scope: noun phrase\n1. first aspect [1-9]\n2. second aspect [10-12]", LINES])
    made = await Structurizer(model, limits, FULL).structurize(chunk)
    assert made.how == "asked again"
    assert "repeats the example" in model.calls[1].prompt.tail


async def test_one_title_out_of_the_example_is_made_by_code(chunk: Chunk, limits: Limits) -> None:
    model = ScriptedModel(["Scope: noun phrase\n1. Its master [1-4]\n2. second aspect [5-8]\n3. Its cargo [9-12]"])
    made = await Structurizer(model, limits, FULL).structurize(chunk)
    assert [a.origin for a in made.structure.aspects] == ["model", "code", "model"]
    assert made.structure.scope == "Its master"


async def test_the_example_in_the_prompts_is_known(chunk: Chunk, limits: Limits) -> None:
    model = ScriptedModel(respond=lambda *_: LINES)
    await Structurizer(model, limits, FULL).structurize(chunk)
    example = model.calls[0].prompt.tail.partition("Scope: ")[2].splitlines()
    titles = [example[0], *(line.partition(" ")[2].rpartition(" [")[0] for line in example[1:])]
    for title in titles:
        reply = f"Scope: x\n1. {title} [1-12]"
        made = await Structurizer(ScriptedModel([reply, reply]), limits, FULL).structurize(chunk)
        assert made.how == "fallback", title


async def test_a_failing_second_call_carries_the_usage_of_the_first(chunk: Chunk, limits: Limits) -> None:
    model = ScriptedModel(["no", ModelUnavailable("down")])
    with pytest.raises(ModelUnavailable) as caught:
        await Structurizer(model, limits, FULL).structurize(chunk)
    assert caught.value.usage is not None
    assert caught.value.usage.calls == 1


async def test_a_tiny_model_is_not_asked(chunk: Chunk, limits: Limits) -> None:
    model = ScriptedModel()
    structurizer = Structurizer(model, limits, SMALL)
    made = await structurizer.structurize(chunk)
    assert (model.calls, made.how, made.usage, made.structure.made_by) == ([], "code", Usage(), "code")
    assert structurizer.prompt_digests == {}
    assert structurizer.demand(chunk).calls == 0


async def test_a_reply_and_its_prompt_fit_into_the_window(book: Book) -> None:
    chunk = book([f"The ferry number {n} crossed the sound." for n in range(60)])[1][0]
    tight = Limits(chunk.n_tokens + 700, chunk.n_tokens, 100, 100, 100, 300)
    model = ScriptedModel(["Scope: a ferry\n1. Its crossings [1-60]"])
    structurizer = Structurizer(model, tight, FULL)
    await structurizer.structurize(chunk)
    demand = structurizer.demand(chunk)
    assert demand.prompt_tokens // 2 + model.calls[0].decoding.max_tokens <= tight.window
    assert demand.completion_tokens == 2 * model.calls[0].decoding.max_tokens


async def test_no_sentences_take_no_call(limits: Limits) -> None:
    made = await Structurizer(ScriptedModel(), limits, FULL).structurize(Chunk(0, "", Span(0, 0), (), 0, "x", True))
    assert made.structure.aspects == ()


def test_whatever_a_structure_depends_on_is_in_its_identity(limits: Limits) -> None:
    def identity(name: str = "m", **changed: object) -> str:
        return Structurizer(ScriptedModel(name=name), limits, FULL, **changed).identity  # type: ignore[arg-type]

    found = [identity(), identity("n"), identity(form="free"), identity(language="de"), identity(temperature=0.5)]
    small = [Structurizer(ScriptedModel(name=n), limits, SMALL).identity for n in "mn"]
    assert len({*found, small[0]}) == len(found) + 1
    assert identity() == found[0]
    assert small[0] == small[1], "no model is asked"


HARBOUR = "The harbour wall was long and grey. Boats lay along the harbour wall. The wall kept the sea from the boats. "
BREAD = (
    "The baker kneaded the dough at night. His oven was hot before dawn. Bread and dough filled the bakery shelves. "
)


def _sentences(book: Book, *paragraphs: str) -> list[str]:
    texts = []
    for paragraph in paragraphs:
        inner = [f"{s}. " for s in paragraph.split(". ") if s.strip()]
        texts += [*inner[:-1], inner[-1].strip() + "\n\n"]
    return texts


def test_code_finds_the_border_between_two_subjects_and_names_them(book: Book) -> None:
    sentences = _sentences(book, HARBOUR, HARBOUR, HARBOUR, BREAD, BREAD, BREAD)
    structure = structure_by_code(sentences)
    assert [a.sentences() for a in structure.aspects] == [list(range(9)), list(range(9, 18))]
    harbour, bread = (a.title.lower() for a in structure.aspects)
    assert "harbour wall" in harbour
    assert "dough" in bread
    assert "harbour" not in bread


def test_a_heading_begins_a_part(book: Book) -> None:
    sentences = [*_sentences(book, HARBOUR), "CHAPTER II. The Wall\n\n", *_sentences(book, HARBOUR)]
    starts = [a.first for a in structure_by_code(sentences).aspects]
    assert 3 in starts


@pytest.mark.parametrize("sentences", [["Hm.\n\n"], ["1 2 3"], ["   \n"], ["一二三四五六七八九十。"] * 5, ["x"] * 200])
def test_code_structures_any_text(sentences: list[str]) -> None:
    structure = structure_by_code(sentences)
    assert all(a.title for a in structure.aspects)
    assert structure.n_sentences == len(sentences)


def test_titles_by_code_stand_in_the_text(book: Book) -> None:
    _, (chunk,) = book(
        ["The old keeper of the Tide Clock lay dead.", "His brass lantern hung on a peg by the oak door."]
    )
    texts = sentence_texts(chunk)
    for phrase in structure_by_code(texts).aspects[0].title.lower().split(", "):
        assert phrase in " ".join(texts).lower()
