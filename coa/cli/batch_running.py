"""Runs a batch from the command line: shows it, asks before it spends much, drains on signals."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import typer

from coa.cli.batch_display import BatchWatch, expected_text, summary_text
from coa.cli.render import to_json
from coa.cli.stopping import Stopping
from coa.cli.terminal import Colour, uses_colour, write_error, write_note, write_result

if TYPE_CHECKING:
    from coa.batch.estimating import Expected
    from coa.batch.record import BatchRecord
    from coa.batch.running import BatchEnd, Before, Listener
    from coa.cli.invocation import Invocation
    from coa.config import Settings

__all__ = ["run_on", "work_on"]

_ASK_ABOVE_USD = 1.0
_ASK_ABOVE_TOKENS = 1_000_000
"""Where the price is unknown."""


def run_on(
    invocation: Invocation,
    settings: Settings,
    record: BatchRecord,
    *,
    colour: Colour,
    as_json: bool = False,
    progress: bool = True,
    yes: bool = False,
    new_documents: bool = False,
    only_changed: bool = False,
    before: Before | None = None,
) -> int:
    """Exit code of a batch that is begun or gone on with; `before` as for `run_batch`."""
    watch = _watch_of(invocation, record, live=progress, colour=colour)
    command = f"coa batch resume {record.batch_id}"

    async def run(stopping: Stopping) -> BatchEnd:
        from coa.api import StopSignal
        from coa.batch.driving import take_threads
        from coa.batch.running import run_batch

        take_threads()
        stop = StopSignal()
        stopping.attach(stop)
        asks = not yes and sys.stdin.isatty() and sys.stderr.isatty()
        async with watch:
            return await run_batch(
                record,
                settings,
                stop=stop,
                listener=_told_to(watch),
                confirm=_Confirming(watch) if asks else None,
                new_documents=new_documents,
                only_changed=only_changed,
                estimate=not invocation.quiet,
                before=before,
            )

    with Stopping(resume_command=lambda: command) as stopping:
        try:
            end = asyncio.run(run(stopping))
        except (asyncio.CancelledError, KeyboardInterrupt):
            if stopping.received is None:
                raise
            write_note(f"go on with: {command}")
            return stopping.exit_code
    return _told(invocation, record, end, stopping, as_json=as_json, command=command)


def work_on(invocation: Invocation, settings: Settings, record: BatchRecord, *, jobs: int | None, as_json: bool) -> int:
    """Exit code of a worker that joins a batch until it is over."""
    watch = BatchWatch(record, live=False, colour=False, verbose=invocation.verbosity > 0, quiet=invocation.quiet)
    command = f"coa batch worker {record.batch_id}"

    async def run(stopping: Stopping) -> BatchEnd:
        from coa.api import StopSignal
        from coa.batch.driving import take_threads
        from coa.batch.worker import join_batch

        take_threads()
        stop = StopSignal()
        stopping.attach(stop)
        async with watch:
            return await join_batch(record.batch_id, settings, jobs=jobs, stop=stop, on_work=watch.on_work)

    with Stopping(resume_command=lambda: command) as stopping:
        end = asyncio.run(run(stopping))
    return _told(invocation, record, end, stopping, as_json=as_json, command=command)


def _watch_of(invocation: Invocation, record: BatchRecord, *, live: bool, colour: Colour) -> BatchWatch:
    terminal = sys.stderr.isatty()
    return BatchWatch(
        record,
        live=live and terminal,
        colour=uses_colour(terminal, colour),
        verbose=invocation.verbosity > 0,
        quiet=invocation.quiet,
    )


def _told_to(watch: BatchWatch) -> Listener:
    from coa.batch.running import Listener

    return Listener(
        on_stage=watch.on_stage,
        on_scanned=watch.on_scanned,
        on_ledger=watch.on_ledger,
        on_expected=watch.on_expected,
        on_work=watch.on_work,
    )


def _told(
    invocation: Invocation, record: BatchRecord, end: BatchEnd, stopping: Stopping, *, as_json: bool, command: str
) -> int:
    if as_json:
        write_result(to_json(end.summary))
    elif not invocation.quiet:
        write_note(summary_text(end.summary))
        write_note(f"results: {record.out}")
    if end.error is not None:
        write_error(str(end.error))
    counts = end.summary["counts"]
    if counts["pending"] + counts["leased"] or end.summary["state"] == "open":
        if end.ending == "budget":
            write_note("the budget is used up")
        write_note(f"go on with: {command}")
    elif counts["failed"] and not invocation.quiet:
        write_note(f"try the failed ones again with: coa batch retry {record.batch_id} --failed")
    if stopping.received is not None and end.ending == "stopped":
        return stopping.exit_code
    return end.exit_code


class _Confirming:
    """Asks the person at the terminal where much would be spent."""

    def __init__(self, watch: BatchWatch) -> None:
        self._watch = watch

    async def __call__(self, expected: Expected) -> bool:
        cost = expected.cost_usd
        tokens = expected.prompt_tokens + expected.completion_tokens
        if (cost is not None and cost <= _ASK_ABOVE_USD) or (cost is None and tokens <= _ASK_ABOVE_TOKENS):
            return True
        self._watch.pause()
        await asyncio.sleep(1)  # until the table is gone
        try:
            return await asyncio.to_thread(typer.confirm, f"{expected_text(expected)}. Go on?", err=True)
        except typer.Abort:
            return False
        finally:
            self._watch.go_on()
