"""A circuit breaker: after a few failures in a row nobody waits for the server until it is known to answer again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Breaker"]


class Breaker:
    """Counts failures; open means "do not ask". Safe to use from several threads.

    While it is open, one caller every `retry_s` seconds is told to probe, apart from the call path.
    """

    def __init__(self, *, failures: int = 3, retry_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._retry_s = retry_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._next_probe = 0.0

    @property
    def open(self) -> bool:
        """Whether the server is taken for dead."""
        return self._failures >= self._limit

    def failed(self) -> bool:
        """Books a failure; True for the one that begins an outage."""
        with self._lock:
            self._failures += 1
            self._next_probe = self._clock() + self._retry_s
            return self._failures == 1

    def succeeded(self) -> bool:
        """Books an answer; True for the one that ends an outage."""
        with self._lock:
            was, self._failures = self._failures, 0
            return was > 0

    def probe_due(self) -> bool:
        """True for one caller, when it is time to try again."""
        with self._lock:
            if self._failures < self._limit or self._clock() < self._next_probe:
                return False
            self._next_probe = self._clock() + self._retry_s
            return True
