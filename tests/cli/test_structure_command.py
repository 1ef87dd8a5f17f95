"""`coa structure` over a real HTTP server, and over the example novel with the embedded model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.chunking import chunk_document
from coa.cli.invocation import Invocation
from coa.cli.main import run
from coa.documents import read_document
from coa.testing.fault_server import ChatRequest, Faults, FaultServer
from coa.testing.models import test_model_path as model_path
from coa.testing.reading_model import read_by_words
from coa.tokens import EstimatedTokens

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
NOVEL = REPOSITORY / "examples" / "novel" / "the-salt-ledger.txt"
KEY = "sk-key-of-the-structure-tests"
CHAPTERS = ("I", "II", "III")


def _book() -> str:
    chapters = []
    for n, number in enumerate(CHAPTERS):
        lines = [f"On day {n}{k} the crew mended sails and the wind of week {k} turned north." for k in range(1, 13)]
        if number == "II":
            lines.insert(5, "Ada hid the brass key under the third stone of the old well.")
        chapters.append(f"CHAPTER {number}.\n\n" + "\n".join(lines) + "\n\n")
    return "\n".join(chapters)


def _reply(call: ChatRequest) -> str:
    return read_by_words(str(call.messages[-1]["content"]))


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, api_key=KEY, n_ctx=4096) as running:
        yield running


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def coa(server: FaultServer, folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, its model served by `server`, with `voyage.txt` in its folder."""
    (folder / "voyage.txt").write_text(_book(), encoding="utf-8")
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


def test_the_outline_is_printed_with_chapters_aspects_and_how_they_begin(coa: Run, server: FaultServer) -> None:
    code, out, err = coa("structure", "voyage.txt")
    assert code == 0
    assert re.search(r"^1 CHAPTER I\. \(1\d sentences\)$", out, re.MULTILINE)
    assert "the whole part" in out
    assert "“On day 01 the crew mended sails" in out
    assert server.stats().calls > 0
    assert "chunks read" in err


def test_json_links_every_sentence_to_its_place_once(coa: Run) -> None:
    code, out, _ = coa("structure", "voyage.txt", "--json")
    assert code == 0
    raw = json.loads(out)
    assert (raw["ok"], raw["schema_version"], raw["plain_chunks"]) == (True, 1, [])
    spans: list[tuple[int, int]] = []
    _collect(raw["nodes"], spans)
    spans.sort()
    text = read_document(_book().encode(), name="voyage.txt").text
    assert "".join(text[a:b] for a, b in spans) == text


def _collect(nodes: list[dict[str, Any]], spans: list[tuple[int, int]]) -> None:
    for node in nodes:
        assert node["start"] < node["end"]
        spans += [(a, b) for a, b in node["spans"]]
        _collect(node["nodes"], spans)


def test_html_and_markdown_are_written_whole_to_a_file(coa: Run, folder: Path) -> None:
    assert coa("structure", "voyage.txt", "--format", "html", "-o", "outline.html")[:2] == (0, "")
    page = (folder / "outline.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    code, out, _ = coa("structure", "voyage.txt", "--format", "md")
    assert code == 0
    assert "## 2 [CHAPTER II.](voyage.txt#char=" in out


def test_what_was_structured_once_takes_no_call_again_for_outlines_and_questions(coa: Run, server: FaultServer) -> None:
    assert coa("structure", "voyage.txt")[0] == 0
    first = server.stats().calls
    assert coa("structure", "voyage.txt")[0] == 0
    assert server.stats().calls == first
    code, out, _ = coa("ask", "voyage.txt", "Where did Ada hide the brass key?", "--strategy", "structured")
    assert code == 0
    assert "Ada hid the brass key under the third stone of the old well" in out
    second = server.stats().calls
    assert second > first
    assert not any("is built" in str(request.messages) for request in server.requests[first:])


def test_a_run_that_failed_is_resumed_without_paying_twice(coa: Run, server: FaultServer) -> None:
    server.faults = Faults(when=lambda call: "500" if "On day 21 " in str(call.messages) else None)
    code, out, err = coa("structure", "voyage.txt")
    assert (code, out) == (7, "")
    assert "coa resume" in err
    n_done = server.stats().calls - 1
    assert n_done > 0
    server.faults = Faults()
    code, out, _ = coa("resume", "--last")
    assert code == 0
    assert "CHAPTER III." in out
    assert server.stats().calls == n_done + 2
    assert coa("structure", "voyage.txt")[1] == out


def test_a_limit_of_calls_leaves_what_was_not_structured_in_one_piece(coa: Run, server: FaultServer) -> None:
    code, out, err = coa("structure", "voyage.txt", "--json", "--max-calls", "2")
    assert code == 6
    raw = json.loads(out)
    assert raw["ok"] is False
    assert raw["plain_chunks"]
    assert server.stats().calls <= 2
    assert "the limit of 2 calls" in err


def test_a_dry_run_says_what_it_would_take_and_calls_nothing(coa: Run, server: FaultServer) -> None:
    code, out, _ = coa("structure", "voyage.txt", "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert (plan["strategy"], plan["calls"]) == ("outline", plan["chunks"])
    assert server.stats().calls == 0


@pytest.mark.slow
def test_the_example_novel_is_outlined_by_the_embedded_model(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    model = model_path().resolve()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COA_HOME": str(tmp_path), "COA_MODEL": str(model)}
    done = subprocess.run(
        [sys.executable, "-m", "coa", "structure", str(NOVEL), "--json", "--no-progress"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    raw = json.loads(done.stdout)
    document = read_document(NOVEL)
    spans: list[tuple[int, int]] = []
    _collect(raw["nodes"], spans)
    spans.sort()
    assert "".join(document.text[a:b] for a, b in spans) == document.text
    # The model's own tokenizer draws the chunks' borders; sentences are the same for all of them.
    chunks = chunk_document(document, budget=4000, counter=EstimatedTokens())
    assert raw["n_sentences"] == sum(len(c.sentences) for c in chunks)
    chapters = [n for n in raw["nodes"] if n["kind"] == "chapter"]
    assert len([c for c in chapters if c["title"].startswith("CHAPTER")]) == 15
    titles = [a["title"] for c in chapters for part in c["nodes"] for a in (part["nodes"] or [part])]
    assert len(titles) > 60
    text = " ".join(document.text.split()).lower()
    assert all(phrase.lower() in text for title in titles for phrase in title.split(", "))
    assert raw["usage"]["calls"] == 0
