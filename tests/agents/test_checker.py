"""Checking statements: over a model that names sentences, and by words alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents.checker import Checker, Checking
from coa.agents.evidence import EvidenceLine
from coa.agents.lexical_checker import LexicalChecker
from coa.agents.references import Reference
from coa.agents.statements import Statement, StatementRanker, statements_from, statements_to_text
from coa.errors import BadOutput
from coa.limits import FULL, Limits
from coa.llm.chat import Completion
from coa.llm.scripted import ScriptedModel
from coa.types import CallUsage, Chunk, Usage

pytestmark = pytest.mark.slow

Book = Callable[..., tuple[Any, list[Chunk]]]


def _line(*sentences: str, chunk: int = 3, first: int = 7, relevance: float = 1.0) -> EvidenceLine:
    ids = tuple(Reference(chunk, first + n) for n in range(len(sentences)))
    return EvidenceLine(ids, sentences, relevance)


def _judgement(label: object, *sentences: int, reason: str = "it says so") -> str:
    return json.dumps({"sentences": list(sentences), "reason": reason, "label": label})


EVIDENCE = (_line("Ada left for Rome.", "It rained [1]."), _line("Bo stayed.", chunk=9, first=2, relevance=0.5))


async def test_the_prompt_numbers_the_sentences_and_asks_for_the_evidence_before_the_label(limits: Limits) -> None:
    model = ScriptedModel([_judgement("true", 1)])
    await Checker(model, limits, FULL).check("Ada\nleft <|im_end|>.", EVIDENCE)
    (call,) = model.calls
    assert call.prompt.prefix == ""
    assert "[1] Ada left for Rome.\n[2] It rained.\n\n[3] Bo stayed." in call.prompt.tail
    assert "Statement: Ada left < |im_end|>." in call.prompt.tail
    places = [call.prompt.tail.rindex(f'"{name}"') for name in ("sentences", "reason", "label")]
    assert places == sorted(places)


async def test_a_model_that_holds_to_schemas_is_given_one(limits: Limits) -> None:
    model = ScriptedModel([_judgement("true", 1)], supports_schema=True)
    await Checker(model, limits, FULL).check("Ada left.", EVIDENCE)
    schema: Any = model.calls[0].decoding.schema
    assert schema["properties"]["label"]["enum"] == ["true", "false", "not_in_text"]
    assert list(schema["properties"]) == ["sentences", "reason", "label"]


@pytest.mark.parametrize(
    ("reply", "label", "ids"),
    [
        (_judgement("true", 3, 1), "true", [(9, 2), (3, 7)]),
        (_judgement("false", 2), "false", [(3, 8)]),
        (_judgement("not_in_text"), "not_in_text", []),
        (_judgement("True.", 1), "true", [(3, 7)]),
        (_judgement("Not in text", 1), "not_in_text", [(3, 7)]),
        (_judgement(False, 1, 99, 1, 0), "false", [(3, 7)]),
        (f"I think so. {_judgement('true', 1)} That is all.", "true", [(3, 7)]),
        (_judgement("true", 99), "not_in_text", []),
        (_judgement("false"), "not_in_text", []),
    ],
)
async def test_a_label_counts_only_with_sentences_that_exist(
    limits: Limits, reply: str, label: str, ids: list[tuple[int, int]]
) -> None:
    report = await Checker(ScriptedModel([reply]), limits, FULL).check("Ada left.", EVIDENCE)
    assert report.label == label
    assert list(report.references) == ids
    assert report.reason
    assert report.usage.calls == 1


async def test_a_reply_without_a_label_is_asked_for_again_and_then_refused(limits: Limits) -> None:
    model = ScriptedModel(["Perhaps.", _judgement("true", 1)])
    report = await Checker(model, limits, FULL).check("Ada left.", EVIDENCE)
    assert (report.label, report.usage.calls) == ("true", 2)
    with pytest.raises(BadOutput) as caught:
        await Checker(ScriptedModel(["Perhaps.", "Maybe."]), limits, FULL).check("Ada left.", EVIDENCE)
    assert caught.value.usage is not None
    assert caught.value.usage.calls == 2


async def test_without_evidence_no_model_is_asked(limits: Limits) -> None:
    model = ScriptedModel()
    report = await Checker(model, limits, FULL).check("Ada left.", ())
    assert (report.label, report.references, report.usage) == ("not_in_text", (), Usage())


async def test_evidence_that_does_not_fit_goes_the_least_relevant_first(limits: Limits) -> None:
    lines = [_line(f"Line {n} says a thing. " * 40, chunk=n, relevance=n / 20) for n in range(1, 21)]
    model = ScriptedModel([Completion(_judgement("true", 1), "stop", CallUsage(1, 0, 1, 0.0), "m", 0.1)])
    report = await Checker(model, limits, FULL).check("Ada left.", lines)
    tail = model.calls[0].prompt.tail
    assert 0 < report.left_out < 20
    assert "Line 20 says" in tail
    assert "Line 1 says" not in tail
    assert report.references == (Reference(report.left_out + 1, 7),)


BOOK = (
    ["On the coast stood a town with two hundred and forty salt pans.", "Ada gave Bo the brass key in May."],
    ["The ledger was read aloud, and the lease was renewed or else it was not.", "Did Bo open the iron door?"],
    ["The old tower was not closed at night.", "Bo said little.", "Nobody knew why the lamp burned."],
)


def _evidence(chunks: Sequence[Chunk], statement: str) -> Sequence[EvidenceLine]:
    from coa.agents.evidence import verified

    return verified(StatementRanker(chunks).selected(statement, 5), chunks).lines


@pytest.mark.parametrize(
    ("statement", "label", "where"),
    [
        ("Ada gave Bo the brass key in May.", "true", (1, 2)),
        ("That key of brass Ada gave Bo.", "true", (1, 2)),
        ("In May Ada gave Bo the key.", "not_in_text", None),
        ("A town with 240 salt pans stood on the coast.", "true", (1, 1)),
        ("The ledger was read aloud.", "true", (2, 1)),
        ("The tower was not closed at night.", "true", (3, 1)),
        ("On the coast stood a town with three hundred salt pans.", "false", (1, 1)),
        ("Ada gave Bo the iron key in May.", "false", (1, 2)),
        ("Ada never gave Bo the key.", "false", (1, 2)),
        ("The old tower was closed at night.", "false", (3, 1)),
        ("Bo gave Ada the brass key in May.", "not_in_text", None),
        ("Bo opened the iron door.", "not_in_text", None),
        ("The lease was renewed.", "not_in_text", None),
        ("Cy flew to the moon with a dragon.", "not_in_text", None),
        ("Ada.", "not_in_text", None),
        ("", "not_in_text", None),
    ],
)
async def test_by_words_alone_it_is_true_or_false_only_where_the_words_stand(
    book: Book, statement: str, label: str, where: tuple[int, int] | None
) -> None:
    _, chunks = book(*BOOK)
    report = await LexicalChecker(chunks).check(statement, _evidence(chunks, statement))
    assert report.label == label, report.reason
    assert list(report.references) == ([] if where is None else [where])
    assert report.usage == Usage()


WORDS = st.sampled_from(
    ["Ada", "Bo", "gave", "key", "brass", "iron", "not", "never", "seven", "eight", "open", "the", "?"]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(WORDS, min_size=3, max_size=9).map(" ".join), min_size=1, max_size=4), st.data())
async def test_what_the_text_says_is_never_false_by_words(sentences: list[str], data: st.DataObject) -> None:
    line = _line(*sentences)
    statement = data.draw(st.sampled_from(sentences))
    report = await LexicalChecker([]).check(statement, [line])
    if "?" not in statement:
        assert report.label != "false"
    assert set(report.references) <= set(line.references)


def test_both_kinds_fill_the_role(limits: Limits) -> None:
    model_checker = Checker(ScriptedModel(), limits, FULL)
    assert isinstance(model_checker, Checking)
    assert isinstance(LexicalChecker([]), Checking)
    assert model_checker.demand("x").calls == 2
    assert LexicalChecker([]).demand("x").calls == 0
    assert set(model_checker.prompt_digests) == {"check_statement"}


def test_statements_go_through_a_runs_question_with_their_ids() -> None:
    statements = [
        Statement("Ada left."),
        Statement("Bo [sic] stayed", "b 2"),
        Statement('{"not": "json'),
        Statement("{}"),
    ]
    text = statements_to_text(statements)
    assert text.splitlines()[0] == "Ada left."
    assert statements_from(text) == statements
    assert statements_from("\n Ada\tleft. \n\n") == [Statement("Ada left.")]
    assert statements_from('{"statement": "x", "id": 7}\n{"text": " y  z"}\n{"claim": ""}\n[1]') == [
        Statement("x", "7"),
        Statement("y z"),
        Statement("[1]"),
    ]


@given(st.lists(st.tuples(st.text(min_size=1), st.none() | st.text()), max_size=5))
def test_any_statement_goes_through(given: list[tuple[str, str | None]]) -> None:
    statements = [Statement(" ".join(t.split()), i) for t, i in given]
    statements = [s for s in statements if s.text]
    assert statements_from(statements_to_text(statements)) == statements


def test_the_ranking_finds_the_sentences_wherever_they_stand(book: Book) -> None:
    filler = [[f"Nothing of note came to pass on day {n} of that year." for n in range(30)] for _ in range(6)]
    _, chunks = book(*filler, ["Ada gave Bo the brass key.", "It was May."], *filler)
    selected = StatementRanker(chunks).selected("Ada gave the key to Bo.", 3)
    assert selected[0].reference == Reference(7, 1)
    assert Reference(7, 2) in {s.reference for s in selected}
    assert all(0 < s.relevance <= 1 for s in selected)
    assert StatementRanker(chunks).selected("Zzyzx qwrt", 3) == []
