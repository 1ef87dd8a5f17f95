"""Where answers go: printed, streamed to a terminal, or kept for a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coa.cli import render
from coa.cli.options import Format, OutputOptions
from coa.cli.streaming import StreamedText
from coa.cli.terminal import Colour, check_writable, paint, printable, uses_colour, write_file, write_result

if TYPE_CHECKING:
    from coa.types import Answer

__all__ = ["Output"]


@dataclass
class Output:
    """Where answers go, in which form; streams the text of an answer to a terminal as it is written."""

    options: OutputOptions
    colour: Colour = Colour.AUTO
    several: bool = False
    """True when more than one answer is expected."""
    shown: Callable[[Answer], str] | None = None
    """How an answer that is no text is written (an outline); None for texts."""
    page: Callable[[Sequence[Answer]], str] | None = None
    """How all answers are written as one HTML page; not used where `shown` is given."""
    _parts: list[str] = field(default_factory=list)
    _objects: list[dict[str, object]] = field(default_factory=list)
    _answers: list[Answer] = field(default_factory=list)
    _stream: StreamedText | None = None

    def __post_init__(self) -> None:
        if self.options.output is not None:
            check_writable(self.options.output)

    @property
    def to_stdout(self) -> bool:
        """False with --output."""
        return self.options.output is None

    @property
    def paints(self) -> bool:
        """True where results are coloured."""
        return self.to_stdout and uses_colour(sys.stdout.isatty(), self.colour)

    @property
    def streams(self) -> bool:
        """True where the answer is shown as it is written."""
        return self.shown is None and self.to_stdout and self.options.form is Format.TEXT and sys.stdout.isatty()

    def title(self, title: str | None) -> None:
        """Heads the answer that comes next."""
        if self.several and title and self.options.form in (Format.TEXT, Format.MD):
            line = printable(" ".join(title.split()))
            markdown = self.options.form is Format.MD
            self.put(f"# {line}\n\n" if markdown else paint(line, "bold", colour=self.paints) + "\n\n")

    def stream(self, text: str) -> None:
        """Shows a piece of the answer."""
        if self._stream is None:
            self._stream = StreamedText()
        self._stream.write(text)

    def next_part(self) -> None:
        """Another answer, or another part of the answer, begins."""
        if self._stream is not None:
            self._stream.write("\n\n")

    def end_line(self) -> None:
        """Ends a text that breaks off."""
        if self._stream is not None:
            self._stream.write("\n")
            self._stream = None

    def add(self, answer: Answer, *, language: str | None = None) -> None:
        """Prints or keeps one answer."""
        form, notes = self.options.form, self.options.show_notes
        if self.shown is not None:
            self.put(self.shown(answer))
            return
        if form is Format.HTML:
            self._answers.append(answer)
            return
        if form in (Format.JSON, Format.JSONL):
            found = render.answer_object(answer, language=language, notes=notes)
            if form is Format.JSON and self.several:
                self._objects.append(found)
            else:
                self.put(render.to_json(found, compact=form is Format.JSONL))
            return
        stream, self._stream = self._stream, None
        if stream is not None and stream.shows(answer.text):
            text = "\n" + render.details_text(answer, colour=self.paints, notes=notes)
        else:
            if stream is not None:
                stream.erase()
            text = render.answer_text(answer, colour=self.paints, markdown=form is Format.MD, notes=notes)
        self.put(text + ("\n" if self.several else ""))

    def put(self, text: str) -> None:
        """Prints `text`, or keeps it for the file."""
        if self.to_stdout:
            write_result(text)
        else:
            self._parts.append(text)

    def finish(self) -> None:
        """Writes what was kept; called also when a later question failed, so that nothing is lost."""
        if self._objects:
            self.put(render.to_json(self._objects))
            self._objects = []
        if self._answers and self.page is not None:
            answers, self._answers = self._answers, []
            self.put(self.page(answers))
        if self.options.output is not None and self._parts:
            write_file(self.options.output, "".join(self._parts))
            self._parts = []
