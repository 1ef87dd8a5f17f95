"""What a batch shows while it goes on: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coa.cli.render import cost_text, duration
from coa.cli.terminal import printable, write_note
from coa.errors import CoaError

if TYPE_CHECKING:
    from coa.batch.estimating import Expected
    from coa.batch.ledger import ItemState, Lease, Ledger, LedgerStatus
    from coa.batch.processing import Worked
    from coa.batch.record import BatchRecord

__all__ = ["BatchWatch", "expected_text", "status_table", "status_text", "summary_text"]

_STATES: tuple[ItemState, ...] = ("done", "partial", "failed", "leased", "pending")
_STYLES = {"done": "green", "partial": "yellow", "failed": "red"}
_N_SHOWN = 6
_EVERY_S = 0.5
_LINE_EVERY_S = 30.0


def expected_text(expected: Expected) -> str:
    """What a batch is expected to take, on a line."""
    if not expected.sampled:
        return f"{expected.items:,} items are open; none of a few documents could be read for an estimate"
    tokens = f"{expected.prompt_tokens:,} tokens in, at most {expected.completion_tokens:,} out"
    return f"{expected.items:,} items are open: about {expected.calls:,} calls, {tokens}, {_price(expected.cost_usd)}"


def status_text(status: Mapping[str, Any]) -> str:
    """A status for people, line by line."""
    counts = status["counts"]
    states = ", ".join(f"{counts[state]:,} {state}" for state in _STATES if counts[state])
    usage = status["usage"]
    lines = [
        f"batch {status['batch']}: {status['state']}, {status['task']} with {status['model']}",
        f"  items      {sum(counts.values()):,} of {status['documents']:,} documents: {states or 'none'}"
        + ("" if status["scanned"] else "; not all documents were looked at yet"),
        f"  spent      {_spent(usage)}",
        f"  results    {printable(str(status['out']))}",
    ]
    lines += [f"  worker     {printable(name)}: {n} documents" for name, n in status["workers"].items()]
    lines += [f"  {kind}: {n:,}" for kind, n in status["causes"].items()]
    if status["slowest"]:
        slow = status["slowest"][0]
        lines.append(f"  slowest    {printable(slow['source'])} ({duration(slow['seconds'])})")
    return "\n".join(lines) + "\n"


def summary_text(summary: Mapping[str, Any]) -> str:
    """The end of a batch, on a few lines."""
    counts = summary["counts"]
    told = [f"{counts[state]:,} {state}" for state in ("done", "partial", "failed") if counts[state]]
    left = counts["pending"] + counts["leased"]
    told += [f"{left:,} left"] if left else []
    told += [] if summary["scanned"] else ["not all documents were looked at yet"]
    lines = [f"{', '.join(told) or 'nothing to do'}; {_spent(summary['usage'])}; {duration(summary['seconds'])}"]
    for failure in summary["failures"]:
        lines.append(f"  {failure['items']:,} x {failure['kind']}")
        lines += [
            f"    {printable(example['source'])}: {printable(str(example['cause']))}"
            for example in failure["examples"][:1]
        ]
    return "\n".join(lines)


class BatchWatch:
    """Shows how a batch goes on; an async context manager."""

    def __init__(self, record: BatchRecord, *, live: bool, colour: bool, verbose: bool, quiet: bool) -> None:
        self._record = record
        self._live = live and not quiet and not verbose
        self._colour = colour
        self._verbose = verbose
        self._quiet = quiet
        self._ledger: Ledger | None = None
        self._stage = ""
        self._active: dict[int, tuple[str, float]] = {}
        self._showing: asyncio.Task[None] | None = None
        self._paused = False
        self._started = time.monotonic()
        self._done_before: int | None = None

    async def __aenter__(self) -> BatchWatch:
        if not self._quiet:
            self._showing = asyncio.create_task(self._show() if self._live else self._tell())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._showing is not None:
            self._showing.cancel()
            await asyncio.wait([self._showing])

    def on_ledger(self, ledger: Ledger) -> None:
        """Takes the ledger to ask."""
        self._ledger = ledger

    def on_stage(self, stage: str) -> None:
        """Shows what is being done."""
        self._stage = stage
        if self._verbose and stage:
            write_note(stage)

    def on_scanned(self, documents: int, items: int) -> None:
        """Shows how many documents were found."""
        self._stage = f"looking at the documents: {documents:,}, {items:,} new items"

    def on_expected(self, expected: Expected) -> None:
        """Says what is expected."""
        if not self._quiet:
            write_note(expected_text(expected))

    def on_work(self, lease: Lease, worked: Worked | None) -> None:
        """Shows a document that is begun or over."""
        if worked is None:
            self._active[lease.token] = (lease.sources[0], time.monotonic())
            return
        self._active.pop(lease.token, None)
        if self._verbose:
            told = ", ".join(f"{n} {state}" for state, n in worked.states.items())
            later = f"later again: {worked.passing.message}" if worked.passing is not None else ""
            back = "given back" if worked.drained else ""
            what = "; ".join(filter(None, [told, later, back])) or "taken over by another"
            write_note(f"{printable(lease.sources[0])}: {what} ({duration(worked.seconds)})")

    def pause(self) -> None:
        """Leaves the terminal to a question."""
        self._paused = True

    def go_on(self) -> None:
        """Takes the terminal back."""
        self._paused = False

    async def _status(self) -> LedgerStatus | None:
        try:
            return None if self._ledger is None else await self._ledger.status()
        except CoaError:
            return None

    async def _show(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=sys.stderr, no_color=not self._colour, highlight=False)
        live = Live(console=console, refresh_per_second=4, transient=True, redirect_stdout=False)
        try:
            while True:
                status = await self._status()
                if self._paused and live.is_started:
                    live.stop()
                elif not self._paused:
                    if not live.is_started:
                        live.start()
                    live.update(self._table(status))
                await asyncio.sleep(_EVERY_S)
        finally:
            if live.is_started:
                live.stop()

    def _table(self, status: LedgerStatus | None) -> Any:
        now = time.monotonic()
        active = [(source, now - since) for source, since in list(self._active.values())[:_N_SHOWN]]
        done = 0 if status is None else sum(status.counts[state] for state in _STATES[:3])
        if self._done_before is None and status is not None:
            self._done_before = done
        fresh = done - (self._done_before or 0)
        left = None if status is None or not fresh else (now - self._started) / fresh * status.open
        return status_table(status, stage=self._stage, active=active, more=len(self._active) - len(active), left_s=left)

    async def _tell(self) -> None:
        """A line now and then, for logs."""
        while True:
            await asyncio.sleep(_LINE_EVERY_S)
            status = await self._status()
            if status is not None and not self._paused:
                write_note(", ".join(f"{status.counts[s]:,} {s}" for s in _STATES if status.counts[s]) or self._stage)


def status_table(
    status: LedgerStatus | None,
    *,
    stage: str = "",
    active: list[tuple[str, float]] | None = None,
    more: int = 0,
    left_s: float | None = None,
) -> Any:
    """The counters as a rich renderable; `active` are documents in work with their seconds so far."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if status is None or not sum(status.counts.values()):
        return Text(stage or "opening the ledger")
    total, ended = sum(status.counts.values()), sum(status.counts[s] for s in _STATES[:3])
    head = Table.grid(padding=(0, 1))
    time_left = "" if left_s is None else f"{duration(left_s)} left"
    head.add_row(ProgressBar(total=total, completed=ended, width=32), f"{ended:,} of {total:,}", time_left, stage)
    states = Text("  ").join(
        Text(f"{status.counts[state]:,} {state}", style=_STYLES.get(state, "")) for state in _STATES
    )
    from coa.batch.summary import spending_object

    parts: list[Any] = [head, states, Text(_spent(spending_object(status.spent)), style="dim")]
    for source, seconds in active or []:
        parts.append(Text(f"  {duration(seconds):>8}  {printable(source)}", overflow="ellipsis", no_wrap=True))
    if more > 0:
        parts.append(Text(f"            and {more:,} more", style="dim"))
    if status.causes:
        causes = ", ".join(f"{kind} {n:,}" for kind, n in list(status.causes.items())[:_N_SHOWN])
        parts.append(Text(causes, style="red", overflow="ellipsis", no_wrap=True))
    return Group(*parts)


def _spent(usage: Mapping[str, Any]) -> str:
    tokens = (
        f"{usage['prompt_tokens']:,} tokens in ({usage['cached_tokens']:,} cached), {usage['completion_tokens']:,} out"
    )
    reused = f", {usage['reused']:,} replies reused" if usage["reused"] else ""
    return f"{usage['calls']:,} calls, {tokens}, {_price(usage['cost_usd'])}{reused}"


def _price(cost_usd: float | None) -> str:
    return cost_text(cost_usd)
