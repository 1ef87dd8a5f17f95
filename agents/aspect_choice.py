"""Which aspects of a document's structures a question needs: by their words, and by a model that sees the outline.

Both orders are merged by reciprocal rank (Cormack, Clarke and Buettcher 2009): a word ranking finds names and
figures, a model finds what is told in other words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coa.agents.preselection import Passage, PassageRanker
from coa.agents.prompting import PromptTemplate
from coa.agents.structure import Aspect, Structure
from coa.errors import ModelError
from coa.limits import Limits
from coa.llm.budget import Demand
from coa.llm.chat import ChatModel, Decoding
from coa.reading import SYSTEM, Prompt, harmless, render_text
from coa.tokens import EstimatedTokens
from coa.types import Chunk, Usage

__all__ = ["AspectChooser", "AspectPlace", "ChooserReply", "Listed", "fused", "listed", "ranked_by_words"]

_RANK_CONSTANT = 60
_NUMBER = re.compile(r"\d{1,5}")
_REPLY_TOKENS = 96
_CHAT_TEMPLATE_TOKENS = 48
_TOKENS_MARGIN = 0.5


class AspectPlace(NamedTuple):
    """A top-level aspect of a chunk's structure."""

    position: int
    """The chunk's place in its part."""
    aspect: int
    """Its place in the structure, from 0."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An aspect as it is ranked and shown."""

    place: AspectPlace
    aspect: Aspect
    scope: str
    text: str
    """Its sentences, copied."""


class ChooserReply(NamedTuple):
    """What the model chose."""

    chosen: tuple[int, ...]
    """Numbers of the aspects that were shown, from 0, the most promising first."""
    usage: Usage


def listed(chunks: Sequence[Chunk], structures: Mapping[int, Structure]) -> list[Listed]:
    """The aspects of the chunks that have a structure, in reading order of the chunks."""
    found = []
    for position, chunk in enumerate(chunks):
        structure = structures.get(position)
        for n, aspect in enumerate(structure.aspects if structure is not None else ()):
            spans = (chunk.sentences[s] for s in aspect.sentences())
            text = "".join(chunk.text[s.start - chunk.span.start : s.end - chunk.span.start] for s in spans)
            found.append(Listed(AspectPlace(position, n), aspect, structure.scope if structure else "", text))
    return found


def ranked_by_words(aspects: Sequence[Listed], question: str) -> list[int]:
    """Numbers of the aspects that share words with the question, best first. Blocking: it reads all of them."""
    passages = [
        Passage(a.place.position, 1, 1, f"{_titles(a.aspect)}. {a.text}", heading=a.aspect.title) for a in aspects
    ]
    return [ranked.at for ranked in PassageRanker(passages).best(question, len(aspects))]


def fused(orders: Sequence[Sequence[int]], most: int) -> list[int]:
    """The `most` best of several orders together, best first; among equals the one that an earlier order has first."""
    scores: dict[int, float] = {}
    for order in orders:
        for rank, n in enumerate(order):
            scores[n] = scores.get(n, 0.0) + 1 / (_RANK_CONSTANT + rank)
    return sorted(scores, key=lambda n: -scores[n])[:most]


class AspectChooser:
    """Chooses over one model; keeps nothing between calls."""

    def __init__(self, model: ChatModel, limits: Limits, *, temperature: float = 0.0) -> None:
        self.model = model
        self._limits = limits
        self._temperature = temperature
        self._template = PromptTemplate("structurizer_choose", "most", "parts", "question")
        self._tokens = EstimatedTokens(_TOKENS_MARGIN)

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return {self._template.name: self._template.digest}

    async def choose(self, question: str, aspects: Sequence[Listed], most: int) -> ChooserReply:
        """Up to `most` of `aspects`, of which as many are shown as the window has room for; the first ones come first.

        A reply without a number chooses nothing. Raises: ModelError.
        """
        lines = self._lines(aspects)
        tail = self._template.render(parts="\n".join(lines), question=harmless(question), most=str(most))
        try:
            completion = await self.model.complete(Prompt(tail=tail), Decoding(_REPLY_TOKENS, self._temperature))
        except ModelError as error:
            error.usage = error.usage or Usage()
            raise
        usage = Usage().plus(completion.usage, seconds=completion.seconds)
        numbers = (int(n) - 1 for n in _NUMBER.findall(completion.text))
        chosen = dict.fromkeys(n for n in numbers if 0 <= n < len(lines))
        return ChooserReply(tuple(chosen)[:most], usage)

    def demand(self) -> Demand:
        """The most that `choose` can take."""
        return Demand(1, self._limits.window - _REPLY_TOKENS, _REPLY_TOKENS)

    def _lines(self, aspects: Sequence[Listed]) -> list[str]:
        """The outline's lines, as many as fit."""
        lines = [f"{n}. {render_text(a.scope)}: {render_text(_titles(a.aspect))}" for n, a in enumerate(aspects, 1)]
        frame = sum(self._tokens.count([SYSTEM, self._template.text])) + _CHAT_TEMPLATE_TOKENS + _REPLY_TOKENS
        room = self._limits.window - frame - self._limits.question_tokens
        for n, cost in enumerate(self._tokens.count(lines)):
            room -= cost
            if room < 0:
                return lines[:n]
        return lines


def _titles(aspect: Aspect) -> str:
    return "; ".join([aspect.title, *(inner.title for inner in aspect.aspects)])
