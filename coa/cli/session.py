"""Runs questions through a session: prints each answer, and says how to go on when one fails."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coa.cli import render, review
from coa.cli.output import Output
from coa.cli.progress import Display, LiveBar, NoDisplay, RunLog, Tally
from coa.cli.stopping import Stopping
from coa.cli.terminal import (
    Colour,
    uses_colour,
    write_note,
)
from coa.errors import (
    BudgetExceeded,
    CoaError,
    ConfigError,
    DocumentError,
    ReviewNeeded,
    RunDrained,
    StorageError,
    VerificationFailed,
)
from coa.events import AnswerStarted, AnswerToken, Event, WarningRaised

if TYPE_CHECKING:
    from coa.cli.api_types import SessionLike
    from coa.cli.invocation import Invocation
    from coa.config import Settings
    from coa.types import Answer

__all__ = [
    "INCOMPLETE",
    "Job",
    "Watch",
    "display_for",
    "resume_hint",
    "reviewed",
    "run_jobs",
    "run_watched",
    "show_answer",
]

INCOMPLETE = 3
"""Exit code of an answer that does not rest on every chunk."""


@dataclass(frozen=True, slots=True)
class Job:
    """One question, or one summary."""

    start: Callable[[SessionLike], Awaitable[Answer]]
    title: str | None = None
    """Heads the answer when there are several."""
    language: str | None = None
    """Of the document, where known."""


@dataclass
class Watch:
    """Takes events to the tally, the display and the streamed answer."""

    output: Output
    display: Display
    quiet: bool
    verbose: bool
    colour: bool
    tally: Tally = field(default_factory=Tally)
    announced: set[str] = field(default_factory=set)
    """Warnings that came as events: those about the model hold for every question."""
    warned: set[str] = field(default_factory=set)
    """Other warnings about the job in hand."""
    answered: list[str] = field(default_factory=list)
    """Runs whose answers are there."""

    def begin(self) -> None:
        """Forgets the job before."""
        self.tally = Tally()
        self.warned.clear()

    def on_event(self, event: Event) -> None:
        self.tally.take(event)
        if isinstance(event, AnswerStarted) and self.output.streams:
            self.output.next_part()
        if isinstance(event, AnswerToken):
            if self.output.streams:
                self.display.close()
                self.output.stream(event.text)
        elif isinstance(event, WarningRaised):
            self.warn(event.message)
            self.announced.add(event.message)
        else:
            self.display.show(event, self.tally)

    def warn(self, message: str) -> None:
        """Each warning once."""
        if self.quiet or message in self.warned | self.announced:
            return
        self.warned.add(message)
        self.display.close()
        write_note(message, label="warning:", style="yellow" if self.colour else None)

    def settle(self) -> None:
        """Leaves the terminal at the beginning of a line."""
        self.display.close()
        self.output.end_line()

    def resume_command(self) -> str | None:
        return f"coa resume {self.tally.run_id}" if self.tally.run_id else None


def run_jobs(invocation: Invocation, settings: Settings, jobs: Sequence[Job], output: Output, *, progress: bool) -> int:
    """Exit code after answering `jobs` in order with one engine; stops at the first that fails.

    Raises:
        CoaError: with the command that goes on with the run in its message, where there is a run.
    """
    watch = Watch(
        output,
        display_for(invocation, output.colour, progress=progress),
        quiet=invocation.quiet,
        verbose=invocation.verbosity > 0,
        colour=uses_colour(sys.stderr.isatty(), output.colour),
    )
    return run_watched(watch, lambda stopping: _answer_all(invocation, settings, jobs, watch, stopping))


def run_watched(watch: Watch, answering: Callable[[Stopping], Coroutine[Any, Any, int]]) -> int:
    """Exit code of `answering`, which signals stop. Raises: as `run_jobs`."""
    with Stopping(resume_command=watch.resume_command) as stopping:
        try:
            return asyncio.run(answering(stopping))
        except RunDrained as exc:
            _say_drained(watch, exc)
            return exc.exit_code if isinstance(exc, ReviewNeeded) else stopping.exit_code
        except (asyncio.CancelledError, KeyboardInterrupt):
            if stopping.received is None:
                raise
            write_note("stopped before the first chunk was read")
            return stopping.exit_code
        except CoaError as exc:
            hint = resume_hint(exc, watch.resume_command())
            exc.hint = " ".join(filter(None, [exc.hint, hint])) or None
            raise
        finally:
            watch.display.close()
            _finish(watch)


def _finish(watch: Watch) -> None:
    try:
        watch.output.finish()
    except StorageError as exc:
        raise _kept(exc, watch) from exc


def _kept(error: StorageError, watch: Watch) -> StorageError:
    """`error` with the way to get at the answer, which coa's own folder still holds."""
    commands = ", ".join(f"coa resume {run_id}" for run_id in watch.answered)
    return StorageError(error.message, hint=f"Nothing is lost, print it again with: {commands}" if commands else None)


