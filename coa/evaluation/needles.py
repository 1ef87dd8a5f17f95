"""Needles in haystacks, and threads of them: questions whose answers are hidden in a text of any language and length.

Sources: Kamradt 2023 (needle in a haystack), RULER (Hsieh et al. 2024: several keys), Needle Threading (Roberts et al.
2024: keys that lead to keys, forward, backward, several threads at once). Keys are invented words and values are
numbers that the source does not hold, so nothing can be answered from memory. The order of a thread is that of the
text: "forward" when each link stands behind the one before it, "backward" the other way round, "random" neither.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import Template
from typing import Any, Literal, NamedTuple

from coa.errors import ConfigError
from coa.evaluation.haystack import Haystack, Needle, hidden

__all__ = ["TEMPLATES", "Made", "Order", "Wording", "needle_questions", "thread_questions", "wording_for"]

Order = Literal["forward", "backward", "random"]


@dataclass(frozen=True, slots=True)
class Wording:
    """How needles and questions read; `$key`, `$value` and `$next` stand for what is put in."""

    needle: str
    asked: str
    link: str
    followed: str


class Made(NamedTuple):
    """A generated document and its questions, as lines of questions.jsonl without `doc_id`."""

    text: str
    questions: list[dict[str, Any]]


TEMPLATES: Mapping[str, Wording] = {
    "en": Wording(
        "The secret number of $key is $value.",
        "What is the secret number of $key?",
        "From $key the path leads on to $next.",
        "Begin at $key and follow the path from one name to the next, as the text tells it. At which name does it end?",
    ),
    "de": Wording(
        "Die geheime Zahl von $key ist $value.",
        "Wie lautet die geheime Zahl von $key?",
        "Von $key führt der Weg weiter nach $next.",
        "Beginne bei $key und folge dem Weg von Name zu Name, wie der Text ihn nennt. Bei welchem Namen endet er?",
    ),
    "fr": Wording(
        "Le nombre secret de $key est $value.",
        "Quel est le nombre secret de $key ?",
        "De $key, le chemin mène à $next.",
        "Pars de $key et suis le chemin d'un nom à l'autre, comme le texte le dit. À quel nom s'arrête-t-il ?",
    ),
    "es": Wording(
        "El número secreto de $key es $value.",
        "¿Cuál es el número secreto de $key?",
        "Desde $key el camino lleva a $next.",
        "Empieza en $key y sigue el camino de un nombre a otro, como dice el texto. ¿En qué nombre termina?",
    ),
    "it": Wording(
        "Il numero segreto di $key è $value.",
        "Qual è il numero segreto di $key?",
        "Da $key il sentiero porta a $next.",
        "Parti da $key e segui il sentiero da un nome all'altro, come dice il testo. A quale nome finisce?",
    ),
    "pt": Wording(
        "O número secreto de $key é $value.",
        "Qual é o número secreto de $key?",
        "De $key o caminho leva a $next.",
        "Comece em $key e siga o caminho de um nome a outro, como diz o texto. Em que nome termina?",
    ),
    "nl": Wording(
        "Het geheime getal van $key is $value.",
        "Wat is het geheime getal van $key?",
        "Van $key leidt het pad naar $next.",
        "Begin bij $key en volg het pad van naam naar naam, zoals de tekst het zegt. Bij welke naam eindigt het?",
    ),
    "zh": Wording(
        "$key的秘密数字是$value。",
        "$key的秘密数字是多少？",
        "从$key出发，小路通向$next。",
        "从$key开始，按照文中所说的小路从一个名字走到下一个名字，最后到达哪个名字？",
    ),
}
"""By ISO 639-1; other languages take wordings of their own."""

_ONSETS = ("b", "br", "d", "dr", "f", "g", "gr", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "l", "m", "n", "r", "sk", "x", "th")


def wording_for(language: str | None, *, needle: str | None = None, asked: str | None = None) -> Wording:
    """The wording of a language, `needle` and `asked` of the caller's in place of its own.

    Raises: ConfigError for a language without one, or a template that lacks its names.
    """
    own = TEMPLATES.get(language or "en")
    if own is None and (needle is None or asked is None):
        raise ConfigError(
            f"there is no wording for {language!r} (there is for {', '.join(sorted(TEMPLATES))}).",
            hint="Give --needle and --question, with $key and $value in them.",
        )
    wording = own or TEMPLATES["en"]
    found = Wording(needle or wording.needle, asked or wording.asked, needle or wording.link, asked or wording.followed)
    names = Template(found.needle).get_identifiers()
    if needle is not None and not ({"key", "value"} <= set(names) or {"key", "next"} <= set(names)):
        raise ConfigError(f"--needle {needle!r} needs $key and $value (or $key and $next for a thread).")
    if asked is not None and "key" not in Template(asked).get_identifiers():
        raise ConfigError(f"--question {asked!r} needs $key.")
    return found


def needle_questions(
    source: str, *, depth: float, language: str | None, wording: Wording, n_others: int, rng: random.Random
) -> Made:
    """A needle at `depth`, `n_others` like it with other names and numbers anywhere, and the question for it."""
    names, values = _names(source, n_others + 1, rng), _values(source, n_others + 1, rng)
    needles = [
        Needle(Template(wording.needle).substitute(key=key, value=value), depth if n == 0 else rng.random())
        for n, (key, value) in enumerate(zip(names, values, strict=True))
    ]
    stack = hidden(source, needles, language)
    question = {
        "question": Template(wording.asked).substitute(key=names[0]),
        "answers": [values[0]],
        "type": "needle" if not n_others else f"needle among {n_others + 1}",
        "meta": _meta(stack, [0], metrics=["contains"], depth=depth),
    }
    return Made(stack.text, [question])


def thread_questions(
    source: str,
    *,
    hops: int,
    n_threads: int,
    order: Order,
    language: str | None,
    wording: Wording,
    rng: random.Random,
) -> Made:
    """`n_threads` threads of `hops` links each, mixed through the text, and a question for each thread's end.

    Raises: ConfigError where the text has too few sentences to tell the order of the links by.
    """
    if hops < 1 or n_threads < 1:
        raise ConfigError("a thread has at least one link, and there is at least one thread.")
    names = iter(_names(source, n_threads * (hops + 1), rng))
    threads = [[next(names) for _ in range(hops + 1)] for _ in range(n_threads)]
    needles: list[Needle] = []
    of_thread: list[list[int]] = []
    for thread in threads:
        links = [
            Template(wording.link).substitute(key=key, next=following, value=following)
            for key, following in pairwise(thread)
        ]
        depths = _depths(hops, order, rng)
        of_thread.append(list(range(len(needles), len(needles) + hops)))
        needles += [Needle(link, depth) for link, depth in zip(links, depths, strict=True)]
    stack = hidden(source, needles, language)
    for links_of in of_thread:
        starts = [stack.needles[n].start for n in links_of]
        if order != "random" and starts != sorted(starts, reverse=order == "backward"):
            raise ConfigError(f"the text has too few sentences for {hops} links in that order.")
    questions = [
        {
            "question": Template(wording.followed).substitute(key=thread[0]),
            "answers": [thread[-1]],
            "type": f"thread {order}" + (f" of {n_threads}" if n_threads > 1 else ""),
            "meta": _meta(stack, links, metrics=["contains"], hops=hops, path=thread),
        }
        for thread, links in zip(threads, of_thread, strict=True)
    ]
    return Made(stack.text, questions)


def _depths(n: int, order: Order, rng: random.Random) -> list[float]:
    """Depths of a thread's links, apart from each other by at least half of an even spacing."""
    spaced = [(at + 0.25 + rng.random() / 2) / n for at in range(n)]
    if order == "backward":
        spaced.reverse()
    elif order == "random":
        rng.shuffle(spaced)
    return spaced


def _meta(stack: Haystack, needles: Sequence[int], **more: Any) -> dict[str, Any]:
    return {
        "needles": [{"start": stack.needles[n].start, "end": stack.needles[n].end} for n in needles],
        "inserted": [list(span) for span in stack.inserted],
        **more,
    }


def _names(source: str, n: int, rng: random.Random) -> list[str]:
    """Different invented names that the source does not hold."""
    lower = source.lower()
    found: dict[str, None] = {}
    for name in _invented(rng):
        if name.lower() not in lower and not any(name in other or other in name for other in found):
            found[name] = None
        if len(found) == n:
            break
    return list(found)


def _invented(rng: random.Random) -> Iterator[str]:
    while True:
        syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(3)]
        yield "".join(syllables).capitalize()


def _values(source: str, n: int, rng: random.Random) -> list[str]:
    """Different numbers of seven digits that the source does not hold."""
    found: dict[str, None] = {}
    while len(found) < n:
        value = str(rng.randrange(1_000_000, 10_000_000))
        if value not in source:
            found[value] = None
    return list(found)
