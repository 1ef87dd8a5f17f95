"""The exception tree. `except CoaError` catches everything that coa raises on purpose.

CoaError                      exit code
  ConfigError                 2   the caller can mend settings or arguments
    LimitsError               2   window, chunk, notes and output do not fit together
  DocumentError               5   the input cannot be read as a document
    DocumentEmpty             5
    DocumentTooLarge          5
    ChunkTooLarge             5
  ModelError                  7   a model or its server failed
    ModelNotFound             7   the named model or file is not there
    ModelTimeout              7   retryable
    RateLimited               7   retryable
    ModelUnavailable          7   retryable
    AuthenticationFailed      4
    ContextOverflow           7
    ContentRefused            7
    BadOutput                 7
  BudgetExceeded              6   a limit of the run was reached
  StorageError                1   coa's own folder cannot be read or written (disk full, permissions)
  RunNotFound                 2
  VerificationFailed          8   a quote or claim is not in the source, under --strict
  RunDrained                  75  stopped on request, resumable
    ReviewNeeded              75  waits for a person, resumable
  CacheError                  -   never fatal to an answer
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from coa.types import Answer, Usage

__all__ = [
    "AuthenticationFailed",
    "BadOutput",
    "BudgetExceeded",
    "CacheError",
    "ChunkTooLarge",
    "CoaError",
    "ConfigError",
    "ContentRefused",
    "ContextOverflow",
    "DocumentEmpty",
    "DocumentError",
    "DocumentTooLarge",
    "LimitsError",
    "ModelError",
    "ModelNotFound",
    "ModelTimeout",
    "ModelUnavailable",
    "RateLimited",
    "ReviewNeeded",
    "RunDrained",
    "RunNotFound",
    "StorageError",
    "VerificationFailed",
]


class CoaError(Exception):
    """An error that coa raises on purpose; `str()` of it is one line that says what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        """What the user can do about it, one sentence."""

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigError(CoaError):
    """A setting or argument that the caller has to change."""

    exit_code = 2


class LimitsError(ConfigError):
    """Chunk, notes, question, prompt and output do not fit into the model's window together."""


class DocumentError(CoaError):
    """The input cannot be read as a document."""

    exit_code = 5


class DocumentEmpty(DocumentError):
    """The input holds no text."""


class DocumentTooLarge(DocumentError):
    """The input is larger than the configured limit."""


class ChunkTooLarge(DocumentError):
    """A piece of text that cannot be split any further is over the chunk budget."""


class ModelError(CoaError):
    """A model, or the server that holds it, failed."""

    exit_code = 7
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        deployment: str | None = None,
        usage: Usage | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.deployment = deployment
        self.usage = usage
        """What had been paid for before the failure; None where nothing is known."""
        self.retry_after_s = retry_after_s
        """The server's own wish, in seconds."""


class ModelNotFound(ModelError):
    """The named model, group or file is not there."""

    exit_code = 2


class ModelTimeout(ModelError):
    """The model did not answer in time."""

    retryable = True


class RateLimited(ModelError):
    """The server asked for fewer calls."""

    retryable = True


class ModelUnavailable(ModelError):
    """The server cannot be reached or failed inside."""

    retryable = True


class AuthenticationFailed(ModelError):
    """The key is missing, wrong, or not allowed to use this model."""

    exit_code = 4


class ContextOverflow(ModelError):
    """The prompt does not fit into the served window."""


class ContentRefused(ModelError):
    """The provider's filter stopped the reply."""


class BadOutput(ModelError):
    """The reply is empty, cut off, or not in the form that was asked for."""


class BudgetExceeded(CoaError):
    """A limit of the run (calls, tokens, cost) was reached; what was read so far is kept."""

    exit_code = 6

    def __init__(self, message: str, *, hint: str | None = None, answer: Answer | None = None) -> None:
        super().__init__(message, hint=hint)
        self.answer = answer
        """The answer from what had been read; None where nothing could be read."""


class StorageError(CoaError):
    """coa's own folder cannot be read or written."""


class RunNotFound(CoaError):
    """No run of that id."""

    exit_code = 2


class RunDrained(CoaError):
    """The run stopped on request after the chunk in hand; it can be resumed."""

    exit_code = 75

    def __init__(self, message: str, *, run_id: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id


class ReviewNeeded(RunDrained):
    """The run waits for a person to look at what it found."""

    def __init__(self, message: str, *, run_id: str, payload: object, hint: str | None = None) -> None:
        super().__init__(message, run_id=run_id, hint=hint)
        self.payload = payload
        """What there is to look at, as JSON values."""


class VerificationFailed(CoaError):
    """Something that the answer says cannot be found in the source, and that was to count as a failure."""

    exit_code = 8

    def __init__(self, message: str, *, hint: str | None = None, answer: Answer | None = None) -> None:
        super().__init__(message, hint=hint)
        self.answer = answer
        """The answer all the same."""


class CacheError(CoaError):
    """The prefix cache failed; never fatal to an answer."""
