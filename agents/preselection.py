"""Which passages and chunks of a document a question is about, before a model has read any. No model.

Passages are ranked as `SentenceRanker` ranks sentences, which finds a question's words and what stands next to
them. Questions that take two steps name only the first place: "On which river is the hotel of the campaign?"
shares no word with the passage about the hotel. Where passages have headings, two more things are known: that a
question names a heading, and that a passage which fits well names another one's. Both raise the passage that
bears the name, so the second place is found by the first (as in spreading activation, Crestani 1997).

A passage without a heading gains nothing by this and loses nothing. Chinese and Japanese are ranked by pairs of
characters, and by single ones for half as much: names and nouns of one character are in no pair. Weights were set
on every second question of hotpot100, xquad and cmrc and hold for the others: tests/tools/retrieval_figures.py
prints both halves, plain BM25 beside them.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coa.agents.lexical import SentenceRanker, content_words, words_of
from coa.types import Chunk

__all__ = ["Passage", "PassageRanker", "Ranked", "passages_of"]

# About a paragraph of a book, five lines; dialogue has many shorter ones.
_SHORTEST = 400
_LONGEST = 1200
# One of these characters says as much as three letters.
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_WIDE_WEIGHT = 2
_CHARACTERS = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_LONGEST_HEADING = 100
_END_MARK = re.compile(r"[.!?:;,…。！？：；，、—-][\"'”’»)\]』」]*$")
_NUMBERING = re.compile(r"^#{1,6}\s+")
_ASIDE = re.compile(r"\s*[(（][^()（）]*[)）]\s*$")

_NAMED = 1.0
"""For a heading in the question: so much of the summed rarity of its words."""
_LED_TO = 1.0
"""For a heading in a passage that fits: so much of the heading's rarity among passages, by how well that one fits."""
_LEADING = 3
_CHARACTER = 0.5
"""For a single character of Chinese or Japanese that question and passage share: so much of its rarity."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Sentences of one chunk that belong together: a paragraph, several short ones, or a piece of a long one."""

    chunk: int
    """The chunk's index, from 0."""
    first: int
    """The first sentence, counted from 1 within the chunk."""
    last: int
    """The last sentence, included."""
    text: str
    """As it stands in the document."""
    heading: str = ""
    """The title that it stands under in its first line; empty without one."""


class Ranked(NamedTuple):
    """A place in a ranking."""

    at: int
    """Which passage, or which chunk's index."""
    score: float
    """Above 0; comparable within one question only."""


def passages_of(chunks: Iterable[Chunk]) -> list[Passage]:
    """The passages of `chunks`, in order; they hold each sentence exactly once and cross no chunk's border."""
    found: list[Passage] = []
    begins = True  # whether the passage does so with a paragraph
    for chunk in chunks:
        sentences = [chunk.text[s.start - chunk.span.start : s.end - chunk.span.start] for s in chunk.sentences]
        start, size = 0, 0.0
        for at, sentence in enumerate(sentences):
            length = _length(sentence)
            ended = at > start and (_ends_paragraph(sentences[at - 1]) if size >= _SHORTEST else False)
            if at > start and (ended or size + length > _LONGEST or _begins_under_heading(sentences, at)):
                found.append(_passage(chunk, sentences, start, at, begins=begins))
                start, size, begins = at, 0.0, _ends_paragraph(sentences[at - 1])
            size += length
        if sentences:
            found.append(_passage(chunk, sentences, start, len(sentences), begins=begins))
            begins = _ends_paragraph(sentences[-1])
    return found


