"""How a model's window is divided, checked together before the first call.

    window >= template + question + notes in + chunk + notes out        (worker)
    window >= template + question + notes in + answer                   (manager)

The chunk's share is worked out with fixed allowances, so chunk borders do not move with the question: the
formula of CoA (Zhang et al. 2024, Alg. 2) subtracts the question's own length, and reserves nothing for the
notes, which overflows from the second worker on.
"""

from __future__ import annotations

from dataclasses import dataclass

from coa.errors import LimitsError

__all__ = ["FULL", "SMALL", "Limits", "ReadingProfile", "fit_limits"]

_LARGEST_CHUNK = 8192
# Below about this a chunk is mostly frame, and notes outnumber text.
_SMALLEST_CHUNK = 128
_DEFAULT_NOTES_SHARE = 0.1
_LARGEST_NOTES = 1024
_LARGEST_ANSWER = 1024


@dataclass(frozen=True, slots=True)
class ReadingProfile:
    """How much can be asked of a model."""

    name: str
    cites: bool
    """True when the model can be trusted to name sentence ids."""
    bounded: bool
    """True when its replies need a grammar to come to an end."""
    quotes: bool
    """True when notes are sentences of the source, picked by code, rather than the model's own words."""


FULL = ReadingProfile("full", cites=True, bounded=False, quotes=False)
SMALL = ReadingProfile("small", cites=False, bounded=True, quotes=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares of the window, in tokens of the model."""

    window: int
    chunk_tokens: int
    question_tokens: int
    note_tokens: int
    """Of a communication unit; counts twice in a worker's call, once coming in and once going out."""
    answer_tokens: int
    template_tokens: int
    """Of everything constant: system text, instructions, chat template."""

    @property
    def worker_tokens(self) -> int:
        """The most that a worker's call can take."""
        return self.template_tokens + self.question_tokens + 2 * self.note_tokens + self.chunk_tokens

    @property
    def manager_tokens(self) -> int:
        """The most that the manager's call can take."""
        return self.template_tokens + self.question_tokens + self.note_tokens + self.answer_tokens


def fit_limits(
    *,
    window: int,
    template_tokens: int,
    question_tokens: int,
    chunk_tokens: int | None = None,
    note_tokens: int | None = None,
    answer_tokens: int | None = None,
) -> Limits:
    """The limits for a window, what is None worked out.

    Chunks default to what is left, 8,192 at most: the papers' figures fall off above 16k, and smaller
    chunks lose less when one fails (CoA, Zhang et al. 2024, Fig. 6 and Table 18).

    Raises: LimitsError, with the sum in its message, when they do not fit.
    """
    notes = note_tokens or max(96, min(_LARGEST_NOTES, int(window * _DEFAULT_NOTES_SHARE)))
    answer = answer_tokens or max(128, min(_LARGEST_ANSWER, window // 8))
    chunk = chunk_tokens or min(_LARGEST_CHUNK, window - template_tokens - question_tokens - 2 * notes)
    limits = Limits(window, chunk, question_tokens, notes, answer, template_tokens)
    if chunk_tokens is None and chunk < _SMALLEST_CHUNK:
        needed = window - chunk + _SMALLEST_CHUNK
        raise LimitsError(
            f"a window of {window} tokens is too small: notes in {notes} + notes out {notes} + question "
            f"{question_tokens} + template {template_tokens} + the smallest chunk {_SMALLEST_CHUNK} = {needed} tokens.",
            hint="Raise --window, lower --note-tokens, or use a model with a larger window.",
        )
    if chunk < _SMALLEST_CHUNK or limits.worker_tokens > window:
        raise LimitsError(
            f"the worker's prompt does not fit: chunk {chunk} + notes in {notes} + notes out {notes} + question "
            f"{question_tokens} + template {template_tokens} = {limits.worker_tokens} tokens, the window has {window}"
            + (f" (and a chunk needs at least {_SMALLEST_CHUNK})." if chunk < _SMALLEST_CHUNK else "."),
            hint="Lower --chunk-tokens or --note-tokens, or use a model with a larger window.",
        )
    if limits.manager_tokens > window:
        raise LimitsError(
            f"the manager's prompt does not fit: notes {notes} + question {question_tokens} + answer {answer} + "
            f"template {template_tokens} = {limits.manager_tokens} tokens, the window has {window}.",
            hint="Lower --answer-tokens or --note-tokens.",
        )
    return limits
