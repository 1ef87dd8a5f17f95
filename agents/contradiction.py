"""Two statements that cannot both be true, found by code: the same words, another number, a denial, an opposite.

Conservative on purpose. Statements that say the same thing in other words are not recognised, and neither is a
contradiction that takes any knowledge of the world; what is recognised differs in one word out of a closed class
while the rest stands alike in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from coa.agents.quantities import Token, tokens_of

__all__ = ["DENIALS", "Clash", "ClashKind", "clash", "may_differ", "said_in_order", "stretch_of"]

ClashKind = Literal["number", "denial", "opposite"]

_LEAST_ALIKE = 0.8
_LEAST_ALIKE_BOTH_WAYS = 0.9
# Under this many shared words "the rest stands alike" means nothing.
_LEAST_SHARED = 2
_AFTER = 3
_CLAUSE = 12
"""Words behind the last shared one, to the end of the clause at most."""
_BEFORE = 3
"""Words in front of the first shared one that still belong to the statement: "never", "did not"."""

_DENIAL_WORDS = """
not never no none nobody neither nor
nicht nie niemals kein keine keinen keiner keinem keines niemand
pas jamais aucun aucune
nunca jamás ningún ninguna nadie
non mai nessuno nessuna
不 没 沒 未
"""
DENIALS = frozenset(_DENIAL_WORDS.split())
# With these the scope of a denial is anybody's guess.
_DOUBTFUL_WORDS = """
only but unless until except hardly scarcely barely almost nearly if whether without
nur sondern außer kaum fast beinahe wenn ob ohne
seulement sauf sinon presque si sans
solo sólo sino excepto casi sin
"""
_DOUBTFUL = frozenset(_DOUBTFUL_WORDS.split())
_OPPOSITES = """
open closed|open shut|opened closed|opened shut|alive dead|living dead|first last|before after|early late|above below
over under|inside outside|in out|up down|left right|north south|east west|northern southern|eastern western|old young
old new|big small|large small|tall short|long short|high low|hot cold|warm cold|rich poor|true false|right wrong
good bad|best worst|more less|most least|more fewer|strong weak|heavy light|deep shallow|wide narrow|thick thin
full empty|wet dry|happy sad|love hate|loved hated|married unmarried|guilty innocent|friend enemy|friends enemies
husband wife|father mother|son daughter|brother sister|uncle aunt|nephew niece|king queen|man woman|boy girl
bought sold|buys sells|won lost|wins loses|came went|comes goes|arrived left|began ended|began stopped|rose fell
rises falls|increased decreased|accepted refused|agreed refused|remembered forgot|found lost|always never|day night
morning evening|summer winter|spring autumn|begin end|beginning end|lived died|born died|asleep awake|day night
offen geschlossen|lebendig tot|alt jung|alt neu|groß klein|hoch niedrig|reich arm|warm kalt|vor nach|oben unten
links rechts|erste letzte|vater mutter|sohn tochter|bruder schwester|mann frau|immer nie|tag nacht
ouvert fermé|vivant mort|vieux jeune|grand petit|haut bas|riche pauvre|chaud froid|avant après|gauche droite
premier dernier|père mère|fils fille|frère sœur|toujours jamais|jour nuit
abierto cerrado|vivo muerto|viejo joven|grande pequeño|alto bajo|rico pobre|caliente frío|antes después
izquierda derecha|primero último|padre madre|hijo hija|hermano hermana|siempre nunca|día noche
"""
_OPPOSITE_OF: dict[str, set[str]] = {}
for _pair in _OPPOSITES.replace("\n", "|").strip("|").split("|"):
    _one, _other = _pair.split()
    _OPPOSITE_OF.setdefault(_one, set()).add(_other)
    _OPPOSITE_OF.setdefault(_other, set()).add(_one)

# Members of one group exclude each other where they stand with the same word.
_GROUPS = (
    "red green blue yellow white black grey gray brown pink purple orange violet scarlet golden",
    "january february march april may june july august september october november december",
    "monday tuesday wednesday thursday friday saturday sunday",
    "oak pine iron steel brass bronze copper silver gold tin lead stone marble glass leather wool silk wooden",
    "rot rote roten roter rotes grün grüne grünen blau blaue blauen gelb gelbe gelben weiß weiße weißen schwarz"
    " schwarze schwarzen braun braune",
    "januar februar märz mai juni juli dezember oktober",
    "montag dienstag mittwoch donnerstag freitag samstag sonntag",
    "rouge rouges vert verte verts bleu bleue bleus jaune jaunes blanc blanche noir noire noirs",
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "rojo roja rojos verde verdes azul azules amarillo amarilla blanco blanca negro negra negros",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "lunes martes miércoles jueves viernes sábado domingo",
    "红 绿 蓝 黄 白 黑 紫",
)
_GROUPS_OF: dict[str, set[int]] = {}
for _n, _words in enumerate(_GROUPS):
    for _word in _words.split():
        _GROUPS_OF.setdefault(_word, set()).add(_n)
_SAME = ({"grey", "gray"}, {"gold", "golden"})


class Clash(NamedTuple):
    """What two statements differ in."""

    kind: ClashKind
    one: str
    """The first one's word; empty where the other denies and this one does not."""
    other: str


