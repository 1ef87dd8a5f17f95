"""When a call may go out to a deployment: under its rate limits, and at the pace that it has shown to bear.

A provider that says 429 is asked less: the number of calls at once halves, and none is sent while the one that
was refused waits; each success lets it grow again (additive increase, multiplicative decrease, as in TCP).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Literal

from coa.llm.prefixes import Prepared, Reservation
from coa.llm.rates import Grant, RateLimit, RateLimiter, local_limiter

__all__ = ["Admission", "Deadline", "Outcome", "Pace", "Pacing"]

Outcome = Literal["ok", "limited", "failed", "dropped"]
Sleep = Callable[[float], Awaitable[None]]

_LONGEST_SUSPICION_S = 60.0


class Pace:
    """How many calls one deployment takes at once; whoever comes first goes first."""

    def __init__(self, most: int | None = None) -> None:
        """`most` None: no limit of its own until the provider refuses a call."""
        self.most = math.inf if most is None else float(most)
        self.window = self.most
        self.in_flight = 0
        self._holds = 0
        self._tickets = 0
        self._cut_at = 0
        self._probing = False
        self._failures = 0
        self._suspect_until = -math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> bool:
        """Whether a call could go at once."""
        most = 1 if self._probing else max(1, math.floor(min(self.window, 1e9)))
        return not self._holds and self.in_flight < most

    def suspect(self, now: float) -> bool:
        """Whether its last calls failed, so that another deployment is the better choice; `now` by the event loop."""
        return now < self._suspect_until

    async def enter(self, *, again: bool = False) -> int:
        """Waits for its turn; the ticket goes to `leave`.

        One that was refused before comes `again` and goes to the front: otherwise each of many callers would
        use up its attempts on a limit that a single one can find out to be full.
        """
        if self._waiting or not self.free:
            waiter = asyncio.get_running_loop().create_future()
            if again:
                self._waiting.appendleft(waiter)
            else:
                self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.in_flight -= 1  # it had been let in meanwhile
                else:
                    self._waiting.remove(waiter)
                self._let_in()
                raise
        else:
            self.in_flight += 1
        self._tickets += 1
        return self._tickets

    def leave(self, ticket: int, outcome: Outcome) -> bool:
        """Books the end of a call; True for a refusal that nobody has answered for yet: `hold` while waiting."""
        cut = outcome == "limited" and ticket > self._cut_at
        if cut:  # calls that were under way together are refused together: that is one refusal
            self.window = max(1.0, min(self.window, self.in_flight) / 2)
            self._cut_at = self._tickets
            self._probing = True  # one at a time finds out when it is over, at the cost of one caller's attempts
        elif outcome == "ok" and self.window < self.most:
            self.window = min(self.most, self.window + 1 / self.window)
        if outcome == "failed":
            self._failures += 1
            seconds = min(2.0**self._failures, _LONGEST_SUSPICION_S)
            self._suspect_until = asyncio.get_running_loop().time() + seconds
        elif outcome == "ok":
            self._failures, self._suspect_until, self._probing = 0, -math.inf, False
        self.in_flight -= 1
        self._let_in()
        return cut

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """No call goes out inside."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.free:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)


class Deadline:
    """The time limits of one call; they begin when it is sent, not when it is made to wait for its turn."""

    def __init__(self, *, total_s: float, first_s: float | None = None, idle_s: float | None = None) -> None:
        """`first_s` is until the first piece of a stream, `idle_s` between two; both None for a reply in one."""
        self.total_s = total_s
        self._first_s = first_s
        self._idle_s = idle_s
        self._timeout: asyncio.Timeout | None = None
        self._ends = math.inf
        self.cause = ""
        """What ran out, in words."""
        self.expired = False

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Raises TimeoutError out of its body when a limit is passed."""
        try:
            async with asyncio.timeout(None) as self._timeout:
                yield
        finally:
            self.expired = self._timeout is not None and self._timeout.expired()
            self._timeout = None

    def sent(self, total_s: float | None = None) -> None:
        """The call goes out now, with a limit of its own perhaps."""
        self.total_s = total_s or self.total_s
        now = asyncio.get_running_loop().time()
        self._ends = now + self.total_s
        self._until(now, min(self._first_s or math.inf, self.total_s), "no reply within")

    def piece(self) -> None:
        """A piece of the reply came."""
        if self._idle_s is not None:
            self._until(asyncio.get_running_loop().time(), self._idle_s, "the stream fell silent for")

    def _until(self, now: float, seconds: float, cause: str) -> None:
        if self._timeout is None:
            return
        if now + seconds > self._ends:
            now, seconds, cause = self._ends - self.total_s, self.total_s, "no whole reply within"
        self.cause = f"{cause} {seconds:g} s"
        self._timeout.reschedule(now + seconds)


class Pacing:
    """The paces and rate limits of a model's deployments."""

    def __init__(
        self,
        limits: Mapping[str, tuple[RateLimit, ...]],
        most: Mapping[str, int],
        *,
        limiter: RateLimiter | None,
        sleep: Sleep,
    ) -> None:
        """`limits` and `most` (calls at once) by deployment id; deployments that have none may be left out."""
        self.limits = limits
        self._most = most
        self._limiter = limiter or local_limiter()
        self._sleep = sleep
        self._paces: dict[str, Pace] = {}
        self._busy_until: dict[str, float] = {}

    def pace(self, deployment: str) -> Pace:
        """That of one deployment."""
        if deployment not in self._paces:
            self._paces[deployment] = Pace(self._most.get(deployment))
        return self._paces[deployment]

    def at_once(self, deployment: str) -> bool:
        """Whether a call to it would not have to wait, as far as this process knows."""
        return self.pace(deployment).free and self._busy_until.get(deployment, 0.0) <= _now()

    def suspect(self, deployment: str) -> bool:
        """See `Pace.suspect`."""
        return self.pace(deployment).suspect(_now())

    async def booked(self, deployment: str, tokens: int) -> Grant | None:
        """Waits for the rate limits of a deployment; None where it has none."""
        limits = self.limits.get(deployment)
        if not limits:
            return None
        grant = await self._limiter.book(limits, tokens)
        if grant.wait_s > 0:
            self._busy_until[deployment] = _now() + grant.wait_s
            try:
                await self._sleep(grant.wait_s)
            except asyncio.CancelledError:
                await self._limiter.settle(grant, None)
                raise
        return grant

    async def settled(self, grant: Grant | None, tokens: int) -> None:
        """The call took so many tokens."""
        if grant is not None:
            await self._limiter.settle(grant, tokens)


