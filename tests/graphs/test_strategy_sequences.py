"""Who reads what, in which order, with which notes: each strategy's calls against the paper's description."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from coa.errors import ConfigError, LimitsError
from coa.events import StageChanged
from coa.graphs import ReadOptions, strategy
from coa.graphs.voting import majority, normalised_answer
from coa.llm.chat import Decoding
from coa.llm.scripted import ScriptedCall, ScriptedModel
from coa.reading import Prompt

Make = Callable[..., Any]
FACT = "Ada Brown kept the lighthouse key in the blue jar."


def _first_day(prompt: Prompt) -> int | None:
    """The first paragraph that a prompt shows; None where it shows no chunk."""
    found = re.search(r"On day (\d+) ", prompt.prefix)
    return int(found[1]) if found else None


def _note_or_answer(prompt: Prompt, decoding: Decoding) -> str:
    """Workers note which paragraphs were read on their way, in order; the judge names the last."""
    day = _first_day(prompt)
    if "Number of the best notes:" in prompt.tail:
        return str(prompt.tail.count("\nNotes "))
    if "Merged notes:" in prompt.tail:
        return "+".join(re.findall(r"^Part \d+:\n(.*)$", prompt.tail, re.MULTILINE))
    if day is None:
        return "A(" + prompt.tail.split("Notes:\n")[1].split("\n")[0] + ")"
    notes = prompt.tail.split("(they may be empty):\n")[1].split("\n")[0]
    return f"d{day}" if notes == "(none)" else f"{notes}>d{day}"


def _said(model: ScriptedModel) -> list[str]:
    return [_note_or_answer(call.prompt, call.decoding) for call in model.calls]


async def test_bidirectional_reads_from_both_ends_and_answers_from_the_notes_that_the_judge_takes(
    world: Make,
) -> None:
    run = world(model=ScriptedModel(respond=_note_or_answer))
    days = [_first_day(Prompt(prefix=c.text, tail="")) for c in run.plan.parts[0].chunks]
    output = await run.run("bidirectional")
    steps = list(zip(days, reversed(days), strict=True))
    forward = [">".join(f"d{d}" for d in days[: n + 1]) for n in range(len(days))]
    backward = [">".join(f"d{d}" for d in reversed(days[-n - 1 :])) for n in range(len(days))]
    said = _said(run.model)
    assert said[: 2 * len(steps)] == [note for pair in zip(forward, backward, strict=True) for note in pair]
    assert said[2 * len(steps) :] == ["2", f"A({backward[-1]})"], "the judge names the second, the manager is shown it"
    assert output["answer"] == f"A({backward[-1]})"
    judged = run.model.calls[-2].prompt.tail
    assert f"Notes 1:\n{forward[-1]}" in judged
    assert f"Notes 2:\n{backward[-1]}" in judged


async def test_self_consistency_samples_the_same_order_with_a_seed_for_each_chain(world: Make) -> None:
    run = world(model=ScriptedModel(respond=_note_or_answer), options=ReadOptions(paths=3))
    await run.run("self-consistency")
    reads = [call for call in run.model.calls if call.prompt.prefix]
    assert len(reads) == 3 * run.n_chunks
    for at in range(run.n_chunks):
        beside = reads[3 * at : 3 * at + 3]
        assert len({call.prompt.prefix for call in beside}) == 1, "the chains share the chunk's prefix"
        assert [(c.decoding.seed, c.decoding.temperature) for c in beside] == [(1, 0.7), (2, 0.7), (3, 0.7)]
    assert run.model.calls[-1].decoding.temperature == 0.0


async def test_permutation_reads_every_chunk_once_on_each_chain_in_orders_that_repeat(world: Make) -> None:
    orders = []
    for _ in range(2):
        run = world(model=ScriptedModel(respond=_note_or_answer), options=ReadOptions(paths=3))
        await run.run("permutation")
        notes = [n for n in run.notes.all_notes() if n.chunk >= 0]
        last = {n.path: max((m.text for m in notes if m.path == n.path), key=len) for n in notes}
        orders.append(last)
        days = {f"d{_first_day(Prompt(prefix=c.text, tail=''))}" for c in run.plan.parts[0].chunks}
        assert all(set(order.split(">")) == days for order in last.values())
    assert orders[0] == orders[1]
    assert len(set(orders[0].values())) > 1


def _voting(*answers: str) -> ScriptedModel:
    """Chains whose managers answer so, one after the other."""
    given = iter(answers)

    def respond(prompt: Prompt, decoding: Decoding) -> str:
        if "Number of the best notes:" in prompt.tail:
            return "1"
        return next(given) if not prompt.prefix else "Ada has the key [1]."

    return ScriptedModel(respond=respond)


async def test_a_vote_takes_what_most_chains_say_by_normalised_answers(world: Make) -> None:
    options = ReadOptions(paths=3, choose="vote")
    run = world(model=_voting("Ada Brown [1.1].", "the ferry master", "ADA  BROWN"), options=options)
    output = await run.run("permutation")
    assert output["answer"].startswith("Ada Brown")
    assert not any("Number of the best" in call.prompt.tail for call in run.model.calls)


async def test_long_answers_are_not_voted_on_but_judged(world: Make) -> None:
    long = "Ada Brown, who came from the north with her two sisters and a dog, kept the key in the blue jar for years"
    options = ReadOptions(paths=3, choose="vote")
    run = world(model=_voting(long, long + " more", long + " still"), options=options)
    output = await run.run("self-consistency")
    assert output["answer"].startswith(long)
    asked = [call for call in run.model.calls if not call.prompt.prefix]
    assert len(asked) == 3 + 1, "the answer that the judge takes was written for the vote already"
    assert any("too long to vote on" in e.stage for e in run.events if isinstance(e, StageChanged))


async def test_a_vote_on_summaries_is_refused_before_the_first_call(world: Make) -> None:
    for name in ("permutation", "merge"):
        run = world(question=None, options=ReadOptions(choose="vote"))
        with pytest.raises(ConfigError):
            await run.run(name)
        assert run.model.calls == []


async def test_tree_reads_every_chunk_from_nothing_and_merges_neighbours_until_one_is_left(world: Make) -> None:
    run = world(n_paragraphs=9, model=ScriptedModel(respond=_note_or_answer))
    n_chunks = run.n_chunks
    merger = run.roles(strategy("tree")).agents["merger"]
    output = await run.run("tree")
    said = _said(run.model)
    assert all(">" not in note for note in said[:n_chunks])
    sizes, left = [], n_chunks
    while left > 1:
        left = -(-left // merger.group_size)
        sizes.append(left)
    assert len(said) == n_chunks + sum(sizes) + 1
    assert output["answer"] == "A(" + "+".join(said[:n_chunks]) + ")", "nothing is lost, and the order is kept"


@pytest.mark.parametrize("n_units", [2, 3, 5, 7, 64, 65, 300])
@pytest.mark.parametrize("group_size", [2, 3, 8])
def test_each_level_of_a_tree_is_at_most_half_as_large_and_leaves_nobody_out(n_units: int, group_size: int) -> None:
    from coa.graphs.tree import _groups
    from coa.types import CommunicationUnit

    class Merger:
        def __init__(self) -> None:
            self.group_size = group_size

    units = [CommunicationUnit(str(n), n) for n in range(n_units)]
    levels = 0
    while len(units) > 1:
        groups = _groups(units, Merger())  # type: ignore[arg-type]
        assert [u for _, group in groups for u in group] == units
        assert all(1 <= len(group) <= group_size for _, group in groups)
        assert len(groups) <= -(-len(units) // 2)
        units = [group[0] for _, group in groups]
        levels += 1
    assert levels <= 9


async def test_merge_answers_from_each_chunk_alone_and_counts_only_those_that_say_something(world: Make) -> None:
    run = world()
    output = await run.run("merge")
    assert len(run.model.calls) == run.n_chunks
    assert all("Notes" not in call.prompt.tail for call in run.model.calls)
    assert output["answer"] == f"{FACT} [1]"


async def test_direct_makes_one_call_that_shows_every_sentence_under_its_id(world: Make) -> None:
    run = world()
    await run.run("direct")
    (call,) = run.model.calls
    for chunk in run.plan.parts[0].chunks:
        assert f"[{chunk.index + 1}.{len(chunk.sentences)}] " in call.prompt.prefix


async def test_direct_refuses_what_does_not_fit_before_the_first_call(world: Make) -> None:
    run = world(n_paragraphs=300)
    with pytest.raises(LimitsError, match=r"the text has \d+ tokens, one call takes 3040"):
        await run.run("direct")
    assert run.model.calls == []


async def test_demonstrations_are_made_once_and_shown_to_every_reader_after_the_prefix(world: Make) -> None:
    run = world(options=ReadOptions(demos="recycled"))
    await run.run("chain")
    made, others = run.model.calls[:3], run.model.calls[3:]
    assert all("Make an example of a question" in call.prompt.tail for call in made)
    assert len(others) == run.n_chunks + 1
    assert all(call.prompt.tail.startswith("Examples of questions on this document") for call in others)
    prefixes = {c.prompt.prefix for c in others if c.prompt.prefix}
    plain = world()
    await plain.run("chain")
    assert prefixes == {c.prompt.prefix for c in plain.model.calls if c.prompt.prefix}, "the prefix stays the same"


async def test_every_strategy_shows_a_chunk_alone_under_the_same_bytes(world: Make) -> None:
    prefixes: dict[str, set[str]] = {}
    for name in ("chain", "bidirectional", "permutation", "self-consistency", "tree", "merge"):
        run = world()
        await run.run(name)
        calls: list[ScriptedCall] = run.model.calls
        prefixes[name] = {c.prompt.prefix for c in calls if c.prompt.prefix}
    assert len({frozenset(p) for p in prefixes.values()}) == 1


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        (["Paris", "the Paris", "Rome"], 0),
        (["Rome", "Paris.", "paris [3.1]"], 1),
        (["", "", "Paris"], 2),
        (["", ""], 0),
        ([], None),
        (["x " * 13, "y " * 13, "Paris"], None),
        (["巴黎", "罗马", "巴黎。"], 0),
        (["一" * 30, "二" * 30], None),
    ],
)
def test_majority(answers: list[str], chosen: int | None) -> None:
    assert majority(answers) == chosen


def test_answers_are_compared_without_case_articles_and_punctuation() -> None:
    assert normalised_answer("The “Blue Jar”, [2.3]!") == "blue jar"
