"""What a question asks for: the kind of answer, and the words around the place where the answer would stand.

Question words of English, German, French, Spanish and Chinese; a question without any asks for "what".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from coa.agents.lexical import content_words, words_of
from coa.agents.word_classes import WORD_CLASSES

__all__ = ["Asked", "Kind", "Role", "asked"]

Kind = Literal["colour", "when", "number", "why", "who", "where", "words", "name", "how", "which", "what"]
Role = Literal["subject", "object", "copula"]

# The kind whose pattern is found first in a question is its kind; of several at one place the one listed first.
_KINDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (
        "colour",
        (
            r"\b(?:what|which) (?:\w+ )?colou?rs?\b",
            r"welcher? farben?|quelles? couleurs?|(?:de )?qu[ée] colou?r|(?:什么|哪种|何种)?颜色|何色",
        ),
    ),
    (
        "when",
        (
            r"\bwhen\b",
            r"\b(?:what|which) (?:\w+ )?(?:years?|dates?|days?|months?|century|centuries|decades?|time|hour|season)\b",
            r"\bwann\b|welche[mnrs]? (?:jahr|datum|tag|monat|jahrhundert)",
            r"\bquand\b|quel(?:le)? (?:année|date|jour|mois|siècle|heure)",
            r"\bcuándo\b|qué (?:año|fecha|día|mes|siglo|hora)",
            r"什么时候|什么时间|何时|哪一?年|哪一?天|几月|几号|哪个(?:月|世纪)|何年",
        ),
    ),
    (
        "number",
        (
            r"\bhow (?:many|much|old|long|heavy|tall|high|deep|far|wide|often|big|large|fast|thick)\b",
            r"\b(?:what|which) (?:\w+ ){0,2}(?:number|price|age|sum|amount|percentage|percent|population|size|distance"
            r"|length|height|weight|depth|cost|share|score|rate|temperature)\b",
            r"\bwie ?(?:viele?|alt|lange|schwer|hoch|tief|weit|oft|groß|gross)\b",
            r"welche[rn]? (?:anzahl|zahl|preis|prozentsatz|anteil)|\bcombien\b|quel âge",
            r"\bcu[áa]nt[oa]s?\b|qué (?:número|cantidad|porcentaje|edad|tamaño)",
            r"多少|几[个次人名位岁座所场届年天种]|多[大长高远重久深]",
        ),
    ),
    (
        "why",
        (
            r"\bwhy\b|\bwhat (?:\w+ ){0,3}reasons?\b|\bwhat caused\b",
            r"\bwarum\b|\bwieso\b|\bweshalb\b|\bpourquoi\b|\bpor qué\b|为什么|为何|(?:什么)?原因|因何",
        ),
    ),
    (
        "who",
        (
            r"\bwho(?:m|se)?\b|\bwe[rmn]\b|\bwessen\b",
            r"(?:^|[,;] ?|\bà |\bde |\bpar )qui\b|\bqui[ée]n(?:es)?\b|谁|何人|哪位",
        ),
    ),
    (
        "where",
        (
            r"\bwhere\b",
            r"\b(?:what|which) (?:\w+ )?(?:country|countries|city|cities|town|village|street|place|state|region"
            r"|location|island|river|continent)\b",
            r"\bwo(?:hin|her)?\b|welche[mnrs]? (?:land|stadt|ort|region|county|straße)",
            r"\boù\b|quel(?:le)? (?:pays|ville|lieu|rue)|\ba?d[óo]nde\b|qué (?:país|ciudad|lugar|región|estado)",
            r"哪里|哪儿|何处|何地|在哪|什么地方|哪个(?:国家|城市|地方|省|州|地区)|哪座城市|哪国",
        ),
    ),
    (
        "words",
        (
            r"\b(?:what|which) (?:\w+ ){0,3}(?:words?|motto|inscription|message|sentence|slogan)\b",
            r"\bwhat (?:did|does|do|had|has) .*\b(?:say|said|write|wrote|written|read|shout|cry|answer|reply"
            r"|whisper)\b",
            r"\bwas (?:sagt|sagte|schrieb|rief)\b|\bqu(?:'|e )a dit\b|\bqué (?:dijo|dice|escribió)\b",
            r"说了什么|写了什么|写着什么",
        ),
    ),
    (
        "name",
        (
            r"\b(?:what|which) (?:\S+ ){0,3}(?:names?|title)\b",
            r"\bwhat .*\b(?:named|called|titled|known as)\b|\bname the\b",
            r"\b(?:was|wie|welche\w*) .*\b(?:name|namen|heißt|heißen|hieß|genannt|titel|bezeichnet)\b",
            r"\bquel .*\bnom\b|\bcomment .*(?:appel|nomm)",
            r"\b(?:qué|cuál|cómo) .*\b(?:nombres?|llamad[oa]s?|llaman?|llamaba|título)\b",
            r"(?:什么)?(?:名字|名称)|叫什么|称为什么|哪[部本首]",
        ),
    ),
    ("how", (r"\bhow\b|\bwie\b|\bcomment\b|\bcómo\b|怎么|怎样|如何",)),
    (
        "which",
        (
            r"\b(?:what|which) (?!(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would)\b)",
            r"\bwelche[mnrs]?\b|\bquel(?:le)?s? (?!est|sont)|\bqué (?!es|son|era|fue)|哪[个种些位类项]",
        ),
    ),
    ("what", (r"\bwhat\b|\bwas\b(?=.* )|\bwhich\b|\bque\b|\bquoi\b|\bcu[áa]l(?:es)?\b|\bqué\b|什么",)),
)
_PATTERNS = tuple((kind, re.compile("|".join(patterns), re.IGNORECASE)) for kind, patterns in _KINDS)
_ASKING = """
what which who whom whose where when why how
was welche welcher welches welchem welchen wer wem wen wessen wo wohin woher wann warum wieso weshalb wie wieviel
qui que quoi quel quelle quels quelles où quand pourquoi comment combien
qué que cuál cuáles quién quiénes dónde cuándo cómo cuánto cuánta cuántos cuántas
"""
_QUESTION_WORDS = frozenset(_ASKING.split())
_ACTIONS = frozenset({"do", "doing", "done", "tun", "machen", "faire", "hacer"})
_DID = frozenset({"do", "does", "did", "hat", "haben", "hatte", "a", "ont"})
_PREPOSITIONS = frozenset({"place", "of", "to", "by", "with", "from", "for", "as", "during"})
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_MOST_HEAD = 2
_VERB_WITHIN = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, taken apart."""

    kind: Kind
    stems: frozenset[str]
    """Of its content words."""
    surface: frozenset[str]
    """Its words as they are written, in lower case."""
    head: frozenset[str]
    """Stems of the words that the question word stands with: "colour" of "What colour was the door?"."""
    preposition: str | None
    """In front of the question word or at the end: "in" of "In what street does she live?"."""
    role: Role
    """Whether the answer is likely to stand in front of the question's verb ("Who opened the door?") or after it."""
    action: bool
    """True where the question ends in "do": the answer is a verb with what belongs to it."""