class Admission:
    """One attempt of a call on its way to a deployment, and on to another one where the Router falls back."""

    def __init__(
        self,
        pacing: Pacing,
        deadline: Deadline,
        *,
        tokens: int,
        avoid: frozenset[str] = frozenset(),
        refused: bool = False,
        reservation: Reservation | None = None,
    ) -> None:
        """`tokens` is what it may take at most; `avoid` are deployments that have failed this call already.

        `refused` says that its last attempt was turned away for its rate. `reservation` is the prefix cache's part.
        """
        self._pacing = pacing
        self._deadline = deadline
        self._tokens = tokens
        self._task = asyncio.current_task()
        self._ticket: int | None = None
        self._grant: Grant | None = None
        self._refused = refused
        self._reservation = reservation
        self.prepared = Prepared({})
        """By the prefix cache, for the deployment where it was sent last."""
        self.avoid = avoid
        self.deployment: str | None = None
        """Where it was sent last."""
        self.sent_at: float | None = None
        """By the event loop's clock; None as long as it was not sent."""

    @property
    def ours(self) -> bool:
        """False in tasks that litellm started with a copy of this task's context."""
        return asyncio.current_task() is self._task

    async def admit(self, deployment: str, *, total_s: float | None = None) -> None:
        """Waits until the call may go to the deployment; its time begins when this returns."""
        self.leave("failed")  # a fallback: the deployment before has failed
        self.deployment = deployment
        if self._reservation is not None:
            await self._reservation.seat(deployment)
        self._ticket = await self._pacing.pace(deployment).enter(again=self._refused)
        try:
            self._grant = await self._pacing.booked(deployment, self._tokens)
        except BaseException:
            self.leave("dropped")
            raise
        self.sent_at = _now()
        self._deadline.sent(total_s)
        if self._reservation is not None:
            self.prepared = await self._reservation.prepare(deployment)

    def leave(self, outcome: Outcome) -> bool:
        """Ends the call at its deployment, if it was admitted; True for a refusal to be held for, see `Pace.leave`."""
        ticket, self._ticket = self._ticket, None
        if ticket is None or self.deployment is None:
            return False
        return self._pacing.pace(self.deployment).leave(ticket, outcome)

    async def settle(self, tokens: int) -> None:
        """Tells the rate limits what the call took; without it what was booked stands."""
        grant, self._grant = self._grant, None
        await self._pacing.settled(grant, tokens)

    async def preferred(self, deployments: list[str]) -> list[str]:
        """Those of `deployments` to choose from: none that failed this call, and of the rest the well and free ones;
        of these the prefix cache's choice, where it has one. That may take minutes; none that fails another call
        meanwhile is left."""
        untried = [d for d in deployments if d not in self.avoid] or deployments
        while True:
            well = [d for d in untried if self._well(d)]
            free = [d for d in well or untried if self._pacing.at_once(d)] or well or untried
            if self._reservation is None:
                return free
            chosen = await self._reservation.choose(free, self._well if well else None)
            left = [d for d in free if not well or self._well(d)] if chosen is None else [chosen]
            if left:
                return left

    def _well(self, deployment: str) -> bool:
        return not self._pacing.suspect(deployment)


def _now() -> float:
    return asyncio.get_running_loop().time()
