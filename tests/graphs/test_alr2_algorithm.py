"""ALR²: what is retrieved is checked, what is reasoned over is evidence alone; rounds, review, kills and limits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents.reasoner import ExtractiveReasoner, Reasoner
from coa.agents.retriever import LexicalRetriever, Retriever
from coa.errors import BadOutput, ConfigError, ModelError, ModelUnavailable, ReviewNeeded
from coa.events import AnswerToken, ChunkRead, ChunkSkipped, Event, EvidenceFound, WarningRaised
from coa.graphs import InMemoryNotes, ReadContext, ReadOptions, ReadOutput, build_alr2, build_rag, strategy
from coa.graphs.estimates import Forecast
from coa.graphs.running import run_graph
from coa.limits import FULL, Limits
from coa.llm.budget import Budget
from coa.llm.chat import Completion, Decoding, OnText
from coa.llm.response_cache import CachedModel
from coa.llm.response_store import InMemoryResponses
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt
from coa.runs import Part, RunPlan
from coa.types import Chunk, Document, Span, Usage

pytestmark = pytest.mark.slow

LIMITS = Limits(4096, 2000, 256, 400, 300, 500)
QUESTION = "Where did Ada hide the brass key?"

BOOK = [
    ["The harbour lay still that night.", "Ada took the brass key from its nail.", "She left by the back door."],
    ["Nobody slept in the town.", "Rain fell until morning."],
    ["The miller saw her at the old well.", "She hid something under its third stone.", "He told nobody."],
    ["A year later the well was dry.", "The key hung in the mill again, some say."],
]


def _book(chunks: list[list[str]]) -> tuple[Document, tuple[Chunk, ...]]:
    text, made = "", []
    for index, sentences in enumerate(chunks):
        start, spans = len(text), []
        for sentence in sentences:
            spans.append(Span(len(text), len(text) + len(sentence) + 1))
            text += sentence + "\n"
        made.append(Chunk(index, text[start:], Span(start, len(text)), tuple(spans), 50, "words", False))
    return Document(text, "0" * 64, "book.txt"), tuple(made)


def _chunk_of(prompt: Prompt) -> int:
    """Which chunk of BOOK a prompt shows, from 0; -1 for the reasoner's."""
    if not prompt.prefix:
        return -1
    return next(i for i, sentences in enumerate(BOOK) if sentences[0] in prompt.prefix)


Answers = Callable[[Prompt, Decoding], str]


def _by(retrieved: dict[int, str], reasoned: str) -> Answers:
    """Replies to the retriever by chunk ("NONE" for others), and to the reasoner."""
    return lambda prompt, _: reasoned if _chunk_of(prompt) < 0 else retrieved.get(_chunk_of(prompt), "NONE")


