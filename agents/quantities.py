"""The words of a statement in order, numbers read: "two hundred and forty" and "240" are the same word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from coa.agents.lexical import content_words, stem
from coa.documents.numbers import chinese_number

__all__ = ["Token", "tokens_of"]

_TOKEN = re.compile(
    r"(?P<digits>\d+(?:[.,]\d+)*)(?P<ordinal>st|nd|rd|th)?\b"
    r"|(?P<chinese>[〇零一二两兩三四五六七八九十百千万]+(?=[年月日岁歲个個人名只隻块塊里位次天元號号章条條]))"
    r"|(?P<wide>[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])"
    r"|(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)?)"
    r"|(?P<clause>[.,;:!?…—。，；：！？、()\[\]\"“”«»])"
)
_CONTRACTED = re.compile(r"n['’]t\b", re.IGNORECASE)
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")


def _values(words: str, start: int = 1, step: int = 1) -> dict[str, int]:
    return {word: start + n * step for n, words in enumerate(words.split()) for word in words.split("/")}


# "one" and its like are articles and pronouns; they count only inside a larger number.
_ONES = _values("one/ein/eine/un/une/uno/una")
_SMALL = {
    **_values(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
        " eighteen nineteen",
        2,
    ),
    **_values(
        "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn"
        " achtzehn neunzehn",
        2,
    ),
    **_values("deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize", 2),
    **_values(
        "dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete"
        " dieciocho diecinueve",
        2,
    ),
}
_TENS = {
    **_values("twenty thirty forty fifty sixty seventy eighty ninety", 20, 10),
    **_values("zwanzig dreißig/dreissig vierzig fünfzig sechzig siebzig achtzig neunzig", 20, 10),
    **_values("vingt/vingts trente quarante cinquante soixante", 20, 10),
    **_values("veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa", 20, 10),
}
_UNITS = {
    "hundred": 100, "hundert": 100, "cent": 100, "cents": 100, "cien": 100, "ciento": 100,
    "thousand": 1000, "tausend": 1000, "mille": 1000, "mil": 1000, "million": 10**6, "millions": 10**6,
}  # fmt: skip
_ALONE = {"dozen": 12, "dutzend": 12, "douzaine": 12, "docena": 12, "twice": 2, "zweimal": 2}
_ORDINALS = {
    **_values(
        "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth", 3
    ),
    **_values("troisième quatrième cinquième sixième septième huitième neuvième dixième", 3),
    **_values("tercer/tercero/tercera cuarto/cuarta quinto/quinta sexto/sexta séptimo/séptima octavo/octava", 3),
}
_GERMAN = re.compile(
    r"(?:(ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun)und)?"
    r"(zwanzig|dreißig|vierzig|fünfzig|sechzig|siebzig|achtzig|neunzig)"
)
_JOINING = frozenset({"and", "und", "et", "y"})


@dataclass(frozen=True, slots=True)
class Token:
    """A word, or a number of several words."""

    word: str
    """Case-folded; of a number, as it is written."""
    stem: str
    content: bool
    """False for function words."""
    number: str | None = None
    """The value, "240" or "3." for third; None for other words."""
    ends_clause: bool = False
    """True where a mark follows."""


@lru_cache(maxsize=8192)
def tokens_of(text: str) -> tuple[Token, ...]:
    """The words of `text` in order; Chinese and Japanese characters each as one."""
    found: list[Token] = []
    run: list[_Word] = []
    for word in _words(_CONTRACTED.sub(" not", text).replace("cannot", "can not")):
        if word.continues(run):
            run.append(word)
            if not word.ends_clause:
                continue
            found.extend(_joined(run))
            run = []
        else:
            found.extend(_joined(run))
            run = []
            if word.number_part:
                run = [word]
            else:
                found.append(word.token())
    found.extend(_joined(run))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    value: int | None
    """Of a part of a number."""
    is_unit: bool
    fixed: str | None
    """Of what is a whole number by itself."""
    ends_clause: bool
    joining: bool

    @property
    def number_part(self) -> bool:
        return self.value is not None and not self.ends_clause

    def continues(self, run: list[_Word]) -> bool:
        return bool(run) and (self.value is not None or self.joining)

    def token(self) -> Token:
        if self.fixed is None and self.value is not None and self.text not in _ONES:
            return Token(self.text, f"#{self.value}", True, str(self.value), self.ends_clause)
        if self.fixed is not None:
            return Token(self.text, f"#{self.fixed}", True, self.fixed, self.ends_clause)
        return Token(self.text, stem(self.text), bool(content_words(self.text)), None, self.ends_clause)


def _words(text: str) -> Iterator[_Word]:
    held: _Word | None = None
    for match in _TOKEN.finditer(text):
        if match["clause"]:
            if held is not None:
                yield _Word(held.text, held.value, held.is_unit, held.fixed, True, held.joining)
                held = None
            continue
        if held is not None:
            yield held
        held = _word(match)
    if held is not None:
        yield held


def _word(match: re.Match[str]) -> _Word:
    text = match.group().casefold().replace("’", "'")
    if digits := match["digits"]:
        if _GROUPED.fullmatch(digits):
            digits = re.sub(r"[.,]", "", digits)
        return _Word(text, None, False, digits + ("." if match["ordinal"] else ""), False, False)
    if chinese := match["chinese"]:
        value = chinese_number(chinese)
        return _Word(text, None, False, None if value is None else str(value), False, False)
    if text in _ORDINALS:
        return _Word(text, None, False, f"{_ORDINALS[text]}.", False, False)
    if text in _ALONE:
        return _Word(text, None, False, str(_ALONE[text]), False, False)
    value = _ONES.get(text) or _SMALL.get(text) or _TENS.get(text) or _UNITS.get(text) or _german(text)
    return _Word(text, value, text in _UNITS, None, False, text in _JOINING)


def _german(text: str) -> int | None:
    match = _GERMAN.fullmatch(text)
    return None if match is None else _TENS[match[2]] + ({**_ONES, **_SMALL}.get(match[1] or "", 0))


def _joined(run: list[_Word]) -> list[Token]:
    """A run of parts as numbers; parts that make no one number are numbers of their own."""
    found: list[Token] = []
    while run:
        n = _longest(run)
        words = run[:n]
        if n == 1:
            found.append(words[0].token())
        else:
            value = _value([w for w in words if w.value is not None])
            found.append(Token(" ".join(w.text for w in words), f"#{value}", True, str(value), words[-1].ends_clause))
        run = run[n:]
    return found


def _longest(run: list[_Word]) -> int:
    """How many words from the start make one number."""
    best = 1
    for n in range(2, len(run) + 1):
        words = run[:n]
        if words[0].joining or words[-1].joining:
            continue
        if any(w.joining and not (run[i - 1].is_unit or run[i - 1].text in _TENS) for i, w in enumerate(words)):
            break
        if _value([w for w in words if w.value is not None]) is not None:
            best = n
    return best


def _value(parts: list[_Word]) -> int | None:
    """The number that the parts make; None for "two three"."""
    total, current, last = 0, 0, 10**9
    for part in parts:
        value = part.value or 0
        if part.is_unit:
            if value >= last and total and value >= 1000:
                return None
            current = (current or 1) * value
            if value >= 1000:
                total, current = total + current, 0
            last = value
        else:
            room = 10 if current % 100 >= 20 and current % 10 == 0 else 100
            if current and (current % room or value >= room):
                return None
            current += value
    return total + current
