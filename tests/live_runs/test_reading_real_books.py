"""Slices of real books through the real command line; whole ones are read by `tests/tools/read_books.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coa.testing.models import test_model_path

TOOL = Path(__file__).resolve().parents[1] / "tools" / "read_books.py"
REPOSITORY = TOOL.parents[2]
DATA = Path(os.environ.get("COA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


def _tool(*arguments: str) -> str:
    command = [sys.executable, str(TOOL), *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "COA_TEST_MODEL": str(test_model_path().resolve()),
        "COA_TEST_DATA": str(DATA.resolve()),
    }
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="the document collection is not here")
def test_slices_of_all_books_are_read_whole_with_true_citations() -> None:
    printed = _tool("--share", "0.015")

    assert "faults: 0" in printed
    rows = [line for line in printed.splitlines() if line.startswith("| ") and "| yes |" in line]
    assert len(rows) == 6


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="the document collection is not here")
def test_a_model_reads_every_chunk_of_a_slice_itself() -> None:
    printed = _tool("--paper", "--share", "0.06", "en-alice")

    row = next(line for line in printed.splitlines() if line.startswith("| en-alice"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    n_chunks, n_calls = int(cells[2]), int(cells[9])
    assert n_chunks >= 2
    assert n_calls == n_chunks + 1
