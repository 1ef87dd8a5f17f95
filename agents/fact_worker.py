"""The worker of structured notes: says only what a chunk adds; code keeps the notes.

Published workers write their notes anew after each chunk (CoA, Zhang et al. 2024, Algorithm 1), so they decode the
whole of them every time and may drop on the way what was found early. Here the model decodes the news alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from coa.agents.fact_notes import FactNotes, merged, parse_notes
from coa.agents.fact_replies import facts_grammar, read_reply
from coa.agents.fact_room import Costs, cost_of, made_to_fit, spared
from coa.agents.languages import is_wide
from coa.agents.prompted import REPEAT_PENALTY, Prompted
from coa.agents.prompting import PromptTemplate
from coa.agents.worker import WorkerReply
from coa.errors import BadOutput, ModelError
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import Completion, Decoding
from coa.reading import Prompt, harmless, reading_prompt
from coa.tokens import EstimatedTokens, TokenCounter
from coa.types import Chunk, CommunicationUnit, Usage

__all__ = ["FactWorker"]

_WORDS_PER_TOKEN = 0.6
_SHORTER = 0.5
# Of the notes' share of the window: what one chunk may add, and what is left after the model has shortened them.
_REPLY_SHARE = 0.5
_SHORTENED_SHARE = 0.6
_SHORTEST_REPLY = 96
# Under this a shortened set of notes would be a handful of lines: rules do as well, without a call.
_LEAST_WORTH_A_CALL = 256


@dataclass(frozen=True, kw_only=True)
class FactWorker(Prompted):
    """Reads chunks over one model; the unit is all that it keeps."""

    counter: TokenCounter = field(default_factory=EstimatedTokens)
    """Measures the unit against `limits.note_tokens`."""

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The prompts for reading with a question and without one, and for making room likewise."""
        return (
            PromptTemplate("fact_worker_question", "notes", "question", "words", "language"),
            PromptTemplate("fact_worker_summary", "notes", "words", "language"),
            PromptTemplate("fact_shorter_question", "notes", "question", "words", "language"),
            PromptTemplate("fact_shorter_summary", "notes", "words", "language"),
        )

    async def read(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> WorkerReply:
        """The unit with what `chunk` adds to it, within its budget; `query` None asks for a summary.

        Of a reply that was cut off the complete lines are kept, and the unit says that it was; one without any is
        asked for once more, shorter.

        Raises: BadOutput when that one has none either; any other ModelError of a reading call.
        """
        notes = parse_notes(unit.text)
        instruction = self.templates(self.profile)[0 if query is not None else 1].text
        usage = Usage()
        for shorter in (False, True):
            try:
                completion = await self._ask(chunk, query, unit, shorter=shorter)
            except ModelError as error:
                error.usage = usage.merged(error.usage or Usage())
                raise
            usage = usage.plus(completion.usage, seconds=completion.seconds)
            cut_off = completion.finish_reason == "length"
            new = read_reply(
                completion.text,
                notes,
                chunk=chunk.index + 1,
                n_sentences=len(chunk.sentences) if self.profile.cites else 0,
                cut_off=cut_off,
                instruction=instruction,
            )
            if new or not cut_off:
                grown = merged(notes, new)
                if grown == notes:
                    return WorkerReply(unit, False, usage)
                kept, usage = await self._in_budget(grown, query, usage)
                return WorkerReply(CommunicationUnit(str(kept), chunk.index), True, usage)
        raise BadOutput(
            f"chunk {chunk.index + 1}: the notes were cut off at {self._reply_tokens} tokens, twice, without a "
            "complete line.",
            hint="Raise --note-tokens.",
            deployment=completion.deployment,
            usage=usage,
        )

    def demand(self, chunk: Chunk, query: str | None, unit: CommunicationUnit) -> Demand:
        """The most that `read` can take: both calls for the news, and the one that makes room if it may be needed."""
        limits, out = self.limits, self._reply_tokens
        prompt = limits.template_tokens + limits.question_tokens + limits.note_tokens + chunk.n_tokens
        reading = Demand(2, 2 * prompt, 2 * out)
        # A fact's id grows from [7] to [12.7] on its way into the unit.
        held = sum(EstimatedTokens().count(parse_notes(unit.text).lines()))
        if not self._rewrites or held + 2 * out <= limits.note_tokens:
            return reading
        prompt = limits.template_tokens + limits.question_tokens + limits.note_tokens + out
        return reading.plus(Demand(1, prompt, self._shortened_tokens))

    @property
    def _reply_tokens(self) -> int:
        limit = self.limits.note_tokens
        return min(limit, max(_SHORTEST_REPLY, int(limit * _REPLY_SHARE)))

    @property
    def _shortened_tokens(self) -> int:
        return int(self.limits.note_tokens * _SHORTENED_SHARE)

    @property
    def _rewrites(self) -> bool:
        return not self.profile.bounded and self.limits.note_tokens >= _LEAST_WORTH_A_CALL

    async def _ask(self, chunk: Chunk, query: str | None, unit: CommunicationUnit, *, shorter: bool) -> Completion:
        asking, without, *_ = self.templates(self.profile)
        limit = self._reply_tokens
        tail = self._tail(asking, without, query, unit.text or "(none)", limit * (_SHORTER if shorter else 1.0))
        return await self.model.complete(reading_prompt(chunk, tail), self._lines(limit))

    async def _in_budget(self, notes: FactNotes, query: str | None, usage: Usage) -> tuple[FactNotes, Usage]:
        """`notes` within the unit's budget: by rules where they cost little, else by a call, else by rules anyhow."""
        budget = self.limits.note_tokens
        if await self._cost(notes) <= budget:
            return notes, usage
        notes = await asyncio.to_thread(spared, notes, query, budget, self._costs)
        if await self._cost(notes) <= budget:
            return notes, usage
        if self._rewrites:
            shorter, usage = await self._shortened(notes, query, usage)
            if shorter is not None:
                return await asyncio.to_thread(made_to_fit, shorter, query, budget, self._costs), usage
            # Room for some chunks to come, or each of them would make the same call in vain.
            budget = self._shortened_tokens
        return await asyncio.to_thread(made_to_fit, notes, query, budget, self._costs), usage

    async def _shortened(self, notes: FactNotes, query: str | None, usage: Usage) -> tuple[FactNotes | None, Usage]:
        """`notes` retold by the model, what contradicts apart; None where that loses more than rules would."""
        *_, asking, without = self.templates(self.profile)
        named = {r for f in notes.facts for r in f.against}
        opposed = [bool(f.against or named & set(f.references)) for f in notes.facts]
        plain = replace(notes, facts=tuple(f for f, o in zip(notes.facts, opposed, strict=True) if not o), threads=())
        limit = self._shortened_tokens
        told = "\n".join(str(f) for f in plain.facts)
        tail = self._tail(asking, without, query, told, limit)
        try:
            completion = await self.model.complete(Prompt(tail=tail), self._lines(limit))
        except ModelError as error:
            # What was read is worth more than its best wording: the rules make room.
            return None, usage.merged(error.usage or Usage())
        usage = usage.plus(completion.usage, seconds=completion.seconds)
        if completion.finish_reason != "stop":
            return None, usage
        retold = read_reply(completion.text, replace(plain, facts=()), chunk=0, n_sentences=0, known=plain.references)
        facts = tuple(f for f in retold.facts if f.references or not plain.references)
        shorter = plain.with_facts(facts)
        by_rule = await asyncio.to_thread(made_to_fit, plain, query, limit, self._costs)
        if shorter.ids_left_out > by_rule.ids_left_out or await self._cost(shorter) > limit:
            return None, usage
        kept = tuple(f for f, o in zip(notes.facts, opposed, strict=True) if o)
        return replace(shorter, facts=(*shorter.facts, *kept), threads=notes.threads), usage

    def _tail(
        self, asking: PromptTemplate, without: PromptTemplate, query: str | None, notes: str, tokens: float
    ) -> str:
        words = str(max(20, int(tokens * _WORDS_PER_TOKEN)))
        common = {"notes": harmless(notes), "words": words, "language": self.write_in}
        return without.render(**common) if query is None else asking.render(question=harmless(query), **common)

    def _lines(self, max_tokens: int) -> Decoding:
        """For replies in lines, held to their form where the engine can."""
        if not self.model.supports_grammar:
            return Decoding(max_tokens, self.temperature)
        grammar = facts_grammar(max_tokens, wide=is_wide(self.language))
        penalty = REPEAT_PENALTY if self.profile.bounded else None
        return Decoding(max_tokens, self.temperature, grammar=grammar, repeat_penalty=penalty)

    async def _cost(self, notes: FactNotes) -> int:
        return await asyncio.to_thread(cost_of, notes, self._costs)

    @property
    def _costs(self) -> Costs:
        return lambda lines: self.counter.count([f"{line}\n" for line in lines])
