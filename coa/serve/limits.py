"""What a service lets its callers do."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServeLimits"]


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """Of one process."""

    max_runs: int = 64
    """Under way at once; a caller above that is told to come again."""
    max_seconds: float = 3600.0
    """Of one run; what it has read by then is kept, and it can be gone on with."""
    max_question_chars: int = 4000
