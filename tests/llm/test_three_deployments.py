"""One group over three kinds of engines goes on when one of them is killed: a short run of the tool."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "three_deployments.py"


@pytest.mark.slow
def test_one_configuration_drives_three_engines_and_the_death_of_one_costs_no_chunk() -> None:
    command = [sys.executable, str(TOOL), "--kill", "engine", "--chunks", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    told = json.loads(done.stdout)
    assert told["killed_after_chunk"]
    assert told["chunks"] > told["killed_after_chunk"][0] + 1, "it went on afterwards"
    assert told["read"] + len(told["skipped"]) == told["chunks"]
