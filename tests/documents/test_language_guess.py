"""The language of a text."""

from __future__ import annotations

import pytest

from coa.documents.languages import guess_language, language_code

TEXTS = {
    "en": "It is a truth universally acknowledged that a single man in possession"
    " of a good fortune must be in want of a wife.",
    "de": "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte,"
    " fand er sich in seinem Bett zu einem Ungeziefer.",
    "fr": "En l'année 1872, la maison portant le numéro 7 était habitée"
    " par un homme qui ne parlait pas et que l'on aimait.",
    "es": "Se puso el sol. Tras el breve crepúsculo vino la noche, en cuyo"
    " seno murieron los últimos rumores de la tierra.",
    "it": "Quel ramo del lago di Como che volge a mezzogiorno, tra due catene"
    " non interrotte di monti, era una valle della costiera.",
    "pt": "Não consultes médico. Uma noite destas, vindo da cidade para"
    " o Engenho Novo, encontrei um rapaz que não conheço, mas era ele.",
    "nl": "Ik ben makelaar in koffie en woon op de Lauriergracht. Het is"
    " niet mijn gewoonte om te schrijven, maar ik zal het doen.",
    "zh": "却说美猴王荣归故里，自剿了混世魔王，夺了一口大刀，逐日操演武艺。",
    "ja": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "ko": "안녕하세요 저는 학생입니다 오늘은 날씨가 참 좋아서 산책을 했습니다",
    "ru": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива.",
    "ar": "كان يا ما كان في قديم الزمان ملك عظيم يحكم بلادا واسعة",
}


@pytest.mark.parametrize("language", TEXTS)
def test_language_of(language: str) -> None:
    assert guess_language(TEXTS[language]) == language


@pytest.mark.parametrize(
    "text",
    ["", "12345 67890", "Hello.", "Українська мова її історія і є іншою від російської мови " * 2, "x1 y2 " * 50],
)
def test_unsure_is_none(text: str) -> None:
    assert guess_language(text) is None


def test_names_and_codes_of_headers() -> None:
    assert [language_code(n) for n in ("English", "German (Swiss)", "pt-BR", "Klingon", "")] == [
        "en",
        "de",
        "pt",
        None,
        None,
    ]
