"""Quotes out of a book, true ones damaged in known ways and invented ones, for `verify_quotes.py`.

Everything here is independent of the code under test: words are split at white space, "the same words" means the
same letters and digits in a row, and an invented quote whose letters do stand in the book is thrown away.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from coa.sentences import split_sentences
from coa.types import Span

__all__ = ["KINDS", "Book", "Kind", "Quote", "quotes", "squashed"]

Kind = Literal[
    "exact", "typography", "words dropped", "misspelt", "ellipsis", "moved",
    "other book", "halves joined", "words shuffled", "number changed", "negation changed", "name swapped",
    "word replaced", "word added",
]  # fmt: skip
KINDS: dict[Kind, bool] = {
    "exact": True,
    "typography": True,
    "words dropped": True,
    "misspelt": True,
    "ellipsis": True,
    "moved": True,
    "other book": False,
    "halves joined": False,
    "words shuffled": False,
    "number changed": False,
    "negation changed": False,
    "name swapped": False,
    "word replaced": False,
    "word added": False,
}
"""Whether a quote of that kind stands in the book."""

_FEWEST_WORDS, _MOST_WORDS = 8, 40
_FEWEST_CHARS, _MOST_CHARS = 16, 80
_TRIES = 400

_NEGATIONS = {
    "en": r"\b(?:not|no|never|nothing|nobody|none|nor|neither|without|hardly|only|almost|little|few|less)\b|n['’]t\b",
    "de": r"\b(?:nicht|kein\w*|nie|niemals|nichts|niemand|ohne|kaum|nur|fast|wenige?[rns]?)\b",
    "fr": r"\b(?:ne|pas|point|jamais|rien|aucun\w*|sans|ni|guère|presque|seulement|peu|moins)\b|\bn['’]",
    "es": r"\b(?:no|nunca|jamás|nada|nadie|ning\w+|sin|ni|tampoco|casi|sólo|poco|poca|menos)\b",
    "zh": r"[不没無无未非莫勿别否毋弗]",
}
_NUMBER_WORDS = {
    "en": "two three four five six seven eight nine ten twelve twenty thirty forty fifty hundred thousand",
    "de": "zwei drei vier fünf sechs sieben acht neun zehn zwölf zwanzig dreißig fünfzig hundert tausend",
    "fr": "deux trois quatre cinq six sept huit neuf dix douze quinze vingt trente quarante cinquante cent mille",
    "es": "dos tres cuatro cinco seis siete ocho nueve diez doce quince veinte treinta cuarenta cincuenta cien mil",
}
_MORE_NUMBERS = {"en": "one first second once twice half", "de": "einmal erste", "fr": "onze", "es": "once medio"}
_CHINESE_NUMBERS = "二三四五六七八九"
_CHINESE_GUARDED = re.compile("[不没無无未非莫勿别否毋弗一二三四五六七八九十百千万两几]")
_DENY = {
    "en": [("was", "was not"), ("is", "is not"), ("had", "had never"), ("could", "could not"), ("will", "will not")],
    "de": [("war", "war nicht"), ("hatte", "hatte nie"), ("ist", "ist nicht"), ("konnte", "konnte nicht")],
    "fr": [("était", "n'était pas"), ("avait", "n'avait pas"), ("est", "n'est pas")],
    "es": [("era", "no era"), ("había", "no había"), ("es", "no es"), ("estaba", "no estaba")],
    "zh": [("是", "不是"), ("能", "不能"), ("知", "不知"), ("肯", "不肯")],
}
_CHINESE_NAMES = ("行者", "八戒", "沙僧", "三藏", "唐僧", "悟空", "大圣", "菩萨", "老君", "玉帝", "龙王")


class Quote(NamedTuple):
    """A quote with what is true of it."""

    kind: Kind
    text: str
    source: Span | None
    """Where it comes from; None for an invented one."""
    near: Span | None = None
    """Where it is said to be."""


@dataclass
class Book:
    """A canonical text with what mutations need to know of it."""

    language: str
    text: str = field(repr=False)
    readable: Sequence[Span] = field(repr=False)
    """Where quotes are taken from: not from a licence."""
    others: str = field(repr=False)
    """Text in the same language that is not of this book."""

    def __post_init__(self) -> None:
        self.letters = squashed(self.text)
        self.sentences = [s for r in self.readable for s in self._sentences(self.text, *r)]
        self.other_sentences = self._sentences(self.others, 0, len(self.others))
        words = re.findall(r"[^\W\d_]+", self.text)
        self.vocabulary = {w.casefold() for w in words}
        common = Counter(w for w in words if len(w) >= 4 and w.islower()).most_common(3000)
        self.content = [w for w, n in common if n <= common[min(100, len(common) - 1)][1]]
        other = {w for w in re.findall(r"[^\W\d_]{4,}", self.others) if w.islower()}
        self.other_words = sorted(other - self.vocabulary)
        inner = re.findall(r"(?<=[a-zäöüßàâçéèêëîïôûùñáíóú,] )[A-ZÄÖÜÉ][a-zäöüßéèêëîïôûñáíóú]{2,}\b", self.text)
        self.names = [w for w, n in Counter(inner).most_common(30) if n >= 3]

    @property
    def wide(self) -> bool:
        return self.language == "zh"

    def split(self, text: str) -> list[str]:
        """Words; characters in Chinese."""
        return list(text) if self.wide else text.split()

    def join(self, words: Sequence[str]) -> str:
        return "".join(words) if self.wide else " ".join(words)

    def _sentences(self, text: str, first: int, last: int) -> list[Span]:
        found = []
        for start, end in ((first + a, first + b) for a, b in split_sentences(text[first:last], self.language)):
            words = self.split(text[start:end].strip())
            low, high = (_FEWEST_CHARS, _MOST_CHARS) if self.wide else (_FEWEST_WORDS, _MOST_WORDS)
            if low <= len(words) <= high and "\n\n" not in text[start:end].strip():
                found.append(_stripped(text, start, end))
        return found


def squashed(text: str) -> str:
    """Letters and digits alone, without case."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def quotes(book: Book, kind: Kind, n: int, chance: random.Random) -> Iterator[Quote]:
    """`n` quotes of one kind, fewer where the book has nothing to make them of."""
    make = _MAKERS[kind]
    for _ in range(n):
        for _ in range(_TRIES):
            made = make(book, chance)
            if made is None or (made.source is None and squashed(made.text) in book.letters):
                continue
            yield made
            break


