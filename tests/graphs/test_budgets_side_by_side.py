"""Limits of a run while several of its calls are under way at once, and what is left for choosing and answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from coa.errors import BadOutput, ModelUnavailable
from coa.events import AnswerToken
from coa.graphs import ReadContext, ReadOptions
from coa.llm.budget import Budget, Demand
from coa.llm.chat import Completion, Decoding
from coa.reading import Prompt
from coa.runs import Part
from coa.testing.reading_model import ReadingModel
from coa.types import Usage

Make = Callable[..., Any]
JUDGING = "Number of the best notes:"
LONG = "Ada Brown, who came from the north with her two sisters and a dog, kept it in the jar for years"


@pytest.mark.parametrize("name", ["tree", "merge", "alr2", "permutation"])
async def test_what_calls_side_by_side_could_take_does_not_end_a_run_that_they_fit_into(world: Make, name: str) -> None:
    whole = world()
    await whole.run(name)
    used = whole.context.spent
    # A worker may be asked twice, and a share is kept for an answer; judges and mergers are smaller calls.
    run = world(budget=Budget(max_calls=used.calls + 3))
    output = await run.run(name)
    assert output["stopped"] is None
    assert output["warnings"] == []
    assert output["coverage"]["read"] == run.n_chunks
    assert run.context.spent.calls == used.calls


async def test_a_step_waits_for_those_under_way_and_is_refused_when_they_took_it_all(world: Make) -> None:
    context = ReadContext([Part(None, ())], budget=Budget(max_calls=4), manager_demand=Demand(1))
    assert await context.reserve(Demand(2)) is None
    waiting = [asyncio.create_task(context.reserve(Demand(2))) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    context.release(Demand(2), Usage(calls=1))
    done, late = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [None]
    context.release(Demand(2), Usage(calls=1))
    assert [await task for task in late] == ["the limit of 4 calls"]
    assert await context.reserve(Demand(2), answers=True) is None, "the answer's own share is for the answer"


async def test_one_call_is_enough_for_direct(world: Make) -> None:
    output = await world(budget=Budget(max_calls=1)).run("direct")
    assert output["stopped"] is None
    assert output["answer"].startswith("Ada Brown")


def _without_judge(error: Exception) -> ReadingModel:
    model = ReadingModel()
    respond = model.respond
    assert respond is not None

    def reply(prompt: Prompt, decoding: Decoding) -> str | Completion:
        if JUDGING in prompt.tail:
            raise error
        return LONG if "Ada Brown" in prompt.prefix and "Notes" not in prompt.tail else respond(prompt, decoding)

    model.respond = reply
    return model


@pytest.mark.parametrize("name", ["bidirectional", "permutation"])
async def test_a_judge_that_gives_nothing_of_use_costs_the_choice_and_not_the_run(world: Make, name: str) -> None:
    run = world(model=_without_judge(BadOutput("no number")))
    output = await run.run(name)
    assert output["answer"].startswith("Ada Brown")
    assert output["warnings"] == ["nobody judged the readings, the first was taken: no number"]


async def test_a_judge_whose_server_is_gone_stops_the_run(world: Make) -> None:
    with pytest.raises(ModelUnavailable):
        await world(model=_without_judge(ModelUnavailable("down"))).run("bidirectional")


async def test_without_room_for_a_judge_notes_that_found_something_are_answered_from(world: Make) -> None:
    """The first chain finds nothing, the second does; reading both and one answer is all that the limit allows."""
    model = ReadingModel()
    respond = model.respond
    assert respond is not None

    def reply(prompt: Prompt, decoding: Decoding) -> str | Completion:
        return "NO_INFORMATION" if decoding.seed == 1 else respond(prompt, decoding)

    model.respond = reply
    whole = world(model=model, options=ReadOptions(paths=2))
    run = world(model=model, options=ReadOptions(paths=2), budget=Budget(max_calls=2 * whole.n_chunks + 2))
    output = await run.run("self-consistency")
    assert output["answer"].startswith("Ada Brown")


async def test_the_answer_that_a_vote_takes_is_streamed_like_any_other(world: Make) -> None:
    run = world(options=ReadOptions(paths=2, choose="vote"))
    output = await run.run("permutation")
    told = "".join(event.text for event in run.events if isinstance(event, AnswerToken))
    assert told.startswith("Ada Brown kept the lighthouse key")
    assert output["answer"].startswith("Ada Brown kept the lighthouse key")


async def test_what_an_answer_cost_that_failed_counts_as_spent(world: Make) -> None:
    model = ReadingModel()
    respond = model.respond
    assert respond is not None

    def reply(prompt: Prompt, decoding: Decoding) -> str | Completion:
        if not prompt.prefix:
            raise BadOutput("empty", usage=Usage(calls=1, prompt_tokens=70))
        return respond(prompt, decoding)

    model.respond = reply
    run = world(model=model)
    with pytest.raises(BadOutput):
        await run.run("chain")
    assert run.context.spent.calls == run.n_chunks + 1
