"""The manager of structured notes: told what contradicts what, what is unsure and how much was left out."""

from __future__ import annotations

from dataclasses import dataclass

from coa.agents.fact_notes import parse_notes
from coa.agents.manager import Manager, ManagerReply, nothing_found_reply
from coa.agents.prompting import PromptTemplate
from coa.limits import ReadingProfile
from coa.llm.chat import OnText
from coa.types import CommunicationUnit

__all__ = ["FactManager"]


@dataclass(frozen=True, kw_only=True)
class FactManager(Manager):
    """Answers from the units of a `FactWorker`; keeps nothing between calls."""

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The prompts with a question and without one."""
        return (
            PromptTemplate("fact_manager_question", "notes", "question", "language"),
            PromptTemplate("fact_manager_summary", "notes", "words", "language"),
        )

    async def answer(
        self, query: str | None, unit: CommunicationUnit, *, on_text: OnText | None = None
    ) -> ManagerReply:
        """As `Manager.answer`; open threads without a single fact are no answer either."""
        if not parse_notes(unit.text).facts:
            return nothing_found_reply(query, self.language, on_text)
        return await super().answer(query, unit, on_text=on_text)

    def shown(self, unit: CommunicationUnit) -> str:
        """The notes in the order of the text, whatever order it was read in; what contradicts stands together."""
        return str(parse_notes(unit.text).in_document_order())
