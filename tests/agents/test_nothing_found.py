"""Saying that the text does not say: in the question's language, and known again by code."""

from __future__ import annotations

import pytest

from coa.agents import Manager, QuotingManager
from coa.agents.languages import LANGUAGES
from coa.agents.nothing_found import is_nothing_found, nothing_found, question_language
from coa.limits import FULL, Limits
from coa.llm.scripted import ScriptedModel
from coa.types import CommunicationUnit

QUESTIONS = {
    "en": ["Who wrote the will?", "Did Ada leave?", "How many salt pans did Sallowhythe have?"],
    "de": ["Wer schrieb das Testament?", "In was verwandelt sich Gregor Samsa?", "Wann starb Ahab?"],
    "fr": ["Qui a écrit le testament ?", "Où habite Emma ?", "Combien de voiles le navire a-t-il ?"],
    "es": ["¿Quién escribió el testamento?", "¿Dónde vive Dulcinea?"],
    "it": ["Chi ha scritto il testamento?", "Dove abita Lucia?"],
    "nl": ["Wie schreef het testament?"],
    "pl": ["Kto napisał testament?"],
    "tr": ["Vasiyeti kim yazdı?"],
    "zh": ["谁写了遗嘱?", "Ahab 住在哪里,为什么?"],
    "ja": ["遺言は誰が書いたのですか。"],
    "ko": ["누가 유언장을 썼습니까?"],
    "ru": ["Кто написал завещание?"],
    "uk": ["Хто написав заповіт і коли?"],
    "ar": ["من كتب الوصية؟"],
    "el": ["Ποιος έγραψε τη διαθήκη;"],
}


@pytest.mark.parametrize(("language", "question"), [(c, q) for c, found in QUESTIONS.items() for q in found])
def test_a_questions_language_shows_in_its_script_or_its_question_words(language: str, question: str) -> None:
    assert question_language(question) == language


@pytest.mark.parametrize("question", ["", "?", "Ahab", "Name Gregor Samsa.", "Quo vadis"])
def test_without_a_word_of_any_language_there_is_no_guess(question: str) -> None:
    assert question_language(question) is None


def test_each_language_that_prompts_name_has_its_own_words() -> None:
    assert all(nothing_found(code) != nothing_found("en") for code in LANGUAGES if code != "en")
    assert nothing_found(None) == nothing_found("xx") == nothing_found("en")


@pytest.mark.parametrize("code", LANGUAGES)
def test_it_is_known_again_in_every_language(code: str) -> None:
    said = nothing_found(code)
    assert is_nothing_found(said)
    assert is_nothing_found(f"  {said.rstrip('.。।').upper()}\n")


@pytest.mark.parametrize("text", ["", "The text does not say why. Ada leaves.", "The text says it.", "No."])
def test_other_answers_are_not_taken_for_it(text: str) -> None:
    assert not is_nothing_found(text)


@pytest.mark.parametrize(
    ("language", "question", "said"),
    [
        (None, "Wer schrieb das Testament?", "Der Text sagt es nicht."),
        (None, "谁写了遗嘱?", "文中没有提到。"),
        ("fr", "Wer schrieb das Testament?", "Le texte ne le dit pas."),
        ("de", None, "Der Text sagt es nicht."),
        (None, None, "The text does not say."),
    ],
)
async def test_a_manager_says_it_in_the_asked_language_without_a_call(
    limits: Limits, language: str | None, question: str | None, said: str
) -> None:
    model = ScriptedModel()
    heard: list[str] = []
    reply = await Manager(model, limits, FULL, language=language).answer(
        question, CommunicationUnit(), on_text=heard.append
    )
    assert (reply.text, "".join(heard), model.calls) == (said, said, [])
    if language is None:
        assert (await QuotingManager(model).answer(question, CommunicationUnit())).text == said
