"""The checker: whether a statement about a document is true by its sentences, false, or not to be told from them.

The evidence is given; the model names the sentences that decide and code copies them, so what a label rests on
stands in the source. For models too small to judge there is a checker by words, see `coa.agents.lexical_checker`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field, field_validator

from coa.agents.evidence import EvidenceLine
from coa.agents.prompted import Prompted
from coa.agents.prompting import PromptTemplate
from coa.agents.references import Reference, without_references
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import Decoding
from coa.llm.schemas import shape
from coa.llm.structured import structured
from coa.reading import SYSTEM, Prompt, harmless, render_text
from coa.tokens import EstimatedTokens, TokenCounter
from coa.types import Usage

__all__ = ["CheckLabel", "CheckReport", "Checker", "Checking"]

CheckLabel = Literal["true", "false", "not_in_text"]

_MOST_SENTENCES = 4
_MOST_CALLS = 2
_REPLY_TOKENS = 256
_CHAT_TEMPLATE_TOKENS = 64
# Of the estimate; the vocabularies of small models take up to half as many tokens again.
_MARGIN = 0.25


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What evidence comes to for a statement."""

    label: CheckLabel
    references: tuple[Reference, ...]
    """The sentences that decide it, the most telling first; empty only for "not_in_text"."""
    reason: str
    """One sentence, for people."""
    usage: Usage
    left_out: int = 0
    """Lines of evidence that did not fit into the window, the least relevant ones."""


@runtime_checkable
class Checking(Protocol):
    """What a graph needs of a checker."""

    async def check(self, statement: str, evidence: Sequence[EvidenceLine]) -> CheckReport:
        """Whether `statement` is true by `evidence`, which is in document order. Raises: ModelError."""
        ...

    def demand(self, statement: str) -> Demand:
        """The most that `check` can take, repeated calls included; no calls where it asks no model."""
        ...


class _Judgement(BaseModel):
    """What the model replies: the sentences and the reason come first, so that the label follows from them."""

    sentences: list[int] = Field(default_factory=list)
    reason: str = ""
    label: CheckLabel

    @field_validator("label", mode="before")
    @classmethod
    def _spelt(cls, label: object) -> object:
        if isinstance(label, bool):
            return "true" if label else "false"
        return label.strip(" .").lower().replace(" ", "_").replace("-", "_") if isinstance(label, str) else label


@dataclass(frozen=True, kw_only=True)
class Checker(Prompted):
    """Checks over one model; keeps nothing between calls."""

    counter: TokenCounter = field(default_factory=lambda: EstimatedTokens(_MARGIN))

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """Its one prompt."""
        return (PromptTemplate("check_statement", "evidence", "statement", "form"),)

    async def check(self, statement: str, evidence: Sequence[EvidenceLine]) -> CheckReport:
        """Whether `statement` is true by `evidence`.

        Without evidence there is nothing to ask a model about. A "true" or "false" for which the model names no
        sentence that exists counts as "not_in_text".

        Raises: BadOutput where the reply has no label, twice; any other ModelError of the call.
        """
        shown = await asyncio.to_thread(self._fitting, evidence)
        if not shown:
            return CheckReport("not_in_text", (), "no sentence has anything to do with it", Usage(), len(evidence))
        numbered = [r for line in shown for r in line.references]
        (template,) = self.templates(self.profile)
        tail = template.render(
            evidence=_numbered(shown), statement=harmless(" ".join(statement.split())), form=shape(_Judgement)
        )
        decoding = Decoding(self._reply_tokens, self.temperature)
        reply = await structured(self.model, Prompt(tail=tail), decoding, _Judgement)
        named = dict.fromkeys(n for n in reply.value.sentences if 1 <= n <= len(numbered))
        references = tuple(numbered[n - 1] for n in named)[:_MOST_SENTENCES]
        label, reason = reply.value.label, " ".join(reply.value.reason.split())
        if label != "not_in_text" and not references:
            label, reason = "not_in_text", f"the model said {label!r} and named no sentence for it"
        return CheckReport(label, references, reason, reply.usage, len(evidence) - len(shown))

    def demand(self, statement: str) -> Demand:
        """The most that `check` can take: both calls, in case the first reply is not in form."""
        limits = self.limits
        prompt = limits.template_tokens + limits.question_tokens + limits.chunk_tokens
        return Demand(_MOST_CALLS, _MOST_CALLS * prompt, _MOST_CALLS * self._reply_tokens)

    @property
    def _reply_tokens(self) -> int:
        return min(_REPLY_TOKENS, self.limits.answer_tokens)

    def _fitting(self, evidence: Sequence[EvidenceLine]) -> list[EvidenceLine]:
        """The evidence without what does not fit where a worker has its chunk: the least relevant lines go first."""
        limits = self.limits
        own, *counts = self.counter.count(
            [
                SYSTEM + "\n" + "\n".join(self.template_texts(self.profile)) + shape(_Judgement) + "\n",
                *(_numbered([line]) + "\n\n" for line in evidence),
            ]
        )
        rest = limits.window - limits.question_tokens - self._reply_tokens - own - _CHAT_TEMPLATE_TOKENS
        left = min(limits.chunk_tokens, rest)
        kept: list[EvidenceLine] = []
        for line, n_tokens in sorted(zip(evidence, counts, strict=True), key=lambda pair: -pair[0].relevance):
            if n_tokens <= left:
                kept.append(line)
                left -= n_tokens
        return sorted(kept, key=lambda line: line.references)


def _numbered(lines: Sequence[EvidenceLine]) -> str:
    """The sentences counted from 1 over all lines; brackets of the source do not read as such numbers."""
    shown: list[str] = []
    n = 0
    for line in lines:
        sentences = []
        for text in line.texts:
            n += 1
            sentences.append(f"[{n}] {harmless(without_references(render_text(text)))}")
        shown.append("\n".join(sentences))
    return "\n\n".join(shown)
