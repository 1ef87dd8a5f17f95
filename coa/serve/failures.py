"""coa's errors as HTTP answers."""

from __future__ import annotations

from coa.errors import (
    AuthenticationFailed,
    BudgetExceeded,
    CoaError,
    ConfigError,
    DocumentError,
    DocumentTooLarge,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    RateLimited,
    ReviewNeeded,
    RunDrained,
    RunNotFound,
    StorageError,
    VerificationFailed,
)
from coa.serve.bodies import ErrorBody

__all__ = ["body_of", "status_of"]

_STATUS: tuple[tuple[type[CoaError], int], ...] = (
    (ReviewNeeded, 202),
    (RunDrained, 409),
    (RunNotFound, 404),
    (DocumentTooLarge, 413),
    (DocumentError, 422),
    (VerificationFailed, 422),
    (BudgetExceeded, 422),
    (ModelNotFound, 400),
    (ConfigError, 400),
    (RateLimited, 503),
    (ModelTimeout, 504),
    # The service's own key is no business of its caller's: to them it is a gateway that fails.
    (AuthenticationFailed, 502),
    (ModelError, 502),
    (StorageError, 507),
)


def status_of(error: CoaError) -> int:
    """The HTTP status."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(error: CoaError, *, run_id: str | None = None) -> ErrorBody:
    """The answer's body."""
    return ErrorBody(
        error=type(error).__name__,
        message=error.message,
        hint=error.hint,
        run_id=getattr(error, "run_id", None) or run_id,
        review=error.payload if isinstance(error, ReviewNeeded) else None,
    )
