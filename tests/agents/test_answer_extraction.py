"""Answers that code picks out of a sentence: spans of it, of the kind that was asked for."""

from __future__ import annotations

import json
import math
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.agents.extracting import convincing, extract
from coa.agents.lexical import SentenceRanker
from coa.agents.questions import Kind, asked
from coa.agents.word_classes import COLOURS

pytestmark = pytest.mark.slow

ENGLISH = "In 1921 the doctor Maria Lopez bought a green bicycle in Lisbon for forty crowns."
GERMAN = "1921 kaufte die Ärztin Maria Lopez in Lissabon ein grünes Fahrrad für vierzig Kronen."
FRENCH = "En 1921 le docteur Maria Lopez acheta une bicyclette verte à Lisbonne pour quarante couronnes."
SPANISH = "En 1921 la doctora María López compró una bicicleta verde en Lisboa por cuarenta coronas."
CHINESE = "1921年，王小明在上海用四十元买了一辆绿色的自行车。"


def _even(_: str) -> float:
    return 5.0


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What colour was the door?", "colour"),
        ("In which year did she leave?", "when"),
        ("How far is it to the mill?", "number"),
        ("Why did he weep?", "why"),
        ("To whom did she write?", "who"),
        ("In what street does he live?", "where"),
        ("What did the sign over the gate say?", "words"),
        ("What was the name of the ship?", "name"),
        ("How did they cross the river?", "how"),
        ("Which tool did he break?", "which"),
        ("What did he break when he fell?", "what"),
        ("How old was she when he left?", "number"),
        ("The smith had a son; what did he make?", "what"),
        ("Welche Farbe hatte die Tür?", "colour"),
        ("Wie viele Räder hat der Wagen?", "number"),
        ("Wem gehört das Haus?", "who"),
        ("Wohin ging er?", "where"),
        ("Wie heißt die Katze?", "name"),
        ("De quelle couleur est la porte ?", "colour"),
        ("Combien de roues ?", "number"),
        ("Où habite-t-il ?", "where"),
        ("Pourquoi pleure-t-elle ?", "why"),
        ("¿De qué color es la puerta?", "colour"),
        ("¿Cuándo llegó?", "when"),
        ("¿Quién abrió la puerta?", "who"),
        ("门是什么颜色的？", "colour"),
        ("谁打开了门？", "who"),
        ("他什么时候来的？", "when"),
        ("有多少人？", "number"),
        ("他住在哪里？", "where"),
        ("The door", "what"),
        ("", "what"),
    ],
)
def test_the_kind_of_answer_is_told_by_the_question_word_that_comes_first(question: str, kind: Kind) -> None:
    assert asked(question).kind == kind


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        (ENGLISH, "What colour was the bicycle?", "green"),
        (ENGLISH, "When did Maria Lopez buy the bicycle?", "1921"),
        (ENGLISH, "Who bought a green bicycle?", "Maria Lopez"),
        (ENGLISH, "How many crowns did the bicycle cost?", "forty"),
        (GERMAN, "Wann kaufte Maria Lopez das Fahrrad?", "1921"),
        (GERMAN, "Wie viele Kronen kostete das Fahrrad?", "vierzig"),
        (FRENCH, "Qui acheta une bicyclette verte ?", "Maria Lopez"),
        (FRENCH, "Combien de couronnes coûta la bicyclette ?", "quarante"),
        (SPANISH, "¿Quién compró una bicicleta verde?", "María López"),
        (SPANISH, "¿Cuántas coronas costó la bicicleta?", "cuarenta"),
    ],
)
def test_plain_questions_of_four_languages_get_their_words(sentence: str, question: str, answer: str) -> None:
    found = extract(sentence, question, _even)
    assert found is not None
    assert found.text == answer


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("The bicycle stood in the yard of the inn.", "What colour was the bicycle?"),
        ("The bicycle stood in the yard of the inn.", "How many bicycles stood there?"),
        ("The bicycle stood in the yard of the inn.", "In which year did the bicycle stand there?"),
        ("自行车在院子里。", "自行车是什么颜色的？"),
        ("", "Who?"),
        ("?!", "Who?"),
    ],
)
def test_a_sentence_without_a_thing_of_that_kind_has_no_answer(sentence: str, question: str) -> None:
    found = extract(sentence, question, _even)
    assert found is None
    assert convincing(found, sentence, question) == ""


