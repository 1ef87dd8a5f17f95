from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coa.errors import AuthenticationFailed, BudgetExceeded, ModelUnavailable, RunDrained, StorageError
from coa.events import RunStarted, WarningRaised

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

RUN_ID = "20260101-000000-abcd"
STARTED = RunStarted(RUN_ID, "book.txt", "chain", "smollm2-135m", n_chunks=2, n_tokens=900)


def test_text_is_the_answer_then_numbered_citations(cli: Cli) -> None:
    result = cli("ask", "book.txt", "Who did it?")
    assert result.code == 0
    assert result.out == (
        "The cat did it.\n"
        "\n"
        '[1] I. The Cat: "The cat sat." (offset 10-23)\n'
        '[2] "It purred." (offset 30-40, fuzzy: not word for word, found by its words)\n'
    )
    assert result.err == (
        "2 of 2 chunks read | 3 calls | 1,200 tokens in (200 cached), 30 out | 5.2 s | free | "
        "run 20260101-000000-abcd\n"
    )
    assert cli.api.calls == [("ask", "Who did it?")]


def test_json_has_the_keys_of_the_contract(cli: Cli) -> None:
    english = b"It was the best of times, it was the worst of times, and there was a king with a large jaw.\n" * 9
    result = cli("ask", "-", "Who did it?", "--json", "--show-notes", stdin=english)
    assert json.loads(result.out) == {
        "schema_version": 1,
        "ok": True,
        "run_id": RUN_ID,
        "strategy": "chain",
        "model": "smollm2-135m",
        "document": "book.txt",
        "document_sha256": "ab" * 32,
        "language": "en",
        "question": "Who did it?",
        "answer": "The cat did it.",
        "citations": [
            {
                "quote": "The cat\n sat.",
                "start": 10,
                "end": 23,
                "chapter": "I. The Cat",
                "page": None,
                "status": "exact",
                "origin": "model",
                "score": None,
            },
            {
                "quote": "It purred.",
                "start": 30,
                "end": 40,
                "chapter": None,
                "page": None,
                "status": "fuzzy",
                "origin": "located",
                "score": 0.5,
            },
        ],
        "claims": [{"text": "The cat did it.", "citations": [1]}],
        "quotes_not_found": 0,
        "verdict": "answered",
        "coverage": {"chunks": 2, "read": 2, "skipped": [], "unselected": 0},
        "usage": {
            "calls": 3,
            "prompt_tokens": 1200,
            "cached_tokens": 200,
            "completion_tokens": 30,
            "cost_usd": 0.0,
            "seconds": 4.5,
            "reasoning_tokens": 0,
            "reused": 0,
        },
        "prompts": {"worker_question": "ab12"},
        "notes": [
            {"chunk": 0, "text": "a cat", "informative": True, "path": ""},
            {"chunk": 1, "text": "a cat", "informative": False, "path": ""},
        ],
        "seconds": 5.25,
        "estimate": None,
        "strategy_reason": None,
        "warnings": [],
    }


def test_notes_are_in_the_output_only_when_asked_for(cli: Cli) -> None:
    assert "notes" not in json.loads(cli("ask", "book.txt", "q", "--json").out)
    assert "[chunk 2] a cat" not in cli("ask", "book.txt", "q").out
    assert "[chunk 2] a cat" in cli("ask", "book.txt", "q", "--show-notes").out


def test_markdown_has_the_same_parts(cli: Cli) -> None:
    result = cli("ask", "book.txt", "q", "-f", "md", "--show-notes")
    assert result.out.startswith("The cat did it.\n\n[1] I. The Cat: ")
    assert "\n## Notes\n" in result.out


def test_questions_are_gathered_in_order_from_all_places(cli: Cli) -> None:
    (cli.folder / "q.txt").write_text('Third?\n\n{"question": "Fourth?", "answer": "x"}\n', encoding="utf-8")
    result = cli("ask", "book.txt", "First?", "-q", "Second?", "--questions", "q.txt", "-f", "jsonl")
    assert [question for _, question in cli.api.calls] == ["First?", "Second?", "Third?", "Fourth?"]
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["schema_version"] for line in lines] == [1, 1, 1, 1]


def test_a_dash_reads_the_document_from_standard_input(cli: Cli) -> None:
    cli.api.events = [STARTED]
    assert cli("ask", "-", "q", stdin=b"Ein Hund.\n").code == 0
    assert "stdin is empty" in cli("ask", "-", "q").err


def test_flags_reach_the_session(cli: Cli) -> None:
    (cli.folder / "coa.yaml").write_text("retries: 7\nmodel: other\n")
    flags = "-m x --strategy chain --window 4096 --chunk-tokens 100 --note-tokens 50 --answer-tokens 60"
    limits = "--max-cost 0.5 --max-tokens-total 900 --max-calls 9"
    assert cli("ask", "book.txt", "q", *flags.split(), *limits.split()).code == 0
    settings = cli.api.settings
    assert settings is not None
    assert (settings.model, settings.retries, settings.window) == ("x", 7, 4096)
    assert (settings.chunk_tokens, settings.note_tokens, settings.answer_tokens) == (100, 50, 60)
    assert (settings.max_cost_usd, settings.max_tokens_total, settings.max_calls) == (0.5, 900, 9)


def test_every_flag_has_its_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MODEL": "m", "FORMAT": "jsonl", "MAX_CALLS": "3", "QUIET": "1"}.items():
        monkeypatch.setenv(f"COA_{name}", value)
    result = cli("ask", "book.txt", "q", "--max-calls", "4")
    assert json.loads(result.out)["ok"] is True
    assert result.err == ""
    assert cli.api.settings is not None
    assert (cli.api.settings.model, cli.api.settings.max_calls) == ("m", 4)


