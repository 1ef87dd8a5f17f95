"""A batch that is killed goes on without paying twice: the short version of tests/tools/batch_kills.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.data
def test_a_killed_batch_ends_like_one_that_was_not_and_pays_for_no_stored_chunk_again(tmp_path: Path) -> None:
    tool = _loaded("batch_kills")
    if not tool.bench.loaded("batch_documents").DATA.is_dir():
        pytest.skip("no document collection")
    found = tool.measure(tmp_path, kills=1, documents=3, words=500, seed=3)
    assert found.problems == []
    assert len(found.kills) == 1
    assert found.exit_code == 3, "two of the documents are broken"
