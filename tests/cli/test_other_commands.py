from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coa.documents import read_document
from coa.runs import Part, RunPlan, RunRecord, RunStore, StoredNote
from coa.types import Usage

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

RUN_ID = "20260101-000000-abcd"
BOOK = "# One\n\nThe cat sat on the mat.\n\n# Two\n\nIt purred all day long.\n"


def store_run(cli: Cli, run_id: str = RUN_ID, *, finished: bool = True) -> RunStore:
    """A run in coa's home, as the api leaves it behind."""
    store = RunStore(cli.folder / "home")
    document = read_document(b"The cat sat on the mat. It purred.\n", name="book.txt")
    record = RunRecord(
        run_id=run_id,
        task="ask",
        state="done" if finished else "drained",
        created="2026-01-01T00:00:00+00:00",
        updated="2026-01-01T00:00:09+00:00",
        document="book.txt",
        document_sha256=document.sha256,
        question="Who\tdid it?",
        strategy="chain",
        model="smollm2-135m",
        n_chunks=2,
        n_done=2 if finished else 0,
        settings={"model_list": [{"model_name": "a", "litellm_params": {"model": "x", "api_key": "sk-hidden"}}]},
    )
    store.create(record, document, RunPlan((Part(None, ()),), "t", True))
    store.add_note(run_id, StoredNote(0, 0, "a cat", 0, True, Usage()))
    if finished:
        store.save_answer(replace(cli.answer(), run_id=run_id))
    return store


def test_runs_are_listed_as_tabs_when_piped_and_as_json(cli: Cli) -> None:
    assert cli("runs").out == ""
    store_run(cli)
    store_run(cli, "20260102-000000-beef", finished=False)
    rows = [line.split("\t") for line in cli("runs", "list").out.splitlines()]
    assert [row[:3] for row in rows] == [["20260102-000000-beef", "drained", "1/2"], [RUN_ID, "done", "2/2"]]
    assert rows[0][-1] == "Who did it?"
    assert cli("runs").out == cli("runs", "list").out
    listed = json.loads(cli("runs", "list", "--json").out)
    assert [run["state"] for run in listed] == ["drained", "done"]


def test_a_run_is_shown_with_its_answer_and_without_secrets(cli: Cli) -> None:
    store_run(cli)
    shown = cli("runs", "show", "20260101").out
    assert "state            done\n" in shown
    assert '[1] I. The Cat: "The cat sat."' in shown
    text = cli("runs", "show", RUN_ID, "--json").out
    assert json.loads(text)["answer"]["answer"] == "The cat did it."
    assert "sk-hidden" not in text


def test_an_unfinished_run_is_shown_with_the_way_on(cli: Cli) -> None:
    store_run(cli, finished=False)
    assert cli("runs", "show", RUN_ID).err == f"go on with: coa resume {RUN_ID}\n"


def test_the_path_is_printed_alone(cli: Cli) -> None:
    store_run(cli)
    assert cli("runs", "path").out == f"{cli.folder}/home/runs\n"
    assert cli("runs", "path", "2026").out == f"{cli.folder}/home/runs/{RUN_ID}\n"


def test_a_wrong_id_among_those_to_remove_removes_nothing(cli: Cli) -> None:
    store = store_run(cli)
    assert cli("runs", "rm", RUN_ID, "nope").code == 2
    assert len(store.list()) == 1
    assert cli("runs", "rm", RUN_ID).code == 0
    assert store.list() == []


def test_all_runs_go_only_when_that_is_confirmed(cli: Cli) -> None:
    store = store_run(cli)
    refused = cli("runs", "rm", "--all")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert len(store.list()) == 1
    assert cli("runs", "rm", "--all", "--yes").code == 0
    assert store.list() == []


def test_a_run_shows_what_it_was_expected_to_take_beside_what_it_took(cli: Cli) -> None:
    from dataclasses import replace

    from coa.cli.render import compared_text
    from coa.types import Forecasted, Usage

    answer = replace(
        cli.answer(), estimate=Forecasted(23, 30_000, 4_000), usage=Usage(25, 28_112, 0, 1_200, 0.0, reused=2)
    )
    assert compared_text(answer) == (
        "23 calls (took 25 and 2 kept replies), 30,000 tokens in (took 28,112), at most 4,000 out (took 1,200)"
    )
    assert compared_text(replace(answer, estimate=None)) is None


