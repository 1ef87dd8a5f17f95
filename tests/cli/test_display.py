from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from coa.cli.progress import LiveBar, LoadingBar, Tally
from coa.cli.render import cost_text, duration, table_text
from coa.cli.streaming import StreamedText, rows_taken
from coa.cli.terminal import Colour, uses_colour
from coa.events import AnswerStarted, AnswerToken, ChunkRead, ChunkSkipped, ChunkStarted, Event, RunStarted
from coa.types import Usage

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._monkeypatch = monkeypatch

    def switch_on(self) -> None:
        """Called in the test itself: pytest sets its own streams between a fixture and its test."""
        self._monkeypatch.setattr(sys, "stdout", self)
        self._monkeypatch.setattr(sys, "stderr", self)

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 80 columns, off at first."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return Terminal(monkeypatch)


def read(index: int, *, seconds: float = 2.0, reused: bool = False) -> ChunkRead:
    return ChunkRead(index, 4, 100, "note", True, Usage(), seconds, reused=reused)


def tally_after(*events: Event) -> Tally:
    tally = Tally()
    for event in events:
        tally.take(event)
    return tally


STARTED = RunStarted("r", "b", "chain", "m", n_chunks=4, n_tokens=400)


def test_pace_and_time_left_come_from_the_chunks_read_now() -> None:
    resumed = RunStarted("r", "b", "chain", "m", n_chunks=4, n_tokens=400, n_done=1)
    tally = tally_after(resumed, read(0, seconds=0.0, reused=True))
    assert (tally.n_done, tally.tokens_per_second, tally.seconds_left) == (1, None, None)
    tally.take(read(1))
    assert (tally.n_done, tally.tokens_per_second, tally.seconds_left) == (2, 50.0, 4.0)


def test_a_skipped_chunk_counts_as_done() -> None:
    tally = tally_after(STARTED, read(0), ChunkSkipped(1, 4, "no reply"))
    assert (tally.n_done, tally.seconds_left) == (2, 4.0)


def test_the_bar_shows_chunk_pace_and_time_left_and_gives_the_terminal_back(screen: Terminal) -> None:
    screen.switch_on()
    bar, tally = LiveBar(colour=False), Tally()
    for event in (STARTED, ChunkStarted(0, 4, 100), read(0), ChunkStarted(1, 4, 100)):
        tally.take(event)
        bar.show(event, tally)
    bar.close()
    bar.close()
    shown = screen.getvalue()
    assert "chunk 2 of 4" in shown
    assert "50 tokens/s, 0:06 left" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_loading_bar_counts_bytes_and_pieces(screen: Terminal) -> None:
    screen.switch_on()
    with LoadingBar(colour=False) as bar:
        bar.show("download", 50_000_000, 100_000_000)
        bar.show("requantize", 3, 10)
    assert "50 MB" in screen.getvalue()
    assert "3 of 10" in screen.getvalue()


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("", 10, 1),
        ("abc", 10, 1),
        ("a" * 10, 10, 1),
        ("a" * 11, 10, 2),
        ("a\nb", 10, 2),
        ("西" * 6, 10, 2),
        ("e\u0301" * 10, 10, 1),
    ],
)
def test_rows_on_the_screen(text: str, columns: int, rows: int) -> None:
    assert rows_taken(text, columns) == rows


def test_streamed_text_is_erased_where_it_is_still_on_the_screen(screen: Terminal) -> None:
    screen.switch_on()
    stream = StreamedText()
    stream.write("The cat [12]\ndid it.")
    assert not stream.shows("The cat [1] did it.")
    stream.erase()
    assert screen.getvalue().endswith("\r\x1b[1A\x1b[J")


def test_streamed_text_that_scrolled_away_is_ended_with_a_rule(screen: Terminal) -> None:
    screen.switch_on()
    stream = StreamedText()
    stream.write("line\n" * 30)
    stream.erase()
    assert screen.getvalue().endswith("\n" + "-" * 40 + "\n")


def test_an_answer_that_was_streamed_is_not_printed_twice(cli: Cli, screen: Terminal) -> None:
    screen.switch_on()
    cli.api.events = [STARTED, AnswerStarted(), AnswerToken("The cat "), AnswerToken("did it.")]
    assert cli("ask", "book.txt", "q").code == 0
    assert screen.getvalue().count("The cat did it.") == 1
    assert "\x1b[J" not in screen.getvalue().rpartition("The cat did it.")[2]
    assert '[1] I. The Cat: "The cat sat."' in screen.getvalue()


def test_a_final_text_that_differs_takes_the_place_of_the_streamed_one(cli: Cli, screen: Terminal) -> None:
    screen.switch_on()
    cli.api.events = [STARTED, AnswerStarted(), AnswerToken("The cat [12] did it.")]
    cli.api.outcomes = [cli.answer("The cat did it. [1]")]
    cli("ask", "book.txt", "q", "--color", "never")
    after = screen.getvalue().partition("The cat [12] did it.")[2]
    assert after.startswith("\r\x1b[JThe cat did it. [1]\n")


def test_json_is_not_streamed(cli: Cli, screen: Terminal) -> None:
    screen.switch_on()
    cli.api.events = [STARTED, AnswerStarted(), AnswerToken("streamed")]
    cli("ask", "book.txt", "q", "--json", "--no-progress")
    assert "streamed" not in screen.getvalue()


def test_piped_output_has_neither_progress_nor_colour(cli: Cli) -> None:
    cli.api.events = [STARTED, ChunkStarted(0, 4, 100), read(0)]
    result = cli("ask", "book.txt", "q")
    assert "\x1b" not in result.out + result.err
    assert "chunk" not in result.err.partition(" chunks read")[0]


@pytest.mark.parametrize(
    ("env", "terminal", "option", "expected"),
    [
        ({}, True, "auto", True),
        ({}, False, "auto", False),
        ({"NO_COLOR": "1"}, True, "auto", False),
        ({"FORCE_COLOR": "1"}, False, "auto", True),
        ({"TERM": "dumb"}, True, "auto", False),
        ({"NO_COLOR": "1"}, False, "always", True),
        ({}, True, "never", False),
    ],
)
def test_colour(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], terminal: bool, option: str, expected: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert uses_colour(terminal, Colour(option)) is expected


def test_amounts_for_people() -> None:
    assert [cost_text(cost) for cost in (None, 0.0, 0.00123, 12.5)] == ["unknown price", "free", "$0.0012", "$12.50"]
    assert [duration(seconds) for seconds in (3.44, 75, 3725)] == ["3.4 s", "1:15 min", "1:02:05 h"]
    assert table_text([("a", "b"), ("ccc", "")], header=("X", "Y")) == "X    Y\na    b\nccc\n"
