"""A chunk's structure as text for a reader: with what StruXGPT feeds its downstream tasks.

Source: StruXGPT, Liu et al. 2024, section 3.2 and figure 4. Scope and aspects lead, and the descriptions are the
chunk's own sentences, copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from coa.agents.structure import Aspect, Structure
from coa.reading import render_text
from coa.types import Chunk

__all__ = ["Purpose", "render_structure"]

Purpose = Literal["reading", "checking", "retrieval"]
"""What the text is for: answering questions, judging statements, or an index of vectors or words."""


def render_structure(
    structure: Structure,
    chunk: Chunk,
    purpose: Purpose = "reading",
    *,
    ids: bool = False,
    only: Collection[int] | None = None,
) -> str:
    """Scope, aspects and sentences of a chunk.

    "reading": numbered aspects, each followed by its sentences. "checking": numbered aspects with a line for each
    sentence. "retrieval": no numbers, aspects as running text. With `ids` each sentence has its id in front, as
    in `[3.7]`; `only` are the numbers (from 0) of the top-level aspects to show.
    """
    heads = {
        "reading": f"This passage talks about {structure.scope}:",
        "checking": f"{structure.scope} can be deconstructed as:",
        "retrieval": f"{structure.scope}.",
    }
    lines = [render_text(heads[purpose])]
    for n, aspect in enumerate(structure.aspects, 1):
        if only is None or n - 1 in only:
            lines += _lines(aspect, str(n), chunk, purpose, ids=ids)
    return "\n".join(lines)


def _lines(aspect: Aspect, number: str, chunk: Chunk, purpose: Purpose, *, ids: bool) -> Iterator[str]:
    title = f"**{render_text(aspect.title)}**"
    own = [_sentence(chunk, n, ids=ids) for d in aspect.descriptions for n in range(d.start, d.end)]
    if purpose == "retrieval":
        yield " ".join([f"{title}:", *own])
    elif purpose == "reading":
        yield " ".join([f"{number}. {title}:", *own])
    else:
        yield f"{number}. {title}"
        yield from (f"  - {sentence}" for sentence in own)
    for n, inner in enumerate(aspect.aspects, 1):
        yield from _lines(inner, f"{number}.{n}", chunk, purpose, ids=ids)


def _sentence(chunk: Chunk, number: int, *, ids: bool) -> str:
    span = chunk.sentences[number]
    text = render_text(chunk.text[span.start - chunk.span.start : span.end - chunk.span.start])
    return f"[{chunk.index + 1}.{number + 1}] {text}" if ids else text