def _stripped(text: str, start: int, end: int) -> Span:
    inner = text[start:end]
    start += len(inner) - len(inner.lstrip())
    return Span(start, start + len(inner.strip()))


def _sentence(book: Book, chance: random.Random) -> tuple[str, Span]:
    span = chance.choice(book.sentences)
    return book.text[span.start : span.end], span


def _exact(book: Book, chance: random.Random) -> Quote:
    """A sentence, or a run of its words."""
    text, span = _sentence(book, chance)
    if chance.random() < 0.5 and not book.wide:
        words = [m.span() for m in re.finditer(r"\S+", text)]
        first = chance.randrange(len(words) - 5)
        last = chance.randrange(first + 5, len(words))
        span = Span(span.start + words[first][0], span.start + words[last][1])
    return Quote("exact", book.text[span.start : span.end], span)


def _typography(book: Book, chance: random.Random) -> Quote:
    text, span = _sentence(book, chance)
    changes: list[Callable[[str], str]] = [
        lambda t: re.sub(r"\s+", " ", t),
        lambda t: re.sub('[“”„«»]|"', chance.choice(["'", "”", "«", ""]), t),
        lambda t: re.sub("[’‘']", chance.choice("'’"), t),
        lambda t: re.sub("--|—", chance.choice(["—", " – ", " - ", "--"]), t),
        lambda t: t.upper() if chance.random() < 0.3 else t.lower(),
        lambda t: t.replace("fi", "ﬁ").replace("fl", "ﬂ"),
        lambda t: unicodedata.normalize("NFD", t),
        lambda t: t.replace("_", ""),
        lambda t: t.rstrip(".,;:") + chance.choice([".", ",", "..."]),
    ]
    if book.wide:
        changes += [lambda t: t.replace("，", ",").replace("：", ":"), lambda t: t.replace("，", "， ")]
    else:
        changes += [lambda t: _hyphenated(t, chance), lambda t: t.replace(" ", "\n   ", 1)]
    for change in chance.sample(changes, chance.randint(2, 4)):
        text = change(text)
    return Quote("typography", text, span)