@dataclass
class Run:
    """A question that can be asked again and again over one folder, as after a kill."""

    folder: Path
    chunks: list[list[str]] = field(default_factory=lambda: BOOK)
    notes: InMemoryNotes = field(default_factory=InMemoryNotes)
    events: list[Event] = field(default_factory=list)
    options: ReadOptions = field(default_factory=ReadOptions)
    build: Callable[[], Any] = build_alr2
    small: bool = False
    keeps_checkpoints: bool = True

    async def __call__(
        self,
        model: Any,
        *,
        question: str | None = QUESTION,
        budget: Budget | None = None,
        review: object = None,
        on_worker_failure: Literal["skip", "fail"] = "skip",
    ) -> ReadOutput:
        document, chunks = _book(self.chunks)
        agents: dict[str, object] = {
            "retriever": Retriever(model, LIMITS, FULL),
            "reasoner": Reasoner(model, LIMITS, FULL),
        }
        if self.small:
            agents = {"retriever": LexicalRetriever(chunks), "reasoner": ExtractiveReasoner(model, chunks)}
        context = ReadContext(
            parts=(Part(None, chunks),),
            notes=self.notes,
            document=document,
            agents=agents,
            options=self.options,
            budget=budget or Budget(),
            spent=self.spent,
            on_worker_failure=on_worker_failure,
        )
        return await run_graph(
            self.build(),
            question=question,
            context=context,
            run_id="run",
            checkpoints=self.folder / "state.sqlite" if self.keeps_checkpoints else None,
            on_event=self.events.append,
            on_control=lambda drain: None,
            review=review,
        )

    @property
    def spent(self) -> Usage:
        paid = [s.usage for s in self.notes.steps.values()] + [a.usage for a in self.notes.answers.values()]
        return reduce(Usage.merged, paid, Usage())

    def told(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def _quotes(output: ReadOutput) -> list[str]:
    return [c["quote"] for c in output["citations"]]


async def test_the_answer_rests_on_evidence_of_several_chunks(run: Run) -> None:
    model = ScriptedModel(respond=_by({0: "2", 2: "2, 1"}, "ANSWER\nUnder the third stone of the well [3.2][3.1]."))
    output = await run(model)
    assert output["answer"] == "Under the third stone of the well [1][2]."
    assert _quotes(output) == ["She hid something under its third stone.", "The miller saw her at the old well."]
    assert output["verdict"] == "answered"
    assert output["coverage"] == {"chunks": 4, "read": 4, "skipped": [], "unselected": 0}
    assert run.spent.calls == 5
    reasoner = model.calls[-1].prompt
    assert "[1.2] Ada took the brass key from its nail." in reasoner.tail
    assert "[3.1] The miller saw her at the old well. [3.2] She hid something" in reasoner.tail
    assert "Rain fell" not in reasoner.tail


async def test_what_a_chunk_gave_is_told_with_the_sentences_themselves(run: Run) -> None:
    await run(ScriptedModel(respond=_by({2: "2"}, "ANSWER\nUnder a stone [3.2].")))
    found = run.told(EvidenceFound)
    assert {event.index: event.quotes for event in found}[2] == ("She hid something under its third stone.",)
    assert [event.index for event in run.told(ChunkRead) if event.informative] == [2]
    assert "".join(event.text for event in run.told(AnswerToken)) == "Under a stone [3.2]."


async def test_too_little_evidence_is_looked_for_again_in_other_words(run: Run) -> None:
    def answer(prompt: Prompt, _: Decoding) -> str:
        chunk = _chunk_of(prompt)
        if chunk < 0:
            enough = "[3.2]" in prompt.tail
            return "ANSWER\nUnder the third stone [3.2]." if enough else "MORE: What did Ada hide at the old well?"
        if "old well" in prompt.tail:
            return "2" if chunk == 2 else "NONE"
        return "2" if chunk == 0 else "NONE"

    model = ScriptedModel(respond=answer)
    output = await run(model)
    assert output["answer"] == "Under the third stone [1]."
    assert len(model.calls) == 4 + 1 + 4 + 1
    assert run.notes.steps["reason/0/1"].payload == {"query": "What did Ada hide at the old well?"}
    assert "[1.2] Ada took" in model.calls[-1].prompt.tail
    assert QUESTION in model.calls[-1].prompt.tail
    assert run.notes.steps["verdict/0"].payload["rounds"] == 2


async def test_rounds_are_bounded_and_the_last_one_has_to_answer(run: Run) -> None:
    run.options = ReadOptions(rounds=3)
    asked: list[str] = []

    def answer(prompt: Prompt, _: Decoding) -> str:
        if _chunk_of(prompt) < 0:
            asked.append(prompt.tail)
            return f"MORE: something else {len(asked)}" if "MORE:" in prompt.tail else "PARTLY\nShe took it [1.2]."
        query = prompt.tail.split("Question: ")[1].splitlines()[0]
        numbers = {QUESTION: (0, "2"), "something else 1": (1, "1"), "something else 2": (2, "1")}
        chunk, number = numbers[query]
        return number if _chunk_of(prompt) == chunk else "NONE"

    output = await run(ScriptedModel(respond=answer))
    assert len(asked) == 3
    assert output["verdict"] == "too_little"
    assert output["answer"] == "She took it [1]."


async def test_a_round_that_finds_nothing_new_is_the_last(run: Run) -> None:
    run.options = ReadOptions(rounds=5)

    def answer(prompt: Prompt, _: Decoding) -> str:
        if _chunk_of(prompt) < 0:
            return "MORE: the key" if "MORE:" in prompt.tail else "PARTLY\nShe took it [1.2]."
        return "2" if _chunk_of(prompt) == 0 else "NONE"

    model = ScriptedModel(respond=answer)
    assert (await run(model))["verdict"] == "too_little"
    assert len(model.calls) == 4 + 1 + 4 + 1


async def test_a_reasoner_that_wants_more_of_the_same_has_to_answer(run: Run) -> None:
    def answer(prompt: Prompt, _: Decoding) -> str:
        if _chunk_of(prompt) < 0:
            return f"MORE: {QUESTION}" if "MORE:" in prompt.tail else "PARTLY\nShe took it [1.2]."
        return "2" if _chunk_of(prompt) == 0 else "NONE"

    model = ScriptedModel(respond=answer)
    assert (await run(model))["answer"] == "She took it [1]."
    assert len(model.calls) == 4 + 2
    assert run.spent.calls == 6


async def test_contradictory_evidence_is_said_with_both_sides(run: Run) -> None:
    replies = _by({2: "2", 3: "2"}, "CONFLICT\nUnder the third stone [3.2].\nIn the mill [4.2].")
    output = await run(ScriptedModel(respond=replies))
    assert output["verdict"] == "contradictory"
    assert run.notes.steps["verdict/0"].payload["conflicts"] == [["3.2"], ["4.2"]]
    assert _quotes(output) == ["She hid something under its third stone.", "The key hung in the mill again, some say."]


@pytest.mark.parametrize(
    ("question", "nothing"),
    [
        ("Who built the lighthouse?", "The text does not say."),
        ("Wer hat den Leuchtturm gebaut?", "Der Text sagt es nicht."),
    ],
)
async def test_where_no_chunk_has_evidence_the_text_does_not_say(run: Run, question: str, nothing: str) -> None:
    model = ScriptedModel(respond=lambda *_: "NONE")
    output = await run(model, question=question)
    assert (output["answer"], output["verdict"], output["citations"]) == (nothing, "not_in_text", [])
    assert len(model.calls) == 4


async def test_evidence_that_does_not_answer_is_not_made_an_answer_of(run: Run) -> None:
    output = await run(ScriptedModel(respond=_by({0: "2"}, "NONE")))
    assert (output["answer"], output["verdict"]) == ("The text does not say.", "not_in_text")
    assert output["citations"] == []


async def test_sentences_that_the_model_made_up_are_counted_and_never_evidence(run: Run) -> None:
    model = ScriptedModel(respond=_by({0: "2, 44, 45", 1: "3"}, "ANSWER\nFrom its nail [1.2], they say [1.44]."))
    output = await run(model)
    assert _quotes(output) == ["Ada took the brass key from its nail."]
    assert "44" not in output["answer"]
    assert output["warnings"][0] == "2 sentences that the model named are not in the text."
    assert [s["index"] for s in output["coverage"]["skipped"]] == [1]


async def test_in_order_each_chunk_is_read_with_the_evidence_so_far(run: Run) -> None:
    run.build = lambda: build_alr2(in_order=True)
    model = ScriptedModel(respond=_by({0: "2", 2: "2"}, "ANSWER\nUnder a stone [3.2]."))
    await run(model)
    tails = [call.prompt.tail for call in model.calls if call.prompt.prefix]
    assert ["[1.2] Ada took the brass key" in tail for tail in tails] == [False, True, True, True]
    assert ["[3.2] She hid something" in tail for tail in tails] == [False, False, False, True]


async def test_chunks_are_read_side_by_side_but_no_more_than_allowed(run: Run) -> None:
    run.options = ReadOptions(max_parallel=3)
    run.chunks = [[f"Chunk {n} says nothing of it."] for n in range(10)]
    under_way, peak = 0, 0

    class Slow:
        name, supports_grammar, supports_schema = "slow", False, False

        async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
            nonlocal under_way, peak
            under_way += 1
            peak = max(peak, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1
            return ScriptedModel()._completed(prompt, "NONE")

    await run(Slow())
    assert peak == 3


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 9))
async def test_a_run_that_is_killed_anywhere_pays_for_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, killed_at: int
) -> None:
    run = Run(tmp_path_factory.mktemp("run"), options=ReadOptions(max_parallel=2))
    n_calls = 0
    answered: list[tuple[str, str]] = []

    def answer(prompt: Prompt, _: Decoding) -> str:
        nonlocal n_calls
        n_calls += 1
        if n_calls == killed_at + 1:
            raise ModelUnavailable("gone")
        answered.append((prompt.prefix, prompt.tail))
        chunk = _chunk_of(prompt)
        if chunk < 0:
            return "ANSWER\nUnder the stone [3.2]." if "[3.2]" in prompt.tail else "MORE: What was hidden at the well?"
        return "2" if chunk == (2 if "at the well" in prompt.tail else 0) else "NONE"

    with pytest.raises(ModelError):
        await run(ScriptedModel(respond=answer))
    output = await run(ScriptedModel(respond=answer))
    assert output["answer"] == "Under the stone [1]."
    assert len(answered) == len(set(answered)) == 10
    assert run.spent.calls == 10