@pytest.mark.parametrize("args", [[RUN_ID], ["20260101"], ["--last"]])
def test_resume_finds_the_run_and_prints_its_answer(cli: Cli, args: list[str]) -> None:
    store_run(cli, finished=False)
    result = cli("resume", *args, "--json")
    assert result.code == 0
    assert json.loads(result.out)["answer"] == "The cat did it."
    assert cli.api.calls == [("resume", RUN_ID)]


def test_settings_are_shown_without_secrets_and_with_their_origin(cli: Cli) -> None:
    (cli.folder / "coa.yaml").write_text(
        "retries: 9\nredis_url: redis://me:hidden-1@host/0\n"
        "model_list: [{model_name: a, litellm_params: {model: x, api_key: hidden-2, api_base: os.environ/B}}]\n"
    )
    text = cli("config", "show").out
    assert "hidden" not in text
    assert "os.environ/B" in text
    with_origin = json.loads(cli("config", "show", "--origin", "--json").out)
    assert with_origin["retries"] == {"value": 9, "origin": str(cli.folder / "coa.yaml")}
    assert with_origin["model"]["origin"] == "default"
    assert with_origin["home"]["origin"] == "environment COA_HOME"


def test_config_paths_are_those_in_force(cli: Cli) -> None:
    user = cli.folder / "home" / "config.yaml"
    assert cli("config", "path").out == f"{user}\n"
    (cli.folder / "coa.yaml").write_text("retries: 1\n")
    assert cli("config", "path").out == f"{cli.folder / 'coa.yaml'}\n"
    user.parent.mkdir()
    user.write_text("retries: 2\n")
    assert cli("config", "path").out == f"{cli.folder / 'coa.yaml'}\n{user}\n"
    assert cli("config", "path", "--user").out == f"{user}\n"


@pytest.mark.parametrize(("command", "failed"), [(["doctor"], 1), (["models", "test", "x"], 7)])
def test_checks_decide_the_exit_code(cli: Cli, command: list[str], failed: int) -> None:
    check = cli.check
    cli.api.checks = [check("python", "ok", "3.11"), check("redis", "warn", "not\nset")]
    result = cli(*command)
    assert (result.code, result.out) == (0, "ok    python  3.11\nwarn  redis   not set\n")
    cli.api.checks.append(check("model", "fail", "no reply"))
    result = cli(*command, "--json")
    assert result.code == failed
    assert json.loads(result.out)["ok"] is False
    assert json.loads(result.out)["checks"][2] == {"name": "model", "status": "fail", "detail": "no reply"}


def test_models_test_takes_the_name_that_is_given(cli: Cli) -> None:
    cli("models", "test", "qwen3-4b")
    assert cli.api.settings is not None
    assert cli.api.settings.model == "qwen3-4b"


def test_models_are_listed_with_size_licence_and_state(cli: Cli) -> None:
    models = cli.folder / "home" / "models"
    models.mkdir(parents=True)
    (models / "own.gguf").write_bytes(b"GGUF")
    (cli.folder / "coa.yaml").write_text("model_list: [{model_name: reader, litellm_params: {model: openai/x}}]\n")
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in cli("models", "list").out.splitlines()}
    assert rows["smollm2-135m"][:3] == ["135M", "98 MB", "to be pulled"]
    assert rows["smollm2-135m"][3].startswith("Apache-2.0 ")
    assert rows["own"][2] == "installed"
    assert rows["reader"][2:] == ["configured", "hosted"]
    listed = {model["name"]: model for model in json.loads(cli("models", "list", "--json").out)}
    assert listed["own"]["path"] == str(models / "own.gguf")
    assert len({tuple(sorted(model)) for model in listed.values()}) == 1


def test_an_unknown_model_to_pull_is_refused(cli: Cli) -> None:
    result = cli("models", "pull", "nope")
    assert result.code == 2
    assert result.err.startswith("error: There is no model 'nope' in the catalogue.")


