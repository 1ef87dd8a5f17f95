"""Quotes that a model wrote, from the model's reply over a real server to the answer, its JSON and the exit code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from coa.api import Session
from coa.cli.main import run
from coa.config import Settings
from coa.documents import read_document
from coa.errors import VerificationFailed
from coa.testing.fault_server import ChatRequest, FaultServer

pytestmark = pytest.mark.slow

BOOK = (
    "CHAPTER I.\n\nAda came to the harbour. She hid the brass key under the third stone of the old well.\n\n"
    "CHAPTER II.\n\nThe lamp was lit at seven by the keeper. Nobody slept in the town that night.\n"
)
QUESTION = "What does the text say of the key?"
ANSWER = (
    "“She hid the BRASS key under the third stone” [1.3], it says, and “nobody slept in the town that night”; "
    "but “the lamp was lit at eight by the keeper” too."
)


def _reply(call: ChatRequest) -> str:
    return "She hid it [3]." if "Source text" in str(call.messages[-1]["content"]) else ANSWER


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, n_ctx=4096) as running:
        yield running


def _values(server: FaultServer) -> dict[str, object]:
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"},
        "model_info": {"max_input_tokens": 4096},
    }
    return {"model": "readers", "model_list": [entry], "notes": "paper"}


async def test_an_answer_quotes_what_the_text_says_and_marks_what_it_does_not(
    server: FaultServer, tmp_path: Path
) -> None:
    document = read_document(BOOK.encode(), name="key.txt")
    async with Session(Settings.model_validate({**_values(server), "home": tmp_path})) as session:
        answer = await session.ask(document, QUESTION)
    assert answer.quotes_not_found == 1
    assert "“the lamp was lit at eight by the keeper” (not found in the source) too." in answer.text
    assert any("quotes what the text does not say: “the lamp was lit at eight" in w for w in answer.warnings)
    for citation in answer.citations:
        assert document.text[citation.start : citation.end] == citation.quote
    assert "eight" not in " ".join(c.quote for c in answer.citations)
    found = {c.quote: c.status for c in answer.citations}
    assert found["Nobody slept in the town that night"] == "normalised"
    assert len(answer.claims) == 1
    assert set(answer.claims[0].citations) == {int(n) for n in re.findall(r"\[(\d+)\]", answer.text)}
    stored = session.runs.answer(answer.run_id)
    assert stored is not None
    assert (stored.quotes_not_found, stored.claims) == (1, answer.claims)


async def test_strict_settings_make_it_an_error_that_carries_the_answer(server: FaultServer, tmp_path: Path) -> None:
    document = read_document(BOOK.encode(), name="key.txt")
    settings = Settings.model_validate({**_values(server), "home": tmp_path, "strict": True})
    async with Session(settings) as session:
        with pytest.raises(VerificationFailed, match="a quote that the text does not hold") as raised:
            await session.ask(document, QUESTION)
        assert raised.value.answer is not None
        assert raised.value.answer.quotes_not_found == 1
        assert session.runs.last().state == "done", "nothing has to be paid again"


async def test_unverified_quotes_stay_as_they_were_written(server: FaultServer, tmp_path: Path) -> None:
    document = read_document(BOOK.encode(), name="key.txt")
    settings = Settings.model_validate({**_values(server), "home": tmp_path, "strict": True, "verify": False})
    async with Session(settings) as session:
        answer = await session.ask(document, QUESTION)
    assert answer.quotes_not_found == 0
    assert "(not found" not in answer.text


def test_the_command_line_exits_8_and_prints_the_answer(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "stdin", None)
    Path("coa.yaml").write_text(yaml.safe_dump(_values(server)), encoding="utf-8")
    Path("key.txt").write_text(BOOK, encoding="utf-8")
    assert run(["ask", "key.txt", QUESTION, "--json", "--strict"]) == 8
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["ok"] is True
    assert found["quotes_not_found"] == 1
    assert found["claims"][0]["citations"]
    assert "error: the answer has a quote that the text does not hold." in err
    assert run(["ask", "key.txt", QUESTION, "--json"]) == 0
