"""Hiding sentences in a text so that taking them out again gives the text back, to the character."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from coa.documents.canonical import canonical
from coa.errors import ConfigError
from coa.evaluation.normalising import WIDE_LANGUAGES
from coa.sentences import split_sentences
from coa.types import Document, Span

__all__ = ["Haystack", "Needle", "hidden", "readable_text", "sized", "without"]


class Needle(NamedTuple):
    """A sentence to be hidden, and where: 0 is the beginning of the text, 1 its end."""

    text: str
    depth: float


class Haystack(NamedTuple):
    """A text with sentences hidden in it."""

    text: str
    needles: tuple[Span, ...]
    """Where each needle stands, in the order in which they were given."""
    inserted: tuple[Span, ...]
    """What was put in, the blanks in front of the needles included; in document order, without overlap."""


def readable_text(document: Document) -> str:
    """What of a document is to be read: a source without licences and headers."""
    return "".join(document.text[s.start : s.end] for s in document.readable()).strip("\n")


def sized(sources: Sequence[str], length: int, language: str | None) -> str:
    """The sources one after the other, begun again as often as it takes, up to the last sentence within `length`
    characters; at least one sentence. Raises: ConfigError for sources without text."""
    parts = [canonical(source).strip() for source in sources if source.strip()]
    if not parts:
        raise ConfigError("the source holds no text.")
    whole = "\n\n".join(parts)
    while len(whole) < length:
        whole += "\n\n" + "\n\n".join(parts)
    # Sentences need no more than a little text beyond the end to be found.
    ends = [end for _, end in split_sentences(whole[: length + 2000], language)]
    fitting = [end for end in ends if len(whole[:end].rstrip()) <= length]
    return whole[: fitting[-1] if fitting else ends[0]].rstrip()


def hidden(source: str, needles: Sequence[Needle], language: str | None) -> Haystack:
    """`source` with each needle behind the end of the sentence that is nearest to its depth.

    Needles at one place stand there in the order in which they were given; where all depths ascend the needles do, too.
    Raises: ConfigError for a text that is not canonical, or a depth beyond 0..1.
    """
    if canonical(source) != source or any(canonical(n.text) != n.text for n in needles):
        raise ConfigError("a haystack is made of canonical text (coa.documents.canonical).")
    if any(not 0 <= n.depth <= 1 for n in needles):
        raise ConfigError("a depth is between 0 and 1.")
    blank = "" if language in WIDE_LANGUAGES else " "
    borders = _borders(source, language)
    places = sorted((_nearest(borders, needle.depth * len(source)), n) for n, needle in enumerate(needles))
    pieces: list[str] = []
    found: dict[int, Span] = {}
    inserted: list[Span] = []
    at = length = 0
    for place, n in places:
        pieces.append(source[at:place])
        length += place - at
        at = place
        # At the very beginning the blank goes behind the needle.
        before, after = (blank, "") if place else ("", blank)
        put = before + needles[n].text + after
        pieces.append(put)
        found[n] = Span(length + len(before), length + len(before) + len(needles[n].text))
        inserted.append(Span(length, length + len(put)))
        length += len(put)
    pieces.append(source[at:])
    return Haystack("".join(pieces), tuple(found[n] for n in range(len(needles))), tuple(inserted))


def without(text: str, inserted: Sequence[tuple[int, int]]) -> str:
    """`text` without the spans of `inserted`, which are in order: the source."""
    pieces: list[str] = []
    at = 0
    for start, end in inserted:
        pieces.append(text[at:start])
        at = end
    return "".join([*pieces, text[at:]])


def _borders(text: str, language: str | None) -> list[int]:
    """Where a sentence may be put in: 0, and behind the last letter of each sentence."""
    return [0, *(start + len(text[start:end].rstrip()) for start, end in split_sentences(text, language))]


def _nearest(borders: Sequence[int], wanted: float) -> int:
    at = bisect_left(borders, wanted)
    around = borders[max(0, at - 1) : at + 1]
    return min(around, key=lambda border: (abs(border - wanted), border))
