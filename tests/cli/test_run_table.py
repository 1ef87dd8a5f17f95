"""The terminal's drawing of a run's steps."""

from __future__ import annotations

from coa.cli.run_table import chain_text
from coa.report.facts import Entry
from coa.types import Span, Usage

CALLED = Usage(calls=1, prompt_tokens=1000, cached_tokens=500, completion_tokens=40)


def _entry(n: int, seconds: float = 1.0, **changes: object) -> Entry:
    values: dict[str, object] = {"usage": CALLED, "chunks": (n,), "seconds": seconds, **changes}
    return Entry("note", "note", f"Chunk {n + 1}", **values)  # type: ignore[arg-type]


def test_a_timeline_has_a_column_a_step() -> None:
    entries = [
        _entry(0, 4.0, text="found"),
        _entry(1, 2.0, informative=False, usage=Usage()),
        _entry(2, 0.5, cause="refused", informative=False),
    ]
    time, cached, noted, told = chain_text(entries, width=80, colour=False).splitlines()[:4]
    assert (time, cached, noted) == ("time    █▅▂", "cached  ▅ ▅", "noted   ●·×")
    assert told.strip() == "3 steps, the longest 4.0 s"


def test_a_long_run_s_timeline_is_broken_at_the_terminal_s_width() -> None:
    lines = chain_text([_entry(n) for n in range(100)], width=60, colour=False).splitlines()
    assert [len(line) for line in lines if line.startswith("noted")] == [59, 57]
    assert max(map(len, lines)) <= 60


def test_a_step_that_took_very_long_does_not_flatten_the_others() -> None:
    entries = [_entry(0, 500.0), *(_entry(n, 1.0 if n % 2 else 4.0) for n in range(1, 60))]
    time = chain_text(entries, width=100, colour=False).splitlines()[0]
    assert time == "time    █" + "▃█" * 29 + "▃"


def test_the_table_says_of_each_step_what_it_took_and_gave() -> None:
    entries = [
        _entry(0, text="a cat"),
        _entry(1, informative=False, usage=Usage(reused=1)),
        _entry(2, cause="refused"),
        _entry(3, evidence=(Span(0, 1), Span(1, 2))),
    ]
    rows = chain_text(entries, width=100, colour=False).splitlines()[-4:]
    assert [" ".join(row.split()) for row in rows] == [
        "Chunk 1 1.0 s 1,000 50% 40 a cat",
        "Chunk 2 1.0 s kept nothing to note",
        "Chunk 3 1.0 s 1,000 50% 40 skipped: refused",
        "Chunk 4 1.0 s 1,000 50% 40 2 sentences picked",
    ]


def test_notes_cannot_steer_the_terminal_nor_speak_its_markup() -> None:
    text = chain_text([_entry(0, text="\x1b[2J\x1b]0;x\x07[red]bold[/red]\r\nnext")], width=100, colour=False)
    assert "[2J]0;x[red]bold[/red] next" in text
    assert not any(ord(c) < 32 and c != "\n" for c in text)


def test_colours_are_there_only_when_asked_for() -> None:
    entries = [_entry(0), _entry(1)]
    assert "\x1b[" in chain_text(entries, width=80, colour=True)
    assert "\x1b" not in chain_text(entries, width=80, colour=False)


def test_a_terminal_without_utf_8_gets_ascii() -> None:
    entries = [_entry(n, n + 1.0, text="word " * 50) for n in range(3)]
    chain_text(entries, width=60, colour=False, unicode=False).encode("ascii")


def test_a_run_without_steps_has_no_drawing() -> None:
    assert chain_text([], width=80, colour=False) == ""
