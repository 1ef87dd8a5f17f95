"""`--format html` of ask, summarize, check and resume, and `coa runs show --html`, over a real HTTP server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coa.cli.invocation import Invocation
from coa.cli.main import run
from coa.testing.fault_server import ChatRequest, Faults, FaultServer
from coa.testing.reading_model import read_by_words

pytestmark = pytest.mark.slow

KEY = "sk-key-of-the-html-tests"
QUESTION = "Where did Ada hide the brass key?"
SENTENCE = "Ada hid the brass key under the third stone of the old well."


def _book() -> str:
    lines = [f"On day {k} the crew mended sails & the wind of week {k} turned north." for k in range(1, 60)]
    lines.insert(30, SENTENCE)
    return "CHAPTER I.\n\n" + "\n\n".join(lines) + "\n"


def _reply(call: ChatRequest) -> str:
    """Reads and judges by words."""
    prompt = str(call.messages[-1]["content"])
    if "Statement: " not in prompt:
        return read_by_words(prompt)
    (line,) = re.findall(r"^\[(\d+)\] Ada hid", prompt, re.MULTILINE) or ["1"]
    label = "true" if f"Statement: {SENTENCE}" in prompt else "not_in_text"
    return json.dumps({"sentences": [int(line)], "reason": "by words", "label": label})


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


def _whole(page: str) -> str:
    """The page, after a look at what every one of them has."""
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert KEY not in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    return page


def test_questions_are_answered_on_one_page_that_a_run_and_a_resume_give_again(coa: Run, folder: Path) -> None:
    code, out, err = coa("ask", "voyage.txt", QUESTION, "--format", "html")
    assert code == 0
    page = _whole(out)
    assert f'<h1 dir="auto">{QUESTION}</h1>' in page
    (mark,) = re.findall(r'<mark id="r1c1"[^>]*>(.*?)</mark>', page, re.DOTALL)
    assert mark == SENTENCE
    assert "the crew mended sails &amp; the wind" in page
    run_id = re.findall(r"run (\S+)$", err, re.MULTILINE)[-1]
    assert coa("resume", run_id, "--format", "html")[1] == page
    assert coa("runs", "show", run_id, "--html") == (0, page, "")
    assert coa("runs", "show", run_id, "--html", "-o", "run.html")[:2] == (0, "")
    assert (folder / "run.html").read_text(encoding="utf-8") == page


def test_several_questions_share_a_page_and_the_first_is_kept_when_the_second_fails(
    coa: Run, server: FaultServer, folder: Path
) -> None:
    assert (
        coa("ask", "voyage.txt", QUESTION, "-q", "Which stone of the old well?", "-f", "html", "-o", "two.html")[0] == 0
    )
    page = _whole((folder / "two.html").read_text(encoding="utf-8"))
    assert '<h1 dir="auto">2 questions</h1>' in page
    assert 'id="r2c1"' in page
    server.faults = Faults(when=lambda call: "401" if "Who failed?" in str(call.messages) else None)
    code, _, _ = coa("ask", "voyage.txt", QUESTION, "-q", "Who failed?", "-f", "html", "-o", "one.html")
    assert code == 4
    assert QUESTION in _whole((folder / "one.html").read_text(encoding="utf-8"))


def test_summaries_and_checked_statements_are_pages_too(coa: Run) -> None:
    code, out, _ = coa("summarize", "voyage.txt", "--per", "chapter", "--format", "html")
    assert code == 0
    assert '<h1 dir="auto">Summary of each chapter</h1>' in _whole(out)
    code, out, _ = coa("check", "voyage.txt", "-c", SENTENCE, "-c", "Nobody owned a zebra.", "--format", "html")
    assert code == 0
    page = _whole(out)
    assert '<strong class="good">true</strong>' in page
    assert '<h1 dir="auto">2 statements checked</h1>' in page
    assert re.findall(r'<mark id="r1k1c1"[^>]*>(.*?)</mark>', page) == [SENTENCE]


def test_a_run_that_stopped_is_shown_with_its_steps_and_what_stopped_it(coa: Run, server: FaultServer) -> None:
    server.faults = Faults(when=lambda call: "500" if "On day 40 " in str(call.messages) else None)
    code, out, err = coa("ask", "voyage.txt", QUESTION, "--format", "html")
    assert (code, out) == (7, "")
    run_id = re.findall(r"coa resume (\S+)", err)[-1].strip(".")
    code, out, _ = coa("runs", "show", run_id, "--html")
    assert code == 0
    assert "There is no answer: the run failed" in _whole(out)
    code, out, err = coa("runs", "show", run_id)
    assert code == 0
    assert re.search(r"^Chunk 1 +\d", out, re.MULTILINE)
    assert f"coa resume {run_id}" in err


def test_steps_are_drawn_with_time_cache_hits_and_notes(coa: Run, folder: Path) -> None:
    _, _, err = coa("ask", "voyage.txt", QUESTION)
    run_id = re.findall(r"run (\S+)$", err, re.MULTILINE)[-1]
    code, out, _ = coa("runs", "show", run_id)
    assert code == 0
    (noted,) = re.findall(r"^noted +(\S+)$", out, re.MULTILINE)
    rows = re.findall(r"^Chunk (\d+) +([\d.]+ s) +([\d,]+) +(\d+%) +(\d+) +(\S.*)$", out, re.MULTILINE)
    assert len(rows) == len(noted) >= 3
    found = [row for row in rows if "brass key" in row[5]]
    assert [noted[int(row[0]) - 1] for row in found] == ["●"] * len(found)
    assert found
    assert max(len(line) for line in out.split("\n\n")[2].splitlines()) <= 120
    chain = json.loads(coa("runs", "show", run_id, "--json")[1])["chain"]
    assert [step["step"] for step in chain] == ["note"] * len(rows) + ["answer"]
    assert all(step["usage"]["prompt_tokens"] > 0 for step in chain)
    assert coa("runs", "show", run_id, "-o", "shown.txt")[:2] == (0, "")
    assert (folder / "shown.txt").read_text(encoding="utf-8") == out