class PassageRanker:
    """Ranks `passages`, given in document order; keeps a few numbers for each word of theirs, not their texts."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._chunks = [p.chunk for p in passages]
        self._ranker = SentenceRanker([p.text for p in passages])
        telling = [content_words(p.heading) for p in passages]
        self._headings = [tuple(words_of(p.heading)) if told else () for p, told in zip(passages, telling, strict=True)]
        self._weights = [math.fsum(self._ranker.rarity(w) for w in told) for told in telling]
        self._starting: dict[str, list[int]] = {}
        for at, heading in enumerate(self._headings):
            if heading:
                self._starting.setdefault(heading[0], []).append(at)
        self._led_to = [self._named_in(p.text) - {at} if self._starting else set() for at, p in enumerate(passages)]
        self._n_leading = Counter(at for led_to in self._led_to for at in led_to)
        self._with_character: dict[str, array[int]] = {}
        for at, passage in enumerate(passages):
            for character in sorted(set(_CHARACTERS.findall(passage.text))):
                self._with_character.setdefault(character, array("L")).append(at)

    def __len__(self) -> int:
        return len(self._chunks)

    def scores(self, query: str) -> list[float]:
        """One number a passage, 0 where nothing speaks for it."""
        scores = self._ranker.scores(query)
        for character in sorted(content_words(" ".join(_CHARACTERS.findall(query)))):
            holding = self._with_character.get(character, ())
            for at in holding:
                scores[at] += _CHARACTER * self._rarity(len(holding))
        for at in sorted(self._named_in(query)):
            scores[at] += _NAMED * self._weights[at]
        leading = _best(scores, _LEADING)
        gains: dict[int, float] = {}
        for from_, score in leading:
            for at in self._led_to[from_]:
                gain = _LED_TO * score / leading[0].score * self._rarity(self._n_leading[at])
                gains[at] = max(gain, gains.get(at, 0.0))
        for at, gain in gains.items():
            scores[at] += gain
        return scores

    def best(self, query: str, most: int) -> list[Ranked]:
        """The `most` passages that fit best, best first; fewer where fewer have anything to do with `query`."""
        return _best(self.scores(query), most)

    def best_chunks(self, query: str, most: int) -> list[Ranked]:
        """The `most` chunks whose best passages fit best, best first; fewer as above."""
        top: dict[int, float] = {}
        for chunk, score in zip(self._chunks, self.scores(query), strict=True):
            top[chunk] = max(score, top.get(chunk, 0.0))
        ranked = sorted((Ranked(chunk, score) for chunk, score in top.items() if score > 0), key=_order)
        return ranked[:most]

    def _named_in(self, text: str) -> set[int]:
        """The passages whose headings stand in `text`, word for word."""
        words = words_of(text)
        return {
            at
            for begin, word in enumerate(words)
            for at in self._starting.get(word, ())
            if tuple(words[begin : begin + len(self._headings[at])]) == self._headings[at]
        }

    def _rarity(self, n: int) -> float:
        """Inverse frequency of what `n` passages have."""
        return math.log(1 + (len(self) - n + 0.5) / (n + 0.5))


def _best(scores: Sequence[float], most: int) -> list[Ranked]:
    ranked = sorted((Ranked(at, score) for at, score in enumerate(scores) if score > 0), key=_order)
    return ranked[:most]


def _order(ranked: Ranked) -> tuple[float, int]:
    return -ranked.score, ranked.at


def _passage(chunk: Chunk, sentences: Sequence[str], start: int, end: int, *, begins: bool) -> Passage:
    """`begins`: with a paragraph. What follows on a line that was begun before is no heading, however short."""
    text = "".join(sentences[start:end])
    return Passage(chunk.index, start + 1, end, text.strip(), _heading(text) if begins else "")


def _length(sentence: str) -> int:
    return len(sentence) + _WIDE_WEIGHT * len(_WIDE.findall(sentence))


def _ends_paragraph(sentence: str) -> bool:
    """True where a blank line follows, or a line break in a script whose lines are not wrapped."""
    space = sentence[len(sentence.rstrip()) :]
    return _BLANK_LINE.search(space) is not None or ("\n" in space and _WIDE.search(sentence) is not None)


def _begins_under_heading(sentences: Sequence[str], at: int) -> bool:
    """True where the paragraph that begins with sentence `at` has a title above it."""
    if not _ends_paragraph(sentences[at - 1]):
        return False
    following = sentences[at + 1] if at + 1 < len(sentences) and _is_title(sentences[at]) else ""
    return _heading(sentences[at] + following) != ""


def _is_title(line: str) -> bool:
    bare = line.strip()
    return 0 < len(bare) <= _LONGEST_HEADING and "\n" not in bare and _END_MARK.search(bare) is None


def _heading(text: str) -> str:
    """The first line of `text` where it is a title and more follows; without Markdown's marks and an aside in brackets.

    "Curve (magazine)" is called Curve by other passages.
    """
    line, _, rest = text.strip().partition("\n")
    if not rest.strip() or not _is_title(line) or _is_wrapped(line, rest):
        return ""
    return _ASIDE.sub("", _NUMBERING.sub("", line.strip())) or line.strip()


def _is_wrapped(line: str, rest: str) -> bool:
    """True where the line may have ended only because the next word had no room in it."""
    if not rest.split("\n", 1)[0].strip():
        return False
    if rest.lstrip()[0].islower():
        return True
    widest = max(len(following.rstrip()) for following in rest.splitlines())
    following = rest.split(maxsplit=1)[0]
    return len(line) + (1 if _WIDE.match(following) else 1 + len(following)) > widest