@dataclass(frozen=True, slots=True)
class _Said:
    """A statement's words: those that tell what it is about, and those that may differ."""

    tokens: Sequence[Token]
    shared: frozenset[str]
    """Words that stand in both statements."""

    def anchors(self, start: int = 0, end: int | None = None) -> set[str]:
        """What it is about: words of content, those apart in which the two may differ and do."""
        return {t.stem for t in self.tokens[start:end] if t.content and (t.word in self.shared or not may_differ(t))}

    def denials(self, start: int, end: int) -> list[str]:
        return [t.word for t in self.tokens[start:end] if t.word in DENIALS]

    def doubtful(self, start: int, end: int) -> bool:
        return any(t.word in _DOUBTFUL for t in self.tokens[start:end])


def clash(statement: str, other: str, *, both_ways: bool = False) -> Clash | None:
    """What `other` contradicts `statement` in; None where nothing shows that it does.

    `other` may say more than `statement`; with `both_ways` it may not: that is for two notes of one length.
    """
    tokens, others = tokens_of(statement), tokens_of(other)
    shared = frozenset(t.word for t in tokens) & {t.word for t in others}
    one, two = _Said(tokens, shared), _Said(others, shared)
    anchors = one.anchors()
    if len(anchors) < _LEAST_SHARED or [t.word for t in tokens] == [t.word for t in others]:
        return None
    window = _window(two, anchors)
    least = _LEAST_ALIKE_BOTH_WAYS if both_ways else _LEAST_ALIKE
    if window is None or len(anchors & two.anchors(*window)) < least * len(anchors):
        return None
    if both_ways and len(anchors & two.anchors()) < least * len(two.anchors()):
        return None
    return _number(one, two, window) or _opposite(one, two, window) or _denial(one, two, window)


def stretch_of(statement: str, other: str) -> Sequence[Token]:
    """The words of `other` from the clause where the first of `statement`'s words stands to that of the last one,
    where they stand closest together; all of them where it holds fewer than two."""
    tokens, others = tokens_of(statement), tokens_of(other)
    shared = frozenset(t.word for t in tokens) & {t.word for t in others}
    said = _Said(others, shared)
    window = _window(said, _Said(tokens, shared).anchors())
    if window is None:
        return others
    start, end = _around(window, said, _CLAUSE, before=_CLAUSE)
    return others[start:end]


def said_in_order(statement: str, other: str) -> float:
    """Share of `statement`'s content words that stand in `other` in the same order, 0..1; 0 without any.

    Tells "Ada gave Bo the key" from "Bo gave Ada the key", which hold the same words.
    """
    wanted = [t.stem for t in tokens_of(statement) if t.content]
    there = [t.stem for t in tokens_of(other) if t.content]
    if not wanted:
        return 0.0
    row = [0] * (len(there) + 1)
    for word in wanted:
        before = row
        row = [0]
        for at, found in enumerate(there):
            row.append(before[at] + 1 if word == found else max(before[at + 1], row[at]))
    return row[-1] / len(wanted)


def may_differ(token: Token) -> bool:
    """True for words of the closed classes in which statements are compared: numbers, denials, opposites, colours…"""
    return token.number is not None or token.word in DENIALS or token.word in _OPPOSITE_OF or token.word in _GROUPS_OF


def _window(said: _Said, anchors: set[str]) -> tuple[int, int] | None:
    """The shortest stretch of `said` that holds all of the `anchors` that it holds at all."""
    wanted = anchors & said.anchors()
    if len(wanted) < _LEAST_SHARED:
        return None
    best: tuple[int, int] | None = None
    counts: dict[str, int] = {}
    start = 0
    for at, token in enumerate(said.tokens):
        if token.stem in wanted:
            counts[token.stem] = counts.get(token.stem, 0) + 1
        while len(counts) == len(wanted):
            if best is None or at + 1 - start < best[1] - best[0]:
                best = (start, at + 1)
            first = said.tokens[start].stem
            if first in counts:
                counts[first] -= 1
                if not counts[first]:
                    del counts[first]
            start += 1
    return best


