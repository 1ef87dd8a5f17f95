"""Chapter numbers as headings write them: digits, Roman, words in seven languages, Chinese."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

__all__ = ["chinese_number", "parse_number", "roman_number"]

_ROMAN = re.compile(r"(?=[ivxlc])(c{0,3})(xc|xl|l?x{0,4})(ix|iv|v?i{0,4})", re.IGNORECASE)
_ROMAN_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}

# Numbers from 1 on, in order; "/" parts spellings. Compared without accents and case.
_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty",
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth"
    " fifteenth sixteenth seventeenth eighteenth nineteenth twentieth",
    "eins zwei drei vier funf sechs sieben acht neun zehn elf zwolf dreizehn vierzehn funfzehn sechzehn siebzehn"
    " achtzehn neunzehn zwanzig einundzwanzig zweiundzwanzig dreiundzwanzig vierundzwanzig funfundzwanzig",
    "erst zweit dritt viert funft sechst siebent/siebt acht neunt zehnt elft zwolft dreizehnt vierzehnt funfzehnt"
    " sechzehnt siebzehnt achtzehnt neunzehnt zwanzigst einundzwanzigst zweiundzwanzigst dreiundzwanzigst"
    " vierundzwanzigst funfundzwanzigst sechsundzwanzigst siebenundzwanzigst achtundzwanzigst neunundzwanzigst"
    " dreissigst einunddreissigst zweiunddreissigst dreiunddreissigst vierunddreissigst funfunddreissigst",
    "premier/premiere deuxieme/second/seconde troisieme quatrieme cinquieme sixieme septieme huitieme neuvieme"
    " dixieme onzieme douzieme treizieme quatorzieme quinzieme seizieme dix-septieme dix-huitieme dix-neuvieme"
    " vingtieme",
    "un/une deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept"
    " dix-huit dix-neuf vingt",
    "primero/primer/primera segundo/segunda tercero/tercer/tercera cuarto/cuarta quinto/quinta sexto/sexta"
    " septimo/septima octavo/octava noveno/novena decimo/decima undecimo/undecima duodecimo/duodecima",
    "uno/una dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete"
    " dieciocho diecinueve veinte",
    "primo/prima secondo/seconda terzo/terza quarto/quarta quinto/quinta sesto/sesta settimo/settima ottavo/ottava"
    " nono/nona decimo/decima undicesimo dodicesimo tredicesimo quattordicesimo quindicesimo",
    "primeiro/primeira segundo/segunda terceiro/terceira quarto/quarta quinto/quinta sexto/sexta setimo/setima"
    " oitavo/oitava nono/nona decimo/decima",
    "eerste tweede derde vierde vijfde zesde zevende achtste negende tiende elfde twaalfde dertiende veertiende"
    " vijftiende zestiende zeventiende achttiende negentiende twintigste",
    "первая/первый вторая/второй третья/третий четвертая/четвертыи пятая шестая седьмая восьмая девятая десятая"
    " одиннадцатая двенадцатая",
)
_ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_GERMAN_ENDINGS = ("es", "er", "en", "em", "e", "")

_CHINESE_DIGITS = {c: i for i, c in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2, "兩": 2}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}


def parse_number(word: str) -> int | None:
    """The number that `word` stands for, cardinal or ordinal; None where it is none."""
    plain = _plain(word)
    if match := re.fullmatch(r"(\d{1,4})(?:st|nd|rd|th|er|ere|e|eme|\.|º|ª|o|a)?", plain):
        return int(match.group(1))
    return _word_table().get(plain) or roman_number(word)


def roman_number(word: str) -> int | None:
    """The value of a Roman numeral below 400 in capitals or small letters, four alike in a row allowed."""
    if not (word.isupper() or word.islower()) or not _ROMAN.fullmatch(word):
        return None
    values = [_ROMAN_VALUES[c] for c in word.lower()]
    return sum(-v if v < max(values[i + 1 :], default=0) else v for i, v in enumerate(values))


def chinese_number(word: str) -> int | None:
    """The value of Chinese numerals ("十二", "一〇八"), or of digits of any width."""
    plain = unicodedata.normalize("NFKC", word)
    if plain.isdecimal():
        return int(plain)
    if any(c not in _CHINESE_DIGITS and c not in _CHINESE_UNITS for c in word):
        return None
    if not any(c in _CHINESE_UNITS for c in word):
        return int("".join(str(_CHINESE_DIGITS[c]) for c in word)) if word else None
    total, digit = 0, 0
    for c in word:
        if c in _CHINESE_UNITS:
            total += (digit or 1) * _CHINESE_UNITS[c]
            digit = 0
        else:
            digit = _CHINESE_DIGITS[c]
    return total + digit


@cache
def _word_table() -> dict[str, int]:
    table: dict[str, int] = {}
    for line in _WORDS:
        for value, spellings in enumerate(line.split(), 1):
            for spelling in spellings.split("/"):
                table.setdefault(spelling, value)
                if line.startswith("erst "):
                    table.update({spelling + ending: value for ending in _GERMAN_ENDINGS if ending})
    ones = _WORDS[0].split()[:9], _WORDS[1].split()[:9]
    for ten, word in enumerate(_ENGLISH_TENS.split(), 2):
        table[word] = ten * 10
        table[word.removesuffix("y") + "ieth"] = ten * 10
        for words in ones:
            table.update({f"{word}-{one}": ten * 10 + i for i, one in enumerate(words, 1)})
    return table


def _plain(word: str) -> str:
    decomposed = unicodedata.normalize("NFD", word.lower().replace("ß", "ss"))
    return "".join(c for c in decomposed if not unicodedata.combining(c))
