"""Quoting notes: sentences of the source, and nothing that is not in them."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents import QuotingManager, QuotingWorker, Reference, quotes_of
from coa.agents.lexical import content_words
from coa.agents.quoting import QUOTES_ASKED, Quote
from coa.errors import ModelUnavailable
from coa.llm.chat import Completion, Decoding
from coa.llm.scripted import ScriptedModel
from coa.reading import Prompt
from coa.types import CallUsage, Chunk, CommunicationUnit, Document, Usage

Book = Callable[..., tuple[Document, list[Chunk]]]
EMPTY = CommunicationUnit()


async def _read_all(worker: QuotingWorker, chunks: list[Chunk], query: str | None) -> CommunicationUnit:
    unit = EMPTY
    for chunk in chunks:
        unit = (await worker.read(chunk, query, unit)).unit
    return unit


async def test_the_best_sentence_is_kept_and_answers(book: Book) -> None:
    _, chunks = book(
        ["The harbour lay still that night.", "Ada hid the brass key under the third stone."],
        ["Nobody slept in the town.", "A key of iron hung by the door."],
    )
    model = ScriptedModel(respond=lambda prompt, _: "under the third stone" if "Ada" in prompt.tail else "nothing")
    unit = await _read_all(QuotingWorker(model, chunks), chunks, "Where did Ada hide the brass key?")
    best = quotes_of(unit)[0]
    assert best.reference == Reference(1, 2)
    assert best.text == "Ada hid the brass key under the third stone."
    reply = await QuotingManager(model).answer("Where did Ada hide the brass key?", unit)
    assert reply.text == "the third stone [1.2]"
    assert reply.usage == Usage()


async def test_at_most_five_sentences_are_kept_best_first(book: Book) -> None:
    _, chunks = book(*[[f"The key number {n} is made of brass and of iron.", "Rain fell."] for n in range(12)])
    unit = await _read_all(QuotingWorker(ScriptedModel(respond=lambda *_: "x"), chunks), chunks, "Which key is brass?")
    scores = [quote.score for quote in quotes_of(unit)]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)


async def test_a_chunk_without_any_shared_word_costs_no_call(book: Book) -> None:
    _, chunks = book(["Rain fell on the town.", "Nobody slept."])
    model = ScriptedModel()
    before = CommunicationUnit("[9.9] (3.00) Old.", 0)
    reply = await QuotingWorker(model, chunks).read(chunks[0], "Where is the brass key?", before)
    assert model.calls == []
    assert reply.unit is before
    assert not reply.informative


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("Ada Lovell", "Ada Lovell"),
        ("It was Bo Trent who rang the bell of the church.", "Bo Trent"),
    ],
)
async def test_the_models_words_choose_among_spans_of_the_sentence(book: Book, said: str, taken: str) -> None:
    _, chunks = book(["Ada Lovell saw that Bo Trent rang the bell."])
    worker = QuotingWorker(ScriptedModel(respond=lambda *_: said), chunks)
    unit = (await worker.read(chunks[0], "Who rang the bell?", EMPTY)).unit
    assert [q.answer for q in quotes_of(unit)] == [taken]


async def test_words_that_the_sentence_does_not_hold_change_nothing(book: Book) -> None:
    _, chunks = book(["The brass key lies under the stone."])
    answers = set()
    for said in ("on the floor of the chapel", "the key", "", "a dragon"):
        worker = QuotingWorker(ScriptedModel(respond=lambda *_, said=said: said), chunks)
        unit = (await worker.read(chunks[0], "Where does the key lie?", EMPTY)).unit
        answers.add(quotes_of(unit)[0].answer)
    assert len(answers) == 1
    assert answers <= {"the stone", "under the stone"}


async def test_a_denial_is_not_turned_round_by_being_shortened(book: Book) -> None:
    _, chunks = book(["The brass key is not under the stone."])
    worker = QuotingWorker(ScriptedModel(respond=lambda *_: "under the stone"), chunks)
    unit = (await worker.read(chunks[0], "Where is the key?", EMPTY)).unit
    assert [q.answer for q in quotes_of(unit)] == [""]
    reply = await QuotingManager(ScriptedModel()).answer("Where is the key?", unit)
    assert reply.text == "The brass key is not under the stone. [1.1]"


async def test_a_cut_off_opinion_does_not_count(book: Book) -> None:
    _, chunks = book(["Ada Lovell saw that Bo Trent rang the bell."])
    answers = []
    for reason in ("stop", "length"):
        cut = Completion("Ada Lovell", reason, CallUsage(5, 0, 2, 0.0), "s", 0.1)
        unit = (await QuotingWorker(ScriptedModel([cut]), chunks).read(chunks[0], "Who rang the bell?", EMPTY)).unit
        answers += [q.answer for q in quotes_of(unit)]
    assert answers[0] == "Ada Lovell"
    assert answers[1] != "Ada Lovell"


async def test_the_model_is_asked_about_three_sentences_of_a_part_however_long_it_is(book: Book) -> None:
    _, chunks = book(*[[f"The key number {n} is made of brass and of iron.", "Rain fell."] for n in range(30)])
    model = ScriptedModel(respond=lambda *_: "brass")
    await _read_all(QuotingWorker(model, chunks), chunks, "Which key is made of brass?")
    assert len(model.calls) == QUOTES_ASKED


async def test_each_part_has_its_own_best_sentences(book: Book) -> None:
    _, first = book(["Ada has the brass key, the brass key of the tower.", "Rain fell."])
    document, second = book(["Bo has a key of brass.", "Snow fell."])
    from dataclasses import replace

    from coa.types import Span

    shift = len(document.text) + 500
    moved = [
        replace(
            c,
            span=Span(c.span.start + shift, c.span.end + shift),
            sentences=tuple(Span(s.start + shift, s.end + shift) for s in c.sentences),
        )
        for c in second
    ]
    model = ScriptedModel(respond=lambda *_: "")
    worker = QuotingWorker(model, [*first, *moved])
    for chunks in (first, moved):
        unit = await _read_all(worker, chunks, "Who has the brass key?")
        assert [q.reference for q in quotes_of(unit)] == [Reference(1, 1)]
    assert len(model.calls) == 2


async def test_a_question_whose_words_the_text_does_not_hold_together_has_no_quotes(book: Book) -> None:
    _, chunks = book(
        ["Ada sold the old boat in Rome.", "The rent of a room was high."], ["Bo paid for bread.", "Ada wept."]
    )
    unit = await _read_all(
        QuotingWorker(ScriptedModel(), chunks), chunks, "Which bishop crowned the emperor Ada of Lombardy?"
    )
    assert quotes_of(unit) == []


WORDS = ("key", "stone", "brass", "Ada", "harbour", "seven", "lamp", "the", "not", "a", "under", "Bo")
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=3, max_size=9).map(lambda words: " ".join(words) + ".")


@settings(deadline=None, max_examples=120)
@given(
    sentences=st.lists(SENTENCES, min_size=1, max_size=8),
    query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join),
    said=st.lists(st.sampled_from((*WORDS, "dragon", "gold", "never")), max_size=6).map(" ".join),
)
async def test_no_content_word_of_an_answer_is_invented(sentences: list[str], query: str, said: str) -> None:
    from hypothesis import assume

    assume(content_words(query))
    text = "".join(f"{s} " for s in sentences)
    document, chunks = _one_chunk(text, sentences)
    worker = QuotingWorker(ScriptedModel(respond=lambda *_: said), chunks)
    unit = await _read_all(worker, chunks, query)
    for quote in quotes_of(unit):
        at = quote.reference.sentence - 1
        around = " ".join(sentences[max(0, at - 1) : at + 2])
        assert content_words(quote.answer) <= content_words(around)
        assert quote.answer in quote.text
        assert quote.text == sentences[at]
    reply = await QuotingManager(ScriptedModel()).answer(query, unit)
    assert content_words(reply.text) - {"1"} - {str(n) for n in range(10)} <= content_words(
        text + "The text does not say"
    )
    assert document.text == text


def _one_chunk(text: str, sentences: list[str]) -> tuple[Document, list[Chunk]]:
    from coa.types import Span

    spans, at = [], 0
    for sentence in sentences:
        spans.append(Span(at, at + len(sentence) + 1))
        at += len(sentence) + 1
    return Document(text, "ab" * 32, "b"), [Chunk(0, text, Span(0, at), tuple(spans), at, "chars", False)]


ODD = st.lists(
    st.sampled_from(["=>", " => ", "=", ">", "[1.2]", "[", "]", "(0.50)", "key", " ", "\n", "\u2028", "\x85", "x"]),
    min_size=1,
    max_size=8,
).map("".join)


@settings(deadline=None, max_examples=120)
@given(st.lists(ODD, min_size=1, max_size=4))
async def test_quotes_of_odd_sentences_come_back_as_they_went_in(odd: list[str]) -> None:
    sentences = [f"key {s} key." for s in odd]
    _, chunks = _one_chunk("".join(f"{s} " for s in sentences), sentences)
    worker = QuotingWorker(ScriptedModel(respond=lambda *_: "x"), chunks)
    unit = (await worker.read(chunks[0], "key?", EMPTY)).unit
    quotes = quotes_of(unit)
    assert "\n".join(str(q) for q in quotes) == unit.text
    assert len(quotes) == len(unit.text.split("\n"))
    assert all(q.answer in q.text for q in quotes)
    assert all(1 <= q.reference.sentence <= len(sentences) for q in quotes)


def test_a_quote_and_its_answer_are_told_apart() -> None:
    for quote in (Quote(Reference(3, 7), 1.25, "A. B (0.1) [c]", "b"), Quote(Reference(3, 7), 0.5, "A.")):
        assert quotes_of(CommunicationUnit(str(quote), 0)) == [quote]
    assert quotes_of(CommunicationUnit("prose, no quote", 0)) == []
    assert quotes_of(EMPTY) == []


async def test_a_summarys_sentences_stand_in_order_and_spread_over_the_book(book: Book) -> None:
    _, chunks = book(
        *[
            [f"The ship of captain {n} sailed with the ship of the queen to the far harbour of Rome.", "The ship sank."]
            for n in range(60)
        ]
    )
    unit = await _read_all(QuotingWorker(ScriptedModel(), chunks), chunks, None)
    places = [q.reference.chunk for q in quotes_of(unit)]
    assert len(places) == 40
    assert places == sorted(places)
    reply = await QuotingManager(ScriptedModel(), words=220).answer(None, unit)
    from coa.agents.references import references

    told = [r.chunk for r in references(reply.text)]
    assert len(told) == 10
    assert told == sorted(told)
    assert told[0] <= 15, "the beginning is told"
    assert told[-1] >= 45, "and so is the end"
    assert max(b - a for a, b in itertools.pairwise(told)) <= 15


async def test_a_summary_leaves_out_speech_and_sentences_that_lean_on_the_one_before(book: Book) -> None:
    chapter = [
        "'The ship of the queen sailed to the harbour of Rome,' said the captain of the ship.",
        "She sailed the ship of the queen to the far harbour of Rome with the captain.",
        "The captain sailed the ship of the queen to the far harbour of Rome.",
        "But the captain sailed the ship of the queen to the harbour of Rome again.",
    ]
    _, chunks = book(chapter)
    unit = await _read_all(QuotingWorker(ScriptedModel(), chunks), chunks, None)
    assert [q.reference for q in quotes_of(unit)] == [Reference(1, 3)]


async def test_headings_are_no_quotes(book: Book) -> None:
    _, chunks = book(["CHAPTER IV: THE BRASS KEY", "Ada took the key to Rome."])
    unit = await _read_all(
        QuotingWorker(ScriptedModel(respond=lambda *_: "x"), chunks), chunks, "Who took the brass key?"
    )
    assert [q.reference for q in quotes_of(unit)] == [Reference(1, 2)]


async def test_chinese_text_is_found_and_shortened(book: Book) -> None:
    _, chunks = book(["大雨下了一夜。", "王小明把钥匙藏在石头下面。"], ["村里没有人睡觉。"])
    model = ScriptedModel(respond=lambda *_: "石头下面")
    question = "王小明把钥匙藏在哪里？"
    unit = await _read_all(QuotingWorker(model, chunks), chunks, question)
    reply = await QuotingManager(model).answer(question, unit)
    assert reply.text == "石头下面 [1.2]"
    assert len(model.calls) == 1


async def test_an_error_of_a_later_call_tells_what_the_earlier_one_cost(book: Book) -> None:
    _, chunks = book(["The brass key is here.", "The other brass key is there."])
    paid = Completion("here", "stop", CallUsage(7, 0, 2, 0.0), "s", 0.1)
    model = ScriptedModel([paid, ModelUnavailable("down")])
    with pytest.raises(ModelUnavailable) as caught:
        await QuotingWorker(model, chunks).read(chunks[0], "Where is the brass key?", EMPTY)
    usage: Any = caught.value.usage
    assert usage.prompt_tokens == 7


async def test_without_quotes_the_manager_says_that_there_is_nothing(book: Book) -> None:
    assert (await QuotingManager(ScriptedModel()).answer("Who?", EMPTY)).text == "The text does not say."


@pytest.mark.parametrize("seed", range(20))
async def test_a_read_takes_just_the_calls_it_demands_and_no_more_tokens(book: Book, seed: int) -> None:
    said_of_keys = ["Rain fell.", "A key of brass.", "The brass key of Ada.", "Ada hid a key.", "Ada hid brass.", "KEY"]
    chance = random.Random(seed)
    _, made = book(*[chance.choices(said_of_keys, k=chance.randint(1, 6)) for _ in range(chance.randint(1, 6))])
    question = "Where did Ada hide the brass key?"

    def respond(prompt: Prompt, _: Decoding) -> Completion:
        said = "one two " * 20
        n_prompt = sum(len(re.findall(r"\w+|[^\w\s]", m["content"])) for m in prompt.messages())
        return Completion(said, "stop", CallUsage(n_prompt, 0, len(said.split()), 0.0), "s", 0.0)

    worker, unit = QuotingWorker(ScriptedModel(respond=respond), made), EMPTY
    for chunk in made:
        demand = worker.demand(chunk, question, unit)
        reply = await worker.read(chunk, question, unit)
        assert demand.calls == reply.usage.calls
        assert demand.prompt_tokens >= reply.usage.prompt_tokens
        assert demand.completion_tokens >= reply.usage.completion_tokens
        assert worker.demand(chunk, None, unit).calls == 0
        unit = reply.unit