async def test_lost_checkpoints_cost_no_call(run: Run) -> None:
    model = ScriptedModel(respond=_by({2: "2"}, "ANSWER\nUnder a stone [3.2]."))
    first = await run(model)
    for file in run.folder.glob("state.sqlite*"):
        file.unlink()
    assert await run(ScriptedModel()) == first


async def test_another_run_over_the_same_text_finds_its_evidence_in_the_response_cache(
    run: Run, tmp_path: Path
) -> None:
    model = ScriptedModel(respond=_by({2: "2"}, "ANSWER\nUnder a stone [3.2]."))
    cached = CachedModel(model, InMemoryResponses(1_000_000), "scripted")
    await run(cached)
    n_calls = len(model.calls)
    again = Run(tmp_path / "again")
    again.folder.mkdir()
    assert (await again(cached))["answer"] == "Under a stone [1]."
    assert len(model.calls) == n_calls
    assert (again.spent.calls, again.spent.reused) == (0, n_calls)
    other = Run(tmp_path / "other")
    other.folder.mkdir()
    await other(cached, question="What did the miller see?")
    assert len(model.calls) == 2 * n_calls


async def test_a_chunk_that_fails_is_skipped_and_the_others_still_answer(run: Run) -> None:
    model = ScriptedModel(respond=_by({0: "Paris", 2: "2"}, "ANSWER\nUnder a stone [3.2]."))
    output = await run(model)
    assert output["answer"] == "Under a stone [1]."
    assert [s["index"] for s in output["coverage"]["skipped"]] == [0]
    assert [event.index for event in run.told(ChunkSkipped)] == [0]
    again = Run(run.folder / "again")
    again.folder.mkdir()
    with pytest.raises(BadOutput):
        await again(model, on_worker_failure="fail")


