"""Several questions about one book in one command: they read it together, and are answered in the order asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coa.cli.output import Output
from coa.cli.progress import Tally, joint
from coa.cli.session import INCOMPLETE, Watch, display_for, resume_hint, reviewed, run_watched, show_answer
from coa.cli.stopping import Stopping
from coa.cli.terminal import uses_colour, write_note
from coa.errors import BudgetExceeded, CoaError, ReviewNeeded, RunDrained, VerificationFailed
from coa.events import AnswerToken, Event, WarningRaised
from coa.types import Answer

if TYPE_CHECKING:
    from coa.cli.api_types import SessionLike
    from coa.cli.invocation import Invocation
    from coa.config import Settings
    from coa.types import Document

__all__ = ["run_questions"]


def run_questions(
    invocation: Invocation,
    settings: Settings,
    document: Document,
    questions: Sequence[str],
    output: Output,
    *,
    progress: bool,
) -> int:
    """Exit code after answering all `questions`: of the first, in their order, that failed; one that fails does not
    keep the others."""
    several = _Several(
        output,
        display_for(invocation, output.colour, progress=progress),
        quiet=invocation.quiet,
        verbose=invocation.verbosity > 0,
        colour=uses_colour(sys.stderr.isatty(), output.colour),
        questions=questions,
        language=document.language,
        tallies=[Tally() for _ in questions],
    )

    async def answering(stopping: Stopping) -> int:
        api = invocation.load_api()
        stop = api.StopSignal()
        stopping.attach(stop)
        async with api.Session(settings, on_event=several.on_event, stop=stop) as session:
            await session.ask_many(document, questions, on_answer=several.ended, on_event=several.happened)
            await several.review_rest(session)
        return several.tell_failures(stopping)

    return run_watched(several, answering)


@dataclass
class _Several(Watch):
    """Takes the events and answers of all questions; prints each answer when those before it are printed."""

    questions: Sequence[str] = ()
    language: str | None = None
    """Of the document."""
    tallies: Sequence[Tally] = ()
    """Of each question."""
    _ended: dict[int, Answer | CoaError] = field(default_factory=dict)
    """Outcomes that are not told of yet, because one before them is still out."""
    _n_told: int = 0
    _failures: list[tuple[int, CoaError]] = field(default_factory=list)
    _incomplete: bool = False

    def happened(self, number: int, event: Event) -> None:
        """Counts an event of one question's run and shows it."""
        self.tallies[number].take(event)
        if isinstance(event, WarningRaised):
            self.on_event(event)
        elif not isinstance(event, AnswerToken):
            self.display.show(event, joint(self.tallies), f"question {number + 1}")

    def ended(self, number: int, outcome: Answer | CoaError) -> None:
        """Prints what can be printed now."""
        self._ended[number] = outcome
        while self._n_told in self._ended and not isinstance(self._ended[self._n_told], ReviewNeeded):
            self._tell(self._n_told, self._ended.pop(self._n_told))

    async def review_rest(self, session: SessionLike) -> None:
        """Lets the person at the terminal look at what waits for that, one after the other."""
        while self._ended:
            number = self._n_told
            outcome = self._ended.pop(number)
            if isinstance(outcome, ReviewNeeded):
                try:
                    outcome = await reviewed(_raising(outcome), session, self)
                except CoaError as error:
                    outcome = error
            self._tell(number, outcome)

    def resume_command(self) -> str | None:
        """The commands that go on with all runs that are under way; None while there is none."""
        over = set(self._ended) | set(range(self._n_told))
        left = [t.run_id for number, t in enumerate(self.tallies) if number not in over and t.run_id is not None]
        return ", ".join(f"coa resume {run_id}" for run_id in left) or None

    def tell_failures(self, stopping: Stopping) -> int:
        """The exit code, after saying what failed and how to go on with it."""
        self.display.close()
        told: dict[str, list[int]] = {}
        for number, error in self._failures:
            if not isinstance(error, RunDrained):
                told.setdefault(str(error), []).append(number)
        for message, numbers in told.items():
            write_note(f"{_questions(numbers)}: {message}", label="error:", style="red" if self.colour else None)
        for number, error in self._failures:
            self._tell_resumption(number, error)
        drained = any(
            isinstance(error, RunDrained) and not isinstance(error, ReviewNeeded) for _, error in self._failures
        )
        if drained and stopping.received is not None:
            return stopping.exit_code
        # A quote that was not found is the lesser evil: its answer is there.
        worst = sorted(self._failures, key=lambda each: isinstance(each[1], VerificationFailed))
        return worst[0][1].exit_code if worst else INCOMPLETE if self._incomplete else 0

    def _tell(self, number: int, outcome: Answer | CoaError) -> None:
        self._n_told = number + 1
        answer = outcome if isinstance(outcome, Answer) else _answer_of(outcome)
        if isinstance(outcome, CoaError):
            self._failures.append((number, outcome))
        if answer is None:
            return
        self.display.close()
        self.warned.clear()
        self.output.title(self.questions[number])
        show_answer(answer, self, language=self.language)
        self._incomplete |= not answer.coverage.complete

    def _tell_resumption(self, number: int, error: CoaError) -> None:
        tally = self.tallies[number]
        if isinstance(error, ReviewNeeded) and error.hint:
            write_note(f"question {number + 1}: {error.hint}")
        elif isinstance(error, RunDrained):
            kept = f"stopped, {tally.n_done} of {tally.n_chunks} chunks are read and kept"
            write_note(f"question {number + 1}: {kept}; go on with: coa resume {error.run_id}")
        elif not isinstance(error, VerificationFailed) and tally.run_id is not None:
            hint = resume_hint(error, f"coa resume {tally.run_id}")
            if hint is not None:
                write_note(f"question {number + 1}: {hint}")


async def _raising(error: CoaError) -> Answer:
    raise error


def _answer_of(error: CoaError) -> Answer | None:
    """The answer that there is all the same."""
    return error.answer if isinstance(error, BudgetExceeded | VerificationFailed) else None


def _questions(numbers: Sequence[int]) -> str:
    """Such as "question 2", or "questions 1, 2 and 5"; `numbers` count from 0."""
    names = [str(number + 1) for number in numbers]
    if len(names) == 1:
        return f"question {names[0]}"
    return f"questions {', '.join(names[:-1])} and {names[-1]}"
