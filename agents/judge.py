"""The judge: says whose notes to answer from, where several chains have read the same document.

Source: CoA, Zhang et al. 2024, section 5.6 and Table 8: of several paths a model picks the most reliable last
unit, and the answer is written from it alone. A vote over answers ruins long ones there (QMSum 16.8 to 8.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from coa.agents.prompted import Prompted
from coa.agents.prompting import PromptTemplate
from coa.agents.quoting import quotes_of
from coa.errors import ModelError
from coa.limits import ReadingProfile
from coa.llm.budget import Demand
from coa.llm.chat import Decoding
from coa.reading import Prompt, harmless
from coa.types import CommunicationUnit, Usage

__all__ = ["Judge", "JudgeReply", "QuotingJudge"]

_REPLY_TOKENS = 16
_NUMBER = re.compile(r"\d+")


class JudgeReply(NamedTuple):
    """Which notes to answer from."""

    choice: int
    """Index into the units that were shown."""
    decided: bool
    """False where the model named none of them, and the first that holds anything was taken."""
    usage: Usage


@dataclass(frozen=True)
class Judge(Prompted):
    """Judges over one model; keeps nothing between calls.

    Notes that do not fit into the window together are judged in rounds: the winners of groups meet in the next.
    """

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The one prompt."""
        return (PromptTemplate("judge", "question", "candidates"),)

    @property
    def group_size(self) -> int:
        """How many units fit into one call; at least two."""
        free = self.limits.window - self.limits.template_tokens - self.limits.question_tokens - _REPLY_TOKENS
        return max(2, free // max(1, self.limits.note_tokens))

    def demand(self, n_units: int) -> Demand:
        """The most that choosing among so many can take."""
        calls, left = 0, n_units
        while left > 1:
            groups = -(-left // self.group_size)
            calls, left = calls + groups, groups
        limits = self.limits
        each = limits.template_tokens + limits.question_tokens + self.group_size * limits.note_tokens
        return Demand(calls, calls * each, calls * _REPLY_TOKENS)

    async def choose(self, query: str | None, units: Sequence[CommunicationUnit]) -> JudgeReply:
        """The most reliable of `units` (at least one); empty ones are only taken where all are. Raises: ModelError."""
        usage = Usage()
        decided = True
        left = [at for at, unit in enumerate(units) if unit.text] or [0]
        while len(left) > 1:
            winners = []
            for start in range(0, len(left), self.group_size):
                group = left[start : start + self.group_size]
                try:
                    picked, spent = await self._pick(query, [units[at] for at in group])
                except ModelError as error:
                    error.usage = usage.merged(error.usage or Usage())
                    raise
                usage = usage.merged(spent)
                decided = decided and picked is not None
                winners.append(group[picked or 0])
            left = winners
        return JudgeReply(left[0], decided, usage)

    async def _pick(self, query: str | None, units: Sequence[CommunicationUnit]) -> tuple[int | None, Usage]:
        """The index of the best one; None where the reply names none."""
        if len(units) == 1:
            return 0, Usage()
        shown = "\n\n".join(f"Notes {n}:\n{harmless(unit.text)}" for n, unit in enumerate(units, 1))
        tail = self.templates(self.profile)[0].render(
            question=harmless(query or "What is the document about?"), candidates=shown
        )
        grammar = f"root ::= {' | '.join(chr(34) + str(n) + chr(34) for n in range(1, len(units) + 1))}"
        decoding = Decoding(max_tokens=_REPLY_TOKENS, grammar=f"{grammar}\n" if self.model.supports_grammar else None)
        completion = await self.model.complete(Prompt(tail=tail), decoding)
        usage = Usage().plus(completion.usage, seconds=completion.seconds)
        named = (int(n) for n in _NUMBER.findall(completion.text))
        picked = next((n - 1 for n in named if 1 <= n <= len(units)), None)
        return picked, usage


class QuotingJudge:
    """Takes the notes whose best quote fits best: for notes that code has picked and scored."""

    prompt_digests: ClassVar[dict[str, str]] = {}

    def demand(self, n_units: int) -> Demand:
        """It makes no call."""
        return Demand(0)

    async def choose(self, query: str | None, units: Sequence[CommunicationUnit]) -> JudgeReply:
        """The unit with the highest score, the first of equals."""
        scores = [max((q.score for q in quotes_of(unit)), default=0.0) for unit in units]
        return JudgeReply(max(range(len(units)), key=lambda at: (scores[at], -at)), True, Usage())
