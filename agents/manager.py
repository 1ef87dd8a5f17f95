"""The manager: writes the answer from the last unit alone.

Source: CoA, Zhang et al. 2024, section 3.2, Algorithm 1 and Table 11 (manager); giving it the chunks or all
units as well made answers worse there (footnote 3).
"""

from __future__ import annotations

from typing import NamedTuple

from coa.agents.bounded import bounded_prose
from coa.agents.languages import is_wide, write_in
from coa.agents.nothing_found import NOTHING_FOUND, nothing_found, question_language
from coa.agents.prompting import PromptTemplate
from coa.limits import Limits, ReadingProfile
from coa.llm.chat import ChatModel, Decoding, OnText
from coa.reading import Prompt, harmless
from coa.types import CommunicationUnit, Usage

__all__ = ["NOTHING_FOUND", "Manager", "ManagerReply", "nothing_found_reply"]

_REPEAT_PENALTY = 1.1


class ManagerReply(NamedTuple):
    """The answer's text, its sentence ids still in it."""

    text: str
    truncated: bool
    """True when it was cut off at the token cap."""
    usage: Usage


class Manager:
    """Answers over one model; keeps nothing between calls."""

    def __init__(
        self,
        model: ChatModel,
        limits: Limits,
        profile: ReadingProfile,
        *,
        language: str | None = None,
        words: int = 200,
        temperature: float = 0.0,
    ) -> None:
        """`words` is the length of a summary; answers to questions are as short as they can be."""
        self.model = model
        self._limits = limits
        self._profile = profile
        self._language = language
        self._words = words
        self._temperature = temperature
        self._with_question, self._without = _templates(profile)

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return {t.name: t.digest for t in (self._with_question, self._without)}

    @staticmethod
    def template_texts(profile: ReadingProfile) -> list[str]:
        """The prompt files that a manager under `profile` may use."""
        return [t.text for t in _templates(profile)]

    async def answer(
        self, query: str | None, unit: CommunicationUnit, *, on_text: OnText | None = None
    ) -> ManagerReply:
        """The answer to `query`, or the summary when it is None.

        Where no worker found anything there is nothing to ask a model about: the reply says so, without a call.
        """
        if not unit.text:
            return nothing_found_reply(query, self._language, on_text)
        common = {"notes": harmless(unit.text), "language": write_in(self._language)}
        tail = (
            self._without.render(words=str(self._words), **common)
            if query is None
            else self._with_question.render(question=harmless(query), **common)
        )
        bounded = self.model.supports_grammar and self._profile.bounded
        limit = self._limits.answer_tokens
        decoding = Decoding(
            max_tokens=limit,
            temperature=self._temperature,
            grammar=bounded_prose(limit, wide=is_wide(self._language)) if bounded else None,
            repeat_penalty=_REPEAT_PENALTY if bounded else None,
        )
        completion = await self.model.complete(Prompt(tail=tail), decoding, on_text=on_text)
        usage = Usage().plus(completion.usage, seconds=completion.seconds)
        return ManagerReply(completion.text, completion.finish_reason == "length", usage)


def nothing_found_reply(query: str | None, language: str | None, on_text: OnText | None = None) -> ManagerReply:
    """That the text does not say, in `language`, else in the question's; made without a call."""
    text = nothing_found(language or question_language(query or ""))
    if on_text is not None:
        on_text(text)
    return ManagerReply(text, False, Usage())


def _templates(profile: ReadingProfile) -> tuple[PromptTemplate, PromptTemplate]:
    suffix = "" if profile.cites else "_small"
    return (
        PromptTemplate("manager_question" + suffix, "notes", "question", "language"),
        PromptTemplate("manager_summary" + suffix, "notes", "words", "language"),
    )