def test_an_incomplete_answer_is_written_and_exits_3(cli: Cli) -> None:
    cli.api.outcomes = [cli.answer(read=1, chunks=2)]
    result = cli("ask", "book.txt", "q", "--json")
    assert result.code == 3
    assert json.loads(result.out)["ok"] is False
    assert json.loads(result.out)["coverage"]["skipped"] == [{"index": 1, "cause": "no reply"}]
    assert "warning: chunk 2 was not read: no reply\n" in result.err


def test_a_reached_budget_writes_the_partial_answer_and_exits_6(cli: Cli) -> None:
    cli.api.events = [STARTED]
    cli.api.outcomes = [
        BudgetExceeded("stopped by --max-calls.", hint="Raise it.", answer=cli.answer(read=1, chunks=2))
    ]
    result = cli("ask", "book.txt", "q", "-o", "a.txt")
    assert result.code == 6
    assert (cli.folder / "a.txt").read_text().startswith("The cat did it.\n")
    assert result.err.endswith("error: stopped by --max-calls. Raise it.\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [(AuthenticationFailed("the key is wrong."), 4), (ModelUnavailable("no server."), 7), (StorageError("full."), 1)],
)
def test_a_failed_run_says_how_to_go_on(cli: Cli, error: Exception, code: int) -> None:
    cli.api.events = [STARTED]
    cli.api.outcomes = [error]
    message = str(error)
    result = cli("ask", "book.txt", "q")
    assert (result.code, result.out) == (code, "")
    assert result.err == f"error: {message} What was read is kept; go on with: coa resume {RUN_ID}\n"


def test_a_drained_run_exits_75_with_the_resume_command(cli: Cli) -> None:
    cli.api.events = [STARTED]
    cli.api.outcomes = [RunDrained("stopped", run_id=RUN_ID)]
    result = cli("ask", "book.txt", "q")
    assert result.code == 75
    assert result.err == f"stopped: 0 of 2 chunks are read and kept\ngo on with: coa resume {RUN_ID}\n"


def test_each_warning_is_told_once(cli: Cli) -> None:
    cli.api.events = [STARTED, WarningRaised("small model"), WarningRaised("small model")]
    cli.api.outcomes = [cli.answer(warnings=("small model", "cut off"))]
    result = cli("ask", "book.txt", "q")
    assert result.err.count("warning: small model\n") == 1
    assert result.err.count("warning: cut off\n") == 1
    assert cli("ask", "book.txt", "q", "--quiet").err == ""


def test_control_characters_do_not_reach_the_terminal(cli: Cli) -> None:
    made = cli.answer("safe\x1b]0;title\x07 text\x9b31m")
    evil = replace(made.citations[0], quote="a\x1b[31mb", chapter="c\x1b[2J")
    cli.api.outcomes = [replace(made, citations=(evil,), warnings=("w\x1b[5m",))]
    result = cli("ask", "book.txt", "q")
    assert "\x1b" not in result.out + result.err
    assert "\x9b" not in result.out


def test_a_dry_run_prints_the_plan_and_asks_nothing(cli: Cli) -> None:
    result = cli("ask", "book.txt", "A?", "-n")
    assert result.code == 0
    assert cli.api.calls == [("plan", ("A?", "book", None))]
    for part in ("12 of at most 1,500 tokens", "13", "20,000 (80% cacheable", "unknown price", "about 1:15 min"):
        assert part in result.out
    both = json.loads(cli("ask", "book.txt", "A?", "-q", "B?", "--dry-run", "--json").out)
    assert [each["question"] for each in both] == ["A?", "B?"]
    assert both[0]["calls"] == 13
    assert both[0]["cost_usd"] is None


def test_summarize_hands_on_what_was_asked_for(cli: Cli) -> None:
    assert cli("summarize", "book.txt", "--per", "chapter", "--words", "90", "--language", "DE").code == 0
    assert cli("summarize", "book.txt").code == 0
    assert cli("summarize", "book.txt", "-n", "--per", "chapter", "--words", "90").code == 0
    assert cli.api.calls == [
        ("summarize", (90, "chapter", "de")),
        ("summarize", (None, "book", "auto")),
        ("plan", (None, "chapter", 90)),
    ]


def test_verbose_says_what_happens(cli: Cli) -> None:
    cli.api.events = [STARTED]
    err = cli("ask", "book.txt", "q", "-v").err
    assert f"run {RUN_ID}: book.txt, 2 chunks, 900 tokens, chain with smollm2-135m\n" in err


def test_an_unexpected_error_is_one_line_and_its_traceback_is_there_for_the_asking(cli: Cli) -> None:
    cli.api.outcomes = [KeyError("oops"), KeyError("oops")]
    result = cli("ask", "book.txt", "q")
    assert result.code == 1
    assert result.err == "error: unexpected KeyError: 'oops' (-vv shows the traceback)\n"
    assert "Traceback" in cli("ask", "book.txt", "q", "-vv").err


def test_an_output_file_keeps_its_mode_and_is_replaced_whole(cli: Cli) -> None:
    path = cli.folder / "out.txt"
    path.write_text("before")
    path.chmod(0o640)
    assert cli("ask", "book.txt", "q", "-o", path).out == ""
    assert path.read_text().startswith("The cat did it.\n")
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in cli.folder.iterdir() if file.name.startswith(".")] == []


def test_a_link_stays_a_link_when_the_result_is_written_to_it(cli: Cli) -> None:
    (cli.folder / "link").symlink_to(cli.folder / "target")
    assert cli("ask", "book.txt", "q", "-o", "link").code == 0
    assert Path(cli.folder / "link").is_symlink()
    assert (cli.folder / "target").read_text().startswith("The cat")
