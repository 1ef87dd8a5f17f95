"""Text that appears on a terminal while it is written, and can be taken back."""

from __future__ import annotations

import shutil
import sys
import unicodedata

from coa.cli.terminal import printable, write_result

__all__ = ["StreamedText"]


class StreamedText:
    """What stands on the terminal of an answer that is not final yet.

    A model names sentences by their ids; the final text has numbered citations in their place, so the two
    differ, and the first is erased where it still is on the screen.
    """

    def __init__(self) -> None:
        self._text = ""

    def write(self, text: str) -> None:
        """Shows more of it."""
        shown = printable(text)
        self._text += shown
        write_result(shown)

    def shows(self, text: str) -> bool:
        """True when it is `text` that stands there."""
        return self._text.strip() == printable(text).strip()

    def erase(self) -> None:
        """Takes the text off the screen, or ends it with a rule where it has scrolled away."""
        columns, lines = shutil.get_terminal_size()
        rows = rows_taken(self._text, columns)
        if rows < lines and sys.stdout.isatty():
            write_result("\r" + (f"\x1b[{rows - 1}A" if rows > 1 else "") + "\x1b[J")
        else:
            write_result("\n" + "-" * min(columns, 40) + "\n")
        self._text = ""


def rows_taken(text: str, columns: int) -> int:
    """Rows of a terminal of that width that `text` stands on, the cursor's row included."""
    rows = 0
    for line in text.split("\n"):
        at, wrapped = 0, 0
        for char in line:
            width = _width(char)
            if at + width > columns:
                wrapped, at = wrapped + 1, 0
            at += width
        rows += 1 + wrapped
    return rows


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
