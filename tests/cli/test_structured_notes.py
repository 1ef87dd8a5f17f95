"""`--notes structured` from the command line to the answer, over a real HTTP server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coa.cli.invocation import Invocation
from coa.cli.main import run
from coa.testing.fault_server import ChatRequest, Faults, FaultServer

pytestmark = pytest.mark.slow

KEY = "sk-key-of-the-notes-tests"
FACTS = {10: "The lamp was lit at seven.", 44: "Ada kept the lamp.", 80: "The lamp was lit at eight."}
Run = Callable[..., tuple[int, str, str]]


def _book() -> str:
    lines = [f"On day {n} the crew mended sails and the wind of week {n} turned north." for n in range(1, 100)]
    for at, fact in FACTS.items():
        lines.insert(at, fact)
    return "\n".join(lines) + "\n"


def _reply(call: ChatRequest) -> str:
    """A worker that notes sentences about lamps, and a manager that tells all of its notes."""
    prompt = str(call.messages[-1]["content"])
    if "Source text" in prompt:
        chunk = prompt.split("[End of source text.]", maxsplit=1)[0]
        return "\n".join(f"- {t} [{n}]" for n, t in re.findall(r"\[(\d+)\] (.*lamp.*)", chunk)) or "NO_INFORMATION"
    return prompt.split("Notes:\n")[1].split("\n\nQuestion:", maxsplit=1)[0]


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, api_key=KEY, n_ctx=4096) as running:
        yield running


@pytest.fixture
def coa(server: FaultServer, folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, its model served by `server`, with a book in its folder."""
    (folder / "lamp.txt").write_text(_book(), encoding="utf-8")
    entry = {
        "model_name": "readers",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": KEY},
        "model_info": {"kind": "hosted", "max_input_tokens": 4096},
    }
    settings = {"model": "readers", "model_list": [entry], "chunk_tokens": 500, "retries": 0, "response_cache": False}
    (folder / "coa.yaml").write_text(json.dumps(settings), encoding="utf-8")

    def command(*args: str) -> tuple[int, str, str]:
        code = run(list(args), Invocation())
        out, err = capsys.readouterr()
        return code, out, err

    return command


ASK = ("ask", "lamp.txt", "When was the lamp lit?", "--notes", "structured", "--show-notes", "--json")


def test_facts_are_kept_cited_and_told_apart_where_they_contradict(coa: Run) -> None:
    code, out, _ = coa(*ASK)
    assert code == 0
    found = json.loads(out)
    assert {c["quote"] for c in found["citations"]} == set(FACTS.values())
    assert all(_book()[c["start"] : c["end"]] == c["quote"] and c["origin"] == "model" for c in found["citations"])
    lines = found["notes"][-1]["text"].splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"- The lamp was lit at seven. (\[1\.\d+\])", lines[0])
    assert lines[2].endswith(f"(contradicts {lines[0][-len(lines[0].split()[-1]) :]})")
    assert "fact_worker_question" in found["prompts"]


def test_a_run_that_failed_goes_on_from_its_notes(coa: Run, server: FaultServer) -> None:
    server.faults = Faults(when=lambda call: "500" if "lit at eight" in str(call.messages) else None)
    assert coa(*ASK)[0] == 7
    before = server.stats().calls
    server.faults = Faults()
    code, out, _ = coa("resume", "--last", "--json", "--show-notes")
    assert code == 0
    found = json.loads(out)
    assert len(found["citations"]) == 3
    assert server.stats().calls - before < found["coverage"]["chunks"]
    again = json.loads(coa(*ASK)[1])
    assert [n["text"] for n in again["notes"]] == [n["text"] for n in found["notes"]]
