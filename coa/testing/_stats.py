"""What a fault server counts, and the calls that it takes in a minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CallLimit", "ServerStats"]


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What a fault server has done since it was made or `reset_stats` was called."""

    calls: int
    """Chat completions that came in, whatever became of them."""
    by_outcome: Mapping[str, int]
    """Finished calls by "ok", a `FaultKind`, "over-rpm", "bad-request", "reply-error", or "gone" (the client left)."""
    in_flight: int
    peak_concurrency: int
    prompt_tokens: int
    """Of calls that were answered, like the two below."""
    cached_tokens: int
    completion_tokens: int
    distinct_prompts: int
    """Among those still remembered (the last 16,384 different ones)."""
    digests: tuple[str, ...]
    """`ChatRequest.digest` of the last 65,536 calls in order of arrival."""
    times: tuple[float, ...] = ()
    """When those came, by the server's monotonic clock in seconds."""


class CallLimit:
    """At most so many calls in any window of so many seconds; refused ones are not counted."""

    def __init__(self, most: int | None, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._taken: deque[float] = deque()

    def admits(self, now: float) -> bool:
        """Whether one more call is taken at this time."""
        if self._most is None:
            return True
        while self._taken and now - self._taken[0] >= self._window_s:
            self._taken.popleft()
        if len(self._taken) >= self._most:
            return False
        self._taken.append(now)
        return True
