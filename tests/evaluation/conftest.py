"""A small set of questions about ferries, and a server that answers all of them rightly."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from coa.config import Settings
from coa.testing.fault_server import FaultServer

DATA = Path(os.environ.get("COA_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
PEOPLE = ("Ada Brown", "Bo Lind", "Cy Holm", "Dora Falk", "Egil Moe", "Fay Roth")
PLACES = ("a blue jar", "an old boot", "the bread oven", "a tin drum", "the ship's bell", "a hollow oak")
ABSENT = "What is the name of the ferryman's dog?"


def document_text(n: int) -> str:
    """A text of 40 paragraphs with two facts in it, at places that differ from text to text."""
    days = [f"On day {day} the ferry crossed sound {n} with {day + 3} barrels of herring aboard." for day in range(40)]
    days.insert(5 + 5 * n, f"{PEOPLE[n]} hid the lighthouse key of sound {n} in {PLACES[n]}.")
    days.insert(2, f"The harbour of sound {n} was painted in colour number {n + 50}.")
    return "\n\n".join(days) + "\n"


def write_set(folder: Path, n_documents: int = 3) -> Path:
    """A folder in the format of `coa.evaluation.folders`: three questions a document, one of them unanswerable."""
    (folder / "docs").mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for n in range(n_documents):
        (folder / "docs" / f"sound-{n}.txt").write_text(document_text(n), encoding="utf-8")
        key = f"{PEOPLE[n]} hid the lighthouse key of sound {n} in {PLACES[n]}."
        paint = f"The harbour of sound {n} was painted in colour number {n + 50}."
        lines += [
            _line(n, "who", f"Who hid the lighthouse key of sound {n}?", PEOPLE[n], [key]),
            _line(n, "number", f"Which colour number has the harbour of sound {n}?", str(n + 50), [paint]),
            _line(n, "unanswerable", ABSENT, "It is not told.", []),
        ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def _line(n: int, kind: str, question: str, answer: str, evidence: Sequence[str]) -> dict[str, Any]:
    return {
        "id": f"{n}-{kind}",
        "doc_id": f"sound-{n}",
        "question": question,
        "answers": [answer],
        "type": kind,
        "evidence": list(evidence),
    }


_NUMBERED = re.compile(r"^\[(?P<id>[\d.]+)\] (?P<text>.*)$", re.MULTILINE)


def oracle(prompt: str) -> str:
    """The right reply to a prompt of coa's about the ferry texts, in whichever role: it knows all answers, and names
    the sentences in the prompt that hold them."""
    asked = re.findall(r"^Question: (.+)$", prompt, re.MULTILINE)
    question = asked[-1] if asked else ""
    match = re.search(r"sound (\d+)\?", question)
    if match is None or question == ABSENT:
        return _nothing(prompt)
    n = int(match[1])
    about_key = "lighthouse key" in question
    answer = PEOPLE[n] if about_key else str(n + 50)
    fact = f"lighthouse key of sound {n} in" if about_key else f"sound {n} was painted"
    ids = [m["id"] for m in _NUMBERED.finditer(prompt) if fact in m["text"]]
    if "New notes:" in prompt:
        held = prompt.partition("(they may be empty):\n")[2].partition("\n\n")[0].strip()
        mine = " ".join(f"{answer} [{i}]." for i in ids)
        return " ".join(part for part in (held if held != "(none)" else "", mine) if part) or "NO_INFORMATION"
    if "Find evidence in the source text above" in prompt:
        return ", ".join(ids) or "NONE"
    if "Answer a question from evidence." in prompt:
        found = re.search(rf"((?:\[[\d.]+\] ?)+)(?:(?! \[).)*?{re.escape(fact)}", prompt)
        return f"ANSWER\n{answer} {found[1].split()[0]}" if found else "NONE\nThe text does not say."
    if "There is no text to read" in prompt:
        return answer
    cited = re.search(rf"{re.escape(answer)} (\[[\d.]+\])", prompt)
    if ids:
        return f"{answer} [{ids[0]}]"
    return f"{answer} {cited[1]}" if cited else _nothing(prompt)


def _nothing(prompt: str) -> str:
    if "New notes:" in prompt:
        return "NO_INFORMATION"
    if "Find evidence in the source text above" in prompt:
        return "NONE"
    if "Answer a question from evidence." in prompt:
        return "NONE\nThe text does not say."
    return "The text does not say."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of three documents and nine questions."""
    return write_set(tmp_path / "ferries")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    """Answers as the oracle does."""
    with FaultServer(reply=lambda request: oracle(str(request.messages[-1]["content"]))) as started:
        yield started


@pytest.fixture
def settings(server: FaultServer, tmp_path: Path) -> Settings:
    """A home of the test's own, and the oracle as its model."""
    return settings_for(server, tmp_path / "home")


def settings_for(server: FaultServer, home: Path, **changes: Any) -> Settings:
    """Settings whose one model is behind `server`."""
    entry = {
        "model_name": "oracle",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "k"},
        "model_info": {"max_input_tokens": 8192, "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
    }
    given = {"home": home, "model": "oracle", "model_list": [entry], "chunk_tokens": 300, "retries": 0, **changes}
    return Settings.model_validate(given)


@pytest.fixture
def suite_file(folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Writes a suite over the ferries with the given arms."""

    def write(arms: str, *, more: str = "") -> Path:
        file = tmp_path / "suite.yaml"
        sets = f"sets:\n  - {{name: ferries, folder: {folder.name}, language: en}}\n"
        file.write_text(f"name: ferries\nresamples: 200\n{sets}arms:\n{arms}\n{more}", encoding="utf-8")
        return file

    return write
