"""What the examples are run with: a fault server that reads by words, in a folder whose coa.yaml names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from coa.testing.fault_server import FaultServer
from coa.testing.reading_model import read_by_words

FACT = "Ada Brown kept the lighthouse key in the blue jar."


@pytest.fixture
def engine() -> Iterator[FaultServer]:
    with FaultServer(reply=lambda request: read_by_words(str(request.messages[-1]["content"]))) as started:
        yield started


@pytest.fixture
def folder(engine: FaultServer, tmp_path: Path) -> Path:
    """Holds coa.yaml and ferry.txt, a text of three chapters; the second one ends with the fact asked for."""
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": engine.base_url, "api_key": "k"},
        "model_info": {"max_input_tokens": 8192},
    }
    config = {"home": "home", "model": "readers", "model_list": [entry], "response_cache": False, "chunk_tokens": 200}
    (tmp_path / "coa.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    chapters = []
    for chapter in ("One", "Two", "Three"):
        days = [
            f"In part {chapter} on day {n} the ferry crossed with {n + 3} barrels of herring. " * 4 for n in range(8)
        ]
        days[-1] += FACT if chapter == "Two" else ""
        chapters.append(f"# {chapter}\n\n" + "\n\n".join(days))
    (tmp_path / "ferry.md").write_text("\n\n".join(chapters) + "\n", encoding="utf-8")
    return tmp_path
