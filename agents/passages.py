"""Answers straight from passages of the text: a single chunk, the best ones of a search, or a document that fits.

The baselines of CoA (Zhang et al. 2024, section 4.1): "vanilla" (as much as the window takes), RAG, and the
workers of "merge", which answer from their own chunk alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coa.agents.collapse import is_refusal
from coa.agents.prompted import Prompted
from coa.agents.prompting import PromptTemplate
from coa.agents.references import Reference, qualify
from coa.agents.worker import WorkerReply
from coa.errors import ModelError
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import OnText
from coa.reading import Prompt, harmless, reading_prompt, render_text
from coa.types import Chunk, CommunicationUnit, Usage

__all__ = ["PassageReader", "PassageReply", "QuotingPassageReader"]

_OPEN = "Source text, its sentences numbered:\n"
_GAP = "[…]\n"
_CLOSE = "[End of source text.]\n"


class PassageReply(NamedTuple):
    """An answer from passages."""

    text: str
    """With `[c.s]` ids; empty where the passages do not hold the answer."""
    truncated: bool
    usage: Usage


class _Reads(Protocol):
    async def read(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> WorkerReply: ...

    def demand(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> Demand: ...


class _Answers(Protocol):
    async def answer(self, query: str | None, unit: CommunicationUnit) -> tuple[str, bool, Usage]: ...


@dataclass(frozen=True)
class PassageReader(Prompted):
    """Reads passages over one model; keeps nothing between calls."""

    words: int = 200
    """Length of a summary."""

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The prompts with a question and without one."""
        if profile.cites:
            return (
                PromptTemplate("passage_question", "question", "example", "language"),
                PromptTemplate("passage_summary", "words", "example", "language"),
            )
        return (
            PromptTemplate("passage_question_small", "question", "language"),
            PromptTemplate("passage_summary_small", "words", "language"),
        )

    @property
    def room_tokens(self) -> int:
        """Tokens of passages that one call takes."""
        limits = self.limits
        return limits.window - limits.template_tokens - limits.question_tokens - limits.answer_tokens

    def demand(self, query: str | None, chunks: Sequence[Chunk]) -> Demand:
        """The most that `answer` can take."""
        limits = self.limits
        prompt = limits.template_tokens + limits.question_tokens + sum(c.n_tokens for c in chunks)
        return Demand(1, prompt, limits.answer_tokens)

    async def answer(
        self, query: str | None, chunks: Sequence[Chunk], *, on_text: OnText | None = None
    ) -> PassageReply:
        """The answer to `query`, or a summary, from `chunks` (at least one), which are shown in their order.

        A single chunk is shown as every agent is shown it, so that its prefix is shared; several in one prompt
        carry ids with the chunk's number. Raises: ModelError.
        """
        tail = self._tail(query, "[7]" if len(chunks) == 1 else "[3.7]")
        prompt = reading_prompt(chunks[0], tail) if len(chunks) == 1 else Prompt(prefix=_rendered(chunks), tail=tail)
        decoding = self.prose(self.limits.answer_tokens, bounded=self.profile.bounded)
        completion = await self.model.complete(prompt, decoding, on_text=on_text)
        usage = Usage().plus(completion.usage, seconds=completion.seconds)
        if is_refusal(completion.text):
            return PassageReply("", False, usage)
        return PassageReply(self._named(completion.text, chunks), completion.finish_reason == "length", usage)

    def _tail(self, query: str | None, example: str) -> str:
        asking, without = self.templates(self.profile)
        common = {"language": self.write_in, **({"example": example} if self.profile.cites else {})}
        if query is None:
            return without.render(words=str(self.words), **common)
        return asking.render(question=harmless(query), **common)

    def _named(self, text: str, chunks: Sequence[Chunk]) -> str:
        if not self.profile.cites:
            return qualify(text, chunk=0, n_sentences=0, known=frozenset())
        if len(chunks) == 1:
            chunk = chunks[0]
            return qualify(text, chunk=chunk.index + 1, n_sentences=len(chunk.sentences), known=frozenset())
        known = frozenset(Reference(c.index + 1, n) for c in chunks for n in range(1, len(c.sentences) + 1))
        return qualify(text, chunk=0, n_sentences=0, known=known)


class QuotingPassageReader:
    """The same for models that cannot read a passage: code picks the sentences, the model shortens one.

    `worker` and `manager` are those of the quoting chain.
    """

    def __init__(self, worker: _Reads, manager: _Answers) -> None:
        self._worker = worker
        self._manager = manager

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Those of its worker."""
        return dict(getattr(self._worker, "prompt_digests", {}))

    @property
    def room_tokens(self) -> int:
        """No limit: it is never shown more than a few sentences."""
        return 2**62

    def demand(self, query: str | None, chunks: Sequence[Chunk]) -> Demand:
        """The worker's, for each chunk."""
        total = Demand(0)
        for chunk in chunks:
            total = total.plus(self._worker.demand(chunk, query, CommunicationUnit()))
        return total

    async def answer(
        self, query: str | None, chunks: Sequence[Chunk], *, on_text: OnText | None = None
    ) -> PassageReply:
        """The best sentence's answer. Raises: ModelError."""
        unit, usage = CommunicationUnit(), Usage()
        for chunk in chunks:
            try:
                reply = await self._worker.read(chunk, query, unit)
            except ModelError as error:
                error.usage = usage.merged(error.usage or Usage())
                raise
            unit, usage = reply.unit, usage.merged(reply.usage)
        if not unit.text:
            return PassageReply("", False, usage)
        text, truncated, spent = await self._manager.answer(query, unit)
        if on_text is not None:
            on_text(text)
        return PassageReply(text, truncated, usage.merged(spent))


def _rendered(chunks: Sequence[Chunk]) -> str:
    """Passages in one prompt, each sentence with its chunk's number and its own."""
    lines: list[str] = []
    last: int | None = None
    for chunk in chunks:
        if last is not None and chunk.index != last + 1:
            lines.append(_GAP)
        last = chunk.index
        for n, span in enumerate(chunk.sentences, 1):
            text = render_text(chunk.text[span.start - chunk.span.start : span.end - chunk.span.start])
            lines.append(f"[{chunk.index + 1}.{n}] {text}\n")
    return _OPEN + "".join(lines) + _CLOSE
