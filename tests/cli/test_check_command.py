"""`coa check` over a real HTTP server, and by words alone for models that are too small to judge."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.cli.check import gather_statements
from coa.cli.invocation import Invocation
from coa.cli.main import run
from coa.errors import ConfigError
from coa.testing.fault_server import ChatRequest, Faults, FaultServer

pytestmark = pytest.mark.slow

KEY = "sk-key-of-the-check-tests"
FACT = "Ada hid the brass key under the third stone of the old well."
CLAIMS = f"""\
{FACT}
{{"id": "two", "claim": "Ada hid the iron key under the third stone of the old well."}}

Nobody ever saw a dragon fly over Paris.
"""
Run = Callable[..., tuple[int, str, str]]


def _book() -> str:
    lines = [f"On day {n} the crew mended sails and the wind of week {n} turned north." for n in range(1, 60)]
    lines.insert(30, FACT)
    return "CHAPTER I. The Well\n\n" + "\n".join(lines) + "\n"


def _reply(call: ChatRequest) -> str:
    """Judges by the words of the sentences it is shown: alike is true, nearly alike is false."""
    prompt = str(call.messages[-1]["content"])
    statement = set(re.findall(r"\w+", prompt.split("Statement: ")[1].split("\n", 1)[0]))
    shown = {int(n): set(re.findall(r"\w+", text)) for n, text in re.findall(r"^\[(\d+)\] (.*)$", prompt, re.MULTILINE)}
    best = max(shown, key=lambda n: len(shown[n] & statement))
    share = len(shown[best] & statement) / len(statement)
    label = "true" if share == 1 else "false" if share > 0.7 else "not_in_text"
    return json.dumps({"sentences": [best], "reason": f"share {share:.1f}", "label": label})


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, api_key=KEY, n_ctx=4096) as running:
        yield running


@pytest.fixture
def coa(server: FaultServer, folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, its model served by `server`, with a book and claims in its folder."""
    (folder / "well.txt").write_text(_book(), encoding="utf-8")
    (folder / "claims.txt").write_text(CLAIMS, encoding="utf-8")
    entry = {
        "model_name": "judges",
        "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": KEY},
        "model_info": {"kind": "hosted", "max_input_tokens": 4096},
    }
    settings = {"model": "judges", "model_list": [entry], "chunk_tokens": 500, "retries": 0, "response_cache": False}
    (folder / "coa.yaml").write_text(json.dumps(settings), encoding="utf-8")

    def command(*args: str) -> tuple[int, str, str]:
        code = run(list(args), Invocation())
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_each_claim_has_its_label_its_reason_and_the_sentence_that_decides(coa: Run, server: FaultServer) -> None:
    code, out, err = coa("check", "well.txt", "--claims", "claims.txt")
    assert code == 0
    assert re.search(rf"^1\. true: {re.escape(FACT)}\n   share 1.0\n   CHAPTER I. The Well: \"{FACT}\"", out)
    assert "two. false: Ada hid the iron key" in out
    assert "3. not in the text: Nobody" in out
    assert out.endswith("1 true, 1 false, 1 not in the text\n")
    # Nothing in the book has anything to do with dragons: no model is asked about them.
    assert server.stats().calls == 2
    assert "2 calls" in err


def test_json_has_the_places_and_the_counts(coa: Run) -> None:
    code, out, _ = coa("check", "well.txt", "--claims", "claims.txt", "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    assert found["ok"]
    assert found["schema_version"] == 1
    assert found["counts"] == {"true": 1, "false": 1, "not_in_text": 1, "not_judged": 0}
    assert [(c["id"], c["label"]) for c in found["checks"]] == [(None, "true"), ("two", "false"), (None, "not_in_text")]
    citation = found["checks"][1]["citations"][0]
    assert _book()[citation["start"] : citation["end"]] == citation["quote"] == FACT
    assert citation["origin"] == "model"


def test_json_lines_and_markdown_hold_a_statement_each(coa: Run, folder: Path) -> None:
    code, out, _ = coa("check", "well.txt", "--claims", "claims.txt", "--format", "jsonl")
    assert code == 0
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["true", "false", "not_in_text"]
    assert coa("check", "well.txt", "-c", FACT, "--format", "md", "-o", "checked.md")[:2] == (0, "")
    text = (folder / "checked.md").read_text(encoding="utf-8")
    assert text.startswith(f"- **true** (1): {FACT}\n")


def test_strict_ends_in_8_unless_all_are_true_and_prints_the_list_all_the_same(coa: Run) -> None:
    code, out, err = coa("check", "well.txt", "--claims", "claims.txt", "--strict")
    assert code == 8
    assert "two. false" in out
    assert "not all statements are true: 1 true, 1 false, 1 not in the text" in err
    assert coa("check", "well.txt", "-c", FACT, "--strict")[0] == 0


def test_a_run_that_failed_is_gone_on_with_and_nothing_is_judged_twice(coa: Run, server: FaultServer) -> None:
    server.faults = Faults(when=lambda call: "500" if "iron key" in str(call.messages) else None)
    code, out, err = coa("check", "well.txt", "--claims", "claims.txt")
    assert (code, out) == (7, "")
    assert "coa resume" in err
    before = server.stats().calls
    server.faults = Faults()
    code, out, _ = coa("resume", "--last")
    assert code == 0
    assert "two. false" in out
    assert server.stats().calls == before + 1


def test_a_dry_run_counts_the_claims_and_calls_nothing(coa: Run, server: FaultServer) -> None:
    code, out, _ = coa("check", "well.txt", "--claims", "claims.txt", "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert (plan["strategy"], plan["calls"]) == ("check", 3)
    assert server.stats().calls == 0


def test_by_words_alone_no_call_is_made(coa: Run, server: FaultServer) -> None:
    code, out, _ = coa("check", "well.txt", "--claims", "claims.txt", "--notes", "quotes")
    assert code == 0
    assert re.search(
        r"^1\. true: .*^two\. false: .*it says 'iron', the text says 'brass'.*", out, re.DOTALL | re.MULTILINE
    )
    assert out.endswith("1 true, 1 false, 1 not in the text\n")
    assert server.stats().calls == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no statement"),
        ("{not json", "line 1: not valid JSON"),
        ('x\n{"id": 3}', 'line 2: has no "claim" text'),
        ('{"claim": " "}', 'has no "claim" text'),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_told(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "claims.jsonl"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=re.escape(problem)):
        gather_statements([], file)


def test_nothing_to_check_is_told(coa: Run) -> None:
    for args in ((), ("-c", " "), ("--claims", "nowhere.txt"), ("--claims", "-")):
        assert coa("check", "-" if args == ("--claims", "-") else "well.txt", *args)[0] == 2
