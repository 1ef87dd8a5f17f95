"""From what a run's graph ended with to its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from coa.errors import BudgetExceeded, VerificationFailed
from coa.events import RunStarted
from coa.run_format import CHOICE_KEY
from coa.runs import RunPlan, RunRecord, RunState, RunStore
from coa.types import Answer, Citation, Claim, Coverage, Document, Note, SkippedChunk

if TYPE_CHECKING:  # langgraph takes seconds to import
    from coa.graphs import ReadContext
    from coa.graphs.state import ReadOutput

__all__ = ["Run", "assembled", "delivered"]


class Run:
    """A run in hand: the context that its graph is to be run with, and the answer from what that ends with."""

    def __init__(
        self,
        runs: RunStore,
        record: RunRecord,
        context: ReadContext,
        *,
        warnings: Callable[[], Sequence[str]],
        started: float,
    ) -> None:
        """`warnings` are asked for at the end, since calls add some; `started` is on `time.perf_counter`'s scale."""
        self.record = record
        self.context = context
        self._runs = runs
        self._warnings = warnings
        self._started = started

    def begun(self, plan: RunPlan, n_done: int) -> RunStarted:
        """The event that says so; `n_done` chunks were read before."""
        return RunStarted(
            run_id=self.record.run_id,
            document=self.record.document,
            strategy=self.record.strategy,
            model=self.record.model,
            n_chunks=plan.n_chunks,
            n_tokens=plan.n_tokens,
            n_done=n_done,
        )

    def finished(self, output: ReadOutput) -> Answer:
        """The answer, stored where anything was read; the run is done with it, or partial. Raises: StorageError."""
        document = self.context.document
        assert document is not None  # noqa: S101 - sessions always give one
        answer = assembled(
            self.record,
            document,
            output,
            self.context,
            warnings=self._warnings(),
            seconds=time.perf_counter() - self._started,
        )
        if output["stopped"] is None or answer.coverage.read:
            self._runs.save_answer(answer)
        state: RunState = "done" if answer.coverage.complete else "partial"
        self._runs.changed(self.record, state, error=output["stopped"])
        return answer


def assembled(
    record: RunRecord,
    document: Document,
    output: ReadOutput,
    context: ReadContext,
    *,
    warnings: Sequence[str] = (),
    seconds: float,
) -> Answer:
    """The answer of a run whose graph has come to its end."""
    notes = context.notes
    told = [*document.warnings, *warnings, *output["warnings"]]
    if context.options.quotes and record.task == "summarize":
        told.append("the summary is made of sentences copied from the text: the model is too small to write one.")
    coverage = output["coverage"]
    choice = next((s.payload for s in notes.all_steps() if s.key == CHOICE_KEY), None)
    return Answer(
        text=output["answer"],
        run_id=record.run_id,
        strategy=record.strategy if choice is None else str(choice["strategy"]),
        strategy_reason=None if choice is None else str(choice["reason"]),
        model=record.model,
        question=record.question,
        coverage=Coverage(
            coverage["chunks"],
            coverage["read"],
            tuple(SkippedChunk(s["index"], s["cause"]) for s in coverage["skipped"]),
            coverage["unselected"],
        ),
        usage=context.spent,
        citations=tuple(Citation(**c) for c in output["citations"]),
        notes=tuple(Note(n.chunk, n.text, n.informative, n.path) for n in notes.all_notes() if n.cause is None),
        warnings=tuple(dict.fromkeys(told)),
        document=document.name,
        document_sha256=document.sha256,
        seconds=seconds,
        claims=tuple(Claim(c["text"], tuple(c["citations"])) for c in output["claims"]),
        quotes_not_found=output["quotes_not_found"],
        verdict=output["verdict"],
        prompts=dict(record.prompts),
        estimate=record.estimate,
    )


def delivered(answer: Answer, *, stopped: str | None, strict: bool) -> Answer:
    """`answer`, where it is one that was asked for; `stopped` is the limit that ended the run, `strict` the setting.

    Raises: BudgetExceeded with what was found so far, VerificationFailed.
    """
    if stopped is not None:
        raise BudgetExceeded(
            f"stopped by {stopped}: {answer.coverage.read} of {answer.coverage.chunks} chunks were read.",
            hint="Start again with a higher limit."
            if answer.coverage.read
            else "One chunk and the answer may take more than that: start again with a higher limit.",
            answer=answer if answer.coverage.read else None,
        )
    if strict and answer.quotes_not_found:
        quotes = "a quote" if answer.quotes_not_found == 1 else f"{answer.quotes_not_found} quotes"
        raise VerificationFailed(f"the answer has {quotes} that the text does not hold.", answer=answer)
    return answer
