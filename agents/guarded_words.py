"""Words that turn a statement round, limit it or count: a quote has the very same ones as its source, or it is none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from coa.agents.normalising import is_unspaced

__all__ = ["denies", "guarded", "is_guarded", "is_harmless", "reverses"]

_DENYING = """
not no nor never none nobody nothing nowhere neither without cannot hardly scarcely barely rarely seldom unless except
almost nearly only few little less least half
nicht kein nie niemals niemand nichts nirgends ohne kaum weder fast beinahe nur wenig wenige weniger selten außer
ne pas point jamais rien aucun aucune nul nulle sans ni guère presque seulement peu moins sauf
nunca jamás nada nadie ningún ninguno ninguna sin tampoco apenas casi sólo solo solamente poco poca menos salvo
non mai nessuno nessuna niente nulla senza né quasi soltanto
não nem ninguém nenhum nenhuma sem quase somente
niet geen nooit niets zonder bijna slechts
"""
_COUNTING = """
one two three four five six seven eight nine ten eleven twelve hundred thousand million dozen first second third once
twice twenty thirty forty fifty sixty seventy eighty ninety
zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig dreissig vierzig fünfzig sechzig siebzig achtzig
neunzig hundert tausend einmal zweimal
deux trois quatre cinq sept huit neuf dix onze douze quinze vingt trente quarante cinquante soixante cent mille
dos tres cuatro cinco seis siete ocho nueve diez doce quince veinte treinta cuarenta cincuenta sesenta cien ciento mil
"""
_HARMLESS_WORDS = """
a an the and that der die das den dem des ein eine einen einem einer eines und dass le la les l' un une des du et que
el los las lo unos unas y e il gli i o os as um uma de het een en
"""
_PARTS_OF_NUMBERS = "ein un uno one veinti dreissig dreizehn fourteen seize treize quatorze vingts cents"
_GUARDED = frozenset(w.casefold() for w in (_DENYING + _COUNTING).split())
_DENYING_CHARS = "不没沒無无未非莫勿別别弗毋否ぬず"
_DENYING_WORDS = frozenset({*(w.casefold() for w in _DENYING.split()), *_DENYING_CHARS})
_GUARDED_BEGINNINGS = ("n'", "kein", "nobod")
_GUARDED_ENDINGS = ("n't", "teen")
_GUARDED_CHARS = frozenset(_DENYING_CHARS + "萬亿億两兩几幾")
_JAPANESE_NEGATION = re.compile("ない|なく|なか|ませ")
_HARMLESS = frozenset(_HARMLESS_WORDS.split()) | frozenset("的地得了着之")
_NUMBER_PARTS = "|".join(sorted({*_COUNTING.split(), *_PARTS_OF_NUMBERS.split()}, key=len, reverse=True))
_COMPOUND = re.compile(rf"(?:(?:{_NUMBER_PARTS})(?:und|et|y|i)?){{2,}}")
_REVERSING = frozenset(
    {"un", "in", "im", "ir", "il", "dis", "non", "mis", "a", "anti", "des", "dés", "dé", "ent", "ver"}
)


def guarded(words: Sequence[str]) -> Counter[str]:
    """How often each of the guarded words stands among `words`, normalised tokens."""
    found = Counter(word for word in words if is_guarded(word))
    if any(is_unspaced(word[0]) for word in words):
        found.update(match.group() for match in _JAPANESE_NEGATION.finditer("".join(words)))
    return found


def denies(words: Sequence[str]) -> bool:
    """True where one of `words` turns a statement round or limits it; numbers do not."""
    return any(word in _DENYING_WORDS or word.startswith(_GUARDED_BEGINNINGS) or word.endswith("n't") for word in words)


def is_guarded(word: str) -> bool:
    """True for numbers, negations and limiting words, in the languages that are known here."""
    return (
        word in _GUARDED
        or word in _GUARDED_CHARS
        or any(c.isnumeric() for c in word)
        or word.endswith(_GUARDED_ENDINGS)
        or word.startswith(_GUARDED_BEGINNINGS)
        or _COMPOUND.fullmatch(word) is not None
    )


def is_harmless(word: str) -> bool:
    """True for articles and the like, which a quote may have too many."""
    return word in _HARMLESS


def reverses(shorter: str, longer: str) -> bool:
    """True where `longer` is `shorter` with a beginning that makes it another word: likely, unlikely."""
    return longer.endswith(shorter) and longer.removesuffix(shorter) in _REVERSING
