"""Worker and manager: what they ask, and what they make of a reply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coa.agents import Manager, PromptTemplate, Worker
from coa.errors import BadOutput, ContentRefused
from coa.limits import FULL, SMALL, Limits
from coa.llm.chat import Completion
from coa.llm.scripted import ScriptedModel
from coa.types import CallUsage, Chunk, CommunicationUnit, Usage

Book = Callable[..., tuple[Any, list[Chunk]]]
EMPTY = CommunicationUnit()


def _reply(text: str, finish: Any = "stop", n: int = 10) -> Completion:
    return Completion(text, finish, CallUsage(n, 0, 5, 0.0), "scripted", 0.5)


def _in_order(text: str, *parts: str) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places)


async def test_a_workers_prompt_has_chunk_notes_question_instruction_in_the_papers_order(
    book: Book, limits: Limits
) -> None:
    _, (chunk,) = book(["Ada came.", "She saw."])
    model = ScriptedModel(["Ada came [1]."])
    await Worker(model, limits, FULL).read(chunk, "Who came?", CommunicationUnit("Old notes [1.1].", 0))
    prompt = model.calls[0].prompt
    user = prompt.messages()[1]["content"]
    assert _in_order(user, "[1] Ada came.", "[2] She saw.", "Old notes [1.1].", "Who came?", "Write new notes")
    assert prompt.prefix.endswith("[End of source text.]\n")
    assert "Who came?" not in prompt.prefix
    assert model.calls[0].decoding.max_tokens == limits.note_tokens


async def test_a_summarys_prompt_has_no_question(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel(["Ada came [1]."])
    reply = await Worker(model, limits, FULL, language="de").read(chunk, None, EMPTY)
    tail = model.calls[0].prompt.tail
    assert "Question" not in tail
    assert "Write in German." in tail
    assert "(none)" in tail
    assert reply.unit == CommunicationUnit("Ada came [1.1].", 0)


async def test_control_tokens_of_question_and_notes_are_broken_up(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel(["x [1]", "y"])
    notes = CommunicationUnit("Look: <|im_end|>", 0)
    await Worker(model, limits, FULL).read(chunk, "What is </s>?", notes)
    await Manager(model, limits, FULL).answer("What is </s>?", notes)
    for call in model.calls:
        assert "<|im_end|>" not in call.prompt.tail
        assert "</s>" not in call.prompt.tail


async def test_ids_are_made_the_chunks_own_and_invented_ones_go(book: Book, limits: Limits) -> None:
    _, (_, chunk) = book(["A."], ["Ada came.", "She saw."])
    model = ScriptedModel(["Ada came [2], with Bo [1.1], in [7] [1.2]."])
    reply = await Worker(model, limits, FULL).read(chunk, "Who?", CommunicationUnit("Bo [1.1].", 0))
    assert reply.unit == CommunicationUnit("Ada came [2.2], with Bo [1.1], in.", 1)
    assert reply.informative


@pytest.mark.parametrize("said", ["NO_INFORMATION", "The text does not mention it.", "【99】"])
async def test_a_refusal_leaves_the_unit_as_it_was(book: Book, limits: Limits, said: str) -> None:
    _, (_, chunk) = book(["A."], ["Nothing here."])
    before = CommunicationUnit("Bo [1.1].", 0)
    reply = await Worker(ScriptedModel([said]), limits, FULL).read(chunk, "Who?", before)
    assert reply.unit is before
    assert not reply.informative
    assert reply.usage.calls == 1


async def test_a_cut_off_reply_is_asked_for_again_shorter(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel([_reply("Ada came and", "length"), _reply("Ada came [1].")])
    reply = await Worker(model, limits, FULL).read(chunk, "Who?", EMPTY)
    first, second = (call.prompt.tail for call in model.calls)
    assert "At most 240 words" in first
    assert "At most 120 words" in second
    assert reply.unit.text == "Ada came [1.1]."
    assert reply.usage == Usage(2, 20, 0, 10, 0.0, 1.0)


async def test_cut_off_twice_is_an_error_that_says_what_was_paid(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel([_reply("Ada came and", "length"), _reply("Ada came and", "length")])
    with pytest.raises(BadOutput, match=r"chunk 1: .* cut off at 400 tokens, twice") as caught:
        await Worker(model, limits, FULL).read(chunk, "Who?", EMPTY)
    assert caught.value.usage == Usage(2, 20, 0, 10, 0.0, 1.0)


async def test_what_the_first_try_cost_stays_on_the_error_of_the_second(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel([_reply("Ada came and", "length"), ContentRefused("no", usage=Usage(calls=1))])
    with pytest.raises(ContentRefused) as caught:
        await Worker(model, limits, FULL).read(chunk, "Who?", EMPTY)
    assert caught.value.usage is not None
    assert caught.value.usage.calls == 2


@pytest.mark.parametrize(
    ("profile", "supports", "bounded"),
    [
        (FULL, False, (False, False)),
        (FULL, True, (False, True)),
        (SMALL, False, (False,) * 2),
        (SMALL, True, (True,) * 2),
    ],
    ids=["hosted", "llama", "small hosted", "small llama"],
)
async def test_a_grammar_goes_only_where_it_is_obeyed(
    book: Book, limits: Limits, profile: Any, supports: bool, bounded: tuple[bool, ...]
) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel([_reply("Ada", "length"), _reply("Ada came.")], supports_grammar=supports)
    await Worker(model, limits, profile).read(chunk, "Who?", EMPTY)
    assert tuple(call.decoding.grammar is not None for call in model.calls) == bounded
    assert tuple(call.decoding.repeat_penalty is not None for call in model.calls) == bounded


async def test_a_small_models_prompt_asks_for_no_ids_and_its_notes_keep_none(book: Book, limits: Limits) -> None:
    _, (chunk,) = book(["Ada came."])
    model = ScriptedModel(["Ada came [1]."])
    reply = await Worker(model, limits, SMALL).read(chunk, "Who?", EMPTY)
    assert "[7]" not in model.calls[0].prompt.tail
    assert reply.unit.text == "Ada came."


async def test_the_manager_sees_the_last_unit_and_nothing_of_the_text(limits: Limits) -> None:
    model = ScriptedModel([_reply("Ada [1.1].")])
    given: list[str] = []
    reply = await Manager(model, limits, FULL).answer("Who?", CommunicationUnit("Bo [1.1].", 4), on_text=given.append)
    prompt = model.calls[0].prompt
    assert prompt.prefix == ""
    assert _in_order(prompt.tail, "Bo [1.1].", "Question: Who?", "Answer:")
    assert model.calls[0].decoding.max_tokens == limits.answer_tokens
    assert reply == ("Ada [1.1].", False, Usage(1, 10, 0, 5, 0.0, 0.5))
    assert "".join(given) == "Ada [1.1]."


async def test_a_managers_cut_off_answer_is_told_as_such(limits: Limits) -> None:
    reply = await Manager(ScriptedModel([_reply("Ada", "length")]), limits, FULL).answer("Who?", CommunicationUnit("n"))
    assert reply.truncated


async def test_without_notes_the_manager_makes_no_call(limits: Limits) -> None:
    model = ScriptedModel()
    given: list[str] = []
    reply = await Manager(model, limits, FULL).answer("Who?", EMPTY, on_text=given.append)
    assert reply.text == "The text does not say." == "".join(given)
    assert model.calls == []
    assert reply.usage == Usage()


async def test_a_summary_is_asked_for_by_words(limits: Limits) -> None:
    model = ScriptedModel(["S"])
    await Manager(model, limits, FULL, words=77, language="xx").answer(None, CommunicationUnit("notes"))
    assert "about 77 words" in model.calls[0].prompt.tail
    assert "Write in xx." in model.calls[0].prompt.tail


def test_a_prompt_files_variables_have_to_be_the_ones_that_are_given() -> None:
    with pytest.raises(ValueError, match="the file has the variables"):
        PromptTemplate("manager_question", "notes", "question")
    with pytest.raises(ValueError, match="the file has the variables"):
        PromptTemplate("manager_question", "notes", "question", "language", "words")


def test_values_of_a_prompt_are_not_read_for_variables() -> None:
    made = PromptTemplate("manager_question", "notes", "question", "language").render(
        notes="costs $question", question="$notes?", language=""
    )
    assert "costs $question" in made
    assert "$notes?" in made
