"""Runs of the real command line that are killed by SIGKILL; the whole proof is `tests/tools/kill_resume.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coa.testing.models import test_model_path

TOOL = Path(__file__).resolve().parents[1] / "tools" / "kill_resume.py"
REPOSITORY = TOOL.parents[2]


@pytest.mark.slow
def test_a_killed_run_gives_the_same_answer_and_pays_for_no_stored_chunk_again() -> None:
    command = [sys.executable, str(TOOL), "--kills", "2", "--seed", "7", "--chapters", "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COA_TEST_MODEL": str(test_model_path().resolve())}

    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 kills in" in ended.stdout
    assert "calls for chunks whose notes were stored: 0" in ended.stdout
