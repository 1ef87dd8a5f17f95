"""What agents that put prompts to a model have in common."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from coa.agents.bounded import bounded_prose
from coa.agents.languages import is_wide, write_in
from coa.agents.prompting import PromptTemplate
from coa.limits import Limits, ReadingProfile
from coa.llm.chat import ChatModel, Decoding

__all__ = ["REPEAT_PENALTY", "Prompted"]

REPEAT_PENALTY = 1.1


@dataclass(frozen=True)
class Prompted:
    """A model, how much can be asked of it, and how it is to reply; nothing changes between calls."""

    model: ChatModel
    limits: Limits
    profile: ReadingProfile
    _: KW_ONLY
    language: str | None = None
    """ISO 639-1 code that replies are to be written in; None leaves it to the model."""
    temperature: float = 0.0

    @staticmethod
    def templates(profile: ReadingProfile) -> tuple[PromptTemplate, ...]:
        """The prompts that such an agent may use under `profile`."""
        return ()

    @classmethod
    def template_texts(cls, profile: ReadingProfile) -> list[str]:
        """Their files' texts, for working out what they take of a window."""
        return [t.text for t in cls.templates(profile)]

    @property
    def prompt_digests(self) -> dict[str, str]:
        """Prompt names and the digests of their files, for the run's record."""
        return {t.name: t.digest for t in self.templates(self.profile)}

    @property
    def write_in(self) -> str:
        """The prompt's sentence about the language; empty where that is left to the model."""
        return write_in(self.language)

    def prose(self, max_tokens: int, *, bounded: bool) -> Decoding:
        """For running text; `bounded` keeps it below the cap by a grammar, where the engine has them."""
        if not (bounded and self.model.supports_grammar):
            return Decoding(max_tokens, self.temperature)
        grammar = bounded_prose(max_tokens, wide=is_wide(self.language))
        return Decoding(max_tokens, self.temperature, grammar=grammar, repeat_penalty=REPEAT_PENALTY)