async def _answer_all(
    invocation: Invocation, settings: Settings, jobs: Sequence[Job], watch: Watch, stopping: Stopping
) -> int:
    api = invocation.load_api()
    stop = api.StopSignal()
    stopping.attach(stop)
    code = 0
    async with api.Session(settings, on_event=watch.on_event, stop=stop) as session:
        for job in jobs:
            watch.begin()
            watch.output.title(job.title)
            try:
                answer = await reviewed(job.start(session), session, watch)
            except BudgetExceeded as exc:
                if exc.answer is not None:
                    show_answer(exc.answer, watch, language=job.language)
                raise
            except VerificationFailed as exc:
                if exc.answer is None:
                    raise
                show_answer(exc.answer, watch, language=job.language)
                write_note(str(exc), label="error:", style="red" if watch.colour else None)
                code = exc.exit_code
                continue
            except BaseException:
                watch.settle()
                raise
            show_answer(answer, watch, language=job.language)
            if not answer.coverage.complete:
                code = code or INCOMPLETE
    return code


async def reviewed(answering: Awaitable[Answer], session: SessionLike, watch: Watch) -> Answer:
    """The answer, after the person at the terminal has looked at the evidence where a run waits for that.

    Raises: ReviewNeeded where there is no terminal.
    """
    while True:
        try:
            return await answering
        except ReviewNeeded as waiting:
            watch.display.close()
            write_note(review.evidence_text(waiting.payload))
            if not sys.stdin.isatty():
                waiting.hint = f"Go on with: coa resume {waiting.run_id} --accept, or --strike 3.7,4.1"
                raise
            struck = await asyncio.to_thread(review.ask_what_to_strike)
            answering = session.resume(waiting.run_id, review=struck)


def show_answer(answer: Answer, watch: Watch, *, language: str | None) -> None:
    """Prints an answer, and on stderr what there is to say about it."""
    watch.display.close()
    watch.answered.append(answer.run_id)
    try:
        watch.output.add(answer, language=language)
    except StorageError as exc:
        raise _kept(exc, watch) from exc
    for warning in answer.warnings:
        watch.warn(warning)
    for skipped in answer.coverage.skipped:
        watch.warn(f"chunk {skipped.index + 1} was not read: {skipped.cause}")
    if not watch.quiet:
        write_note(render.summary_line(answer), style="dim" if watch.colour else None)
    if watch.verbose and (compared := render.compared_text(answer)) is not None:
        write_note(f"expected {compared}")


def display_for(invocation: Invocation, colour: Colour, *, progress: bool) -> Display:
    """What stderr shows while a run goes on."""
    if invocation.quiet:
        return NoDisplay()
    if invocation.verbosity:
        return RunLog()
    if progress and sys.stderr.isatty():
        return LiveBar(colour=uses_colour(True, colour))
    return NoDisplay()


def _say_drained(watch: Watch, drained: RunDrained) -> None:
    tally = watch.tally
    write_note(f"stopped: {tally.n_done} of {tally.n_chunks} chunks are read and kept")
    if isinstance(drained, ReviewNeeded) and drained.hint:
        write_note(drained.hint)
    else:
        write_note(f"go on with: coa resume {drained.run_id}")


def resume_hint(error: CoaError, command: str | None) -> str | None:
    """How to go on after `error` with what was read; None where there is nothing to go on with."""
    # After a limit was reached the partial answer is the run's last word: resuming prints it again.
    wanted = not isinstance(error, BudgetExceeded | ConfigError | DocumentError)
    if command is None or not wanted or command in str(error):
        return None
    return f"What was read is kept; go on with: {command}"
