"""Bad input: one line that says what to do, the right exit code, and no call made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

ROOT = Path(__file__).parents[2]


def refused(cli: Cli, *args: str, code: int) -> str:
    """The message of a command line that has to fail before any call."""
    result = cli(*args)
    assert (result.code, result.out) == (code, "")
    assert cli.api.calls == []
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    return result.err


def test_a_missing_file(cli: Cli) -> None:
    assert "no file nope.txt" in refused(cli, "ask", "nope.txt", "q", code=5)
    assert "no file nope.txt" in refused(cli, "inspect", "nope.txt", code=5)
    assert "no file nope.txt" in refused(cli, "summarize", "nope.txt", code=5)


def test_an_empty_file(cli: Cli) -> None:
    (cli.folder / "empty.txt").write_bytes(b"")
    (cli.folder / "blank.txt").write_bytes(b" \n\t\n")
    assert "empty.txt is empty" in refused(cli, "ask", "empty.txt", "q", code=5)
    assert "white space" in refused(cli, "ask", "blank.txt", "q", code=5)


def test_a_binary_file(cli: Cli) -> None:
    (cli.folder / "a.pdf").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 20)
    (cli.folder / "noise").write_bytes(bytes(range(256)) * 20)
    assert "PDF" in refused(cli, "ask", "a.pdf", "q", code=5)
    assert "binary" in refused(cli, "ask", "noise", "q", code=5)


def test_a_file_over_the_limit_is_refused_unread(cli: Cli) -> None:
    with (cli.folder / "huge.txt").open("wb") as file:
        file.truncate(100_000_000)
    assert "100.0 MB where at most 50.0 MB" in refused(cli, "ask", "huge.txt", "q", code=5)


def test_an_empty_directory(cli: Cli) -> None:
    (cli.folder / "books").mkdir()
    assert "books holds no file of text" in refused(cli, "ask", "books", "q", code=5)


def test_a_file_without_permission(cli: Cli) -> None:
    (cli.folder / "book.txt").chmod(0)
    if os.access(cli.folder / "book.txt", os.R_OK):
        pytest.skip("this user may read everything")
    assert "may not be read" in refused(cli, "ask", "book.txt", "q", code=5)


def test_a_wrong_encoding_is_read_with_its_own(cli: Cli) -> None:
    (cli.folder / "latin.txt").write_bytes(("Grüße aus Köln, schöne Straße. " * 40).encode("latin-1"))
    assert "Grüße aus Köln" in cli("inspect", "latin.txt", "--text").out


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["ask", "book.txt"], "no question"),
        (["ask", "book.txt", " "], "question is empty"),
        (["ask", "book.txt", "--questions", "nope"], "--questions nope: cannot be read"),
        (["ask", "book.txt", "--questions", "none.txt"], "holds no question"),
        (["ask", "book.txt", "--questions", "bad.jsonl"], "bad.jsonl, line 2: not valid JSON"),
        (["ask", "book.txt", "--questions", "keyless.jsonl"], 'line 1: has no "question" text'),
        (["ask", "book.txt", "q", "-o", "missing/a.txt"], "the folder missing does not exist"),
        (["ask", "book.txt", "q", "-o", "."], "is a folder"),
        (["ask", "book.txt", "q", "--config", "nope.yaml"], "nope.yaml: no such config file"),
        (["ask", "book.txt", "q", "--profile", "fast"], "profile 'fast' is not defined"),
        (["ask", "book.txt", "q", "--chunk-tokens", "0"], "--chunk-tokens"),
        (["ask", "book.txt", "q", "--max-cost", "-1"], "--max-cost"),
        (["ask", "book.txt", "q", "--format", "xml"], "--format"),
        (["ask", "book.txt", "q", "--frob"], "--frob Try `coa ask --help`"),
        (["ask"], "Missing argument 'BOOK'"),
        (["frob"], "frob"),
        (["summarize", "book.txt", "--language", "german"], "expected auto or a code"),
        (["summarize", "book.txt", "--words", "0"], "--words"),
        (["inspect", "book.txt", "--chunks", "--text"], "exclude each other"),
        (["resume"], "name a run or say --last"),
        (["resume", "x", "--last"], "not both"),
        (["resume", "nope"], "no run 'nope'"),
        (["resume", "--last"], "no run yet"),
        (["runs", "show", "nope"], "no run 'nope'"),
        (["runs", "show", "../x"], "../x"),
        (["runs", "rm"], "name the runs to remove"),
        (["config", "validate", "nope.yaml"], "no such config file"),
    ],
)
def test_wrong_usage(cli: Cli, args: list[str], part: str) -> None:
    (cli.folder / "none.txt").write_text("\n\n")
    (cli.folder / "bad.jsonl").write_text('{"question": "a"}\n{"question": \n')
    (cli.folder / "keyless.jsonl").write_text('{"text": "a"}\n')
    assert part in refused(cli, *args, code=2)


def test_a_wrong_setting_names_file_and_key(cli: Cli) -> None:
    (cli.folder / "coa.yaml").write_text("chunk_tokenz: 5\n")
    message = refused(cli, "ask", "book.txt", "q", code=2)
    assert "coa.yaml: unknown key 'chunk_tokenz'; did you mean 'chunk_tokens'?" in message


def test_an_output_without_permission(cli: Cli) -> None:
    (cli.folder / "locked").mkdir(mode=0o500)
    if os.access(cli.folder / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "no permission to write" in refused(cli, "ask", "book.txt", "q", "-o", "locked/a.txt", code=2)


def test_a_full_disk_under_the_output_file_loses_nothing(cli: Cli) -> None:
    result = cli("ask", "book.txt", "q", "-o", "/dev/full")
    assert result.code == 1
    message = "error: cannot write /dev/full: No space left on device. "
    assert result.err.endswith(message + "Nothing is lost, print it again with: coa resume 20260101-000000-abcd\n")


def script(*args: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """The command line over the scripted api, in a process of its own."""
    command = [sys.executable, str(ROOT / "tests" / "cli" / "conftest.py"), *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SECONDS": "0", "COA_HOME": str(cwd / "home")}
    return subprocess.run(command, cwd=cwd, env=env, text=True, stderr=subprocess.PIPE, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_a_full_disk_under_standard_output_loses_nothing(cli: Cli) -> None:
    with Path("/dev/full").open("w") as full:
        result = script("ask", "book.txt", "q", cwd=cli.folder, stdout=full)
    assert result.returncode == 1
    assert "error: cannot write to standard output: No space left on device. Nothing is lost" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_reader_that_went_away_is_no_error(cli: Cli) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = script("ask", "book.txt", "q", "--quiet", cwd=cli.folder, stdout=writing)
    os.close(writing)
    assert result.returncode == 141
    assert "rror" not in result.stderr