def test_inspect_shows_the_parts_of_a_book(cli: Cli) -> None:
    (cli.folder / "two.md").write_text(BOOK)
    text = cli("inspect", "two.md").out
    assert "estimate" in text
    assert "One" in text
    found = json.loads(cli("inspect", "two.md", "--json").out)
    assert [(c["title"], c["start"], c["end"]) for c in found["chapters"]] == [("One", 0, 32), ("Two", 32, len(BOOK))]
    assert found["words"] == 13
    assert found["exact"] is False
    assert found["chunks"][0]["start"] == 0
    assert found["chunks"][-1]["end"] == len(BOOK)
    rows = [line.split("\t") for line in cli("inspect", "two.md", "--chapters").out.splitlines()]
    assert [row[3] for row in rows] == ["One", "Two"]
    assert cli("inspect", "two.md", "--text").out == BOOK
    assert cli.api.calls == []


def test_inspect_says_what_is_not_read(cli: Cli) -> None:
    start = "*** START OF THE PROJECT GUTENBERG EBOOK X ***"
    end = "*** END OF THE PROJECT GUTENBERG EBOOK X ***"
    book = f"Produced by Y\n\n{start}\n\nThe cat sat. It purred all day.\n\n{end}\n\nlicence\n"
    (cli.folder / "pg.txt").write_text(book)
    found = json.loads(cli("inspect", "pg.txt", "--json").out)
    assert [part["cause"] for part in found["left_out"]] == ["boilerplate", "boilerplate"]
    assert cli("inspect", "pg.txt", "--text").out.strip() == "The cat sat. It purred all day."
    assert "not read" in cli("inspect", "pg.txt").out


def test_chunks_of_inspect_cover_the_text(cli: Cli) -> None:
    (cli.folder / "long.txt").write_text("The cat sat on the mat. " * 400)
    rows = [
        line.split("\t") for line in cli("inspect", "long.txt", "--chunks", "--chunk-tokens", "200").out.splitlines()
    ]
    spans = [tuple(map(int, row[1].split("-"))) for row in rows]
    assert len(spans) > 5
    assert spans[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(int(row[2]) <= 200 for row in rows)


def test_the_version_is_printed(cli: Cli) -> None:
    result = cli("--version")
    assert result.code == 0
    assert result.out.startswith("coa ")


def test_without_a_command_the_help_is_shown(cli: Cli) -> None:
    result = cli()
    assert result.code == 2
    assert "Commands:" in result.err


def test_every_documented_command_is_there(cli: Cli) -> None:
    for command in ("ask", "summarize", "inspect", "resume", "doctor"):
        assert cli(command, "--help").code == 0
    groups = {"runs": "list show rm path", "models": "list pull test", "config": "show path init validate"}
    for group, commands in groups.items():
        for command in commands.split():
            assert cli(group, command, "--help").code == 0, (group, command)


def test_every_option_of_every_command_names_its_variable(cli: Cli) -> None:
    import typer.main

    from coa.cli.main import app

    def commands(command: object, path: str) -> list[tuple[str, object]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return [(path, command)]
        return [found for name, each in inner.items() for found in commands(each, f"{path} {name}")]

    exempt = {"help", "more", "question", "claim", "everything"}
    missing = [
        f"{path} {parameter.name}"
        for path, command in commands(typer.main.get_command(app), "coa")
        for parameter in command.params  # type: ignore[attr-defined]
        if parameter.param_type_name == "option" and not parameter.envvar and parameter.name not in exempt
    ]
    assert missing == []


def test_the_working_directory_is_left_as_it_was(cli: Cli) -> None:
    before = sorted(Path.cwd().iterdir())
    cli("ask", "book.txt", "q")
    cli("inspect", "book.txt")
    assert sorted(Path.cwd().iterdir()) == before


def test_strategies_are_listed_and_shown(cli: Cli) -> None:
    assert cli("graph", "list").out == "chain\treads in order\n"
    assert json.loads(cli("graph", "list", "--json").out)[0]["agents"] == ["worker"]
    assert "takes     question" in cli("graph", "show", "chain").out
    assert cli("graph", "show", "chain", "--mermaid").out == "graph TD;\n"
    assert "input" in json.loads(cli("graph", "show", "chain", "--schema").out)
    assert cli("graph", "show", "chain", "--schema", "--mermaid").code == 2