@lru_cache(maxsize=256)
def asked(question: str) -> Asked:
    """What `question` asks for."""
    words = [w.casefold() for w in _WORD.findall(question)]
    at = next((i for i, w in enumerate(words) if w in _QUESTION_WORDS), None)
    return Asked(
        kind=_kind(question),
        stems=frozenset(content_words(question)),
        surface=frozenset(words),
        head=frozenset() if at is None else frozenset(s for w in _head(words, at) for s in words_of(w)),
        preposition=None if at is None else _preposition(words, at),
        role="subject" if at is None else _role(words[at + 1 : at + 1 + _VERB_WITHIN]),
        action=bool(words) and words[-1] in _ACTIONS,
    )


def _kind(question: str) -> Kind:
    found = [(match.start(), at) for at, (_, pattern) in enumerate(_PATTERNS) if (match := pattern.search(question))]
    return _PATTERNS[min(found)[1]][0] if found else "what"


def _head(words: list[str], at: int) -> list[str]:
    begin = at + 1
    if words[at] == "how" and words[begin : begin + 1] in (["many"], ["much"]):
        begin += 1
    end = begin
    while end < min(len(words), begin + _MOST_HEAD) and words[end] not in WORD_CLASSES:
        end += 1
    return words[begin:end]


def _preposition(words: list[str], at: int) -> str | None:
    beside = ([words[at - 1]] if at > 0 else []) + [words[-1]]
    return next((w for w in beside if WORD_CLASSES.get(w) in _PREPOSITIONS), None)


def _role(following: list[str]) -> Role:
    verb = next((w for w in following if WORD_CLASSES.get(w) == "auxiliary"), None)
    return "subject" if verb is None else "object" if verb in _DID else "copula"