def test_a_colour_is_all_that_a_question_about_a_colour_gets() -> None:
    for sentence, question in ((FRENCH, "De quelle couleur était la bicyclette ?"), (CHINESE, "自行车是什么颜色的？")):
        found = extract(sentence, question, _even)
        assert found is not None
        assert any(colour in found.text.casefold() for colour in COLOURS)


def test_a_reply_of_a_model_moves_the_choice_and_is_never_taken_itself() -> None:
    sentence = "Ada Lovell saw that Bo Trent rang the bell."
    alone = extract(sentence, "Who rang the bell?", _even)
    assert alone is not None
    for name in ("Ada Lovell", "Bo Trent"):
        found = extract(sentence, "Who rang the bell?", _even, said=f"{name} did.")
        assert found is not None
        assert found.text == name
    assert alone == extract(sentence, "Who rang the bell?", _even, said="Cy Dunn")


@pytest.mark.parametrize(
    ("sentence", "question", "whole"),
    [
        ("The brass key is not under the stone.", "Where is the brass key?", True),
        ("The key isn't under the stone.", "Where is the key?", True),
        ("Le chat n'est pas sous la table.", "Où est le chat ?", True),
        ("She never slept, and the key lay under the stone.", "Where did the key lie?", False),
        ("Nothing lay under the stone.", "What did not lie under the stone?", False),
    ],
)
def test_what_a_clause_denies_is_not_cut_out_of_it(sentence: str, question: str, whole: bool) -> None:
    found = extract(sentence, question, _even)
    assert found is not None
    sure = type(found)(found.text, 1.0)
    told = convincing(sure, sentence, question)
    assert (told == "" or "n'" in told) == whole


WORDS = (
    "Ada",
    "key",
    "(",
    ")",
    "“",
    "”",
    "not",
    "the",
    "1921",
    ",",
    ":",
    "green",
    "钥匙",
    "在",
    "of",
    "-",
    "it’s",
    ".",
    "é",
)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=14).flatmap(
    lambda words: st.sampled_from([" ".join(words), "".join(words)])
)
QUESTIONS = st.sampled_from(
    ["Who has the key?", "Where?", "", "What colour is the key of Ada?", "钥匙在哪里？", "When?", "key", "Wie viele?"]
)


@settings(deadline=None, max_examples=200)
@given(TEXTS, QUESTIONS, TEXTS)
def test_an_answer_is_a_span_of_the_sentence_and_the_same_each_time(sentence: str, question: str, said: str) -> None:
    ranker = SentenceRanker([sentence])
    found = extract(sentence, question, ranker.rarity, said=said)
    assert found == extract(sentence, question, ranker.rarity, said=said)
    if found is not None:
        assert found.text
        assert found.text in sentence
        assert 0.0 <= found.confidence <= 1.0 + 1e-9
        assert convincing(found, sentence, question) in ("", found.text)
        assert found.text.count("(") == found.text.count(")")


@pytest.mark.parametrize("clause", ["Ada Lovell rang the bell, ", "王小明打开了门，"])
def test_of_a_sentence_without_end_only_the_beginning_is_looked_at(clause: str) -> None:
    sentence = clause * 5_000
    found = extract(sentence, "Who rang the bell?", _even)
    assert found is not None
    assert found == extract(sentence[:1_200], "Who rang the bell?", _even)


def test_the_shipped_weights_are_finite_and_name_features_that_exist() -> None:
    text = (resources.files("coa.agents") / "span_weights.json").read_text(encoding="utf-8")
    weights = json.loads(text)
    assert set(weights) == {"spaced", "wide"}
    for of in weights.values():
        assert len(of) > 100
        assert all(math.isfinite(w) and abs(w) < 10 for w in of.values())
    assert {"repeats", "near", "who:all capital", "before article"} <= set(weights["spaced"])