async def test_what_was_not_read_may_say_it(run: Run) -> None:
    output = await run(ScriptedModel(respond=_by({0: "Paris"}, "unused")))
    assert (output["answer"], output["verdict"]) == ("The text does not say.", "too_little")
    assert output["coverage"]["read"] == 3


async def test_a_limit_ends_the_reading_and_the_evidence_so_far_answers(run: Run) -> None:
    run.options = ReadOptions(max_parallel=1)
    model = ScriptedModel(respond=_by({0: "2"}, "ANSWER\nFrom its nail [1.2]."))
    output = await run(model, budget=Budget(max_calls=5))
    assert output["stopped"] == "the limit of 5 calls"
    assert output["answer"] == "From its nail [1]."
    assert output["coverage"]["read"] < 4
    assert {s["cause"] for s in output["coverage"]["skipped"]} == {"stopped by the limit of 5 calls"}


async def test_evidence_that_the_limit_does_not_allow_is_left_out_and_told(run: Run) -> None:
    run.chunks = [[f"Fact {n} is " + "long " * 200 + "."] for n in range(6)]

    def answer(prompt: Prompt, _: Decoding) -> str:
        return "1" if prompt.prefix else "ANSWER\nLong [1.1]."

    model = ScriptedModel(respond=answer)
    await run(model)
    spent = run.spent
    most = spent.prompt_tokens + spent.completion_tokens
    reads = sum(s.usage.prompt_tokens + s.usage.completion_tokens for s in run.notes.steps.values())
    again = Run(run.folder / "again", chunks=run.chunks)
    again.folder.mkdir()
    limit = reads + (most - reads) // 2 + 1200
    for step in run.notes.steps.values():
        if step.key.startswith("evidence/"):
            await again.notes.add_step(step)
    output = await again(model, budget=Budget(max_tokens_total=limit))
    left_out = again.notes.steps["verdict/0"].payload["left_out"]
    assert 0 < left_out < 6
    assert output["warnings"][0].startswith(f"the least relevant {left_out} of 6 pieces of evidence")
    assert again.spent.prompt_tokens + again.spent.completion_tokens <= limit


