"""What a run shows while it goes on, fed by its events."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from coa.cli.terminal import write_note
from coa.events import (
    AnswerStarted,
    AnswerToken,
    ChunkRead,
    ChunkSkipped,
    ChunkStarted,
    Event,
    RunStarted,
    StageChanged,
    WarningRaised,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Display", "LiveBar", "LoadingBar", "NoDisplay", "RunLog", "Tally", "joint"]


@dataclass
class Tally:
    """How far the run in hand is."""

    run_id: str | None = None
    n_chunks: int = 0
    n_done: int = 0
    fresh_chunks: int = 0
    """Read by this process, reused notes apart."""
    fresh_tokens: int = 0
    fresh_seconds: float = 0.0

    def take(self, event: Event) -> None:
        """Counts one event."""
        if isinstance(event, RunStarted):
            self.run_id = event.run_id
            self.n_chunks, self.n_done = event.n_chunks, event.n_done
            self.fresh_chunks, self.fresh_tokens, self.fresh_seconds = 0, 0, 0.0
        elif isinstance(event, ChunkRead) and event.reused:
            self.n_done = max(self.n_done, event.index + 1)
        elif isinstance(event, ChunkRead):
            self.n_done += 1
            self.fresh_chunks += 1
            self.fresh_tokens += event.n_tokens
            self.fresh_seconds += event.seconds
        elif isinstance(event, ChunkSkipped):
            self.n_done += 1

    @property
    def tokens_per_second(self) -> float | None:
        """Of the text read, not of all tokens sent; None before the first chunk."""
        return self.fresh_tokens / self.fresh_seconds if self.fresh_seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Until the last chunk is read, at the pace so far; None before the first chunk."""
        if not self.fresh_chunks:
            return None
        return (self.n_chunks - self.n_done) * self.fresh_seconds / self.fresh_chunks


def joint(tallies: Sequence[Tally]) -> Tally:
    """How far runs are that go on at the same time, as one."""
    begun = [tally for tally in tallies if tally.run_id is not None]
    return Tally(
        n_chunks=sum(tally.n_chunks for tally in begun),
        n_done=sum(tally.n_done for tally in begun),
        fresh_chunks=sum(tally.fresh_chunks for tally in begun),
        fresh_tokens=sum(tally.fresh_tokens for tally in begun),
        fresh_seconds=sum(tally.fresh_seconds for tally in begun) / max(1, len(begun)),
    )


class Display(Protocol):
    """Shows events to a person."""

    def show(self, event: Event, tally: Tally, of: str = "") -> None:
        """Called for each event, after `tally` has counted it; `of` names the run where there are several at once."""
        ...

    def close(self) -> None:
        """Gives the terminal back; may be called more than once."""
        ...


class NoDisplay:
    """Shows nothing."""

    def show(self, event: Event, tally: Tally, of: str = "") -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class RunLog:
    """One line on stderr for each event: what -v shows."""

    def show(self, event: Event, tally: Tally, of: str = "") -> None:
        """The event's line, where it has one."""
        line = _log_line(event)
        if line is not None:
            write_note(_named(of, line))

    def close(self) -> None:
        """Nothing to give back."""


def _named(of: str, text: str) -> str:
    return f"{of}: {text}" if of else text


def _log_line(event: Event) -> str | None:
    match event:
        case StageChanged(stage):
            return stage
        case RunStarted():
            done = f", {event.n_done} of them read before" if event.n_done else ""
            return (
                f"run {event.run_id}: {event.document}, {event.n_chunks} chunks{done}, "
                f"{event.n_tokens:,} tokens, {event.strategy} with {event.model}"
            )
        case ChunkRead():
            how = "kept from before" if event.reused else f"{event.seconds:.1f} s"
            what = "" if event.informative else ", nothing to note"
            return f"chunk {event.index + 1} of {event.n_chunks} read: {event.n_tokens:,} tokens, {how}{what}"
        case ChunkSkipped():
            return f"chunk {event.index + 1} of {event.n_chunks} skipped: {event.cause}"
        case AnswerStarted():
            return "writing the answer"
        case _:
            return None


class LiveBar:
    """A bar on the terminal: chunk i of n, tokens per second, time left."""

    def __init__(self, *, colour: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        console = Console(file=sys.stderr, no_color=not colour, highlight=False)
        self._progress: Progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[pace]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._running = False

    def show(self, event: Event, tally: Tally, of: str = "") -> None:
        """Moves the bar."""
        match event:
            case StageChanged(stage):
                self._update(_named(of, stage), tally)
            case RunStarted():
                self._update(_named(of, f"{event.n_chunks} chunks"), tally)
            case ChunkStarted():
                self._update(_named(of, f"chunk {event.index + 1} of {event.n_chunks}"), tally)
            case ChunkRead() | ChunkSkipped():
                self._update(_named(of, f"chunk {event.index + 1} of {event.n_chunks}"), tally)
                if isinstance(event, ChunkSkipped):
                    line = _named(of, f"chunk {event.index + 1} skipped: {event.cause}")
                    self._progress.console.print(line, markup=False)
            case AnswerStarted():
                self._update(_named(of, "writing the answer"), tally)
            case AnswerToken() | WarningRaised():
                pass

    def _update(self, description: str, tally: Tally) -> None:
        if not self._running:
            self._progress.start()
            self._running = True
        if self._task is None:
            self._task = self._progress.add_task(description, total=None, pace="")
        self._progress.update(
            self._task,
            description=description,
            total=tally.n_chunks or None,
            completed=tally.n_done,
            pace=_pace(tally),
        )

    def close(self) -> None:
        """Removes the bar and shows the cursor again; a later event brings it back."""
        if self._running:
            self._progress.stop()
            self._running = False


def _pace(tally: Tally) -> str:
    rate, left = tally.tokens_per_second, tally.seconds_left
    if rate is None or left is None:
        return ""
    minutes, seconds = divmod(round(left), 60)
    return f"{rate:,.0f} tokens/s, {minutes}:{seconds:02} left"


class LoadingBar:
    """A bar for downloads and other work in stages; a context manager."""

    def __init__(self, *, colour: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr, no_color=not colour, highlight=False),
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, stage: str, done: int, total: int | None) -> None:
        """`done` of `total`: bytes for the stage "download", pieces of work for others."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, amount="")
        amount = f"{done / 1e6:,.0f} MB" if stage == "download" else f"{done} of {total}" if total else str(done)
        self._progress.update(self._tasks[stage], completed=done, total=total, amount=amount)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
