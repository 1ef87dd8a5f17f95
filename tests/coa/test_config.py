from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coa.config import Settings, config_files, load_settings, masked, profiles_of, resolve_environment
from coa.errors import ConfigError


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    return {"COA_HOME": str(home)}


def problem(cwd: Path, env: dict[str, str], **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(cwd=cwd, env=env, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_each_layer_wins_over_those_below_it(cwd: Path, env: dict[str, str]) -> None:
    user = Path(env["COA_HOME"]) / "config.yaml"
    keys = ["retries", "question_tokens", "note_tokens", "answer_tokens"]
    user.write_text("".join(f"{key}: 11\n" for key in keys))
    (cwd / "coa.yaml").write_text("".join(f"{key}: 12\n" for key in keys[1:]))
    env |= {"COA_NOTE_TOKENS": "13", "COA_ANSWER_TOKENS": "13"}
    settings, origins = load_settings(cwd=cwd, env=env, overrides={"answer_tokens": 14, "model": None})

    assert [getattr(settings, key) for key in keys] == [11, 12, 13, 14]
    assert [origins[key] for key in keys] == [
        str(user),
        str(cwd / "coa.yaml"),
        "environment COA_NOTE_TOKENS",
        "argument answer_tokens",
    ]
    assert origins["model"] == "default"
    assert settings.model == "smollm2-135m"


def test_origins_name_every_setting(cwd: Path, env: dict[str, str]) -> None:
    assert set(load_settings(cwd=cwd, env=env).origins) == set(Settings.model_fields)


def test_a_tool_table_of_pyproject_is_read_unless_coa_yaml_is_there(cwd: Path, env: dict[str, str]) -> None:
    (cwd / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[tool.coa]\nretries = 5\n[tool.coa.profiles.p]\nmodel="m"'
    )
    assert load_settings(cwd=cwd, env=env).settings.retries == 5
    assert load_settings(cwd=cwd, env=env, profile="p").settings.model == "m"
    (cwd / "coa.yaml").write_text("model: other\n")
    assert load_settings(cwd=cwd, env=env).settings.retries == 3


def test_a_pyproject_without_a_tool_table_is_passed_over(cwd: Path, env: dict[str, str]) -> None:
    (cwd / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert config_files(cwd=cwd, env=env) == []


def test_a_config_argument_or_variable_stands_for_the_project_file(cwd: Path, env: dict[str, str]) -> None:
    (cwd / "coa.yaml").write_text("retries: 1\n")
    (cwd / "a.yaml").write_text("retries: 2\n")
    (cwd / "b.toml").write_text("retries = 4\n")
    assert load_settings(cwd=cwd, env=env, config=Path("a.yaml")).settings.retries == 2
    assert load_settings(cwd=cwd, env=env | {"COA_CONFIG": "b.toml"}).settings.retries == 4
    assert "no such config file" in problem(cwd, env, config=Path("c.yaml"))


def test_a_profile_goes_over_its_files_own_values_and_under_the_layers_above(cwd: Path, env: dict[str, str]) -> None:
    user = Path(env["COA_HOME"]) / "config.yaml"
    user.write_text("profiles: {fast: {retries: 9, question_tokens: 90, note_tokens: 91}}\n")
    (cwd / "coa.yaml").write_text("retries: 1\nprofiles: {fast: {question_tokens: 10}, slow: {retries: 8}}\n")
    settings, origins = load_settings(cwd=cwd, env=env | {"COA_PROFILE": "fast"})
    assert (settings.retries, settings.question_tokens, settings.note_tokens) == (1, 10, 91)
    assert origins["question_tokens"] == f"{cwd / 'coa.yaml'} (profile fast)"
    assert load_settings(cwd=cwd, env=env, profile="slow").settings.retries == 8
    assert profiles_of(cwd / "coa.yaml") == ["fast", "slow"]


def test_coa_home_moves_every_folder(cwd: Path, env: dict[str, str]) -> None:
    settings = load_settings(cwd=cwd, env=env).settings
    home = Path(env["COA_HOME"])
    assert (settings.runs_dir, settings.models_dir, settings.documents_dir) == (
        home / "runs",
        home / "models",
        home / "documents",
    )


def test_paths_in_a_file_are_relative_to_that_file(cwd: Path, env: dict[str, str]) -> None:
    (cwd / "sub").mkdir()
    (cwd / "sub" / "c.yaml").write_text("model: models/m.gguf\nhome: here\n")
    del env["COA_HOME"]
    settings = load_settings(cwd=cwd, env=env, config=Path("sub/c.yaml")).settings
    assert settings.model == str(cwd / "sub" / "models" / "m.gguf")
    assert settings.home == cwd / "sub" / "here"
    assert load_settings(cwd=cwd, env=env, overrides={"model": "m.gguf"}).settings.model == str(cwd / "m.gguf")


def test_a_litellm_proxy_file_serves_as_it_is(cwd: Path, env: dict[str, str]) -> None:
    (cwd / "coa.yaml").write_text(
        "model_list:\n- model_name: reader\n  litellm_params: {model: openai/x, api_key: os.environ/KEY}\n"
        "router_settings: {num_retries: 0}\nlitellm_settings: {drop_params: true}\n"
        "general_settings: {master_key: sk-1}\nenvironment_variables: {A: b}\n"
    )
    settings = load_settings(cwd=cwd, env=env).settings
    assert settings.model_list[0]["litellm_params"]["api_key"] == "os.environ/KEY"
    assert settings.router_settings == {"num_retries": 0}


def test_nested_settings_come_from_the_environment_as_json(cwd: Path, env: dict[str, str]) -> None:
    settings = load_settings(cwd=cwd, env=env | {"COA_ROUTER_SETTINGS": '{"num_retries": 2}'}).settings
    assert settings.router_settings == {"num_retries": 2}
    assert "COA_ROUTER_SETTINGS" in problem(cwd, env | {"COA_ROUTER_SETTINGS": "{"})


def test_an_empty_variable_counts_as_not_set(cwd: Path, env: dict[str, str]) -> None:
    assert load_settings(cwd=cwd, env=env | {"COA_RETRIES": ""}).settings.retries == 3


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("chunk_tokenz: 3", ["coa.yaml", "'chunk_tokenz'", "did you mean 'chunk_tokens'"]),
        ("zzz: 3", ["coa.yaml", "'zzz'", "coa config show"]),
        ("retries: many", ["coa.yaml", "retries", "valid integer", "'many'"]),
        ("retries: -1", ["coa.yaml", "retries", "greater than or equal to 0", "-1"]),
        ("on_worker_failure: stop", ["coa.yaml", "on_worker_failure", "'skip' or 'fail'"]),
        ("model: [", ["coa.yaml", "not valid YAML", "line 1"]),
        ("model: a\nmodel: b", ["coa.yaml", "line 2", "'model' is given twice"]),
        ("- model", ["coa.yaml", "list", "key: value"]),
        ("1: model", ["coa.yaml", "1", "name"]),
        ("profiles: [fast]", ["coa.yaml", "profiles", "mapping"]),
        ("profiles: {fast: 3}", ["coa.yaml", "profiles.fast", "mapping"]),
        ("profiles: {fast: {modle: x}}", ["coa.yaml", "profiles.fast", "did you mean 'model'"]),
        ("model_list: [{model_name: a}]", ["coa.yaml", "model_list", "entry 1 (a)", "litellm_params.model"]),
        ("model_list: [{litellm_params: {model: a}}]", ["coa.yaml", "entry 1", "model_name"]),
    ],
)
def test_a_wrong_file_is_told_in_one_line_with_file_and_key(
    cwd: Path, env: dict[str, str], content: str, parts: list[str]
) -> None:
    (cwd / "coa.yaml").write_text(content)
    message = problem(cwd, env)
    assert [part for part in parts if part not in message] == []


def test_other_ways_to_go_wrong_name_their_source(cwd: Path, env: dict[str, str]) -> None:
    assert "environment COA_RETRIES" in problem(cwd, env | {"COA_RETRIES": "x"})
    assert "argument" in problem(cwd, env, overrides={"modle": "x"})
    assert "'quick' is not defined" in problem(cwd, env, profile="quick")
    (cwd / "coa.yaml").write_bytes(b"model: \xff\n")
    assert "not UTF-8 (byte 7)" in problem(cwd, env)
    assert "is a folder" in problem(cwd, env, config=cwd)
    (cwd / "bad.toml").write_text("a = ")
    assert "not valid TOML" in problem(cwd, env, config=Path("bad.toml"))


def test_messages_hold_no_secret(cwd: Path, env: dict[str, str]) -> None:
    (cwd / "coa.yaml").write_text("model_list: [{api_key: sk-hidden-1}]\nredis_url: [redis://u:hidden-2@h]\n")
    assert "hidden" not in problem(cwd, env)


def test_yaml_cannot_build_objects(cwd: Path, env: dict[str, str]) -> None:
    (cwd / "coa.yaml").write_text("model: !!python/object/apply:os.getcwd []\n")
    assert "not valid YAML" in problem(cwd, env)


def test_settings_cannot_be_changed(cwd: Path, env: dict[str, str]) -> None:
    settings = load_settings(cwd=cwd, env=env).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.model = "other"


def test_references_are_resolved_at_any_depth() -> None:
    value = {"a": ["os.environ/KEY", "plain"], "b": {"c": "os.environ/KEY"}, "n": 3}
    assert resolve_environment(value, {"KEY": "v"}) == {"a": ["v", "plain"], "b": {"c": "v"}, "n": 3}
    with pytest.raises(ConfigError, match="KEY is not set"):
        resolve_environment(value, {})


def test_secrets_are_masked_and_the_rest_is_not() -> None:
    value = {
        "api_key": "sk-1",
        "aws_secret_access_key": "x",
        "vertex_credentials": "x",
        "password": "x",
        "extra_headers": {"X-Custom": "x"},
        "api_base": "http://user:pw@host:1/v1",
        "model": "openai/x",
        "max_tokens": 5,
        "referred": {"api_key": "os.environ/KEY"},
    }
    hidden = "********"
    assert masked(value) == {
        "api_key": hidden,
        "aws_secret_access_key": hidden,
        "vertex_credentials": hidden,
        "password": hidden,
        "extra_headers": {"X-Custom": hidden},
        "api_base": f"http://{hidden}@host:1/v1",
        "model": "openai/x",
        "max_tokens": 5,
        "referred": {"api_key": "os.environ/KEY"},
    }


def test_import_reads_no_setting(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "class Watched(dict):\n"
        "    def get(self, key, default=None):\n"
        "        assert not str(key).startswith(('COA_', 'XDG_')), key\n"
        "        return super().get(key, default)\n"
        "    __getitem__ = lambda self, key: self.get(key)\n"
        "os.environ = Watched(os.environ)\n"
        "import coa.config\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
