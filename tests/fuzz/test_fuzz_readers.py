"""Twenty seconds of mutated files; `python tests/fuzz/fuzz_readers.py` runs as long as one likes."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

FORMATS = Path(os.environ.get("COA_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "formats"


@pytest.mark.slow
def test_mutated_files_are_read_or_refused_and_nothing_else() -> None:
    spec = importlib.util.spec_from_file_location("fuzz_readers", Path(__file__).with_name("fuzz_readers.py"))
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    outcome = tool.fuzz(tool.seeds(FORMATS), seconds=20, seed=3)
    assert not [(f.name, f.what) for f in outcome.findings]
    assert outcome.n_files > 20
    assert outcome.results["read"]
    assert outcome.results["refused"]
