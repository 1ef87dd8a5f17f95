"""`coa ask BOOK -q … -q …`: questions that are read together, told of one by one."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from coa.cli.progress import LiveBar, Tally, joint
from coa.errors import BudgetExceeded, ConfigError, ModelUnavailable, ReviewNeeded, RunDrained, VerificationFailed
from coa.events import ChunkRead, ChunkSkipped, ChunkStarted, RunStarted, WarningRaised
from coa.types import Usage

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

RUN_ID = "20260101-000000-abcd"
STARTED = RunStarted(RUN_ID, "book.txt", "chain", "smollm2-135m", n_chunks=2, n_tokens=900)
READ = ChunkRead(0, 2, 450, "note", True, Usage(), 3.0)
THREE = ("ask", "book.txt", "A?", "-q", "B?", "-q", "C?")


def test_several_questions_make_a_json_list_and_titled_text(cli: Cli) -> None:
    assert len(json.loads(cli("ask", "book.txt", "A?", "-q", "B?", "--json").out)) == 2
    text = cli("ask", "book.txt", "A?", "-q", "B?").out
    assert text.startswith("A?\n\nThe cat did it.\n")
    assert "\nB?\n\nThe cat did it.\n" in text


def test_a_warning_about_the_model_is_told_once_for_all_questions(cli: Cli) -> None:
    cli.api.events = [STARTED, WarningRaised("small model")]
    cli.api.outcomes = [cli.answer(warnings=("small model", "cut off")) for _ in range(2)]
    err = cli("ask", "book.txt", "A?", "-q", "B?").err
    assert err.count("warning: small model\n") == 1
    assert err.count("warning: cut off\n") == 2


def test_answers_are_printed_in_the_order_of_the_questions(cli: Cli) -> None:
    cli.api.ends_in = [2, 0, 1]
    cli.api.outcomes = [cli.answer("third"), cli.answer("first"), cli.answer("second")]
    result = cli(*THREE)
    assert result.code == 0
    assert [line for line in result.out.splitlines() if line in {"first", "second", "third"}] == [
        "first",
        "second",
        "third",
    ]
    assert result.out.index("A?") < result.out.index("first") < result.out.index("B?")


def test_a_question_that_fails_does_not_keep_the_others(cli: Cli) -> None:
    cli.api.events = [STARTED]
    cli.api.outcomes = [cli.answer("One."), ModelUnavailable("no server."), cli.answer("Three.")]
    result = cli(*THREE, "--json", "-o", "out.json")
    assert result.code == 7
    assert [a["answer"] for a in json.loads((cli.folder / "out.json").read_text())] == ["One.", "Three."]
    assert "error: question 2: no server.\n" in result.err
    assert result.err.endswith(f"question 2: What was read is kept; go on with: coa resume {RUN_ID}-1\n")


def test_a_failure_that_several_have_in_common_is_told_once_and_each_can_be_gone_on_with(cli: Cli) -> None:
    cli.api.events = [STARTED]
    cli.api.outcomes = [ModelUnavailable("no server."), cli.answer(), ModelUnavailable("no server.")]
    result = cli(*THREE)
    assert result.code == 7
    assert result.err.count("error: ") == 1
    assert "error: questions 1 and 3: no server.\n" in result.err
    for number in (0, 2):
        assert f"question {number + 1}: What was read is kept; go on with: coa resume {RUN_ID}-{number}\n" in result.err


def test_a_failure_before_a_run_began_has_nothing_to_go_on_with(cli: Cli) -> None:
    cli.api.outcomes = [ConfigError("the question is empty."), cli.answer()]
    result = cli("ask", "book.txt", "A?", "-q", "B?")
    assert result.code == 2
    assert "error: question 1: the question is empty.\n" in result.err
    assert "coa resume" not in result.err
    assert result.out.startswith("B?\n\nThe cat did it.\n")


def test_each_stopped_run_is_named_with_the_command_that_goes_on_with_it(cli: Cli) -> None:
    cli.api.events = [STARTED, READ]
    cli.api.outcomes = [
        cli.answer(),
        RunDrained("stopped", run_id=f"{RUN_ID}-1"),
        RunDrained("stopped", run_id=f"{RUN_ID}-2"),
    ]
    result = cli(*THREE)
    assert result.code == 75
    assert result.out.startswith("A?\n\nThe cat did it.\n")
    assert "B?" not in result.out
    for number in (1, 2):
        told = f"question {number + 1}: stopped, 1 of 2 chunks are read and kept"
        assert f"{told}; go on with: coa resume {RUN_ID}-{number}\n" in result.err
    assert f"coa resume {RUN_ID}-0" not in result.err


def test_a_reached_budget_prints_what_was_found_and_the_exit_code_is_the_first_failure(cli: Cli) -> None:
    partial = cli.answer("Half.", read=1, chunks=2)
    unfound = VerificationFailed("the answer has a quote that the text does not hold.", answer=cli.answer("Made up."))
    cli.api.events = [STARTED]
    cli.api.outcomes = [unfound, BudgetExceeded("stopped by --max-calls.", hint="Raise it.", answer=partial)]
    result = cli("ask", "book.txt", "A?", "-q", "B?")
    assert result.code == 6, "an answer that is not there is worse than one with a doubtful quote"
    assert result.out.index("Made up.") < result.out.index("Half.")
    assert "error: question 1: the answer has a quote" in result.err
    assert "error: question 2: stopped by --max-calls. Raise it.\n" in result.err
    assert "coa resume" not in result.err


def test_an_incomplete_answer_among_several_exits_3(cli: Cli) -> None:
    cli.api.outcomes = [cli.answer(read=1, chunks=2), cli.answer()]
    result = cli("ask", "book.txt", "A?", "-q", "B?")
    assert result.code == 3
    assert "warning: chunk 2 was not read: no reply\n" in result.err


def test_a_run_that_waits_for_a_person_holds_back_only_what_comes_after_it(cli: Cli) -> None:
    waiting = ReviewNeeded("waits", run_id=f"{RUN_ID}-1", payload={"evidence": [], "question": "B?"})
    cli.api.outcomes = [cli.answer("One."), waiting, cli.answer("Three.")]
    result = cli(*THREE)
    assert result.code == 75
    assert result.out.index("One.") < result.out.index("Three.")
    assert f"go on with: coa resume {RUN_ID}-1 --accept" in result.err.lower()


def test_verbose_lines_say_whose_they_are(cli: Cli) -> None:
    cli.api.events = [STARTED, READ, ChunkSkipped(1, 2, "no reply")]
    err = cli("ask", "book.txt", "A?", "-q", "B?", "-v").err
    for number in (1, 2):
        assert f"question {number}: run {RUN_ID}-{number - 1}: book.txt, 2 chunks" in err
        assert f"question {number}: chunk 1 of 2 read: 450 tokens, 3.0 s\n" in err
        assert f"question {number}: chunk 2 of 2 skipped: no reply\n" in err


def test_progress_of_all_runs_is_one_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    tallies = [Tally(), Tally(), Tally()]
    bar = LiveBar(colour=False)
    for tally in tallies[:2]:  # the third has not begun
        for event in (STARTED, READ, ChunkStarted(1, 2, 450)):
            tally.take(event)
    together = joint(tallies)
    assert (together.n_done, together.n_chunks) == (2, 4)
    assert together.tokens_per_second == 300.0, "two that read 150 a second at the same time"
    assert together.seconds_left == 3.0
    bar.show(ChunkStarted(1, 2, 450), together, "question 2")
    bar.close()
    assert "question 2: chunk 2 of 2" in screen.getvalue()
    assert "300 tokens/s, 0:03 left" in screen.getvalue()
