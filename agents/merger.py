"""The merger: makes one set of notes of several, for reading in a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from coa.agents.collapse import is_refusal
from coa.agents.prompted import Prompted
from coa.agents.prompting import PromptTemplate
from coa.agents.quoting import QUOTES_KEPT, quotes_of
from coa.agents.references import qualify, references
from coa.agents.worker import WorkerReply
from coa.errors import BadOutput, LimitsError, ModelError
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import Completion
from coa.reading import Prompt, harmless
from coa.types import CommunicationUnit, Usage

__all__ = ["Merger", "QuotingMerger"]

_WORDS_PER_TOKEN = 0.6
_SHORTER = 0.5
_MOST_CALLS = 2
_KEPT_FOR_SUMMARY = 40


@dataclass(frozen=True)
class Merger(Prompted):
    """Merges over one model; keeps nothing between calls.

    Raises: LimitsError at construction where not even two sets of notes fit into the window together.
    """

    def __post_init__(self) -> None:
        limits = self.limits
        if self._room < 2:
            raise LimitsError(
                f"notes cannot be merged: template {limits.template_tokens} + question {limits.question_tokens} + "
                f"three times notes {limits.note_tokens} are more than the window's {limits.window} tokens.",
                hint="Lower --note-tokens, or use a model with a larger window.",
            )

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The prompts with a question and without one."""
        return (
            PromptTemplate("merge_notes_question", "n", "notes", "question", "words", "language"),
            PromptTemplate("merge_notes_summary", "n", "notes", "words", "language"),
        )

    @property
    def _room(self) -> int:
        """Sets of notes that fit into one call beside the one that is written."""
        limits = self.limits
        free = limits.window - limits.template_tokens - limits.question_tokens - limits.note_tokens
        return free // max(1, limits.note_tokens)

    @property
    def group_size(self) -> int:
        """How many sets of notes one call takes; at least two, so that each level of a tree is smaller."""
        return self._room

    def demand(self, n_units: int) -> Demand:
        """The most that merging so many can take: both calls, in case the first reply is of no use."""
        limits = self.limits
        prompt = limits.template_tokens + limits.question_tokens + n_units * limits.note_tokens
        return Demand(_MOST_CALLS, _MOST_CALLS * prompt, _MOST_CALLS * limits.note_tokens)

    async def merge(self, query: str | None, units: Sequence[CommunicationUnit]) -> WorkerReply:
        """One unit in place of `units` (at most `group_size`), which are in document order.

        Ids that none of them has are dropped. A reply that is cut off, or says only that there is nothing to say, is
        asked for once more, shorter. Raises: BadOutput when that one is of no use either, ModelError.
        """
        known = frozenset(r for unit in units for r in references(unit.text))
        usage = Usage()
        for shorter in (False, True):
            try:
                completion = await self._ask(query, units, shorter=shorter)
            except ModelError as error:
                error.usage = usage.merged(error.usage or Usage())
                raise
            usage = usage.plus(completion.usage, seconds=completion.seconds)
            text = qualify(completion.text, chunk=0, n_sentences=0, known=known)
            if completion.finish_reason != "length" and not is_refusal(text):
                return WorkerReply(CommunicationUnit(text, units[-1].chunk_index), True, usage)
        cut_off = completion.finish_reason == "length"
        raise BadOutput(
            f"merged notes were cut off at {self.limits.note_tokens} tokens, twice."
            if cut_off
            else "notes that say something were merged into nothing, twice.",
            hint="Raise --note-tokens." if cut_off else None,
            deployment=completion.deployment,
            usage=usage,
        )

    async def _ask(self, query: str | None, units: Sequence[CommunicationUnit], *, shorter: bool) -> Completion:
        limit = self.limits.note_tokens
        common = {
            "n": str(len(units)),
            "notes": "\n\n".join(f"Part {n}:\n{harmless(unit.text)}" for n, unit in enumerate(units, 1)),
            "words": str(max(20, int(limit * _WORDS_PER_TOKEN * (_SHORTER if shorter else 1.0)))),
            "language": self.write_in,
        }
        asking, without = self.templates(self.profile)
        tail = without.render(**common) if query is None else asking.render(question=harmless(query), **common)
        decoding = self.prose(limit, bounded=shorter or self.profile.bounded)
        return await self.model.complete(Prompt(tail=tail), decoding)


class QuotingMerger:
    """Puts lists of quotes together, the best ones kept: for notes that code has picked and scored."""

    prompt_digests: ClassVar[dict[str, str]] = {}
    group_size = 64

    def demand(self, n_units: int) -> Demand:
        """It makes no call."""
        return Demand(0)

    async def merge(self, query: str | None, units: Sequence[CommunicationUnit]) -> WorkerReply:
        """The best quotes of all of `units`: best first for a question, in document order for a summary."""
        quotes = sorted((q for unit in units for q in quotes_of(unit)), key=lambda q: -q.score)
        kept = quotes[:QUOTES_KEPT]
        if query is None:
            kept = sorted(quotes[:_KEPT_FOR_SUMMARY], key=lambda q: q.reference)
        return WorkerReply(
            CommunicationUnit("\n".join(str(q) for q in kept), units[-1].chunk_index), bool(kept), Usage()
        )
