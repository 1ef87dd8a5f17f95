"""`coa eval run|report|generate` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coa.cli.main import run
from coa.testing.fault_server import FaultServer
from tests.evaluation.conftest import oracle, settings_for

WriteSuite = Callable[..., Path]


class Terminal:
    """Runs command lines in a folder with a model that may be told to be wrong."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.wrong = False

    def reply(self, prompt: str) -> str:
        return "Nobody." if self.wrong else oracle(prompt)

    def __call__(self, *args: object) -> tuple[int, str, str]:
        code = run(["eval", *map(str, args)])
        out, err = self._capture.readouterr()
        return code, out, err


@pytest.fixture
def coa(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    terminal = Terminal(capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COA_HOME", str(tmp_path / "home"))
    with FaultServer(reply=lambda request: terminal.reply(str(request.messages[-1]["content"]))) as server:
        settings = settings_for(server, tmp_path / "home")
        (tmp_path / "coa.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
        yield terminal


@pytest.mark.slow
def test_a_suite_is_run_reported_and_held_against_a_baseline(
    coa: Terminal, suite_file: WriteSuite, tmp_path: Path
) -> None:
    suite = suite_file("  - controls: [closed_book]\n")
    code, out, _ = coa("run", suite, "--out", "first", "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "9 answers, 0 of them there already")
    assert not (tmp_path / "first").exists()

    code, _, err = coa("run", suite, "--out", "first", "--max-calls", 4)
    assert code == 6
    assert "the limit of 4 calls" in err
    code, out, err = coa("run", suite, "--out", "first", "--json", "--fail-under", "closed_book:em=1")
    assert code == 0, err
    scores = {s["metric"]: s["mean"] for s in json.loads(out)["scores"]}
    assert (scores["em"], scores["abstention"], scores["evidence_recall"]) == (1, 1, 0)
    assert (tmp_path / "first" / "report.html").read_text().startswith("<!doctype html>")
    assert len((tmp_path / "first" / "calls.jsonl").read_text().splitlines()) == 9

    coa.wrong = True
    code, out, err = coa("run", suite, "--out", "second", "--baseline", "first", "--max-drop", "0.5")
    assert code == 8
    assert "closed_book: em went from 1.000 to 0.000" in err
    assert "| closed_book | 0.0 [0.0, 0.0] |" in out
    code, _, err = coa("report", "second", "--fail-under", "ferries/em=0.1", "--md", "other.md")
    assert code == 8
    assert "em is 0.000, not 0.100" in err
    assert (tmp_path / "other.md").exists()


def test_what_cannot_be_is_told_before_any_call(coa: Terminal, suite_file: WriteSuite, tmp_path: Path) -> None:
    suite = suite_file("  - controls: [closed_book]\n")
    for args, message in (
        (("run", suite, "--fail-under", "em"), "--fail-under 'em'"),
        (("run", suite, "--max-drop", "0.1"), "--max-drop needs a --baseline"),
        (("run", suite, "--set", "lakes"), "no set 'lakes'"),
        (("run", "nothing.yaml"), "cannot be read"),
        (("report", "nowhere"), "holds no evaluation"),
        (("generate", "needle"), "Give --source FILE"),
        (("generate", "facts", "--source", suite), "facts need --stories"),
        (("generate", "distractors"), "distractors need --questions"),
        (("generate", "needle", "--source", suite, "--depths", "0,101"), "between 0 and 100"),
    ):
        code, _, err = coa(*args)
        assert code == 2, args
        assert message in err
    assert not (tmp_path / "eval").exists()


def test_a_generated_set_can_be_put_into_a_suite(coa: Terminal, folder: Path, tmp_path: Path) -> None:
    book = folder / "docs" / "sound-0.txt"
    for kind, options, n in (
        ("needle", ["--lengths", "1500,3000", "--depths", "0,100", "--others", "2"], 4),
        ("thread", ["--lengths", "2000", "--hops", "3", "--threads", "2"], 6),
    ):
        code, _, err = coa("generate", kind, "--source", book, "--out", kind, *options)
        assert code == 0, err
        assert f"wrote {n} questions" in err
        assert len((tmp_path / kind / "questions.jsonl").read_text().splitlines()) == n
    code, _, err = coa(
        "generate", "distractors", "--questions", folder, "--others", "2", "--out", "among", "--times", "2"
    )
    assert code == 0, err
    suite: dict[str, Any] = {
        "name": "made",
        "sets": [{"name": name, "folder": name} for name in ("needle", "thread", "among")],
        "arms": [{"controls": ["bm25"]}],
    }
    (tmp_path / "made.yaml").write_text(yaml.safe_dump(suite))
    code, out, err = coa("run", "made.yaml", "--dry-run")
    assert code == 0, err
    assert out.splitlines()[-1] == "20 answers, 0 of them there already"
    code, _, err = coa("generate", "needle", "--source", book, "--out", "needle")
    assert code == 2
    assert "not an empty folder" in err
