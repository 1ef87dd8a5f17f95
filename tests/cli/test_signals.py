"""Signals to a real process that reads with a scripted session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RESUME = "coa resume 20260101-000000-abcd"


class Reader:
    """A `coa ask` under way."""

    def __init__(self, folder: Path, *more: str, **env: str) -> None:
        (folder / "book.txt").write_text("The cat sat on the mat.\n", encoding="utf-8")
        # In a job in the background SIGINT is ignored, under nohup SIGHUP, and that is inherited.
        command = [
            "env",
            "--default-signal=INT,HUP",
            sys.executable,
            str(ROOT / "tests" / "cli" / "conftest.py"),
            "ask",
            "book.txt",
            "Who?",
            *more,
        ]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COA_HOME": str(folder / "home"), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen = ""

    def wait_for(self, text: str) -> None:
        """Reads stderr until `text` stands in it."""
        assert self.process.stderr is not None
        while text not in self.seen:
            line = self.process.stderr.readline()
            assert line, f"ended without {text!r}: {self.seen}"
            self.seen += line

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, self.seen + err


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[list[Reader]]:
    started: list[Reader] = []
    yield started
    for reader in started:
        reader.process.kill()
        reader.process.communicate()


def start(readers: list[Reader], folder: Path, *more: str, **env: str) -> Reader:
    readers.append(Reader(folder, *more, **env))
    return readers[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)])
def test_the_first_signal_drains(readers: list[Reader], tmp_path: Path, number: signal.Signals, code: int) -> None:
    reader = start(readers, tmp_path, SECONDS="0.3")
    reader.wait_for("chunk 1")
    reader.process.send_signal(number)
    ended, out, err = reader.end()
    assert (ended, out) == (code, "")
    assert "stopping after the chunk in hand" in err
    assert "stopped: 2 of 10 chunks are read and kept" in err
    assert f"go on with: {RESUME}" in err
    assert "chunk 2" not in err


def test_a_signal_drains_all_questions_that_are_read_together(readers: list[Reader], tmp_path: Path) -> None:
    reader = start(readers, tmp_path, "-q", "What?", SECONDS="0.3")
    reader.wait_for("chunk 0")
    reader.process.send_signal(signal.SIGTERM)
    ended, out, err = reader.end()
    assert (ended, out) == (75, "")
    for number in (0, 1):
        assert f"question {number + 1}: stopped, 1 of 10 chunks are read and kept; go on with: {RESUME}-{number}" in err


def test_a_second_ctrl_c_ends_at_once(readers: list[Reader], tmp_path: Path) -> None:
    reader = start(readers, tmp_path, SECONDS="30")
    reader.wait_for("chunk 0")
    reader.process.send_signal(signal.SIGINT)
    reader.wait_for("stopping after the chunk in hand")
    began = time.monotonic()
    reader.process.send_signal(signal.SIGINT)
    ended, out, err = reader.end()
    assert (ended, out) == (130, "")
    assert time.monotonic() - began < 15
    assert f"ended at once; go on with: {RESUME}" in err


def test_a_second_sigterm_still_drains(readers: list[Reader], tmp_path: Path) -> None:
    reader = start(readers, tmp_path, SECONDS="0.5")
    reader.wait_for("chunk 0")
    reader.process.send_signal(signal.SIGTERM)
    reader.wait_for("stopping after the chunk in hand")
    reader.process.send_signal(signal.SIGTERM)
    ended, _, err = reader.end()
    assert ended == 75
    assert "stopped: 1 of 10 chunks are read and kept" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_before_the_first_chunk_stops_at_once(
    readers: list[Reader], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    reader = start(readers, tmp_path, NEVER_STARTS="1")
    reader.wait_for("loading")
    reader.process.send_signal(number)
    ended, out, err = reader.end()
    assert (ended, out) == (code, "")
    assert "stopped before the first chunk was read" in err
    assert "Traceback" not in err


def test_without_a_signal_the_answer_comes(readers: list[Reader], tmp_path: Path) -> None:
    ended, out, _ = start(readers, tmp_path, SECONDS="0").end()
    assert ended == 0
    assert out.startswith("The cat did it.\n")
