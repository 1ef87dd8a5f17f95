"""Asking a run to stop, so that it can be resumed."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["StopSignal"]


class StopSignal:
    """Asks a run to stop after the chunk in hand; may be set from a signal handler or another thread."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._listeners: list[Callable[[str], None]] = []

    def request(self, reason: str) -> None:
        """Asks for the stop; the first reason stays."""
        if self._reason is None:
            self._reason = reason
            for listener in self._listeners:
                listener(reason)

    @property
    def requested(self) -> bool:
        """True once a stop was asked for."""
        return self._reason is not None

    def listen(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with the reason, at once when a stop was asked for already."""
        self._listeners.append(listener)
        if self._reason is not None:
            listener(self._reason)
