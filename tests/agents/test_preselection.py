"""Passages hold every sentence once; the ranking follows names, in every script, and finds more than plain BM25."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coa.agents.preselection import Passage, PassageRanker, passages_of
from coa.sentences import split_sentences
from coa.types import Chunk, Span
from tests.tools import retrieval_figures as tool

pytestmark = pytest.mark.slow


def _chunks(*texts: str, language: str = "en") -> list[Chunk]:
    chunks, start = [], 0
    for index, text in enumerate(texts):
        spans = tuple(Span(start + a, start + b) for a, b in split_sentences(text, language))
        chunks.append(Chunk(index, text, Span(start, start + len(text)), spans, 1, "chars", False))
        start += len(text)
    return chunks


def _ranked(query: str, *passages: str) -> list[int]:
    made = [Passage(n, 1, 1, text, tool.heading_of(text)) for n, text in enumerate(passages)]
    return [r.at for r in PassageRanker(made).best(query, len(made))]


PARAGRAPH = "The ferry crossed the sound every morning with barrels of herring aboard, and nobody asked why. " * 5

paragraphs = st.lists(
    st.sampled_from(
        [
            "One short line.\n\n",
            "A Heading\n\n",
            "# Chapter 3\n\n",
            "Title line\nFollowed by a sentence that is longer than its title. And one more.\n\n",
            PARAGRAPH + "\n\n",
            "“Where?” she said.\n“There,” said he.\n\n",
            "他把钥匙藏在石头下面。没有人知道。\n",
            "word " * 400 + "\n\n",
            "\n\n\n",
        ]
    ),
    max_size=8,
)


@given(st.lists(paragraphs, max_size=4))
def test_passages_hold_every_sentence_exactly_once_and_cross_no_chunk(parts: list[list[str]]) -> None:
    chunks = _chunks(*("".join(part) for part in parts))
    held = [(p.chunk, n) for p in passages_of(chunks) for n in range(p.first, p.last + 1)]
    assert held == [(c.index, n) for c in chunks for n in range(1, len(c.sentences) + 1)]


def test_passages_are_about_a_paragraph_long() -> None:
    sizes = [len(p.text) for p in passages_of(_chunks("\n\n".join(["Yes.", "No.", PARAGRAPH * 6] * 4)))]
    assert max(sizes) <= 1300
    assert sum(sizes) / len(sizes) > 400


def test_the_rest_of_a_line_that_was_begun_before_is_no_heading() -> None:
    text = (
        "The elm grew by the door and nobody\nwho came ever saw it. And when\nMr. Denny came, he did not see it either."
    )
    chunk = _chunks(text)[0]
    cut = chunk.sentences[1].start
    halves = [
        Chunk(0, text[:cut], Span(0, cut), chunk.sentences[:1], 1, "chars", False),
        Chunk(1, text[cut:], Span(cut, len(text)), chunk.sentences[1:], 1, "chars", False),
    ]
    assert tool.heading_of(text[cut:]) == "And when"
    assert [p.heading for p in passages_of(halves)] == ["", ""]


@pytest.mark.parametrize(
    ("text", "heading"),
    [
        ("Curve (magazine)\nCurve is a magazine that has been published in the United States.", "Curve"),
        ("## Installation\n\nRun the setup program and restart the machine twice.", "Installation"),
        ("CHAPTER III\n\nIt was late.", "CHAPTER III"),
        ("北京市\n北京市是中华人民共和国的首都，也是全国的政治中心和文化中心。", "北京市"),
        ("There was once upon a time a King who had a wife with golden hair and she was so\nvery fair that", ""),
        ("He left.\nShe stayed in the house for the whole of that long winter.", ""),
        ("“Who goes there?”\n“Nobody at all, my dear sir, and least of all a thief.”", ""),
        ("Only a title", ""),
    ],
)
def test_a_heading_is_a_line_of_its_own_that_ends_before_it_had_to(text: str, heading: str) -> None:
    assert tool.heading_of(text) == heading


def test_a_heading_begins_a_passage_however_short_the_one_before() -> None:
    made = passages_of(_chunks("Elm\nThe elm is a tree of the north.\n\nOak\nThe oak is a tree of the south.\n\n"))
    assert [p.heading for p in made] == ["Elm", "Oak"]


CAMPAIGN = "Rand Campaign\nThe campaign of the senator was announced in April at an event at the Galt House, they say."
HOTEL = "Galt House\nThe Galt House is a building of twenty-five storeys on the Ohio and was rebuilt in 1972."
OTHERS = [
    f"River number {n}\nThe river number {n} is a river on whose banks no hotel was ever held to be of note."
    for n in range(8)
]


def test_the_second_step_of_a_question_is_found_by_the_first() -> None:
    query = "The campaign of the senator was announced at a hotel on what river?"
    assert _ranked(query, *OTHERS, CAMPAIGN, HOTEL)[:2] == [8, 9]
    unnamed = HOTEL.removeprefix("Galt House\n")
    assert 9 not in _ranked(query, *OTHERS, CAMPAIGN, unnamed)[:2]


def test_a_heading_that_the_question_names_comes_before_passages_that_only_mention_it() -> None:
    mention = "Birch\nAs tall as the elm, and as old as the elm, the birch was thought an elm by those who knew no elm."
    named = "Elm\nA tree of the north, with leaves that are larger on one side than they are on the other."
    assert _ranked("How large are the leaves of Elm?", mention, named)[0] == 1


def test_chunks_are_ranked_by_their_best_passage() -> None:
    filler = PARAGRAPH + "\n\n"
    chunks = _chunks(filler * 3, filler + "Ada hid the brass key under the third stone.\n\n" + filler, filler * 2)
    ranker = PassageRanker(passages_of(chunks))
    assert [r.at for r in ranker.best_chunks("Where did Ada hide the brass key?", 2)] == [1]
    assert ranker.best_chunks("Quantum chromodynamics?", 2) == []


@pytest.mark.parametrize(
    ("language", "query", "passages"),
    [
        ("zh", "钥匙藏在哪里？", ["下雨了，没有人睡觉。", "阿达把钥匙藏在第三块石头下面。", "磨坊主什么也没说。"]),
        ("ja", "鍵はどこに隠されましたか", ["雨が降った。", "彼女は石の下に鍵を隠した。", "誰も眠らなかった。"]),
        (
            "de",
            "Wo versteckte Ada den Schlüssel?",
            ["Es regnete.", "Ada versteckte den Schlüssel gut.", "Niemand schlief."],
        ),
    ],
)
def test_other_scripts_are_ranked_too(language: str, query: str, passages: Sequence[str]) -> None:
    assert _ranked(query, *passages)[0] == 1


def test_without_passages_there_is_nothing_to_rank() -> None:
    assert PassageRanker([]).best("anything", 3) == []
    assert PassageRanker([]).best_chunks("anything", 3) == []


needs_data = pytest.mark.skipif(not tool.DATA.is_dir(), reason=f"there is no folder {tool.DATA}")


@pytest.mark.data
@needs_data
def test_both_paragraphs_of_two_step_questions_are_found_more_often_than_by_plain_bm25() -> None:
    collection = tool.hotpot()
    ours, plain = tool.passage_ranker(collection.paragraphs), tool.plain_bm25(collection.paragraphs)
    for half in tool.halves(collection).values():
        assert tool.figures(ours, half).recall[5] >= tool.figures(plain, half).recall[5] + 0.2
    found = tool.figures(ours, collection.questions)
    assert found.recall[5] >= 0.8
    assert found.recall[10] >= 0.95


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", ["xquad/de", "xquad/zh", "cmrc"])
def test_texts_without_headings_lose_nothing(name: str) -> None:
    collection = tool.COLLECTIONS[name]()
    questions = collection.questions[:150]
    ours = tool.figures(tool.passage_ranker(collection.paragraphs), questions)
    plain = tool.figures(tool.plain_bm25(collection.paragraphs), questions)
    assert ours.recall[5] >= plain.recall[5] - tool.TOLERATED
    assert ours.mrr >= plain.mrr - tool.TOLERATED


@pytest.mark.data
@needs_data
def test_the_tool_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["hotpot100"]) == 0
    assert tool.main(["hotpot100", "--chunks"]) == 0
    table = capsys.readouterr().out
    assert "| hotpot100 | 484 | 25 unseen | coa |" in table
    assert "| hotpot100 | 65 | 50 | " in table
