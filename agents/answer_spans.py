"""The spans of a sentence that could answer a question, and what can be said of each.

Every span of a sentence up to a length is a candidate where its ends could be those of a phrase. What is said of it
are named features: which kind of thing it looks like, what stands beside it, how near the question's words are.
They name no word of a text, so weights fitted on one text hold for others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from coa.agents.lexical import words_of
from coa.agents.questions import Asked, Kind
from coa.agents.word_classes import COLOURS, NUMBERS, TIME_WORDS, WIDE_FUNCTION, WIDE_NUMBERS, WIDE_UNITS, WORD_CLASSES

__all__ = ["Feature", "Token", "features", "spans", "tokens_of"]

Feature = tuple[str, float]

_WIDE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W_{_WIDE}]"
_TOKEN = re.compile(
    rf"[{_WIDE}]|\d+(?:[.,:]\d+)*(?:st|nd|rd|th|s)?(?![^\W\d_])|{_LETTER}+(?:['’.&-]{_LETTER}+)*|[^\w\s]|_"
)
_YEAR = re.compile(r"1\d{3}|20\d\d")
_OPENING = frozenset("\"“„«‘'「『《〈(（[")
_CLOSING = frozenset("\"”“»’'」』》〉)）]")
_PAIRS = (("(", ")"), ("[", "]"), ("《", "》"), ("「", "」"), ("“", "”"), ("«", "»"), ("（", "）"), ("『", "』"))
_MAY_BEGIN = frozenset('$£€¥《「“"«„')
_MAY_END = frozenset('%》」”"»°')
_SENTENCE_END = frozenset(".!?;。！？；")
_COMMAS = frozenset(",，、")
_COLONS = frozenset(":：")
_SUFFIXES = ("ing", "ed", "ly", "tion", "ung", "en", "er", "te", "s", "o", "e")
_LONG_KINDS = frozenset({"why", "how", "words"})
_SHORT_KINDS = frozenset({"number", "when", "colour", "who", "where", "name"})
_TYPED = frozenset({"number", "when", "colour"})
_ONE_PHRASE = frozenset({"number", "when", "colour", "where"})
_CLAUSE_MARKS = frozenset("，：；")
_MOST_TOKENS = 12
_MOST_WIDE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a Chinese or Japanese character, or a mark."""

    text: str
    start: int
    end: int
    sort: str
    """A class of `WORD_CLASSES`, "word", "wide", "wide function" or "mark"."""
    asked: float
    """How rare it is, where the question has it; else 0."""
    inflected: bool
    """The question has it in another form."""
    rarity: float

    @property
    def counts(self) -> bool:
        """True for what carries meaning."""
        return self.sort in ("word", "wide", "wide function")

    @property
    def named(self) -> bool:
        """True for what begins with a capital letter."""
        return self.text[0].isupper()

    @property
    def numeric(self) -> bool:
        """True for digits and for numbers written out."""
        low = self.text.casefold()
        return low[0].isdigit() or low.split("-")[0] in NUMBERS or low in WIDE_NUMBERS

    @property
    def role(self) -> str:
        """What it is to a span that it stands beside."""
        if self.sort == "mark":
            return (
                "comma"
                if self.text in _COMMAS
                else "end"
                if self.text in _SENTENCE_END
                else "colon"
                if self.text in _COLONS
                else "mark"
            )
        if self.asked:
            return "asked"
        if self.sort == "word":
            return "digit" if self.text[0].isdigit() else "Word" if self.named else "word"
        return self.sort


def tokens_of(sentence: str, question: Asked, rarity: Callable[[str], float]) -> list[Token]:
    """The tokens of `sentence`, in order. `rarity` tells how rare a stem is in the document."""
    found = []
    for match in _TOKEN.finditer(sentence):
        text = match.group()
        if re.match(rf"[{_WIDE}]", text):
            found.append(_wide_token(sentence, match, question, rarity))
        elif not text[0].isalnum():
            found.append(Token(text, match.start(), match.end(), "mark", 0.0, False, 0.0))
        else:
            stems = words_of(text)
            low = text.casefold()
            sort = WORD_CLASSES.get(low, "word")
            rare = max((rarity(s) for s in stems), default=0.0)
            held = sort == "word" and any(s in question.stems for s in stems)
            inflected = held and low not in question.surface
            found.append(Token(text, match.start(), match.end(), sort, rare if held else 0.0, inflected, rare))
    return found


def _wide_token(sentence: str, match: re.Match[str], question: Asked, rarity: Callable[[str], float]) -> Token:
    """A character; it counts as asked where one of the pairs that it is in does."""
    start, end = match.span()
    pairs = [sentence[max(0, start - 1) : end], sentence[start : end + 1]]
    held = [rarity(p) for p in pairs if p in question.stems]
    sort = "wide function" if match.group() in WIDE_FUNCTION else "wide"
    return Token(match.group(), start, end, sort, max(held, default=0.0) / 2, False, max(rarity(p) for p in pairs))


