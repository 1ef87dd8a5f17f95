"""Runs under way in this process: started, watched, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from coa.answer_json import answer_object, event_object
from coa.api import Session, StopSignal
from coa.errors import CoaError, ModelUnavailable
from coa.events import Event, RunStarted
from coa.serve.failures import body_of
from coa.serve.limits import ServeLimits
from coa.types import Answer

__all__ = ["ActiveRun", "ActiveRuns", "TooManyRuns"]

Start = Callable[[Session], Awaitable[Answer]]
_END = None


class TooManyRuns(CoaError):
    """As many runs are under way as the service allows."""


@dataclass(eq=False)
class ActiveRun:
    """A run, its events, and its end."""

    stop: StopSignal = field(default_factory=StopSignal)
    run_id: str | None = None
    """Known from the first event on."""
    events: asyncio.Queue[dict[str, object] | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[Answer] | None = None

    def tell(self, event: Event) -> None:
        """Takes an event of the session's."""
        if isinstance(event, RunStarted):
            self.run_id = event.run_id
        self.events.put_nowait(event_object(event))

    async def answer(self) -> Answer:
        """The answer. Raises: what the run raised."""
        assert self.task is not None  # noqa: S101 - set where it is made
        return await self.task

    async def told(self) -> AsyncIterator[dict[str, object]]:
        """Its events as they come, then one of type "answer" or "error". One listener at a time."""
        while (event := await self.events.get()) is not _END:
            yield event
        try:
            answer = await self.answer()
        except CoaError as error:
            yield {"type": "error", **body_of(error, run_id=self.run_id).model_dump()}
        else:
            yield {"type": "answer", **answer_object(answer, notes=True)}


class ActiveRuns:
    """The runs of one process."""

    def __init__(self, session: Session, limits: ServeLimits) -> None:
        self._session = session
        self._limits = limits
        self._runs: set[ActiveRun] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._runs)

    def start(self, start: Start, settings: dict[str, Any]) -> ActiveRun:
        """Begins a run over a view of the session. Raises: TooManyRuns, ConfigError for wrong settings."""
        if self._closing:
            raise TooManyRuns("the service ends.", hint="Come again in a while.")
        if len(self._runs) >= self._limits.max_runs:
            raise TooManyRuns(f"{len(self._runs)} runs are under way.", hint="Come again in a while.")
        run = ActiveRun()
        view = self._session.view(on_event=run.tell, stop=run.stop, **settings)
        run.task = asyncio.create_task(self._carried(start, view))
        self._runs.add(run)
        run.task.add_done_callback(lambda task: self._ended(run, task))
        return run

    async def _carried(self, start: Start, view: Session) -> Answer:
        try:
            async with asyncio.timeout(self._limits.max_seconds):
                return await start(view)
        except TimeoutError:
            raise ModelUnavailable(
                f"the run took longer than {self._limits.max_seconds:g} s.", hint="Go on with it: what it read is kept."
            ) from None

    def _ended(self, run: ActiveRun, task: asyncio.Task[Answer]) -> None:
        self._runs.discard(run)
        run.events.put_nowait(_END)
        if not task.cancelled():
            task.exception()  # looked at: nobody may be waiting for it any more

    def find(self, run_id: str) -> ActiveRun | None:
        """The run of that id, if it is under way here."""
        return next((run for run in self._runs if run.run_id == run_id), None)

    async def close(self) -> None:
        """Drains what is under way, ends what does not stop by itself soon, and begins nothing more."""
        self._closing = True
        tasks = [run.task for run in self._runs if run.task is not None]
        for run in self._runs:
            run.stop.request("the service ends")
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=10)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
