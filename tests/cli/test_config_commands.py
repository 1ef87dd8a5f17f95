"""`coa config init` and `validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from coa.config import Settings

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

EXAMPLES = {"home", "roles", "model_list", "router_settings", "litellm_settings"}
GROUP = "  - model_name: reader\n    litellm_params: {model: openai/x, api_base: 'http://127.0.0.1:1/v1'}\n"


def _taken_away(text: str) -> str:
    return "\n".join(line[2:] if line.startswith("# ") else line for line in text.splitlines())


def problems(cli: Cli, text: str) -> list[str]:
    """What validate says of a project's file, without the "error: " in front."""
    (cli.folder / "coa.yaml").write_text(text)
    result = cli("config", "validate")
    assert result.code == 2
    assert result.out == ""
    assert all(line.startswith("error: ") for line in result.err.splitlines())
    return [line.removeprefix("error: ") for line in result.err.splitlines()]


def test_the_written_config_explains_every_setting_at_its_default(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("config", "init").code == 0
    text = (cli.folder / "coa.yaml").read_text()
    assert cli("config", "validate").code == 0
    values = yaml.safe_load(_taken_away(text))
    assert set(values) - {"profiles"} == set(Settings.model_fields)
    defaults = Settings().model_dump(mode="json")
    assert {k: v for k, v in values.items() if k not in {*EXAMPLES, "profiles"}} == {
        k: v for k, v in defaults.items() if k not in EXAMPLES
    }
    settings = [line for line in text.splitlines() if line.startswith("# ") and ": " in line and line[2] != " "]
    for line in settings:
        before = text.splitlines()[text.splitlines().index(line) - 1]
        assert "  # " in line or before.startswith("##"), line
    (cli.folder / "coa.yaml").write_text(_taken_away(text))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    result = cli("config", "validate")
    assert (result.code, result.err) == (0, f"valid: {cli.folder / 'coa.yaml'} (profiles: fast)\n")


def test_init_replaces_a_file_only_when_that_is_asked_for(cli: Cli) -> None:
    (cli.folder / "coa.yaml").write_text("retries: 1\n")
    assert cli("config", "init").code == 2
    assert (cli.folder / "coa.yaml").read_text() == "retries: 1\n"
    assert cli("config", "init", "--force").code == 0
    assert cli("config", "init", "--user").code == 0
    assert (cli.folder / "home" / "config.yaml").is_file()


def test_every_unknown_key_is_a_line_with_its_place(cli: Cli) -> None:
    path = cli.folder / "coa.yaml"
    found = problems(cli, "retires: 1\nfrobnicate: 2\ngeneral_settings: {}\nprofiles: {fast: {modl: x}, slow: 3}\n")
    assert found == [
        f"{path}: unknown key 'retires'; did you mean 'retries'?",
        f"{path}: unknown key 'frobnicate'; `coa config show` lists the keys.",
        f"{path}: profiles.fast: unknown key 'modl'; did you mean 'model'?",
        f"{path}: profiles.slow: expected a mapping of settings.",
    ]


def test_every_wrong_value_is_a_line_and_those_of_profiles_say_so(cli: Cli) -> None:
    path = cli.folder / "coa.yaml"
    found = problems(cli, "retries: -1\ntemperature: hot\nprofiles: {fast: {window: 0}}\n")
    assert sorted(found) == [
        f"{path}: retries: expected greater than or equal to 0, got -1.",
        f"{path}: temperature: expected a valid number, got 'hot'.",
        f"profile fast: {path} (profile fast): window: expected greater than or equal to 1, got 0.",
    ]


def test_names_that_lead_nowhere_are_lines(cli: Cli) -> None:
    text = (
        "model: raeder\nroles: {judge: nobody, manager: reader}\nmodel_list:\n" + GROUP + "litellm_settings:\n"
        "  fallbacks: [{reader: [spare]}, {riders: [reader]}]\n"
    )
    assert problems(cli, text) == [
        "model: there is no model 'raeder': no group of model_list (reader), nothing in the catalogue.",
        "roles.judge: there is no model 'nobody': no group of model_list (reader), nothing in the catalogue.",
        "fallbacks of 'reader' name 'spare', which is no group of model_list.",
        "fallbacks: 'riders' is no group of model_list.",
    ]


def test_every_variable_that_is_not_set_is_a_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "redis_url: os.environ/NO_REDIS\nmodel: a\nmodel_list: [{model_name: a, litellm_params: "
        "{model: openai/x, api_base: os.environ/NO_BASE, api_key: os.environ/NO_KEY}}]\n"
    )
    found = problems(cli, text)
    assert [line.partition(" is not set")[0] for line in found] == [
        "redis_url: the environment variable NO_REDIS",
        "model_list[0] ('a'): the environment variable NO_BASE",
        "model_list[0] ('a'): the environment variable NO_KEY",
    ]
    for name in ("NO_REDIS", "NO_BASE", "NO_KEY"):
        monkeypatch.setenv(name, "x")
    assert cli("config", "validate").code == 0


def test_entries_that_cannot_be_meant_are_lines(cli: Cli) -> None:
    text = """model: reader
model_list:
  - {model_name: a, litellm_params: {model: openai/x}, model_info: {kind: vlm}}
  - {model_name: b, litellm_params: {model: openai/x}, model_info: {input_cost_per_token: free}}
  - {model_name: c, litellm_params: {model: coa/none.gguf}}
  - {model_name: d, litellm_params: {model: openai/x}, model_info: {tokenizer: none/tokenizer.json}}
"""
    found = problems(cli, text + GROUP)
    assert "model_list[0] ('a'): kind 'vlm' is not one of" in found[0]
    assert "model_list[1] ('b'): input_cost_per_token has to be a number" in found[1]
    assert f"c/2: '{cli.folder}/none.gguf' is neither in the catalogue nor a file." in found[2]
    assert f"there is no tokenizer file {cli.folder}/none/tokenizer.json." in found[3]
    assert len(found) == 4


def test_limits_that_cannot_fit_are_told_with_their_numbers(cli: Cli) -> None:
    group = GROUP + "    model_info: {max_input_tokens: 4000}\n"
    found = problems(cli, "model: reader\nchunk_tokens: 9000\nmodel_list:\n" + group)
    assert len(found) == 1
    assert "the worker's prompt does not fit: chunk 9000 + " in found[0]
    assert "the window has 4000" in found[0]
    wide = problems(cli, "model: reader\nwindow: 9000\nmodel_list:\n" + group)
    assert wide == ["window 9000 is more than 'reader' is configured with (4000)."]


def test_strategies_and_router_settings_are_looked_at(cli: Cli) -> None:
    found = problems(cli, "strategy: chian\nrouter_settings: {cooldown_tim: 3}\n")
    assert len(found) == 2
    assert "'cooldown_tim' (did you mean 'cooldown_time'?)" in found[0]
    assert "did you mean 'chain'" in found[1]


def test_paths_are_seen_from_the_file_that_they_stand_in(cli: Cli) -> None:
    folder = cli.folder / "conf"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF")
    (folder / "x.yaml").write_text(
        "model: a\nroles: {judge: m.gguf}\nmodel_list: [{model_name: a, litellm_params: {model: coa/m.gguf}}]\n"
    )
    result = cli("config", "validate", folder / "x.yaml")
    assert (result.code, result.err) == (0, f"valid: {folder / 'x.yaml'}\n")