def spans(tokens: Sequence[Token], question: Asked) -> Iterator[tuple[int, int]]:
    """Half-open ranges of `tokens` that could be a phrase of the kind asked for; none runs over a sentence's end."""
    for first, begin in enumerate(tokens):
        if begin.sort in ("wide function", "conjunction", "of") or (
            begin.sort == "mark" and begin.text not in _MAY_BEGIN
        ):
            continue
        most = _MOST_WIDE_TOKENS if begin.sort == "wide" else _MOST_TOKENS
        for end in range(first + 1, min(len(tokens), first + most) + 1):
            last = tokens[end - 1]
            if last.sort == "mark" and last.text in _SENTENCE_END:
                break
            may_end = last.counts or last.text in _MAY_END or (last.sort == "pronoun" and end == first + 1)
            inside = tokens[first:end]
            if may_end and _balanced(inside) and _of_kind(inside, question.kind):
                yield first, end


def _of_kind(inside: Sequence[Token], kind: Kind) -> bool:
    """False for what cannot be a number, a time or a colour where one is asked for, and for two phrases in one."""
    if kind in _TYPED:
        lows = [t.text.casefold() for t in inside]
        fits = (
            inside[0].counts and _is_colour([w for t, w in zip(inside, lows, strict=True) if t.counts])
            if kind == "colour"
            else any(t.numeric for t in inside) or (kind == "when" and any(w in TIME_WORDS for w in lows))
        )
        if not fits:
            return False
    if kind not in _ONE_PHRASE:
        return True
    return not any(
        (a.counts and b.sort == "article")
        or (b.sort == "mark" and b.text in _CLAUSE_MARKS and a.sort.startswith("wide"))
        for a, b in pairwise(inside)
    )


def _is_colour(words: Sequence[str]) -> bool:
    """True for nothing but colours: "dark blue", "red and gold"."""
    if "".join(words) in COLOURS:
        return True
    parts = [part for word in words for part in word.split("-")]
    return bool(parts) and all(part in COLOURS for part in parts)


def _balanced(inside: Sequence[Token]) -> bool:
    """False for a span that holds one of two brackets or quotes and not the other."""
    marks = [t.text for t in inside if t.sort == "mark"]
    return not marks or (all(marks.count(a) == marks.count(b) for a, b in _PAIRS) and marks.count('"') % 2 == 0)


def features(tokens: Sequence[Token], first: int, end: int, question: Asked) -> list[Feature]:
    """What can be said of the span `first`..`end` as an answer to `question`."""
    kind = question.kind
    inside = tokens[first:end]
    content = [t for t in inside if t.counts]
    wide = bool(content) and content[0].sort.startswith("wide")
    size = f"size {'w' if wide else ''}{_bucket(len(content))}"
    before = f"before {tokens[first - 1].role if first else 'edge'}"
    after = f"after {tokens[end].role if end < len(tokens) else 'edge'}"
    begins = f"begins {inside[0].role}"
    names = [size, f"{_group(kind)}:{size}", before, f"{kind}:{before}", after, begins, f"{kind}:{begins}"]
    for shape in _shapes(tokens, first, end, content):
        names += [shape, f"{kind}:{shape}"]
    if question.action:
        names += [f"action:{begins}", f"action:{size}"]
    if not wide:
        names += _endings(inside)
    names += [f"holds {sort}" for sort in sorted({t.sort for t in inside[1:-1]} - {"word", "wide"})]
    found = [(name, 1.0) for name in names]
    if content:
        found.append(("rarity", sum(t.rarity for t in content) / len(content) / 10))
        found.append(("rarest", max(t.rarity for t in content) / 10))
    found += _repeated(content, tokens, question)
    found += _near(tokens, first, end, question)
    return found


def _group(kind: str) -> str:
    return "long" if kind in _LONG_KINDS else "short" if kind in _SHORT_KINDS else kind


def _bucket(n: int) -> str:
    return str(n) if n <= 4 else "5-6" if n <= 6 else "7-9" if n <= 9 else "10+"


def _endings(inside: Sequence[Token]) -> Iterator[str]:
    """The suffixes of lower-case words: what may be a verb, and what a noun."""
    last = len(inside) - 1
    for at, token in enumerate(inside):
        if token.sort == "word" and token.text[0].islower():
            suffix = next((s for s in _SUFFIXES if token.text.endswith(s)), "other")
            yield f"{'only' if last == 0 else 'first' if at == 0 else 'last' if at == last else 'inner'} -{suffix}"


def _repeated(content: Sequence[Token], tokens: Sequence[Token], question: Asked) -> Iterator[Feature]:
    """How much of the span only says again what the question says."""
    repeated = [t for t in content if t.asked]
    if not repeated:
        return
    yield "repeats", sum(t.asked for t in repeated) / (sum(t.asked for t in tokens) or 1.0)
    yield "repeats any", 1.0
    if len(repeated) == len(content):
        yield "repeats only", 1.0
    if content[0].asked:
        yield "repeats first", 1.0
    if content[-1].asked:
        yield "repeats last", 1.0
    if any(_is_head(t, question) for t in repeated):
        yield "repeats head", 1.0
        yield f"{question.kind}:repeats head", 1.0