LONG = [[f"In part {n} they speak of matter {n}.", "Time went by."] for n in range(30)]
LONG[17] = ["The lighthouse keeper was called Bastian Orrow.", "He was tall."]


async def test_a_long_document_is_preselected_from_and_says_so(run: Run) -> None:
    run.chunks, run.options = LONG, ReadOptions(top_k=3)

    def answer(prompt: Prompt, _: Decoding) -> str:
        if not prompt.prefix:
            return "ANSWER\nBastian Orrow [18.1]."
        return "1" if "Bastian" in prompt.prefix else "NONE"

    model = ScriptedModel(respond=answer)
    output = await run(model, question="What was the lighthouse keeper called?")
    assert output["answer"] == "Bastian Orrow [1]."
    assert len(model.calls) == 4
    assert output["coverage"] == {"chunks": 30, "read": 3, "skipped": [], "unselected": 27}


@pytest.mark.parametrize(
    ("preselect", "n_chunks", "read"),
    [("auto", 6, 6), ("auto", 7, 3), ("never", 30, 30), ("always", 4, 3), ("always", 3, 3)],
)
async def test_when_a_document_is_preselected_from(
    run: Run, preselect: Literal["auto", "never", "always"], n_chunks: int, read: int
) -> None:
    run.chunks, run.options = LONG[:n_chunks], ReadOptions(top_k=3, preselect=preselect, rounds=1)
    output = await run(ScriptedModel(respond=lambda *_: "NONE"), question="Who speaks of matter 1?")
    assert output["coverage"]["read"] == read
    assert output["coverage"]["unselected"] == n_chunks - read
    _, chunks = _book(run.chunks)
    forecast = Forecast(RunPlan((Part(None, chunks),), "words", True), LIMITS, run.options, 10)
    assert strategy("alr2").estimate(forecast).calls == read + 1


async def test_nothing_among_the_preselected_is_looked_for_elsewhere(run: Run) -> None:
    run.chunks, run.options = LONG, ReadOptions(top_k=2)

    def answer(prompt: Prompt, _: Decoding) -> str:
        if not prompt.prefix:
            return "ANSWER\nBastian [18.1]." if "[18.1]" in prompt.tail else "MORE: name of the lighthouse keeper"
        return "1" if "Bastian" in prompt.prefix and "lighthouse" in prompt.tail else "NONE"

    output = await run(ScriptedModel(respond=answer), question="Who was it that tended matter 3 and matter 4?")
    assert output["answer"] == "Bastian [1]."
    assert output["coverage"]["read"] == 4


async def test_a_person_can_strike_out_evidence_before_the_answer(run: Run) -> None:
    run.options = ReadOptions(review=True)
    retrieved = {0: "2", 2: "1, 2, 3", 3: "2"}
    with pytest.raises(ReviewNeeded) as caught:
        await run(ScriptedModel(respond=_by(retrieved, "")))
    shown = caught.value.payload
    assert isinstance(shown, dict)
    assert shown["question"] == QUESTION
    assert [e["ids"] for e in shown["evidence"]] == [["1.2"], ["3.1", "3.2", "3.3"], ["4.2"]]
    assert shown["evidence"][2]["text"] == "The key hung in the mill again, some say."
    with pytest.raises(ReviewNeeded):
        await run(ScriptedModel())
    model = ScriptedModel(respond=_by({}, "ANSWER\nUnder the third stone [3.2][3.1]."))
    output = await run(model, review={"strike": ["4.2", "[3.1]", "9.9"]})
    assert len(model.calls) == 1
    tail = model.calls[0].prompt.tail
    assert "[3.2] She hid something" in tail
    assert "in the mill" not in tail
    assert "miller saw" not in tail
    assert _quotes(output) == ["She hid something under its third stone."]
    assert [event.message for event in run.told(WarningRaised)] == ["there is no evidence 9.9 to strike out."]


