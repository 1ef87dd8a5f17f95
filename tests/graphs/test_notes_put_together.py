"""What becomes of notes where they are merged, chosen among or left as they are, and how they are cited."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from coa.agents.merger import Merger
from coa.agents.quoting import Quote
from coa.agents.references import Reference
from coa.errors import BadOutput, ContentRefused
from coa.graphs import STRATEGIES, InMemoryNotes, ReadContext, ReadOptions
from coa.graphs.citing import cited
from coa.graphs.tree import _together
from coa.limits import FULL, Limits
from coa.llm.budget import Budget
from coa.llm.chat import ChatModel, Completion, Decoding
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt
from coa.runs import Part, PartAnswer, RunPlan, StoredNote
from coa.testing.reading_model import ReadingModel
from coa.types import CallUsage, CommunicationUnit, Usage

Make = Callable[..., Any]
FACT = "Ada Brown kept the lighthouse key in the blue jar."
LIMITS = Limits(4096, 2000, 256, 400, 300, 500)
UNITS = [CommunicationUnit("Ada has the key. [1.2]", 0), CommunicationUnit("Bob has the jar. [3.4]", 2)]


def _cut_off(prompt: Prompt, decoding: Decoding) -> Completion:
    return Completion("Ada has the", "length", CallUsage(90, 0, 400), "m", 0.1)


def _in_two_parts(run: Any) -> Any:
    """The fact is in the second part, in its second chunk."""
    chunks = run.plan.parts[0].chunks
    halves = (chunks[:1], chunks[1:])
    parts = (Part(t, tuple(replace(c, index=n) for n, c in enumerate(h))) for t, h in zip("AB", halves, strict=True))
    run.plan = RunPlan(tuple(parts), "estimate", False)
    return run


async def test_merged_notes_that_say_nothing_or_come_to_no_end_are_asked_for_once_more() -> None:
    for useless in ("NO_INFORMATION", "", "The notes do not mention anything."):
        model = ScriptedModel([useless, "Ada has the key [1.2], Bob the jar [3.4]."])
        reply = await Merger(cast("ChatModel", model), LIMITS, FULL).merge("Who has the key?", UNITS)
        assert reply.unit == CommunicationUnit("Ada has the key [1.2], Bob the jar [3.4].", 2)
        assert reply.usage.calls == 2


async def test_merging_that_fails_twice_says_so_with_what_both_calls_took() -> None:
    merger = Merger(cast("ChatModel", ScriptedModel(respond=_cut_off)), LIMITS, FULL)
    with pytest.raises(BadOutput, match="twice") as caught:
        await merger.merge(None, UNITS)
    assert caught.value.usage is not None
    assert caught.value.usage.calls == 2 == merger.demand(2).calls


@pytest.mark.parametrize("failing", [ContentRefused("no"), "length"])
async def test_notes_that_cannot_be_merged_are_cut_short_and_the_tree_goes_on(world: Make, failing: Any) -> None:
    model = ReadingModel()
    respond = model.respond
    assert respond is not None

    def reply(prompt: Prompt, decoding: Decoding) -> str | Completion:
        if "Merged notes:" not in prompt.tail:
            return respond(prompt, decoding)
        if isinstance(failing, Exception):
            raise failing
        return _cut_off(prompt, decoding)

    model.respond = reply
    run = world(model=model, question=None)
    output = await run.run("tree")
    assert output["stopped"] is None
    assert "On day 0" in output["answer"]
    assert FACT.rstrip(".") in output["answer"]
    assert output["coverage"]["read"] == run.n_chunks
    assert [w for w in output["warnings"] if "cut short rather than merged" in w]


def test_many_notes_that_nobody_merged_are_shown_by_what_they_say_of_the_question() -> None:
    units = [CommunicationUnit(f"- The ferry number {n} crossed. [{n + 1}.1]\n" + "x " * 150, n) for n in range(60)]
    units[41] = CommunicationUnit(f"- {FACT} [42.3]\n" + "x " * 150, 41)
    shown = _together(units, "Who kept the lighthouse key?").text
    assert f"{FACT} [42.3]" in shown
    assert len(shown) <= 600
    numbers = [int(n) for n in re.findall(r"number (\d+) ", _together(units, None).text)]
    assert numbers == sorted(numbers)
    assert len(numbers) > 1
    assert numbers[-1] - numbers[0] > 15, "from all over"
    assert _together(units[:1], None) == units[0]
    assert _together([], None) == CommunicationUnit()


async def test_a_tree_whose_limit_ends_before_its_merging_answers_from_whole_notes(world: Make) -> None:
    run = world(n_paragraphs=80)
    run.budget = Budget(max_calls=run.n_chunks + 2)
    output = await run.run("tree")
    assert FACT.rstrip(".") in output["answer"]


@pytest.mark.parametrize("name", sorted(STRATEGIES.keys() - {"structured"}))
@pytest.mark.parametrize("quotes", [False, True])
async def test_each_part_is_answered_from_and_cited_by_its_own_chunks(
    world: Make, name: str, quotes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _in_two_parts(world(options=ReadOptions(quotes=quotes)))
    if quotes:
        run.model = ScriptedModel(respond=lambda prompt, decoding: "Ada Brown")
        monkeypatch.setattr(sys.modules[type(run).__module__], "FULL", replace(FULL, quotes=True))
    output = await run.run(name)
    first, second = output["answer"].split("## B")
    assert first == "## A\n\nThe text does not say.\n\n"
    assert "Ada Brown" in second
    assert FACT in [c["quote"] for c in output["citations"]]
    assert output["verdict"] is None, "one part says nothing, the other does"


def test_candidates_come_from_all_orders_of_reading(world: Make) -> None:
    run = world()
    notes = InMemoryNotes()
    n = run.n_chunks
    fits = [Quote(Reference(at + 1, 1), 1.0 - at / 10, "q") for at in range(n)]

    def unit(order: range, at: int) -> str:
        return "\n".join(str(fits[i]) for i in sorted(order[: at + 1]))

    order = range(n - 1, -1, -1)
    for at, position in enumerate(order):
        note = StoredNote(0, position, unit(order, at), position, True, Usage(), path="backward")
        notes.notes["backward", 0, position] = note
    notes.answers[0] = PartAnswer("q [2.1]", False, Usage())
    context = ReadContext(run.plan.parts, notes=notes, document=run.document, options=ReadOptions(quotes=True))
    starts = [c["start"] for c in cited(context, "which?")["citations"]]
    sentences = [c.sentences[0].start for c in run.plan.parts[0].chunks]
    assert starts == [sentences[1], sentences[0], sentences[2]], "its own, then the best of all"


async def test_an_answer_that_its_places_do_not_hold_is_doubted_whoever_wrote_it(world: Make) -> None:
    for name in ("chain", "direct", "merge", "rag"):
        model = ReadingModel()
        respond = model.respond
        assert respond is not None

        def reply(prompt: Prompt, decoding: Decoding, respond: Any = respond, name: str = name) -> str | Completion:
            answers = not prompt.prefix or name in {"direct", "merge"}
            return "Zebras juggle purple chainsaws nightly [1.1]." if answers else respond(prompt, decoding)

        model.respond = reply
        output = await world(n_paragraphs=1, model=model).run(name)
        assert any("of the reply's own words" in w for w in output["warnings"]), name
