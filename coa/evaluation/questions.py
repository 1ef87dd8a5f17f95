"""Questions with their gold answers and the places that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coa.types import Document, Span

__all__ = ["Gold", "Question", "QuestionSet"]

Gold = tuple[Span, ...]
"""One piece of evidence: every place of the document where it stands, in order; any of them will do."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a document, and what a right answer is."""

    id: str
    """Unique within its set."""
    doc_id: str
    text: str
    """As the set has it, without options and instruction."""
    answers: tuple[str, ...]
    """Any one is right. Of an unanswerable question: what the set says in place of an answer, if anything."""
    kind: str = ""
    """The set's own word for what sort of question it is."""
    options: tuple[str, ...] = ()
    pair: str | None = None
    """Questions with the same one count together (NoCha)."""
    unanswerable: bool = False
    gold: tuple[Gold, ...] = ()
    """Each piece of evidence that the answer needs; empty where the set does not tell."""
    evidence: tuple[str, ...] = ()
    """As the set has it."""
    instruction: str = ""
    """What to add to the question for the form of the answer that its score expects."""
    language: str = ""
    """ISO 639-1 where it differs from the set's."""
    meta: Mapping[str, object] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What is put to the model: question, options, instruction."""
        parts = [self.text]
        if self.options and not self.by_words:
            parts.append(
                "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False))
            )
            parts.append("Reply with the letter of the right option.")
        elif self.options:
            parts.append(f"Reply with one word: {' or '.join(self.options)}.")
        if self.instruction:
            parts.append(self.instruction)
        return "\n".join(parts)

    @property
    def by_words(self) -> bool:
        """True where the options are answered with the words themselves (True, False) rather than a letter."""
        return bool(self.options) and all(len(option.split()) == 1 and len(option) > 1 for option in self.options)

    def position(self, length: int) -> float | None:
        """Where the first piece of evidence begins, as a share of a document of `length`; None where unknown."""
        starts = [piece[0].start for piece in self.gold if piece]
        return min(starts) / length if starts and length else None


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What options are called, in order."""


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions over documents."""

    name: str
    documents: Mapping[str, Document] = field(repr=False)
    """By `Question.doc_id`."""
    questions: tuple[Question, ...] = field(repr=False)
    language: str | None = None
    """ISO 639-1 of questions and documents; None takes each document's own."""
    metrics: tuple[str, ...] = ("f1", "em")
    """What is scored, the one that counts first."""

    def language_of(self, question: Question) -> str | None:
        """The question's own language, else the set's, else its document's."""
        return question.language or self.language or self.documents[question.doc_id].language
