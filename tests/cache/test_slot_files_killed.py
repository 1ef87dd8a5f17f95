"""Twenty kills in the middle of saves; `tests/tools/kill_saves.py` does the same with a real engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_what_killed_processes_leave_is_never_restored_and_goes() -> None:
    command = [sys.executable, "-m", "tests.tools.kill_saves", "--stand-in", "--kills", "20", "--prefixes", "3"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| processes killed | 20 |" in done.stdout
    assert "| of these wrong | 0 |" in done.stdout
