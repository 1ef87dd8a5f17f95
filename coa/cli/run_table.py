"""What a run did, for the terminal: a timeline of time and cache hits, and a table of its steps and notes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coa.cli.terminal import printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from coa.report.facts import Entry

__all__ = ["chain_object", "chain_text"]

_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "01234567"
_LABEL = 8
_MANY = 40
_DRAWN_WHOLE = 0.95


def chain_text(entries: Sequence[Entry], *, width: int, colour: bool, unicode: bool = True) -> str:
    """The timeline and the table, `width` columns wide; empty without entries. `unicode` False keeps to ASCII."""
    if not entries:
        return ""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        no_color=not colour,
        highlight=False,
        legacy_windows=False,
    )
    for line in _timeline(entries, width=width, unicode=unicode):
        console.print(line)
    console.print()
    console.print(_table(entries, unicode=unicode))
    lines = (line.rstrip() for line in buffer.getvalue().splitlines())
    return "\n".join(lines) + "\n"


def chain_object(entries: Sequence[Entry]) -> list[dict[str, object]]:
    """The same as JSON values; notes are those of `--notes`."""
    from coa.answer_json import usage_object

    return [
        {
            "step": entry.name,
            "title": entry.title,
            "part": entry.part,
            "path": entry.path,
            "chunks": list(entry.chunks),
            "seconds": None if entry.seconds is None else round(entry.seconds, 3),
            "informative": entry.informative,
            "cause": entry.cause,
            "usage": usage_object(entry.usage),
        }
        for entry in entries
    ]


def _timeline(entries: Sequence[Entry], *, width: int, unicode: bool) -> list[Text]:
    """A column for each step: how long it took, how much of its prompt was cached, and what came of it."""
    from rich.text import Text

    from coa.report.facts import cached_share

    levels = _LEVELS if unicode else _ASCII_LEVELS
    noted, nothing, skipped = ("●", "·", "×") if unicode else ("*", ".", "x")
    timed = [entry for entry in entries if entry.seconds is not None]
    times = sorted(entry.seconds or 0.0 for entry in timed)
    if len(timed) < 2 or times[-1] <= 0:
        return []
    # One that waited for a model to load would leave the others flat.
    full = (times[int(len(times) * _DRAWN_WHOLE)] if len(times) >= _MANY else 0.0) or times[-1]
    lines: list[Text] = []
    room = max(10, width - _LABEL - 1)
    for first in range(0, len(timed), room):
        time, cache, made = Text("time".ljust(_LABEL)), Text("cached".ljust(_LABEL)), Text("noted".ljust(_LABEL))
        for entry in timed[first : first + room]:
            time.append(_level(levels, (entry.seconds or 0.0) / full), "blue")
            share = cached_share(entry.usage) if entry.usage.calls else None
            cache.append(" " if share is None else _level(levels, share), "green")
            if entry.cause is not None:
                made.append(skipped, "red")
            else:
                made.append(noted if entry.informative else nothing, "green" if entry.informative else "dim")
        lines += [*([Text()] if lines else []), time, cache, made]
    lines.append(Text(f"{'':{_LABEL}}{len(timed)} steps, the longest {times[-1]:.1f} s", "dim"))
    return lines


def _level(levels: str, share: float) -> str:
    return levels[min(len(levels) - 1, int(share * len(levels)))]


def _table(entries: Sequence[Entry], *, unicode: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from coa.report.facts import cached_share

    table = Table(box=box.SIMPLE_HEAD if unicode else box.ASCII2, pad_edge=False, show_edge=False, expand=True)
    paths = any(entry.path for entry in entries)
    table.add_column("STEP", no_wrap=True, overflow="ellipsis" if unicode else "crop", max_width=28)
    if paths:
        table.add_column("READING", no_wrap=True, max_width=14)
    for name in ("TIME", "IN", "CACHED", "OUT"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("NOTE", ratio=1, no_wrap=True, overflow="ellipsis" if unicode else "crop")
    for entry in entries:
        usage, share = entry.usage, cached_share(entry.usage)
        called = usage.calls > 0
        table.add_row(
            Text(_one_line(entry.title)),
            *([Text(_one_line(entry.path))] if paths else []),
            "" if entry.seconds is None else f"{entry.seconds:.1f} s",
            f"{usage.prompt_tokens:,}" if called else "",
            f"{share:.0%}" if called and share is not None else "",
            f"{usage.completion_tokens:,}" if called else "kept" if usage.reused else "",
            _said(entry),
        )
    return table


def _said(entry: Entry) -> Text:
    """The note's new lines as one; why there is none, otherwise."""
    from rich.text import Text

    if entry.cause is not None:
        return Text(f"skipped: {_one_line(entry.cause)}", "red")
    if entry.text:
        return Text(_one_line(entry.text))
    if entry.evidence:
        n = len(entry.evidence)
        return Text(f"{n} sentence{'s' if n != 1 else ''} picked")
    return Text("" if entry.informative else "nothing to note", "dim")


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
