"""The retriever: names of sentences that exist, however the reply puts them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.agents import Reference
from coa.agents.evidence import EvidenceLine
from coa.agents.retriever import LexicalRetriever, Retriever, RetrieverReply, numbers_up_to, read_numbers
from coa.errors import BadOutput
from coa.limits import FULL, SMALL, Limits
from coa.llm.chat import Completion
from coa.llm.scripted import ScriptedModel
from coa.reading import reading_prompt
from coa.types import Chunk, Document

Book = Callable[..., tuple[Document, list[Chunk]]]

QUESTION = "Where did Ada hide the brass key?"
SENTENCES = [
    "The harbour lay still that night.",
    "Ada hid the brass key under the third stone.",
    "She told nobody.",
    "Rain fell on the town.",
]


def _numbers(reply: RetrieverReply) -> list[int]:
    return [s.reference.sentence for s in reply.selected]


async def _retrieved(book: Book, limits: Limits, *replies: str | Completion, **kind: bool) -> RetrieverReply:
    _, chunks = book(SENTENCES)
    return await Retriever(ScriptedModel(replies, **kind), limits, FULL).retrieve(chunks[0], QUESTION)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "numbers"),
    [
        ("2, 3", [2, 3]),
        ("3,2", [3, 2]),
        ("[2] [3]", [2, 3]),
        ("[2, 3]", [2, 3]),
        ("**2**, **3**.", [2, 3]),
        ("[3.2], [3.3]", [2, 3]),
        ("2-4", [2, 3, 4]),
        ("2 to 4, 9", [2, 3, 4, 9]),
        ("[3.2-3.4]", [2, 3, 4]),
        ("2\n3\n", [2, 3]),
        ("- 2\n- 3", [2, 3]),
        ("Sentences 2 and 3", [2, 3]),
        ("The most useful sentences are:\n2, 3", [2, 3]),
        ("Sentence 2 states where the key was hidden in 1912, sentence 3 that she kept it secret.", [2, 3]),
        ("The 4 friends hid it [2] in 1912 (3).", [2, 3]),
        ("2. Ada hid the brass key under the third stone.\n3. She told nobody.", [2, 3]),
        ("2: Ada hid the brass key.\n", [2]),
        ('{"sentences": [2, 3]}', [2, 3]),
        ('```json\n{"sentences": [2, 3]}\n```', [2, 3]),
        ('{"sentences": ["2", "3"]', [2, 3]),
        ('{"sentences": []}', []),
        ("Sätze 2 und 3", [2, 3]),
        ("第2句和第3句", [2, 3]),
        ("NONE", []),
        ("None.", []),
        ("[]", []),
        ("2, 2, 2, 3", [2, 3]),
        ("[7.2]", []),
        ("None of the 4 sentences mentions the key.", None),
        ("The key lay under a stone in 1912.", None),
        ("Paris", None),
        ("", None),
    ],
)
def test_replies_are_read_whatever_their_form(reply: str, numbers: list[int] | None) -> None:
    assert read_numbers(reply, chunk=3) == numbers


def test_the_last_number_of_a_reply_that_was_cut_off_may_be_half_of_one() -> None:
    assert read_numbers("12, 15, 1", chunk=1, cut_off=True) == [12, 15]
    assert read_numbers("12, 15,", chunk=1, cut_off=True) == [12, 15]
    assert read_numbers("1", chunk=1, cut_off=True) is None


@given(st.text(alphabet="0123456789[](){}.,;:-– \nandtosentcNONE\"'", max_size=80))
def test_no_reply_is_a_crash_or_a_number_out_of_nothing(reply: str) -> None:
    numbers = read_numbers(reply, chunk=1) or []
    assert len(numbers) == len(set(numbers))
    assert not numbers or any(c.isdigit() for c in reply)


async def test_the_earlier_a_sentence_is_named_the_more_relevant_it_is(book: Book, limits: Limits) -> None:
    reply = await _retrieved(book, limits, "2, 1, 3")
    assert [s.reference for s in reply.selected] == [Reference(1, 2), Reference(1, 1), Reference(1, 3)]
    relevances = [s.relevance for s in reply.selected]
    assert relevances == sorted(relevances, reverse=True)
    assert relevances[0] == 1.0
    assert min(relevances) > 0


async def test_numbers_that_are_no_sentences_are_dropped_and_counted(book: Book, limits: Limits) -> None:
    reply = await _retrieved(book, limits, "2, 40, 0, 3")
    assert _numbers(reply) == [2, 3]
    assert reply.dropped == 2


@pytest.mark.parametrize("said", ["NONE", "No sentence mentions the key.", "The text does not say.", "没有提到。"])
async def test_a_refusal_selects_nothing_and_is_not_asked_again(book: Book, limits: Limits, said: str) -> None:
    reply = await _retrieved(book, limits, said)
    assert reply.selected == ()
    assert reply.usage.calls == 1


async def test_sentences_copied_in_place_of_numbers_are_found_by_code(book: Book, limits: Limits) -> None:
    reply = await _retrieved(book, limits, 'It says "Ada hid the brass\nkey under the third stone."')
    assert _numbers(reply) == [2]
    assert reply.how == "copied"


async def test_a_reply_of_no_use_is_asked_for_once_more(book: Book, limits: Limits) -> None:
    _, chunks = book(SENTENCES)
    model = ScriptedModel(["Under a stone, I believe.", "2"])
    reply = await Retriever(model, limits, FULL).retrieve(chunks[0], QUESTION)
    assert _numbers(reply) == [2]
    assert reply.usage.calls == 2
    assert model.calls[1].prompt.prefix == model.calls[0].prompt.prefix
    assert model.calls[1].prompt.tail != model.calls[0].prompt.tail


async def test_two_replies_of_no_use_are_an_error_with_their_usage(book: Book, limits: Limits) -> None:
    with pytest.raises(BadOutput) as caught:
        await _retrieved(book, limits, "Paris", "77, 78")
    assert caught.value.usage is not None
    assert caught.value.usage.calls == 2


async def test_whoever_names_everything_gets_the_first_twelve(book: Book, limits: Limits) -> None:
    _, chunks = book([f"Sentence number {n} of many." for n in range(40)])
    model = ScriptedModel([", ".join(str(n) for n in range(1, 41))])
    reply = await Retriever(model, limits, FULL).retrieve(chunks[0], QUESTION)
    assert _numbers(reply) == list(range(1, 13))


async def test_the_prompt_begins_with_the_reading_prefix_alone(book: Book, limits: Limits) -> None:
    _, chunks = book(SENTENCES)
    model = ScriptedModel(["2"])
    await Retriever(model, limits, FULL).retrieve(chunks[0], QUESTION)
    assert model.calls[0].prompt.prefix == reading_prompt(chunks[0], "x").prefix
    assert QUESTION in model.calls[0].prompt.tail


async def test_an_engine_with_grammars_can_only_name_what_exists(book: Book, limits: Limits) -> None:
    _, chunks = book(SENTENCES)
    model = ScriptedModel(["2"], supports_grammar=True, supports_schema=True)
    reply = await Retriever(model, limits, FULL).retrieve(chunks[0], QUESTION)
    decoding = model.calls[0].decoding
    assert decoding.schema is None
    assert decoding.grammar is not None
    assert 'number ::= [1-3] | "4"' in decoding.grammar
    assert "{0,3}" in decoding.grammar
    assert reply.how == "grammar"


async def test_an_engine_with_schemas_can_only_name_what_exists(book: Book, limits: Limits) -> None:
    _, chunks = book(SENTENCES)
    model = ScriptedModel(['{"sentences": [2]}'], supports_schema=True)
    reply = await Retriever(model, limits, FULL).retrieve(chunks[0], QUESTION)
    schema = cast("dict[str, Any]", model.calls[0].decoding.schema)
    assert schema["properties"]["sentences"]["items"] == {"type": "integer", "enum": [1, 2, 3, 4]}
    assert schema["properties"]["sentences"]["maxItems"] == 4
    assert "JSON" in model.calls[0].prompt.tail
    assert (reply.how, _numbers(reply)) == ("schema", [2])


@given(st.integers(1, 2500))
def test_the_grammar_of_numbers_holds_exactly_those_up_to_n(n: int) -> None:
    alternatives = [re.sub(r'"(\d+)" ?', r"\1", part) for part in numbers_up_to(n).split(" | ")]
    pattern = re.compile("|".join(f"(?:{part})" for part in alternatives))
    for k in {1, 9, 10, n // 2, n - 1, n} - {0}:
        assert (pattern.fullmatch(str(k)) is not None) == (k <= n)
    for wrong in ("0", "01", "", str(n + 1), str(n * 10), f"{n}."):
        assert pattern.fullmatch(wrong) is None


async def test_evidence_so_far_is_shown_and_the_least_relevant_goes_first(book: Book, limits: Limits) -> None:
    _, chunks = book(SENTENCES)
    lines = [EvidenceLine((Reference(n, 1),), (f"Fact {n} " + "word " * 60,), n / 20) for n in range(1, 15)]
    model = ScriptedModel(["2"])
    await Retriever(model, limits, FULL).retrieve(chunks[0], QUESTION, lines)
    tail = model.calls[0].prompt.tail
    shown = [n for n in range(1, 15) if f"[{n}.1]" in tail]
    assert 0 < len(shown) < 14
    assert shown == list(range(15 - len(shown), 15))


def test_a_model_that_cannot_name_sentences_is_refused(limits: Limits) -> None:
    with pytest.raises(ValueError, match="small"):
        Retriever(ScriptedModel(), limits, SMALL)


async def _picked(retriever: LexicalRetriever, chunks: Sequence[Chunk], query: str) -> list[Reference]:
    return [s.reference for c in chunks for s in (await retriever.retrieve(c, query)).selected]


async def test_code_picks_the_best_sentences_of_the_whole_document(book: Book) -> None:
    _, chunks = book(SENTENCES, ["The key was of brass.", "Nobody slept."], ["Rain fell again."])
    picked = await _picked(LexicalRetriever(chunks, most=2), chunks, QUESTION)
    assert picked == [Reference(1, 2), Reference(2, 1)]
    reply = await LexicalRetriever(chunks, most=2).retrieve(chunks[0], QUESTION)
    assert reply.selected[0].relevance == 1.0
    assert (reply.how, reply.usage.calls) == ("lexical", 0)


async def test_code_picks_anew_for_another_query(book: Book) -> None:
    _, chunks = book(SENTENCES)
    retriever = LexicalRetriever(chunks, most=1)
    assert await _picked(retriever, chunks, QUESTION) == [Reference(1, 2)]
    assert await _picked(retriever, chunks, "Where did rain fall?") == [Reference(1, 4)]


async def test_code_picks_nothing_where_no_word_is_shared(book: Book) -> None:
    _, chunks = book(SENTENCES)
    assert await _picked(LexicalRetriever(chunks), chunks, "Quantum chromodynamics?") == []
