"""Worker and manager of structured notes: what they ask, what a reply adds, budgets, and what it all costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from coa.agents.fact_manager import FactManager
from coa.agents.fact_notes import parse_notes
from coa.agents.fact_worker import FactWorker
from coa.agents.references import references
from coa.agents.worker import Worker
from coa.errors import BadOutput, ContentRefused, ModelError, ModelUnavailable
from coa.graphs.context import Answering, Demanding, InMemoryNotes, ReadContext, Reading
from coa.limits import FULL, SMALL, Limits
from coa.llm.chat import Completion, Decoding
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt
from coa.runs import Part
from coa.tokens import EstimatedTokens
from coa.types import CallUsage, Chunk, CommunicationUnit, Usage

Book = Callable[..., tuple[Any, list[Chunk]]]
EMPTY = CommunicationUnit()
OLD = CommunicationUnit("- Bo came. [1.1]\n? 1: Who is Bo?", 0)


def _reply(text: str, finish: Any = "stop") -> Completion:
    return Completion(text, finish, CallUsage(10, 0, 5, 0.0), "scripted", 0.5)


def _tokens(unit: CommunicationUnit) -> int:
    return sum(EstimatedTokens().count([f"{line}\n" for line in unit.text.splitlines()]))


async def test_the_prompt_has_chunk_notes_question_instruction_in_the_papers_order(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came.", "She saw."])
    model = ScriptedModel(["- Ada came. [1]"])
    await FactWorker(model, limits, FULL, language="de").read(chunk, "Who </s> came?", OLD)
    prompt = model.calls[0].prompt
    user = prompt.messages()[1]["content"]
    places = [
        user.find(p) for p in ("[1] Ada came.", "- Bo came. [1.1]\n? 1:", "Question: Who < /s> came?", "adds to the")
    ]
    assert -1 not in places
    assert places == sorted(places)
    assert "Who" not in prompt.prefix
    assert "Write in German." in prompt.tail
    assert model.calls[0].decoding == Decoding(200)


async def test_the_unit_grows_by_what_is_new(book: Book, limits: Limits) -> None:
    _, (_, chunk) = book(["A."], ["Ada came.", "She saw Bo."])
    model = ScriptedModel(["- Ada saw Bo. [2][99]\nclosed 1\n? Where is Ada?"])
    reply = await FactWorker(model, limits, FULL).read(chunk, "Who?", OLD)
    assert reply.unit == CommunicationUnit("- Bo came. [1.1]\n- Ada saw Bo. [2.2]\n? 2: Where is Ada?", 1)
    assert reply.informative
    assert reply.usage.calls == 1


@pytest.mark.parametrize("said", ["NO_INFORMATION", "The text does not mention it.", "- Bo came. [1.1]"])
async def test_nothing_new_leaves_the_unit_as_it_was(book: Book, limits: Limits, said: str) -> None:
    _, (_, chunk) = book(["A."], ["Nothing here."])
    reply = await FactWorker(ScriptedModel([said]), limits, FULL).read(chunk, "Who?", OLD)
    assert reply.unit is OLD
    assert not reply.informative


async def test_a_model_that_copies_its_instruction_notes_nothing(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came.", "B.", "C.", "D.", "E.", "F.", "G.", "H.", "I."])
    for query, template in zip(("Who?", None), FactWorker.template_texts(FULL), strict=False):
        reply = await FactWorker(ScriptedModel([template]), limits, FULL).read(chunk, query, EMPTY)
        assert not reply.unit.text, reply.unit.text


async def test_a_summary_is_read_without_a_question(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel(["- Ada comes to town. [1]"])
    reply = await FactWorker(model, limits, FULL).read(chunk, None, EMPTY)
    assert reply.unit.text == "- Ada comes to town. [1.1]"
    assert "Question:" not in model.calls[0].prompt.tail
    assert "main events" in model.calls[0].prompt.tail


async def test_of_a_cut_off_reply_the_complete_lines_stay_and_no_second_call_is_made(
    book: Book, limits: Limits
) -> None:
    _, (chunk,) = book(["Ada came.", "Bo did not."])
    model = ScriptedModel([_reply("- Ada came. [1]\n- Bo ca", "length")])
    reply = await FactWorker(model, limits, FULL).read(chunk, "Who?", EMPTY)
    assert reply.unit.text == "- Ada came. [1.1]\n+ cut off: 1 reply"
    assert reply.usage.calls == 1


async def test_without_a_complete_line_it_is_asked_for_again_shorter_and_then_refused(
    book: Book, limits: Limits
) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel([_reply("- Ada came and", "length"), _reply("- Ada came. [1]")])
    reply = await FactWorker(model, limits, FULL).read(chunk, "Who?", EMPTY)
    assert reply.unit.text == "- Ada came. [1.1]"
    assert "At most 120 words" in model.calls[0].prompt.tail
    assert "At most 60 words" in model.calls[1].prompt.tail
    model = ScriptedModel([_reply("- Ada", "length"), _reply("- Ada", "length")])
    with pytest.raises(BadOutput, match=r"chunk 1: .* twice, without a complete line") as caught:
        await FactWorker(model, limits, FULL).read(chunk, "Who?", EMPTY)
    assert caught.value.usage == Usage(2, 20, 0, 10, 0.0, 1.0)
    model = ScriptedModel([_reply("- Ada", "length"), ContentRefused("no", usage=Usage(calls=1))])
    with pytest.raises(ContentRefused) as refused:
        await FactWorker(model, limits, FULL).read(chunk, "Who?", EMPTY)
    assert refused.value.usage is not None
    assert refused.value.usage.calls == 2


async def test_lines_are_held_to_their_form_where_the_engine_can(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came."])
    for profile, penalty in ((FULL, None), (SMALL, 1.1)):
        model = ScriptedModel(["- Ada came. [1]"], supports_grammar=True)
        reply = await FactWorker(model, limits, profile).read(chunk, "Who?", EMPTY)
        decoding = model.calls[0].decoding
        assert (decoding.grammar or "").startswith('root ::= "NO_INFORMATION" | line')
        assert decoding.repeat_penalty == penalty
        # A model that cannot be trusted with ids has none in its notes.
        assert reply.unit.text == ("- Ada came. [1.1]" if profile is FULL else "- Ada came.")


def _news(chunk: int, n: int) -> str:
    names = ("Ada", "Bo", "Cy", "Dee", "Eve", "Flo", "Gus", "Hal")
    return "\n".join(
        f"- {names[(chunk + k) % 8]} of house {chunk * 7 + k} carried the {chunk}-{k}th chest. [{k + 1}]"
        for k in range(n)
    )


async def _read_all(
    worker: Reading, chunks: list[Chunk], query: str | None
) -> tuple[CommunicationUnit, Usage, list[str]]:
    unit, usage, units = EMPTY, Usage(), []
    for chunk in chunks:
        reply = await worker.read(chunk, query, unit)
        unit, usage = reply.unit, usage.merged(reply.usage)
        units.append(unit.text)
    return unit, usage, units


@pytest.mark.parametrize("query", ["Who of house 14 carried a chest?", None])
async def test_the_unit_stays_in_its_budget_by_rules_and_says_what_it_lost(
    book: Book, limits: Limits, query: str | None
) -> None:
    _, chunks = book(*[["A.", "B.", "C."]] * 20)
    small = replace(limits, note_tokens=200)
    model = ScriptedModel(respond=lambda p, d: _news(len(model.calls), 3))
    unit, usage, units = await _read_all(FactWorker(model, small, FULL), chunks, query)
    assert usage.calls == 20
    assert all(_tokens(CommunicationUnit(u)) <= 200 for u in units)
    notes = parse_notes(unit.text)
    assert notes.facts_left_out + len(notes.facts) == 60
    assert notes.ids_left_out + len(notes.references) == 60
    assert unit.text.endswith(f"+ left out for room: {notes.facts_left_out} facts, {notes.ids_left_out} ids")
    if query is not None:
        assert any("house 14 " in f.text for f in notes.facts)


async def test_the_model_makes_room_where_rules_would_lose_what_is_sure(book: Book, limits: Limits) -> None:
    _, chunks = book(*[["A.", "B.", "C."]] * 12)
    shortened: list[str] = []

    def respond(prompt: Prompt, decoding: Decoding) -> str:
        if prompt.prefix:
            return _news(len(model.calls), 3)
        shortened.append(prompt.tail)
        ids = references(prompt.tail.split("\n\n")[1])
        return "- Eight people carried many chests. " + "".join(str(r) for r in ids) + "\n- Made up. [99.1]"

    model = ScriptedModel(respond=respond)
    unit, usage, units = await _read_all(FactWorker(model, limits, FULL), chunks, "Who carried chests?")
    assert 1 <= len(shortened) <= 3
    assert usage.calls == 12 + len(shortened)
    assert all(_tokens(CommunicationUnit(u)) <= 400 for u in units)
    notes = parse_notes(unit.text)
    assert (notes.facts_left_out, notes.ids_left_out) == (0, 0)
    assert len(notes.references) == 36
    assert "Made up" not in unit.text


async def test_a_contradiction_outlives_the_making_of_room(book: Book, limits: Limits) -> None:
    _, chunks = book(*[["A.", "B.", "C."]] * 12)
    said = {1: "- The lamp was lit at seven. [1]", 2: "- The lamp was lit at eight. [2]"}

    def respond(prompt: Prompt, decoding: Decoding) -> str:
        if prompt.prefix:
            return said.get(sum(bool(c.prompt.prefix) for c in model.calls), _news(len(model.calls), 3))
        assert "lamp was lit at" not in prompt.tail
        return "- They all carried chests. " + "".join(str(r) for r in references(prompt.tail.split("\n\n")[1]))

    model = ScriptedModel(respond=respond)
    unit, usage, _ = await _read_all(
        FactWorker(model, limits, FULL), chunks, "When was the lamp lit, and who carried chests?"
    )
    assert usage.calls > 12
    assert "- The lamp was lit at seven. [1.1]" in unit.text
    assert "- The lamp was lit at eight. [2.2] (contradicts [1.1])" in unit.text


@pytest.mark.parametrize(
    "shorter",
    [
        "- Too little is left. [1.1]",
        "NO_INFORMATION",
        _reply("- Cut off while", "length"),
        ModelUnavailable("gone", usage=Usage(calls=1)),
    ],
    ids=["loses more than rules", "nothing", "cut off", "fails"],
)
async def test_shorter_notes_that_are_no_use_leave_it_to_the_rules(book: Book, limits: Limits, shorter: Any) -> None:
    _, chunks = book(*[["A.", "B.", "C."]] * 14)

    def respond(prompt: Prompt, decoding: Decoding) -> str | Completion:
        if prompt.prefix:
            return _news(sum(bool(c.prompt.prefix) for c in model.calls), 3)
        if isinstance(shorter, ModelError):
            raise shorter
        assert isinstance(shorter, str | Completion)
        return shorter

    model = ScriptedModel(respond=respond)
    unit, usage, units = await _read_all(FactWorker(model, limits, FULL), chunks, "Who carried chests?")
    # A call in vain makes room for some chunks to come, so it is not made for each of them.
    assert 15 <= usage.calls <= 17
    assert all(_tokens(CommunicationUnit(u)) <= 400 for u in units)
    assert parse_notes(unit.text).ids_left_out > 0


async def test_a_small_models_notes_are_kept_in_budget_without_calls(book: Book, limits: Limits) -> None:
    _, chunks = book(*[["A.", "B.", "C."]] * 20)
    model = ScriptedModel(respond=lambda p, d: _news(len(model.calls), 3))
    _, usage, units = await _read_all(FactWorker(model, limits, SMALL), chunks, "Who carried chests?")
    assert usage.calls == 20
    assert all(_tokens(CommunicationUnit(u)) <= 400 for u in units)


async def test_a_read_takes_no_more_than_it_demands(book: Book, limits: Limits) -> None:
    _, chunks = book(*[["A.", "B.", "C."]] * 12)

    def respond(prompt: Prompt, decoding: Decoding) -> str | Completion:
        if not prompt.prefix:
            return _reply("- Many. " + "".join(str(r) for r in references(prompt.tail)))
        first = len(model.calls) % 2
        return _reply("- Ada", "length") if first else _reply(_news(len(model.calls), 3))

    model = ScriptedModel(respond=respond)
    worker = FactWorker(model, limits, FULL)
    assert isinstance(worker, Demanding)
    assert worker.demand(chunks[0], "Who?", EMPTY).calls == 2
    unit, most = EMPTY, 0
    for chunk in chunks:
        demand = worker.demand(chunk, "Who carried chests?", unit)
        reply = await worker.read(chunk, "Who carried chests?", unit)
        assert reply.usage.calls <= demand.calls
        assert reply.usage.completion_tokens <= demand.completion_tokens
        unit, most = reply.unit, max(most, reply.usage.calls)
    assert most == 3


async def test_over_fifty_chunks_news_are_a_fraction_of_what_rewriting_decodes(book: Book, limits: Limits) -> None:
    """Both models find three facts a chunk; the published worker says them anew each time, the other one once."""
    _, chunks = book(*[["A.", "B.", "C."]] * 50)

    def restating(prompt: Prompt, decoding: Decoding) -> str:
        before = prompt.tail.split("\n\n")[0].split("\n", 1)[1].replace("(none)", "")
        said = f"{before} {_news(len(paper.calls), 3)}".split()
        return " ".join(said[-int(decoding.max_tokens / 1.5) :])  # what does not fit is forgotten

    paper = ScriptedModel(respond=restating)
    lines = ScriptedModel(respond=lambda p, d: _news(len(lines.calls), 3) if p.prefix else "NO_INFORMATION")
    _, spent, _ = await _read_all(Worker(paper, limits, FULL), chunks, "Who carried the 2-1th chest?")
    unit, facts, _ = await _read_all(FactWorker(lines, limits, FULL), chunks, "Who carried the 2-1th chest?")
    assert facts.completion_tokens < 0.2 * spent.completion_tokens
    assert "the 2-1th chest. [2.2]" in unit.text


async def test_the_manager_is_told_what_contradicts_and_cites(limits: Limits) -> None:
    unit = CommunicationUnit(
        "- Cy sings. [9.1]\n- The lamp burned at eight. [7.2] (contradicts [2.1])\n- The lamp burned at seven. [2.1]\n"
        "+ left out for room: 1 fact, 1 id",
        9,
    )
    model = ScriptedModel(["Seven [2.1] or eight [7.2]."])
    heard: list[str] = []
    manager = FactManager(model, limits, FULL, words=50)
    assert isinstance(manager, FactManager)
    reply = await manager.answer("When?", unit, on_text=heard.append)
    tail = model.calls[0].prompt.tail
    places = [
        tail.find(p)
        for p in ("at seven. [2.1]", "at eight. [7.2] (contradicts [2.1])", "Cy sings", "+ left out", "When?")
    ]
    assert -1 not in places
    assert places == sorted(places)
    assert reply.text == "Seven [2.1] or eight [7.2]." == "".join(heard)


@pytest.mark.parametrize("text", ["", "? 1: Who is Bo?", "+ left out for room: 1 fact, 1 id"])
async def test_without_facts_the_manager_makes_no_call(limits: Limits, text: str) -> None:
    model = ScriptedModel()
    reply = await FactManager(model, limits, FULL).answer("Wer war es?", CommunicationUnit(text))
    assert reply.text == "Der Text sagt es nicht."
    assert model.calls == []


async def test_the_chain_reads_with_structured_notes_and_never_pays_twice(book: Book, limits: Limits) -> None:
    from coa.graphs import build_chain

    document, chunks = book(["Ada came.", "She saw."], ["Nothing here."], ["Bo left.", "He sang."])
    replies = ["- Ada came. [1]", "NO_INFORMATION", "- Bo left. [1]", "Ada came [1.1], Bo left [3.1]."]
    model, notes = ScriptedModel(replies), InMemoryNotes()
    for _ in range(2):
        worker, manager = FactWorker(model, limits, FULL), FactManager(model, limits, FULL)
        context = ReadContext([Part(None, tuple(chunks))], worker, manager, notes, document)
        output = await build_chain().compile().ainvoke({"question": "Who?"}, context=context)
        assert output["answer"] == "Ada came [1], Bo left [2]."
        assert [c["quote"] for c in output["citations"]] == ["Ada came.", "Bo left."]
    assert len(model.calls) == 4


def test_roles_of_a_graph_are_filled_and_prompts_named(limits: Limits) -> None:
    worker, manager = FactWorker(ScriptedModel(), limits, FULL), FactManager(ScriptedModel(), limits, FULL)
    reading: Reading = worker
    answering: Answering = manager
    assert (reading, answering) == (worker, manager)
    assert set(worker.prompt_digests) == {
        "fact_worker_question",
        "fact_worker_summary",
        "fact_shorter_question",
        "fact_shorter_summary",
    }
    assert set(manager.prompt_digests) == {"fact_manager_question", "fact_manager_summary"}
    assert len(FactWorker.template_texts(FULL)) == 4


@pytest.mark.slow
async def test_on_a_real_engine_the_grammar_holds_a_small_model_to_the_form() -> None:
    from coa.agents.fact_replies import facts_grammar
    from coa.llm.deployments import Deployment, ModelGroup
    from coa.llm.embedded import EmbeddedEngine
    from coa.llm.litellm_model import LitellmModel
    from coa.testing.models import test_model_path as model_path

    ids = r"(?:\[\d+(?:\.\d+)?\])"
    fact = rf"- [^\n\[\]()]+ {ids}{{1,4}}(?: \(contradicts {ids}\))?(?: \(unsure\))?"
    line = rf"(?:{fact}|\? [^\n\[\]()]+(?: {ids}{{1,4}})?|closed \d+)"
    with EmbeddedEngine.start(model_path(), alias="tiny", n_ctx=2048) as engine:
        group = ModelGroup("tiny", (Deployment("t", "openai/tiny", "llama_server", engine.base_url, engine.api_key),))
        model = LitellmModel(group)
        asked = Prompt(tail="Write about Ada, who left for Rome in May with a brass key.")
        said = await model.complete(asked, Decoding(300, grammar=facts_grammar(150), repeat_penalty=1.1))
        await model.close()
    assert said.finish_reason == "stop"
    assert re.fullmatch(rf"NO_INFORMATION|{line}(?:\n{line})*", said.text), said.text
