"""Structurizing, and reading over structures; what holds for every strategy is in test_strategy_contract.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coa.agents.aspect_choice import AspectChooser, fused, listed, ranked_by_words
from coa.agents.aspect_pages import pages_of, translated
from coa.agents.structure import Aspect, Description, Structure
from coa.agents.structure_steps import step_key, structures_of
from coa.errors import ConfigError, ContentRefused
from coa.events import ChunkRead
from coa.graphs import ReadOptions
from coa.limits import Limits
from coa.llm.chat import Completion, Decoding
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt
from coa.testing.reading_model import ReadingModel

pytestmark = pytest.mark.slow

World = Any
Make = Callable[..., Any]
FACT = "Ada Brown kept the lighthouse key in the blue jar."
LIMITS = Limits(4096, 2000, 256, 400, 300, 500)


def _structurizing(model: ScriptedModel) -> int:
    return sum("how the source text above is built" in call.prompt.tail for call in model.calls)


async def test_the_outline_graph_structures_every_chunk_and_answers_nothing(world: Make) -> None:
    run = world(question=None)
    output = await run.run("outline")
    assert _structurizing(run.model) == len(run.model.calls) == run.n_chunks
    structures = structures_of(run.notes.all_steps())
    assert {key: s.n_sentences for key, s in structures.items()} == {
        step_key(0, c.index): len(c.sentences) for c in run.plan.parts[0].chunks
    }
    assert output["coverage"]["read"] == run.n_chunks
    assert output["citations"] == []
    assert output["answer"] == f"{run.n_chunks} aspects of {sum(s.n_sentences for s in structures.values())} sentences"


async def test_the_outline_graph_refuses_a_question(world: Make) -> None:
    with pytest.raises(ConfigError, match="answers no question"):
        await world().run("outline")


async def test_a_second_question_makes_no_structurize_call(world: Make) -> None:
    first = world()
    await first.run("structured")
    assert _structurizing(first.model) == first.n_chunks
    second = world(question="How many barrels of herring had the ferry number 2 aboard?")
    second.folder = first.folder / "other"
    second.folder.mkdir()
    second.settings = {}
    roles = first.roles
    second.roles = roles  # the same home, so the same store
    output = await second.run("structured")
    assert _structurizing(second.model) == 0
    assert all(e.reused for e in second.events if isinstance(e, ChunkRead) and e.path == "")
    assert "barrels" in output["answer"]


async def test_of_many_aspects_only_the_chosen_ones_are_read_again(world: Make) -> None:
    run = world(n_paragraphs=24, options=ReadOptions(top_k=3))
    output = await run.run("structured")
    assert "Ada Brown kept the lighthouse key in the blue jar." in [c["quote"] for c in output["citations"]]
    reading = [c for c in run.model.calls if "New notes:" in c.prompt.tail]
    shown = "".join(c.prompt.prefix for c in reading)
    assert shown.count("crossed the sound") <= 3 * 3
    assert output["coverage"]["read"] == run.n_chunks


class _Choosing(ReadingModel):
    """Chooses what `numbers` say, whatever the question is."""

    def __init__(self, numbers: str) -> None:
        super().__init__()
        respond = self.respond
        assert respond is not None

        def chosen(prompt: Prompt, decoding: Decoding) -> str | Completion:
            return numbers if "Here is the outline" in prompt.tail else respond(prompt, decoding)

        self.respond = chosen


async def test_what_the_model_chooses_is_read_beside_what_the_words_find(world: Make) -> None:
    run = world(n_paragraphs=24, options=ReadOptions(top_k=2), model=_Choosing("1"))
    await run.run("structured")
    shown = "".join(c.prompt.prefix for c in run.model.calls if "New notes:" in c.prompt.tail)
    assert "On day 0 the ferry" in shown
    assert "Ada Brown" in shown


async def test_a_refused_chunk_is_left_out_and_told(world: Make) -> None:
    model = ReadingModel()
    respond = model.respond
    assert respond is not None

    def refuse(prompt: Prompt, decoding: Decoding) -> str | Completion:
        if "On day 0 " in prompt.prefix and "is built" in prompt.tail:
            raise ContentRefused("not this")
        return respond(prompt, decoding)

    model.respond = refuse
    output = await world(model=model).run("structured")
    assert [s["cause"] for s in output["coverage"]["skipped"]] == ["not this"]
    assert "Ada Brown kept the lighthouse key in the blue jar" in output["answer"]


async def test_a_summary_reads_the_telling_sentences_of_every_aspect(world: Make) -> None:
    run = world(question=None, n_paragraphs=8)
    output = await run.run("structured")
    assert output["answer"]
    shown = "".join(c.prompt.prefix for c in run.model.calls if "New notes:" in c.prompt.tail)
    whole = sum(len(c.sentences) for c in run.plan.parts[0].chunks)
    assert run.n_chunks <= shown.count("\n[") < whole


def _listed(world: Make, **changes: Any) -> tuple[Any, list[Any]]:
    chunks = world(**changes).plan.parts[0].chunks
    structures = {
        n: Structure(
            f"Scope {n}", (Aspect(f"Aspect {n}", (Description(0, len(c.sentences)),)),), len(c.sentences), "ids"
        )
        for n, c in enumerate(chunks)
    }
    return chunks, listed(chunks, structures)


def test_pages_copy_every_sentence_once_and_know_where_it_stands(world: Make) -> None:
    chunks, aspects = _listed(world)
    room = max(c.n_tokens for c in chunks) * 2
    pages = pages_of(chunks, aspects, room_tokens=room)
    places = [place for page in pages for place in page.places]
    assert places == [(c.index + 1, n + 1) for c in chunks for n in range(len(c.sentences))]
    assert all(page.chunk.n_tokens <= room for page in pages)
    assert 1 < len(pages) < len(chunks)
    for page in pages:
        for span, (chunk, sentence) in zip(page.chunk.sentences, page.places, strict=True):
            source = chunks[chunk - 1]
            there = source.sentences[sentence - 1]
            copied = " ".join(source.text[there.start - source.span.start : there.end - source.span.start].split())
            assert page.chunk.text[span.start : span.end].strip().endswith(copied)


def test_ids_of_a_page_become_the_documents_and_no_others(world: Make) -> None:
    chunks, aspects = _listed(world)
    page = pages_of(chunks, aspects[2:3], room_tokens=1000)[0]
    number = page.chunk.index + 1
    assert translated(f"A [{number}.2] b [1.1] c [{number}.99] d", page) == f"A [3.2] b [1.1] c [{number}.99] d"


def test_words_rank_the_aspect_first_that_holds_them(world: Make) -> None:
    _, aspects = _listed(world)
    best = ranked_by_words(aspects, "Who kept the lighthouse key in the blue jar?")[0]
    assert "Ada Brown" in aspects[best].text


def test_orders_are_merged_by_rank() -> None:
    assert fused([[1, 2], [2, 3]], 2) == [2, 1]
    assert fused([[5], []], 3) == [5]
    assert fused([], 3) == []


@pytest.mark.parametrize(
    ("reply", "chosen"),
    [("2, 4", (1, 3)), ("none", ()), ("", ()), ("4 4 99 0 1", (3, 0)), ("Parts 3 and 1.", (2, 0))],
)
async def test_the_chooser_takes_numbers_that_exist_each_once(world: Make, reply: str, chosen: tuple[int, ...]) -> None:
    _, aspects = _listed(world, n_paragraphs=10)
    made = await AspectChooser(ScriptedModel([reply]), LIMITS).choose("Who?", aspects, 2)
    assert made.chosen == chosen


async def test_the_chooser_shows_what_fits(world: Make) -> None:
    _, aspects = _listed(world)
    model = ScriptedModel(respond=lambda *_: "1")
    tight = Limits(700, 100, 100, 50, 50, 100)
    await AspectChooser(model, tight).choose("Who?", aspects * 200, 3)
    assert len(model.calls[0].prompt.tail) < 700 * 5


async def test_structured_notes_of_chosen_aspects_keep_the_documents_ids(world: Make) -> None:
    run = world(settings={"notes": "structured"}, n_paragraphs=24)
    output = await run.run("structured")
    assert FACT in [c["quote"] for c in output["citations"]]
    for citation in output["citations"]:
        assert run.document.text[citation["start"] : citation["end"]] == citation["quote"]
