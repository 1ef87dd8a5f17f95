"""Sentence ids in notes and answers.

In the reading prefix a sentence is `[7]`, counted from 1 within its chunk, so that the prefix depends on the
chunk alone. In notes it becomes `[3.7]` (chunk 3, sentence 7, both from 1), so that it survives the chain.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

__all__ = ["Reference", "qualify", "references", "renumbered", "with_known", "without_references"]

_N = r"\d{1,6}"
_BRACKET = re.compile(rf"[\[【]\s*({_N}(?:\.{_N})?(?:\s*[,;–-]\s*{_N}(?:\.{_N})?)*)\s*[\]】]")
_ITEM = re.compile(r"(\d+)(?:\.(\d+))?")
_RANGE = re.compile(r"(\d+)(?:\.(\d+))?\s*[–-]\s*(?:(\d+)\.)?(\d+)")
_LONGEST_RANGE = 12


class Reference(NamedTuple):
    """A sentence of a chunk, both counted from 1."""

    chunk: int
    sentence: int

    def __str__(self) -> str:
        return f"[{self.chunk}.{self.sentence}]"


def qualify(note: str, *, chunk: int, n_sentences: int, known: frozenset[Reference]) -> str:
    """`note` with `[7]` made `[chunk.7]`, and with every id dropped that cannot be true.

    `chunk` counts from 1. An id without a dot has to be a sentence of this chunk; one with a dot has to be in
    `known`, the ids of the notes that the worker was given, or to be of this chunk. What a model makes up
    beyond that never becomes a citation.
    """

    def replace(match: re.Match[str]) -> str:
        kept: list[Reference] = []
        for reference in _listed(match.group(1), chunk):
            of_this = reference.chunk == chunk and 1 <= reference.sentence <= n_sentences
            if (of_this or reference in known) and reference not in kept:
                kept.append(reference)
        return "".join(str(r) for r in kept)

    # What is left after an id was dropped may look like one: "[1[99]2]", "[12 .5]".
    while (changed := _tidy(_BRACKET.sub(replace, note))) != note:
        note = changed
    return note


def references(text: str) -> list[Reference]:
    """The `[c.s]` ids in `text`, in order, each once."""
    found: dict[Reference, None] = {}
    for match in _BRACKET.finditer(text):
        for reference in _listed(match.group(1), default_chunk=None):
            found.setdefault(reference, None)
    return list(found)


def with_known(text: str, known: Container[Reference]) -> str:
    """`text` without the ids that hold none of `known`, nor what their removal would leave looking like one."""

    def kept(match: re.Match[str]) -> str:
        return match.group() if any(r in known for r in _listed(match.group(1), default_chunk=None)) else ""

    while (changed := _tidy(_BRACKET.sub(kept, text))) != text:
        text = changed
    return text


def without_references(text: str) -> str:
    """`text` without ids."""
    while (changed := _tidy(_BRACKET.sub("", text))) != text:
        text = changed
    return text


def renumbered(text: str, places: Mapping[Reference, int], inserted: Iterable[tuple[int, str]] = ()) -> str:
    """`text` with each `[c.s]` made the number that `places` has for it; ids without one go.

    `inserted` are texts with the offsets in `text` that they go to; none of them inside an id.
    """
    edits = [(at, at, new) for at, new in inserted]
    for match in _BRACKET.finditer(text):
        numbers = [places[r] for r in _listed(match.group(1), default_chunk=None) if r in places]
        edits.append((*match.span(), "".join(f"[{n}]" for n in dict.fromkeys(numbers))))
    pieces: list[str] = []
    done = 0
    for start, end, new in sorted(edits, key=lambda edit: edit[:2]):
        pieces += [text[done:start], new]
        done = end
    return _tidy("".join(pieces) + text[done:])


def _listed(body: str, default_chunk: int | None) -> list[Reference]:
    found: list[Reference] = []
    for part in re.split(r"\s*[,;]\s*", body):
        span = _RANGE.fullmatch(part)
        if span is not None:
            first_chunk, first_sentence, last_chunk, last = span.groups()
            chunk = int(first_chunk) if first_sentence is not None else default_chunk
            start = int(first_sentence if first_sentence is not None else first_chunk)
            if chunk is None or (last_chunk is not None and int(last_chunk) != chunk):
                continue
            if start <= int(last) <= start + _LONGEST_RANGE:
                found.extend(Reference(chunk, n) for n in range(start, int(last) + 1))
            continue
        item = _ITEM.fullmatch(part)
        if item is None:
            continue
        if item.group(2) is not None:
            found.append(Reference(int(item.group(1)), int(item.group(2))))
        elif default_chunk is not None:
            found.append(Reference(default_chunk, int(item.group(1))))
    return found


def _tidy(text: str) -> str:
    text = re.sub(r"[ \t]+([.,;:!?。，；：！？])", r"\1", text)
    return re.sub(r"[ \t]{2,}", " ", text).strip()
