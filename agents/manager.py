"""The manager: writes the answer from the last unit alone.

Source: CoA, Zhang et al. 2024, section 3.2, Algorithm 1 and Table 11 (manager); giving it the chunks or all
units as well made answers worse there (footnote 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from coa.agents.nothing_found import NOTHING_FOUND, nothing_found, question_language
from coa.agents.prompted import Prompted
from coa.agents.prompting import PromptTemplate
from coa.limits import ReadingProfile
from coa.llm.chat import OnText
from coa.reading import Prompt, harmless
from coa.types import CommunicationUnit, Usage

__all__ = ["NOTHING_FOUND", "Manager", "ManagerReply", "nothing_found_reply"]


class ManagerReply(NamedTuple):
    """The answer's text, its sentence ids still in it."""

    text: str
    truncated: bool
    """True when it was cut off at the token cap."""
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class Manager(Prompted):
    """Answers over one model; keeps nothing between calls."""

    words: int = 200
    """Of a summary, about; answers to questions are as short as they can be."""

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The prompts with a question and without one."""
        suffix = "" if profile.cites else "_small"
        return (
            PromptTemplate("manager_question" + suffix, "notes", "question", "language"),
            PromptTemplate("manager_summary" + suffix, "notes", "words", "language"),
        )

    async def answer(
        self, query: str | None, unit: CommunicationUnit, *, on_text: OnText | None = None
    ) -> ManagerReply:
        """The answer to `query`, or the summary when it is None.

        Where no worker found anything there is nothing to ask a model about: the reply says so, without a call.
        """
        if not unit.text:
            return nothing_found_reply(query, self.language, on_text)
        asking, without = self.templates(self.profile)
        common = {"notes": harmless(self.shown(unit)), "language": self.write_in}
        tail = (
            without.render(words=str(self.words), **common)
            if query is None
            else asking.render(question=harmless(query), **common)
        )
        decoding = self.prose(self.limits.answer_tokens, bounded=self.profile.bounded)
        completion = await self.model.complete(Prompt(tail=tail), decoding, on_text=on_text)
        usage = Usage().plus(completion.usage, seconds=completion.seconds)
        return ManagerReply(completion.text, completion.finish_reason == "length", usage)

    def shown(self, unit: CommunicationUnit) -> str:
        """The unit as the prompt has it."""
        return unit.text


def nothing_found_reply(query: str | None, language: str | None, on_text: OnText | None = None) -> ManagerReply:
    """That the text does not say, in `language`, else in the question's; made without a call."""
    text = nothing_found(language or question_language(query or ""))
    if on_text is not None:
        on_text(text)
    return ManagerReply(text, False, Usage())
