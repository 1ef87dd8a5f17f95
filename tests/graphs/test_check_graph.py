"""Checking statements as a graph: selected, judged one step each, cited; stored, resumed, stopped by its budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from coa.agents.checked import checked_of
from coa.agents.checker import CheckReport
from coa.agents.lexical_checker import LexicalChecker
from coa.agents.statements import Statement, statements_to_text
from coa.chunking import chunk_document
from coa.documents import read_document
from coa.errors import BadOutput, ConfigError, ModelUnavailable
from coa.events import EvidenceFound, StageChanged
from coa.graphs import strategy
from coa.graphs.check import CheckOutput, build_check, check_estimate
from coa.graphs.context import InMemoryNotes, ReadContext, ReadOptions
from coa.graphs.estimates import Forecast
from coa.graphs.running import run_graph
from coa.limits import Limits
from coa.llm.budget import Budget, Demand
from coa.runs import Part, RunPlan
from coa.tokens import EstimatedTokens
from coa.types import Document, Usage

TEXT = "\n\n".join(
    f"Chapter of the {n}th house.\n\nThe {name} of house {n} kept {n * 11} sheep near the river. "
    "It rained there often. The road went on."
    for n, name in enumerate(("baker", "smith", "weaver", "miller", "fisher", "tanner"), 1)
)
STATEMENTS = [
    Statement("The baker of house 1 kept 11 sheep near the river.", "a"),
    Statement("The smith of house 2 kept 99 sheep near the river.", "b"),
    Statement("A dragon burned the fisher's boat.", "c"),
    Statement("The miller kept 44 sheep.", "d"),
]
QUESTION = statements_to_text(STATEMENTS)


def _document() -> tuple[Document, Part]:
    document = read_document(TEXT.encode(), name="houses.txt")
    return document, Part(None, tuple(chunk_document(document, budget=60, counter=EstimatedTokens())))


class CountingChecker:
    """The checker by words, which counts its calls as those of a model, and fails where it is told to."""

    def __init__(self, part: Part, failing: dict[str, Exception] | None = None) -> None:
        self._checker = LexicalChecker(part.chunks)
        self.failing = failing or {}
        self.asked: list[str] = []

    async def check(self, statement: str, evidence: Any) -> CheckReport:
        self.asked.append(statement)
        if statement in self.failing:
            raise self.failing[statement]
        report = await self._checker.check(statement, evidence)
        return replace(report, usage=Usage(calls=1, prompt_tokens=100, completion_tokens=10))

    def demand(self, statement: str) -> Demand:
        return Demand(1, 100, 10)


async def _run(
    part: Part, document: Document | None, checker: Any, *, notes: Any = None, question: str = QUESTION, **changes: Any
) -> tuple[CheckOutput, ReadContext, list[Any]]:
    context = ReadContext(
        [part], notes=notes or InMemoryNotes(), document=document, agents={"checker": checker}, **changes
    )
    events = []
    output: dict[str, Any] = {}
    graph = build_check().compile()
    async for mode, value in graph.astream({"question": question}, context=context, stream_mode=["custom", "values"]):
        if mode == "custom":
            events.append(value)
        else:
            output = cast("dict[str, Any]", value)
    return cast("CheckOutput", output), context, events


async def test_each_statement_gets_its_label_with_sentences_word_for_word() -> None:
    document, part = _document()
    output, _, events = await _run(part, document, CountingChecker(part))
    assert [(c["id"], c["label"]) for c in output["checks"]] == [
        ("a", "true"),
        ("b", "false"),
        ("c", "not_in_text"),
        ("d", "true"),
    ]
    for citation in output["citations"]:
        assert document.text[citation["start"] : citation["end"]] == citation["quote"]
    shown = [[output["citations"][n - 1]["quote"] for n in c["citations"]] for c in output["checks"]]
    assert shown[1] == ["The smith of house 2 kept 22 sheep near the river."]
    assert shown[2] == []
    lines = output["answer"].splitlines()
    assert lines[0] == "1. The baker of house 1 kept 11 sheep near the river. — true [1]"
    assert lines[2].endswith("— not in the text")
    assert output["claims"][1] == {"text": STATEMENTS[1].text, "citations": [2]}
    found = [e for e in events if isinstance(e, EvidenceFound)]
    assert ("The smith of house 2 kept 22 sheep near the river.",) in [e.quotes for e in found]
    assert events[-1] == StageChanged("4 of 4 statements checked")


async def test_what_was_judged_is_never_judged_again() -> None:
    document, part = _document()
    notes = InMemoryNotes()
    first = CountingChecker(part, {STATEMENTS[2].text: ModelUnavailable("gone", usage=Usage(calls=1))})
    with pytest.raises(ModelUnavailable):
        await _run(part, document, first, notes=notes)
    again = CountingChecker(part)
    output, _, _ = await _run(part, document, again, notes=notes)
    assert again.asked == [STATEMENTS[2].text]
    assert [c["label"] for c in output["checks"]] == ["true", "false", "not_in_text", "true"]
    assert len([k for k in notes.steps if k.startswith("check/")]) == 4


async def test_a_statement_whose_reply_is_of_no_use_is_told_and_the_others_go_on() -> None:
    document, part = _document()
    checker = CountingChecker(part, {STATEMENTS[0].text: BadOutput("no label", usage=Usage(calls=2))})
    output, _, _ = await _run(part, document, checker)
    assert (output["checks"][0]["label"], output["checks"][0]["cause"]) == (None, "no label")
    assert [c["label"] for c in output["checks"][1:]] == ["false", "not_in_text", "true"]
    assert output["answer"].startswith("1. The baker of house 1 kept 11 sheep near the river. — not judged (no label)")
    assert output["warnings"] == ["a statement could not be judged: no label"]
    with pytest.raises(BadOutput):
        await _run(part, document, checker, on_worker_failure="fail")


async def test_the_budget_ends_it_and_the_rest_is_not_judged() -> None:
    document, part = _document()
    checker = CountingChecker(part)
    output, context, _ = await _run(
        part,
        document,
        checker,
        budget=Budget(max_calls=2),
        options=ReadOptions(max_parallel=1),
        manager_demand=Demand(0),
    )
    assert [c["label"] for c in output["checks"]] == ["true", "false", None, None]
    assert output["stopped"] == "the limit of 2 calls"
    assert output["checks"][2]["cause"] == "stopped by the limit of 2 calls"
    assert context.spent.calls == 2


async def test_the_steps_alone_give_the_labels_back() -> None:
    document, part = _document()
    notes = InMemoryNotes()
    output, _, _ = await _run(part, document, CountingChecker(part), notes=notes)
    checked = checked_of(document, part.chunks, QUESTION, notes.all_steps())
    assert [(c.id, c.label, c.reason) for c in checked] == [
        (c["id"], c["label"], c["reason"]) for c in output["checks"]
    ]
    assert [x.quote for c in checked for x in c.citations] == [c["quote"] for c in output["citations"]]
    assert {x.origin for c in checked for x in c.citations} == {"model"}
    assert [c.cause for c in checked_of(document, part.chunks, QUESTION, [])] == ["not judged"] * 4
    assert json.loads(json.dumps([dict(s.payload) for s in notes.all_steps()]))


async def test_chunks_that_no_statement_is_about_are_left_out_on_purpose() -> None:
    document, part = _document()
    output, _, _ = await _run(
        part, document, CountingChecker(part), question="The tanner kept sheep.", options=ReadOptions(top_k=1)
    )
    coverage = output["coverage"]
    assert coverage["skipped"] == []
    assert 0 < coverage["read"] < coverage["chunks"] == coverage["read"] + coverage["unselected"]


@pytest.mark.parametrize("question", [None, "", "\n \n"])
async def test_without_statements_there_is_nothing_to_do(question: str | None) -> None:
    document, part = _document()
    with pytest.raises(ConfigError, match="no statement"):
        await _run(part, document, CountingChecker(part), question=cast("str", question))


async def test_what_it_needs_is_told() -> None:
    document, part = _document()
    with pytest.raises(ConfigError, match="checker"):
        await _run(part, document, None)
    with pytest.raises(ConfigError, match="document"):
        await _run(part, None, CountingChecker(part))
    context = ReadContext([part, part], document=document, agents={"checker": CountingChecker(part)})
    with pytest.raises(ConfigError, match="whole document"):
        await build_check().compile().ainvoke({"question": "x"}, context=context)


async def test_it_runs_under_coas_own_runner_and_is_gone_on_with(tmp_path: Path) -> None:
    document, part = _document()
    notes = InMemoryNotes()
    drain: list[Callable[[str], None]] = []

    async def run(checker: CountingChecker) -> Any:
        context = ReadContext(
            [part],
            notes=notes,
            document=document,
            agents={"checker": checker},
            options=ReadOptions(max_parallel=2),
        )
        return await run_graph(
            strategy("check").build(),
            question=QUESTION,
            context=context,
            run_id="r",
            checkpoints=tmp_path / "state.sqlite",
            on_event=lambda event: None,
            on_control=drain.append,
        )

    failing = CountingChecker(part, {STATEMENTS[3].text: ModelUnavailable("gone")})
    with pytest.raises(ModelUnavailable):
        await run(failing)
    checker = CountingChecker(part)
    output = await run(checker)
    assert checker.asked == [STATEMENTS[3].text]
    assert output["answer"].count("\n") == 3
    assert output["coverage"]["skipped"] == []


def test_its_estimate_goes_by_the_statements() -> None:
    _, part = _document()
    forecast = Forecast(RunPlan((part,), "e", False), Limits(4096, 2000, 256, 400, 300, 500), ReadOptions(), 80, 4)
    wanted = check_estimate(forecast)
    assert (wanted.calls, wanted.completion_tokens_max) == (4, 4 * 256)
    assert wanted.prompt_tokens == 4 * (500 + 2000) + 80
    assert check_estimate(replace(forecast, options=ReadOptions(quotes=True))).calls == 0
