"""Recycled demonstrations: questions on the document itself, made by the model, shown before the real one.

Source: DoubleDipper, arXiv 2406.13632: question and answer pairs from random paragraphs of the context at hand,
each naming its paragraphs before the answer. They do not depend on the question, so a document's are made once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coa.agents.prompted import Prompted
from coa.agents.prompting import PromptTemplate
from coa.agents.references import qualify, references
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import Decoding
from coa.reading import harmless, reading_prompt
from coa.types import Chunk, Usage

__all__ = ["DEMONSTRATIONS_TOKENS", "Demonstration", "Demonstrator", "DemonstratorReply", "demonstrations_text"]

_REPLY_TOKENS = 120
_LONGEST = 300
DEMONSTRATIONS_TOKENS = 400
"""Set aside in a prompt for the demonstrations together."""
_FORM = re.compile(
    r"Sentences?:\s*(?P<ids>[^\n]*)\n+\s*Question:\s*(?P<question>[^\n]+)\n+\s*Answer:\s*(?P<answer>[^\n]+)", re.I
)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A question on the document with its answer."""

    question: str
    answer: str
    references: str
    """Ids of the sentences that hold it: "[3.7]"."""


class DemonstratorReply(NamedTuple):
    """What making a demonstration gave."""

    demonstration: Demonstration | None
    """None where the reply had another form, or named no sentence that there is."""
    usage: Usage


@dataclass(frozen=True)
class Demonstrator(Prompted):
    """Makes demonstrations over one model."""

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The one prompt."""
        return (PromptTemplate("demonstration", "language"),)

    def demand(self, chunk: Chunk) -> Demand:
        """The most that `demonstrate` can take."""
        return Demand(1, self.limits.template_tokens + chunk.n_tokens, _REPLY_TOKENS)

    async def demonstrate(self, chunk: Chunk) -> DemonstratorReply:
        """A question that `chunk` answers. Raises: ModelError."""
        tail = self.templates(self.profile)[0].render(language=self.write_in)
        completion = await self.model.complete(reading_prompt(chunk, tail), Decoding(_REPLY_TOKENS))
        usage = Usage().plus(completion.usage, seconds=completion.seconds)
        match = _FORM.search(completion.text)
        if match is None:
            return DemonstratorReply(None, usage)
        named = qualify(match["ids"], chunk=chunk.index + 1, n_sentences=len(chunk.sentences), known=frozenset())
        found = references(named)
        if not found:
            return DemonstratorReply(None, usage)
        made = Demonstration(
            question=match["question"].strip()[:_LONGEST],
            answer=match["answer"].strip()[:_LONGEST],
            references="".join(str(r) for r in found[:3]),
        )
        return DemonstratorReply(made, usage)


def demonstrations_text(demonstrations: Sequence[Demonstration]) -> str:
    """What is put before an instruction; empty without any. Begins with an ASCII letter."""
    if not demonstrations:
        return ""
    shown = (
        f"Question: {harmless(d.question)}\nEvidence: {d.references}\nAnswer: {harmless(d.answer)}"
        for d in demonstrations
    )
    return "Examples of questions on this document and where their answers stand:\n\n" + "\n\n".join(shown) + "\n\n"
