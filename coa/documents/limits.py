"""What a document may cost to read; defined where the settings can see it."""

from coa.document_limits import DEFAULT_LIMITS, ReadingLimits

__all__ = ["DEFAULT_LIMITS", "ReadingLimits"]
