"""The checker that reopens sources: it passes what holds, and tells what does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.config import Settings
from coa.testing.fault_server import ChatRequest, FaultServer
from tests.tools.citations_hold import Asked, ask_all, broken_citations, checked, main

BOOK = "Ada came to the harbour. She hid the brass key under the third stone. Nobody slept in the town that night.\n"
CITED = {"quote": "Nobody slept", "start": 70, "end": 82, "status": "exact"}


def _reply(call: ChatRequest) -> str:
    if "Source text" in str(call.messages[-1]["content"]):
        return "She hid it [2]."
    return "She hid it [1.2] and “NOBODY slept in the town”, but “dragons burned all of Paris”."


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, n_ctx=4096) as running:
        yield running


async def test_answers_of_a_model_hold_and_a_tampered_one_does_not(server: FaultServer, tmp_path: Path) -> None:
    source = tmp_path / "key.txt"
    source.write_text("\ufeff" + BOOK.replace("\n", "\r\n"), encoding="utf-8")
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"},
        "model_info": {"max_input_tokens": 4096},
    }
    settings = Settings.model_validate(
        {"home": tmp_path / "home", "model": "readers", "model_list": [entry], "notes": "paper"}
    )
    out = tmp_path / "answers.jsonl"
    await ask_all([Asked("a", "keys", source, "Where is the key?")], out, settings)
    (answer,) = (json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())
    rows, wrong = checked([answer], [])
    assert wrong == []
    row = rows["keys"]
    assert (row.citations, row.verbatim, row.not_found, row.dangling) == (2, 2, 1, 0)
    assert row.statuses == {"exact": 1, "normalised": 1}
    answer["citations"][0]["start"] += 1
    answer["claims"][0]["citations"].append(3)
    rows, wrong = checked([answer], [])
    assert len(wrong) == 1
    assert (rows["keys"].verbatim, rows["keys"].dangling) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [{"quote": "Nobody  slept"}, {"start": 69}, {"start": -39}, {"end": 70, "quote": ""}, {"status": "not_found"}],
    ids=["other words", "other span", "before the text", "empty", "said to be missing"],
)
def test_a_citation_that_is_not_the_text_at_its_span_is_told(change: dict[str, Any]) -> None:
    assert broken_citations({"citations": [CITED]}, BOOK) == []
    assert len(broken_citations({"citations": [CITED, {**CITED, **change}]}, BOOK)) == 1


def test_answers_printed_by_the_command_line_are_checked_against_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.txt").write_text(BOOK, encoding="utf-8")
    answer = {"document": "key.txt", "run_id": "r", "document_sha256": "?", "citations": [CITED]}
    (tmp_path / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
    assert main(["check", str(tmp_path / "answer.json"), "--source", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "| all | 1 | 0 | 0 | 1 | 1 (100.0%) |" in out
    assert "digest is another one" in err