async def test_a_run_without_checkpoints_that_waits_for_a_person_says_so_too(run: Run) -> None:
    run.options, run.keeps_checkpoints = ReadOptions(review=True), False
    with pytest.raises(ReviewNeeded) as caught:
        await run(ScriptedModel(respond=_by({0: "2"}, "")))
    assert isinstance(caught.value.payload, dict)
    assert [e["ids"] for e in caught.value.payload["evidence"]] == [["1.2"]]


async def test_a_struck_sentence_stays_struck_in_later_rounds(run: Run) -> None:
    run.options = ReadOptions(review=True)

    def answer(prompt: Prompt, _: Decoding) -> str:
        if _chunk_of(prompt) < 0:
            return "MORE: the old well" if "MORE:" in prompt.tail else "ANSWER\nUnder a stone [3.2]."
        if "the old well" in prompt.tail:
            return {0: "2", 2: "2"}.get(_chunk_of(prompt), "NONE")
        return "2, 3" if _chunk_of(prompt) == 0 else "NONE"

    model = ScriptedModel(respond=answer)
    with pytest.raises(ReviewNeeded):
        await run(model)
    with pytest.raises(ReviewNeeded) as caught:
        await run(model, review=["1.2"])
    assert isinstance(caught.value.payload, dict)
    assert [e["ids"] for e in caught.value.payload["evidence"]] == [["1.3"], ["3.2"]]
    await run(model, review=[])
    assert "Ada took" not in model.calls[-1].prompt.tail


async def test_where_nothing_was_found_nobody_is_asked_to_look(run: Run) -> None:
    run.options = ReadOptions(review=True)
    assert (await run(ScriptedModel(respond=lambda *_: "NONE")))["verdict"] == "not_in_text"


@pytest.mark.parametrize("build", [build_alr2, build_rag])
async def test_a_summary_is_refused_before_any_call(run: Run, build: Callable[[], Any]) -> None:
    run.build = build
    with pytest.raises(ConfigError, match="summary"):
        await run(ScriptedModel(), question=None)


async def test_code_retrieves_for_a_model_that_cannot(run: Run) -> None:
    run.small, run.options = True, ReadOptions(quotes=True)
    model = ScriptedModel(respond=lambda *_: "from its nail")
    output = await run(model, question="From where did Ada take the brass key?")
    assert _quotes(output)[0] == "Ada took the brass key from its nail."
    assert set(_quotes(output)) <= {sentence for sentences in BOOK for sentence in sentences}
    assert output["coverage"]["read"] == 4
    assert all(call.prompt.prefix == "" for call in model.calls)


async def test_rag_makes_one_call_over_the_best_passages(run: Run) -> None:
    run.build, run.chunks, run.options = build_rag, LONG, ReadOptions(top_k=2)
    model = ScriptedModel(["ANSWER\nBastian Orrow [18.1]."])
    output = await run(model, question="What was the lighthouse keeper called?")
    assert output["answer"] == "Bastian Orrow [1]."
    assert output["coverage"]["read"] + output["coverage"]["unselected"] == 30
    assert output["coverage"]["read"] <= 2
    assert re.findall(r"\[18\.\d\]", model.calls[0].prompt.tail) == ["[18.1]", "[18.2]"]
    assert await run(ScriptedModel(), question="What was the lighthouse keeper called?") == output


async def test_rag_without_any_passage_makes_no_call(run: Run) -> None:
    run.build = build_rag
    output = await run(ScriptedModel(), question="Quantum chromodynamics?")
    assert (output["answer"], output["verdict"]) == ("The text does not say.", "not_in_text")


def test_both_are_strategies_with_their_roles() -> None:
    assert strategy("alr2").agents == {"retriever", "reasoner"}
    assert strategy("rag").agents == {"reasoner"}
    _, chunks = _book(LONG)
    forecast = Forecast(RunPlan((Part(None, chunks),), "words", True), LIMITS, ReadOptions(), 10)
    assert strategy("rag").estimate(forecast).calls == 1