def _around(window: tuple[int, int], said: _Said, after: int, before: int = _BEFORE) -> tuple[int, int]:
    """`window` with up to so many of the words next to it, as far as its clauses go."""
    start, end = window
    while start > max(0, window[0] - before) and not said.tokens[start - 1].ends_clause:
        start -= 1
    while end < min(len(said.tokens), window[1] + after) and not said.tokens[end - 1].ends_clause:
        end += 1
    return start, end


def _number(one: _Said, two: _Said, window: tuple[int, int]) -> Clash | None:
    """The same things counted otherwise: each has one number that the other lacks, or it stands with the same word."""
    start, end = window[0] - _BEFORE, window[1] + _AFTER  # "the salt pans, two hundred of them"
    here = [(at, t) for at, t in enumerate(one.tokens) if t.number is not None]
    there = [(at, t) for at, t in enumerate(two.tokens) if t.number is not None]
    all_there = {t.number for _, t in there}
    missing = [(at, t) for at, t in here if t.number not in all_there]
    known = {t.number for _, t in here}
    extra = [(at, t) for at, t in there if start <= at < end and t.number not in known]
    if len(missing) != 1 or not extra:
        return None
    at, token = missing[0]
    counted = _next_content(one, at)
    same = [t for i, t in extra if counted is not None and _next_content(two, i) == counted]
    other = same[0] if same else extra[0][1] if len(extra) == 1 and len(there) == len(here) else None
    return None if other is None else Clash("number", token.word, other.word)


def _opposite(one: _Said, two: _Said, window: tuple[int, int]) -> Clash | None:
    """One word of the statement has its opposite, or another of its group, at the same place in the other."""
    start, end = _around(window, two, 2)
    own = {t.word for t in one.tokens}
    there = {t.word for t in two.tokens}
    for at, token in enumerate(one.tokens):
        if token.word in there or (token.word not in _OPPOSITE_OF and token.word not in _GROUPS_OF):
            continue
        for i in range(start, end):
            word = two.tokens[i].word
            if word in own or not _exclude(token.word, word):
                continue
            if _stands_alike(one, at, two, i):
                return None if one.denials(0, len(one.tokens)) else Clash("opposite", token.word, word)
    return None


def _exclude(word: str, other: str) -> bool:
    if other in _OPPOSITE_OF.get(word, ()):
        return True
    if any({word, other} <= same for same in _SAME) or word[:4] == other[:4]:
        return False
    return bool(_GROUPS_OF.get(word, set()) & _GROUPS_OF.get(other, set()))


def _denial(one: _Said, two: _Said, window: tuple[int, int]) -> Clash | None:
    """One denies what the other says, all else alike."""
    start, end = _around(window, two, _CLAUSE)
    here, there = one.denials(0, len(one.tokens)), two.denials(start, end)
    if bool(here) == bool(there) or len(here) > 1 or len(there) > 1:
        return None
    if one.doubtful(0, len(one.tokens)) or two.doubtful(start, end):
        return None
    # Every word of the statement has to stand there, or the denial may be of something else.
    if not one.anchors() <= two.anchors(start, end):
        return None
    return Clash("denial", here[0] if here else "", there[0] if there else "")


def _next_content(said: _Said, at: int) -> str | None:
    return next((t.stem for t in said.tokens[at + 1 : at + 4] if t.content and not may_differ(t)), None)


def _stands_alike(one: _Said, at: int, two: _Said, i: int) -> bool:
    """True where both words go with the same one: "a red hat", "a blue hat", but not "a blue book"."""
    nouns = [said.tokens[n + 1] for said, n in ((one, at), (two, i)) if _is_followed(said, n)]
    if len(nouns) == 2 and nouns[0].stem != nouns[1].stem:
        return False
    return bool(_beside(one, at) & _beside(two, i))


def _is_followed(said: _Said, at: int) -> bool:
    return at + 1 < len(said.tokens) and not said.tokens[at].ends_clause and said.tokens[at + 1].content


def _beside(said: _Said, at: int) -> set[str]:
    """The nearest words of content before and after."""
    before = next((t.stem for t in reversed(said.tokens[max(0, at - 4) : at]) if t.content), None)
    after = next((t.stem for t in said.tokens[at + 1 : at + 5] if t.content), None)
    return {w for w in (before, after) if w is not None}
