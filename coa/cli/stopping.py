"""Signals: the first asks the run to stop after the chunk in hand, a second Ctrl-C ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from coa.cli.terminal import INTERRUPTED, write_note

if TYPE_CHECKING:
    from coa.cli.api_types import StopLike

__all__ = ["DRAINED", "Stopping"]

DRAINED = 75
_CLEAR_LINE_SHOW_CURSOR = "\r\x1b[2K\x1b[?25h"


class Stopping:
    """While entered: SIGINT, SIGTERM and SIGHUP drain the run that was last attached.

    Python-level handlers rather than the event loop's own, so that a second Ctrl-C works while the loop is
    blocked, too.
    """

    def __init__(self, *, resume_command: Callable[[], str | None]) -> None:
        self._resume_command = resume_command
        """The command that goes on with the run in hand; None while there is none."""
        self._before: dict[signal.Signals, Any] = {}
        self._stop: StopLike | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self.received: signal.Signals | None = None
        """The first signal, None while there was none."""

    def attach(self, stop: StopLike) -> None:
        """Signals go to `stop` from now on; call it from within the task that may be cancelled."""
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 75 after a request to end."""
        return INTERRUPTED if self.received == signal.SIGINT else DRAINED

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup keeps its word
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT:
                self._end_now()
            return  # supervisors may well send SIGTERM twice; the run is already draining
        self.received = signal.Signals(number)
        if self._loop is None or self._stop is None:
            raise KeyboardInterrupt
        resumable = self._resume_command() is not None
        if resumable:
            self._loop.call_soon_threadsafe(self._stop.request, self.received.name)
            again = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
            write_note(f"\nstopping after the chunk in hand{again}")
        elif self._task is not None:
            # Nothing is read yet, so there is nothing to wait for.
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _end_now(self) -> None:
        command = self._resume_command()
        write_note("\nended at once" + (f"; go on with: {command}" if command else ""))
        # Past what a progress bar put in place of sys.stderr: the bar's last line would stay.
        terminal = sys.__stderr__
        if terminal is not None and terminal.isatty():
            terminal.write(_CLEAR_LINE_SHOW_CURSOR)
            terminal.flush()
        # Neither the event loop nor the engine's threads are waited for: notes are on the disk.
        os._exit(self.exit_code)
