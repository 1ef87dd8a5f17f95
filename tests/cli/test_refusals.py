"""What the api refuses before any call, through the whole command line; no engine is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coa.cli.main import run

Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Exit code and stderr of a real `coa ask`."""
    book = tmp_path / "book.txt"
    book.write_text("The cat sat on the mat.\n")

    def refused(*args: str) -> tuple[int, str]:
        code = run(["ask", str(book), "Who?", "--quiet", *args])
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert not (folder / "home" / "runs").exists()
        return code, err

    return refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "code", "parts"),
    [
        (["--strategy", "chian"], 2, ["'chian'", "did you mean 'chain'"]),
        (["-m", "smolm2-135m"], 2, ["did you mean 'smollm2-135m'", "coa models list"]),
        (["-m", "smollm2-135m"], 2, ["not downloaded", "coa models pull smollm2-135m"]),
        (["-m", "./no.gguf"], 2, ["no model file", "no.gguf", "Check the path"]),
    ],
    ids=["strategy", "misspelt model", "model not pulled", "model file"],
)
def test_a_run_that_cannot_begin_says_what_to_do(ask: Ask, args: list[str], code: int, parts: list[str]) -> None:
    ended, err = ask(*args)
    assert ended == code
    assert [part for part in parts if part not in err] == []


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["20", "20000"])
def test_a_chunk_budget_that_cannot_hold_the_prompt_is_shown_with_its_sum(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tokens: str
) -> None:
    from coa.testing.models import test_model_path

    with monkeypatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])  # where tests keep the model that they share
        model = test_model_path().absolute()
    ended, err = ask("-m", str(model), "--chunk-tokens", tokens)
    assert ended == 2
    assert f"chunk {tokens} + notes" in err
    assert "Lower --chunk-tokens" in err