def _near(tokens: Sequence[Token], first: int, end: int, question: Asked) -> Iterator[Feature]:
    """Where the question's words stand."""
    total = sum(t.asked for t in tokens) or 1.0
    before = sum(t.asked for t in tokens[:first]) / total
    after = sum(t.asked for t in tokens[end:]) / total
    yield "asked before", before
    yield "asked after", after
    yield f"{question.role}:asked before", before
    yield f"{question.role}:asked after", after
    outside = [*range(first), *range(end, len(tokens))]
    held = (tokens[i].asked / (1 + min(abs(i - first), abs(i - end + 1)) / 3) for i in outside if tokens[i].asked)
    yield "near", sum(held) / total
    yield from _nearest("left", tokens[:first][::-1], question)
    yield from _nearest("right", tokens[end:], question)
    if question.preposition is not None:
        yield from _preposition(tokens, first, question.preposition)


def _nearest(side: str, outward: Sequence[Token], question: Asked) -> Iterator[Feature]:
    """The question's word that is nearest on one side; `outward` are the tokens of that side, nearest first."""
    at = next((i for i, token in enumerate(outward) if token.asked), None)
    if at is None:
        yield f"{side} none", 1.0
        return
    between = outward[:at]
    distance = sum(t.counts or t.sort == "mark" for t in between)
    crossed = any(t.sort == "mark" for t in between)
    bucket = f"{side} {distance if distance <= 2 else '3-4' if distance <= 4 else '5+'}"
    yield bucket, 1.0
    yield f"{question.role}:{bucket}", 1.0
    if crossed:
        yield f"{side} crosses a mark", 1.0
    token = outward[at]
    head = _is_head(token, question)
    if distance <= 3 and not crossed and head:
        yield f"{side} near head", 1.0
        yield f"{question.kind}:{side} near head", 1.0
    if distance <= 1:
        form = "other form" if token.inflected else "capital" if token.named else "same form"
        yield f"{side} touches {form}", 1.0
        yield f"{question.role}:{side} touches {form}", 1.0
        if head:
            yield f"{side} touches head", 1.0
            yield f"{_group(question.kind)}:{side} touches head", 1.0


def _is_head(token: Token, question: Asked) -> bool:
    return bool(question.head) and any(s in question.head for s in words_of(token.text))


def _preposition(tokens: Sequence[Token], first: int, wanted: str) -> Iterator[Feature]:
    """Whether the span stands behind the question's preposition."""
    back = first - 1
    while back >= 0 and tokens[back].sort == "article":
        back -= 1
    beside = [tokens[first], *tokens[max(0, back) : back + 1]]
    if any(t.text.casefold() == wanted for t in beside):
        yield "same preposition", 1.0
    elif any(t.sort == WORD_CLASSES.get(wanted) for t in beside):
        yield "like preposition", 1.0


def _shapes(tokens: Sequence[Token], first: int, end: int, content: Sequence[Token]) -> list[str]:
    """The kinds of thing that the span looks like."""
    before = tokens[first - 1] if first else None
    behind = tokens[end] if end < len(tokens) else None
    found = [*_number_shapes(content, before, behind), *_name_shapes(content, before, behind, first)]
    lows = [t.text.casefold() for t in content]
    if any(w in TIME_WORDS for w in lows):
        found.append("time word")
    if any(w in COLOURS for w in lows):
        found.append("colour word")
    if before is not None and before.text in _OPENING and behind is not None and behind.text in _CLOSING:
        found.append("quoted")
    if before is not None and before.text in _COLONS:
        found.append("after colon")
        if end >= len(tokens) - 1:
            found.append("all after colon")
    return found or ["plain"]


def _number_shapes(content: Sequence[Token], before: Token | None, behind: Token | None) -> Iterator[str]:
    words = [t.text for t in content]
    if any(w[0].isdigit() for w in words):
        yield "digits"
        if any(_YEAR.fullmatch(w) for w in words):
            yield "year"
    if any(p in NUMBERS or p in WIDE_NUMBERS for w in words for p in w.casefold().split("-")):
        yield "number word"
    if content and content[0].numeric:
        yield "begins with number"
        if any(w in WIDE_UNITS for w in words[1:]):
            yield "number and unit"
        if all(t.numeric for t in content):
            yield "number only"
            if (before is not None and before.numeric) or (behind is not None and behind.numeric):
                yield "number cut"


def _name_shapes(content: Sequence[Token], before: Token | None, behind: Token | None, first: int) -> Iterator[str]:
    n_named = sum(t.named for t in content)
    if content and n_named == len(content):
        if first == 0 and len(content) == 1:
            yield "first word"
        else:
            yield "all capital"
            if any(t is not None and t.sort == "word" and t.named for t in (before if first > 1 else None, behind)):
                yield "name cut"
    elif n_named:
        yield "some capital"
    elif content and not content[0].sort.startswith("wide"):
        yield "lower"
    if content and all(len(t.text) > 1 and t.text.isupper() for t in content):
        yield "shouted"
