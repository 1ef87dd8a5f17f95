"""The reasoner: verdicts read from plain text, ids that the evidence has, an answer that streams."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coa.agents import Reference
from coa.agents.evidence import EvidenceLine, Selected, verified
from coa.agents.reasoner import ExtractiveReasoner, Reasoner, ReasonerReply
from coa.errors import ModelUnavailable
from coa.limits import FULL, SMALL, Limits
from coa.llm.chat import Completion, Decoding, OnText
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt
from coa.types import CallUsage, Chunk, Document, Usage, Verdict

Book = Callable[..., tuple[Document, list[Chunk]]]

QUESTION = "Where did Ada hide the brass key?"
HID = "Where was it that Ada hid the brass key?"
EVIDENCE = (
    EvidenceLine((Reference(1, 2),), ("Ada hid the brass key under the third stone.",), 1.0, "Chapter 1"),
    EvidenceLine((Reference(3, 7),), ("The key had always hung in the mill.",), 0.5, "Chapter 3"),
)


class Typing:
    """A model that writes its reply a few characters at a time."""

    name = "typing"
    supports_grammar = False
    supports_schema = False

    def __init__(self, reply: str, step: int = 3) -> None:
        self._reply, self._step = reply, step

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        if on_text is not None:
            for at in range(0, len(self._reply), self._step):
                on_text(self._reply[at : at + self._step])
        return Completion(self._reply.strip(), "stop", CallUsage(cost_usd=0.0), "typing", 0.0)


async def _reason(limits: Limits, reply: str, *, last: bool = True, question: str = QUESTION) -> ReasonerReply:
    return await Reasoner(ScriptedModel([reply]), limits, FULL).reason(question, EVIDENCE, last_round=last)


@pytest.mark.parametrize(
    ("reply", "verdict", "text"),
    [
        ("ANSWER\nUnder the third stone [1.2].", "answered", "Under the third stone[1.2]."),
        ("**ANSWER**\nUnder the stone [1.2].", "answered", "Under the stone[1.2]."),
        ("ANSWER: under the stone [1.2]", "answered", "under the stone[1.2]"),
        ("ANSWER Under the stone [1.2]", "answered", "Under the stone[1.2]"),
        ("Answer: under the stone", "answered", "under the stone"),
        ("Answered the way the book has it, under a stone [1.2].", "answered", None),
        ("Under the third stone [1.2].", "answered", "Under the third stone[1.2]."),
        ("PARTLY\nIt was hidden [1.2]; the day is missing.", "too_little", "It was hidden[1.2]; the day is missing."),
        ("NONE", "not_in_text", "The text does not say."),
        ("NONE\nParis is the capital of France.", "not_in_text", "The text does not say."),
        ("None of the evidence mentions the key.", "not_in_text", "The text does not say."),
        ("ANSWER\nThe text does not mention it.", "not_in_text", "The text does not say."),
        ("ANSWER\n", "not_in_text", "The text does not say."),
        ("", "not_in_text", "The text does not say."),
    ],
)
async def test_a_reply_begins_with_its_verdict_or_is_the_answer_itself(
    limits: Limits, reply: str, verdict: Verdict, text: str | None
) -> None:
    read = await _reason(limits, reply)
    assert read.verdict == verdict
    if text is not None:
        assert read.text.replace(" [", "[") == text
    assert read.rewritten_query is None


async def test_ids_that_the_evidence_does_not_have_never_reach_the_answer(limits: Limits) -> None:
    read = await _reason(limits, "ANSWER\nUnder the stone [1.2][1.3], they say [9.9].")
    assert "[1.2]" in read.text
    assert "1.3" not in read.text
    assert "9.9" not in read.text


async def test_too_little_evidence_asks_for_another_round(limits: Limits) -> None:
    read = await _reason(limits, 'MORE: "Who lived in the mill?"\nbecause of [3.7]', last=False)
    assert (read.verdict, read.rewritten_query, read.text) == ("too_little", "Who lived in the mill?", "")


async def test_a_query_that_is_the_question_again_is_none(limits: Limits) -> None:
    read = await _reason(limits, f"MORE: {QUESTION.lower()}", last=False)
    assert (read.verdict, read.rewritten_query, read.text) == ("too_little", None, "")


async def test_asking_for_more_in_the_last_round_is_no_answer(limits: Limits) -> None:
    assert (await _reason(limits, "MORE: Who lived in the mill?")).verdict == "not_in_text"
    read = await _reason(limits, "MORE: Who lived in the mill?\nIt hung in the mill [3.7].")
    assert (read.verdict, read.text) == ("too_little", "It hung in the mill [3.7].")


async def test_only_rounds_that_have_another_after_them_offer_it(limits: Limits) -> None:
    model = ScriptedModel(["ANSWER\nx", "ANSWER\nx"])
    reasoner = Reasoner(model, limits, FULL)
    for last in (False, True):
        await reasoner.reason(QUESTION, EVIDENCE, last_round=last)
    first, second = (call.prompt.tail for call in model.calls)
    assert ("MORE:" in first, "PARTLY" in first) == (True, False)
    assert ("MORE:" in second, "PARTLY" in second) == (False, True)


@pytest.mark.parametrize(
    "reply",
    [
        "CONFLICT\nUnder the third stone [1.2].\nIn the mill, where it always was [3.7].",
        "CONFLICT\nEither under the third stone [1.2], or in the mill [3.7].",
    ],
)
async def test_a_contradiction_names_both_sides(limits: Limits, reply: str) -> None:
    read = await _reason(limits, reply)
    assert read.verdict == "contradictory"
    assert read.conflicts == ((Reference(1, 2),), (Reference(3, 7),))


async def test_a_contradiction_of_one_sentence_with_nothing_is_none(limits: Limits) -> None:
    read = await _reason(limits, "CONFLICT\nUnder the third stone [1.2], or elsewhere [8.8].")
    assert (read.verdict, read.conflicts) == ("answered", ())


@pytest.mark.parametrize(
    ("language", "question", "nothing"),
    [
        (None, "Wo hat Ada den Schlüssel versteckt?", "Der Text sagt es nicht."),
        (None, "阿达把钥匙藏在哪里？", "文中没有提到。"),
        (None, QUESTION, "The text does not say."),
        ("fr", QUESTION, "Le texte ne le dit pas."),
    ],
)
async def test_what_the_text_does_not_say_is_said_in_the_questions_language(
    limits: Limits, language: str | None, question: str, nothing: str
) -> None:
    reasoner = Reasoner(ScriptedModel(["NONE"]), limits, FULL, language=language)
    assert (await reasoner.reason(question, EVIDENCE, last_round=True)).text == nothing


async def test_no_evidence_and_no_round_left_costs_no_call(limits: Limits) -> None:
    told: list[str] = []
    read = await Reasoner(ScriptedModel(), limits, FULL).reason(QUESTION, (), last_round=True, on_text=told.append)
    assert (read.verdict, read.usage, "".join(told)) == ("not_in_text", Usage(), "The text does not say.")


async def test_no_evidence_with_a_round_left_asks_for_other_words(limits: Limits) -> None:
    model = ScriptedModel(["MORE: Ada's key, hiding place"])
    read = await Reasoner(model, limits, FULL).reason(QUESTION, (), last_round=False)
    assert read.rewritten_query == "Ada's key, hiding place"
    assert "(nothing was found)" in model.calls[0].prompt.tail


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("reply", "streamed"),
    [
        ("ANSWER\nUnder the third stone [1.2].\nIt is damp.", "Under the third stone [1.2].\nIt is damp."),
        ("ANSWER: Under the third stone [1.2].", "Under the third stone [1.2]."),
        ("Under the third stone [1.2], says Ada.", "Under the third stone [1.2], says Ada."),
        ("CONFLICT\nStone [1.2].\nMill [3.7].", "Stone [1.2].\nMill [3.7]."),
        ("NONE\nParis is the capital of France.", "The text does not say."),
        ("No.", "No."),
    ],
)
async def test_the_answer_streams_without_its_verdict(limits: Limits, reply: str, streamed: str, step: int) -> None:
    told: list[str] = []
    read = await Reasoner(Typing(reply, step), limits, FULL).reason(
        QUESTION, EVIDENCE, last_round=True, on_text=told.append
    )
    assert "".join(told) == streamed
    assert read.text == streamed


async def test_an_answer_streams_before_it_is_complete(limits: Limits) -> None:
    told: list[str] = []
    reply = "ANSWER\n" + "Under the third stone [1.2]. " * 20
    await Reasoner(Typing(reply), limits, FULL).reason(QUESTION, EVIDENCE, last_round=True, on_text=told.append)
    assert len(told) > 50


@pytest.mark.parametrize("step", [1, 5, 1000])
async def test_a_query_for_another_round_is_not_streamed(limits: Limits, step: int) -> None:
    told: list[str] = []
    reply = "MORE: Who lived in the mill, and since when did he do so?\nNothing else is missing."
    read = await Reasoner(Typing(reply, step), limits, FULL).reason(
        QUESTION, EVIDENCE, last_round=False, on_text=told.append
    )
    assert told == []
    assert read.rewritten_query == "Who lived in the mill, and since when did he do so?"


async def test_evidence_over_the_window_loses_its_least_relevant_lines(limits: Limits) -> None:
    lines = [EvidenceLine((Reference(n, 1),), (f"Fact {n}. " + "Many words " * 60,), n / 100) for n in range(1, 61)]
    model = ScriptedModel(["ANSWER\nx [60.1]"])
    read = await Reasoner(model, limits, FULL).reason(QUESTION, lines, last_round=True)
    shown = [n for n in range(1, 61) if f"[{n}.1]" in model.calls[0].prompt.tail]
    assert 0 < len(shown) < 60
    assert shown == list(range(61 - len(shown), 61))
    assert read.left_out == 60 - len(shown)


async def test_it_sees_the_evidence_and_nothing_else_of_the_document(book: Book, limits: Limits) -> None:
    document, chunks = book(["Rain fell.", "It was dark.", "Ada hid the key under a stone.", "Nobody slept."])
    model = ScriptedModel(["ANSWER\nUnder a stone [1.3]."])
    lines = verified([Selected(Reference(1, 3), 1.0)], chunks, document=document).lines
    await Reasoner(model, limits, FULL).reason(QUESTION, lines, last_round=True)
    prompt = model.calls[0].prompt
    assert prompt.prefix == ""
    assert "[1.3] Ada hid the key under a stone." in prompt.tail
    assert "(Chapter 1)" in prompt.tail
    assert "Rain fell" not in prompt.tail


async def test_an_engine_with_grammars_has_to_begin_with_a_verdict(limits: Limits) -> None:
    model = ScriptedModel(["NONE\nx", "NONE\nx"], supports_grammar=True)
    reasoner = Reasoner(model, limits, FULL)
    for last in (False, True):
        await reasoner.reason(QUESTION, EVIDENCE, last_round=last)
    grammars = [call.decoding.grammar or "" for call in model.calls]
    assert ['"MORE: "' in g for g in grammars] == [True, False]
    assert ['"PARTLY"' in g for g in grammars] == [False, True]


def test_a_model_that_cannot_name_sentences_is_refused(limits: Limits) -> None:
    with pytest.raises(ValueError, match="small"):
        Reasoner(ScriptedModel(), limits, SMALL)


async def test_a_small_model_answers_with_a_sentence_of_the_evidence(book: Book) -> None:
    document, chunks = book(
        ["The harbour lay still.", "Ada hid the brass key under the third stone."],
        ["Nobody slept in the town.", "The key of the mill was of brass too."],
    )
    model = ScriptedModel(respond=lambda *_: "under the third stone")
    lines = verified([Selected(Reference(1, 2), 1.0), Selected(Reference(2, 2), 0.6)], chunks, document=document).lines
    told: list[str] = []
    read = await ExtractiveReasoner(model, chunks).reason(QUESTION, lines, last_round=True, on_text=told.append)
    assert read.verdict == "answered"
    assert "[1.2]" in read.text
    assert "third stone" in read.text
    assert "".join(told) == read.text


async def test_a_small_model_is_asked_about_no_sentence_outside_the_evidence(book: Book) -> None:
    document, chunks = book(["Ada hid the brass key under the third stone."], ["Ada hid the brass key in the mill."])
    model = ScriptedModel(respond=lambda *_: "x")
    lines = verified([Selected(Reference(2, 1), 1.0)], chunks, document=document).lines
    read = await ExtractiveReasoner(model, chunks).reason(HID, lines, last_round=True)
    assert "[2.1]" in read.text
    assert "stone" not in read.text
    assert (await ExtractiveReasoner(model, chunks).reason(HID, (), last_round=True)).verdict == "not_in_text"


async def test_a_failure_after_the_first_sentence_counts_what_was_paid(book: Book) -> None:
    document, chunks = book(["Ada hid the brass key under a stone."], ["The brass key of Ada was hidden."])
    model = ScriptedModel(["x", ModelUnavailable("gone")])
    lines = verified([Selected(Reference(n, 1), 1.0) for n in (1, 2)], chunks, document=document).lines
    with pytest.raises(ModelUnavailable) as caught:
        await ExtractiveReasoner(model, chunks).reason("Which brass key of Ada was it?", lines, last_round=True)
    assert caught.value.usage is not None
    assert caught.value.usage.calls == 1