def _hyphenated(text: str, chance: random.Random) -> str:
    words = list(re.finditer(r"(?<!\w)[a-z]{8,}(?!\w)", text))
    if not words:
        return text
    at = chance.choice(words).start() + 4
    return f"{text[:at]}-\n{text[at:]}"


def _dropped(book: Book, chance: random.Random) -> Quote | None:
    """One word in eight left out, but none that denies or counts, and neither the first nor the last."""
    text, span = _sentence(book, chance)
    words = book.split(text)
    free = [at for at in range(1, len(words) - 1) if not _counts(words[at], book.language) and squashed(words[at])]
    n = max(1, len(words) // 8)
    if len(free) < n:
        return None
    gone = set(chance.sample(free, n))
    return Quote("words dropped", book.join([w for at, w in enumerate(words) if at not in gone]), span)


def _counts(word: str, language: str) -> bool:
    """True for words that deny, limit or count."""
    if language == "zh":
        return _CHINESE_GUARDED.search(word) is not None
    numbers = f"{_NUMBER_WORDS[language]} {_MORE_NUMBERS[language]}".replace(" ", "|")
    pattern = rf"{_NEGATIONS[language]}|\b(?:{numbers})\b|\d|teen\b|zig\b"
    return re.search(pattern, word, re.IGNORECASE) is not None


def _misspelt(book: Book, chance: random.Random) -> Quote | None:
    """One letter of a word wrong, for each ten words; no names, and no other word of the book."""
    text, span = _sentence(book, chance)
    words = book.split(text)
    free = [at for at, w in enumerate(words) if w.isalpha() and w.islower() and len(w) >= 5]
    free = [at for at in free if not _counts(words[at], book.language)]
    n = max(1, len(words) // 10)
    if book.wide or len(free) < n:
        return None
    for at in chance.sample(free, n):
        word = words[at]
        letter = chance.randrange(1, len(word))
        words[at] = word[:letter] + chance.choice("abdeiklmnorstu") + word[letter + 1 :]
        if words[at] == word or words[at] in book.vocabulary:
            return None
    return Quote("misspelt", book.join(words), span)


def _ellipsis(book: Book, chance: random.Random) -> Quote | None:
    """The beginning and the end of a sentence; what is left out denies nothing."""
    text, span = _sentence(book, chance)
    words = book.split(text)
    third = len(words) // 3
    omitted = words[third:-third]
    if third < 4 or any(_counts(w, book.language) for w in omitted):
        return None
    dots = chance.choice(["...", " … ", " [...] ", " . . . "])
    return Quote("ellipsis", book.join(words[:third]) + dots + book.join(words[-third:]), span)


def _moved(book: Book, chance: random.Random) -> Quote | None:
    text, span = _sentence(book, chance)
    start = chance.randrange(max(1, len(book.text) - 8000))
    near = Span(start, start + 8000)
    if near.start - 400 <= span.start <= near.end + 400 or squashed(text) in squashed(book.text[near.start : near.end]):
        return None
    return Quote("moved", chance.choice([text, re.sub(r"\s+", " ", text).lower()]), span, near)


def _other_book(book: Book, chance: random.Random) -> Quote:
    span = chance.choice(book.other_sentences)
    return Quote("other book", re.sub(r"\s+", " ", book.others[span.start : span.end]), None)


def _halves(book: Book, chance: random.Random) -> Quote:
    first, second = book.split(_sentence(book, chance)[0]), book.split(_sentence(book, chance)[0])
    words = first[: (len(first) + 1) // 2] + second[len(second) // 2 :]
    return Quote("halves joined", book.join(words), None)


def _shuffled(book: Book, chance: random.Random) -> Quote:
    """The words of a sentence in another order, or words from all over the book."""
    words = book.split(_sentence(book, chance)[0])
    if chance.random() < 0.5:
        chance.shuffle(words)
    else:
        words = [chance.choice(book.split(_sentence(book, chance)[0])) for _ in words]
    return Quote("words shuffled", book.join(words), None)


def _renumbered(book: Book, chance: random.Random) -> Quote | None:
    text, _ = _sentence(book, chance)
    if book.wide:
        found, choices = re.search(f"[{_CHINESE_NUMBERS}]", text), list(_CHINESE_NUMBERS)
    else:
        choices = _NUMBER_WORDS[book.language].split()
        found = re.search(rf"\b(?:{'|'.join(choices)})\b|\d+", text, re.IGNORECASE)
    if found is None:
        return None
    if found.group().isdigit() and found.group().isascii():
        digits = list(found.group())
        digits[-1] = str((int(digits[-1]) + chance.randint(1, 9)) % 10)
        new = "".join(digits)
    else:
        new = chance.choice([c for c in choices if c != found.group().lower()])
    return Quote("number changed", text[: found.start()] + new + text[found.end() :], None)


def _denied(book: Book, chance: random.Random) -> Quote | None:
    """A "not" too few or too many."""
    text, _ = _sentence(book, chance)
    if chance.random() < 0.5:
        shorter = re.sub(_NEGATIONS[book.language] + r"\s*", "", text, count=1, flags=re.IGNORECASE)
        return None if shorter == text else Quote("negation changed", shorter, None)
    old, new = chance.choice(_DENY[book.language])
    found = re.search(old if book.wide else rf"\b{old}\b", text)
    if found is None or re.search(_NEGATIONS[book.language], text[max(0, found.start() - 8) : found.end() + 8]):
        return None
    return Quote("negation changed", text[: found.start()] + new + text[found.end() :], None)


def _renamed(book: Book, chance: random.Random) -> Quote | None:
    text, _ = _sentence(book, chance)
    names = _CHINESE_NAMES if book.wide else book.names
    pattern = "|".join(names) if book.wide else rf"\b(?:{'|'.join(names)})\b"
    found = re.search(pattern, text)
    if found is None:
        return None
    new = chance.choice([name for name in names if name != found.group()])
    return Quote("name swapped", text[: found.start()] + new + text[found.end() :], None)


def _replaced(book: Book, chance: random.Random) -> Quote | None:
    """A word of the sentence made another word of the book, or one of other texts; in Chinese two characters."""
    text, _ = _sentence(book, chance)
    words = book.split(text)
    if book.wide:
        at = chance.randrange(1, len(words) - 3)
        other = book.split(_sentence(book, chance)[0])
        new = other[2:4]
        if not all(squashed(c) for c in new + words[at : at + 2]) or new == words[at : at + 2]:
            return None
        return Quote("word replaced", book.join(words[:at] + new + words[at + 2 :]), None)
    free = [at for at, w in enumerate(words) if w.isalpha() and w.islower() and len(w) >= 4]
    if not free:
        return None
    at = chance.choice(free)
    words[at] = chance.choice([w for w in chance.sample(book.content + book.other_words, 5) if w != words[at]])
    return Quote("word replaced", book.join(words), None)


def _added(book: Book, chance: random.Random) -> Quote:
    words = book.split(_sentence(book, chance)[0])
    new = list(chance.choice(_CHINESE_NAMES)) if book.wide else [chance.choice(book.content)]
    at = chance.randrange(1, len(words))
    return Quote("word added", book.join(words[:at] + new + words[at:]), None)


_MAKERS: dict[Kind, Callable[[Book, random.Random], Quote | None]] = {
    "exact": _exact,
    "typography": _typography,
    "words dropped": _dropped,
    "misspelt": _misspelt,
    "ellipsis": _ellipsis,
    "moved": _moved,
    "other book": _other_book,
    "halves joined": _halves,
    "words shuffled": _shuffled,
    "number changed": _renumbered,
    "negation changed": _denied,
    "name swapped": _renamed,
    "word replaced": _replaced,
    "word added": _added,
}
