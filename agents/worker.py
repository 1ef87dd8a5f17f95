"""The worker: reads one chunk with the notes so far, and hands new notes on.

Source: CoA, Zhang et al. 2024, Algorithm 1 and Table 11 (worker), order of parts as there: chunk, notes,
question, instruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from coa.agents.collapse import is_refusal
from coa.agents.prompted import Prompted
from coa.agents.prompting import PromptTemplate
from coa.agents.references import qualify, references
from coa.errors import BadOutput, ModelError
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import Completion
from coa.reading import harmless, reading_prompt
from coa.types import Chunk, CommunicationUnit, Usage

__all__ = ["Worker", "WorkerReply"]

_WORDS_PER_TOKEN = 0.6
_SHORTER = 0.5
_MOST_CALLS = 2


class WorkerReply(NamedTuple):
    """What reading a chunk gave."""

    unit: CommunicationUnit
    informative: bool
    """False when the chunk left the unit as it was."""
    usage: Usage
    """Of all calls it took."""


@dataclass(frozen=True)
class Worker(Prompted):
    """Reads chunks over one model; keeps nothing between calls."""

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The prompts with a question and without one."""
        suffix = "" if profile.cites else "_small"
        return (
            PromptTemplate("worker_question" + suffix, "notes", "question", "words", "language"),
            PromptTemplate("worker_summary" + suffix, "notes", "words", "language"),
        )

    async def read(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> WorkerReply:
        """The unit after `chunk`; `query` None asks for a summary.

        A reply that reaches the token cap is not a note: it is asked for once more, shorter (and with a
        grammar that ends by itself where the engine has them).

        Raises: BadOutput when that one is cut off too; any other ModelError of the call.
        """
        usage = Usage()
        for shorter in (False, True):
            try:
                completion = await self._ask(chunk, query, unit, shorter=shorter)
            except ModelError as error:
                error.usage = usage.merged(error.usage or Usage())
                raise
            usage = usage.plus(completion.usage, seconds=completion.seconds)
            if completion.finish_reason == "length":
                continue
            return self._reply(chunk, unit, completion.text, usage)
        raise BadOutput(
            f"chunk {chunk.index + 1}: the notes were cut off at {self.limits.note_tokens} tokens, twice.",
            hint="Raise --note-tokens.",
            deployment=completion.deployment,
            usage=usage,
        )

    def demand(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> Demand:
        """The most that `read` can take: both calls, in case the first reply is cut off."""
        limits = self.limits
        prompt = limits.template_tokens + limits.question_tokens + limits.note_tokens + chunk.n_tokens
        return Demand(_MOST_CALLS, _MOST_CALLS * prompt, _MOST_CALLS * limits.note_tokens)

    async def _ask(self, chunk: Chunk, query: str | None, unit: CommunicationUnit, *, shorter: bool) -> Completion:
        limit = self.limits.note_tokens
        words = max(20, int(limit * _WORDS_PER_TOKEN * (_SHORTER if shorter else 1.0)))
        common = {"notes": harmless(unit.text) or "(none)", "words": str(words), "language": self.write_in}
        asking, without = self.templates(self.profile)
        tail = without.render(**common) if query is None else asking.render(question=harmless(query), **common)
        decoding = self.prose(limit, bounded=shorter or self.profile.bounded)
        return await self.model.complete(reading_prompt(chunk, tail), decoding)

    def _reply(self, chunk: Chunk, unit: CommunicationUnit, text: str, usage: Usage) -> WorkerReply:
        note = qualify(
            text,
            chunk=chunk.index + 1,
            n_sentences=len(chunk.sentences) if self.profile.cites else 0,
            known=frozenset(references(unit.text)),
        )
        if is_refusal(note):
            return WorkerReply(unit, False, usage)
        return WorkerReply(CommunicationUnit(note, chunk.index), True, usage)
