"""What is answered when the text does not say, in the language of the question."""

from __future__ import annotations

import re

from coa.documents.languages import guess_language

__all__ = ["NOTHING_FOUND", "is_nothing_found", "nothing_found", "question_language"]

_PHRASES = {
    "ar": "لا يذكر النص ذلك.",
    "cs": "Text to neuvádí.",
    "da": "Det fremgår ikke af teksten.",
    "de": "Der Text sagt es nicht.",
    "el": "Το κείμενο δεν το αναφέρει.",
    "en": "The text does not say.",
    "es": "El texto no lo dice.",
    "fi": "Teksti ei kerro sitä.",
    "fr": "Le texte ne le dit pas.",
    "he": "הטקסט אינו אומר זאת.",
    "hi": "पाठ में यह नहीं बताया गया है।",
    "hu": "A szövegből ez nem derül ki.",
    "it": "Il testo non lo dice.",
    "ja": "本文には書かれていません。",
    "ko": "본문에 나와 있지 않습니다.",
    "nl": "De tekst zegt het niet.",
    "no": "Det går ikke fram av teksten.",
    "pl": "Tekst tego nie podaje.",
    "pt": "O texto não o diz.",
    "ro": "Textul nu spune acest lucru.",
    "ru": "В тексте об этом не говорится.",
    "sv": "Det framgår inte av texten.",
    "tr": "Metinde bu belirtilmiyor.",
    "uk": "У тексті про це не йдеться.",
    "vi": "Văn bản không nói điều đó.",
    "zh": "文中没有提到。",
}
NOTHING_FOUND = _PHRASES["en"]

# What questions begin with or are built from; words that two of these languages share are told apart by the others.
_ASKING = {
    "cs": "kdo co kde kdy proč jak který která kolik je jsou byl byla se na do pro",
    "da": "hvem hvad hvor hvornår hvorfor hvordan hvilken hvilket er var af og ikke mange det blev",
    "de": "wer was wo wann warum wie welche welcher welches wem wen woher ist hat der die das und war es sich",
    "en": "who what where when why how which whose whom is did does do the of and are has were to",
    "es": "quién quien qué que dónde donde cuándo cuando cómo por cuál cuántos cuántas es el la los las del en se",
    "fi": "kuka mikä mitä missä milloin miksi miten kuinka mistä on oli ja ei kenen montako moni",
    "fr": "qui que quoi où quand pourquoi comment quel quelle quels quelles combien est le la les des du et",
    "hu": "ki mi hol mikor miért hogyan melyik mennyi hány az és volt nem kinek mit",
    "it": "chi che cosa dove quando perché come quale quali quanti quanto è il lo gli della di nel si",
    "nl": "wie wat waar wanneer waarom hoe hoeveel welke is was het de een van heeft en niet waren",
    "no": "hvem hva hvor når hvorfor hvordan hvilken hvilket er var av og ikke mange det ble",
    "pl": "kto co gdzie kiedy dlaczego jak który która ile jest są był była się na do czy nie",
    "pt": "quem que os onde quando porquê como qual quais quantos quanto é do da não em foi uma",
    "ro": "cine ce unde când de cum care câți câte este sunt era și în nu din pe",
    "sv": "vem vad var när varför hur vilken vilket är var av och inte många det blev som",
    "tr": "kim ne nerede zaman niçin neden nasıl hangi kaç mı mi bir ve için kimin değil",
    "vi": "ai gì đâu khi nào tại sao thế là của và không có bao nhiêu người",
}
_WORDS = {language: frozenset(words.split()) for language, words in _ASKING.items()}
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile("[\u3400-\u9fff]")),
    ("uk", re.compile("[іїєґІЇЄҐ]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
)
_ENDING = " \t\n.!。।"


def nothing_found(language: str | None) -> str:
    """The sentence for an ISO 639-1 code; English where the code is None or unknown."""
    return _PHRASES.get(language or "en", NOTHING_FOUND)


def is_nothing_found(text: str) -> bool:
    """True for what `nothing_found` gives in any language, its full stop and case apart."""
    return _bare(text) in _KNOWN


def question_language(question: str) -> str | None:
    """ISO 639-1 of a question by its script or its question words; None where that leaves a doubt.

    Questions are too short for `guess_language`, which is asked where the words of two languages fit alike.
    """
    letters = sum(c.isalpha() for c in question)
    for language, script in _SCRIPTS:
        # A name in another script is not the question's language; kana and Ukrainian letters are never many.
        n = len(script.findall(question))
        if n and (language in {"ja", "uk"} or n > letters / 2):
            return language
    words = {w.casefold().replace("’", "'") for w in _WORD.findall(question)}
    shares = sorted(((len(known & words), language) for language, known in _WORDS.items()), reverse=True)
    (best, language), (second, _) = shares[:2]
    return language if best > second else guess_language(question)


def _bare(text: str) -> str:
    return " ".join(text.strip(_ENDING).casefold().split())


_KNOWN = frozenset(_bare(phrase) for phrase in _PHRASES.values())
