"""`coa ask --strategy alr2 --review`: a person strikes out evidence, at once or later; real processes."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import yaml

from coa.testing.fault_server import FaultServer
from coa.testing.reading_model import read_by_words

pytestmark = pytest.mark.slow

TEXT = (
    "The ferry left at noon.\nAda Brown kept the lighthouse key in the blue jar.\n"
    + "".join(f"On day {n} nobody slept and nothing was written down.\n" for n in range(6))
    + "Later Ada Brown kept the lighthouse key in the red box, far from the blue jar.\n"
)
QUESTION = "Who kept the lighthouse key in the blue jar?"
COMMAND = (sys.executable, "-m", "coa", "ask", "ferry.txt", QUESTION, "--strategy", "alr2", "--review")
PROMPT = "Strike out which"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to ask in; its engine lasts as long as the module."""
    folder = tmp_path_factory.mktemp("asked")
    with FaultServer(reply=lambda request: read_by_words(str(request.messages[-1]["content"]))) as engine:
        entry = {
            "model_name": "readers",
            "litellm_params": {"model": "openai/fault", "api_base": engine.base_url, "api_key": "k"},
            "model_info": {"max_input_tokens": 8192},
        }
        config = {"home": "home", "model": "readers", "model_list": [entry], "response_cache": False}
        (folder / "coa.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (folder / "ferry.txt").write_text(TEXT, encoding="utf-8")
        yield folder


def _outside() -> dict[str, str]:
    """The environment without settings of coa's: COA_HOME would be one home for all folders."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COA_")}


def _coa(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coa", *arguments],
        cwd=folder,
        env=_outside(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


class _Terminal:
    """A command on a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            COMMAND,
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**_outside(), "TERM": "xterm-256color", "COLUMNS": "100"},
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def read_until(self, text: str | None) -> None:
        """Until `text` was shown; None until the end."""
        deadline = time.monotonic() + 120
        while text is None or text not in self.seen:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # Linux's way to say that nobody holds the other end any more
                data = b""
            if not data:
                assert text is None, f"ended without {text!r}: {self.seen!r}"
                return
            self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_on_a_terminal_the_person_is_asked_and_the_answer_follows(asked: Path) -> None:
    with _Terminal(asked) as terminal:
        terminal.read_until(PROMPT)
        shown = terminal.seen
        terminal.type("1.9\n")
        terminal.read_until(None)
        assert terminal.process.wait(timeout=30) == 0
    assert "[1.2] Ada Brown kept the lighthouse key in the blue jar." in shown
    assert "[1.9] Later Ada Brown kept the lighthouse key in the red box" in shown
    answer = terminal.seen[len(shown) :]
    assert "Ada Brown kept the lighthouse key in the blue jar. [1]" in answer
    assert "red box" not in answer


@pytest.fixture(scope="module")
def waiting(asked: Path) -> subprocess.CompletedProcess[str]:
    """A run that was asked for without a terminal."""
    return _coa(asked, "ask", "ferry.txt", QUESTION, "--strategy", "alr2", "--review")


def _run_of(waiting: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"coa resume (\S+) --accept, or --strike", waiting.stderr)
    assert found is not None, waiting.stderr
    return found[1]


def test_without_a_terminal_the_evidence_is_shown_and_the_run_waits(
    waiting: subprocess.CompletedProcess[str],
) -> None:
    assert (waiting.returncode, waiting.stdout) == (75, "")
    assert "[1.2] Ada Brown kept the lighthouse key in the blue jar." in waiting.stderr
    assert _run_of(waiting)


def test_it_goes_on_without_what_is_struck_out(
    asked: Path, waiting: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    shutil.copytree(asked, tmp_path / "copy")
    struck = _coa(tmp_path / "copy", "resume", _run_of(waiting), "--strike", "1.2")
    assert struck.returncode == 0, struck.stderr
    assert "red box" in struck.stdout
    assert "Ada Brown kept the lighthouse key in the blue jar. [" not in struck.stdout


def test_it_goes_on_with_all_that_was_found(
    asked: Path, waiting: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    shutil.copytree(asked, tmp_path / "copy")
    taken = _coa(tmp_path / "copy", "resume", _run_of(waiting), "--accept")
    assert taken.returncode == 0, taken.stderr
    assert "Ada Brown kept the lighthouse key in the blue jar. [1]" in taken.stdout
