"""Where settings come from: YAML and TOML files, and the environment. Reads only what it is handed."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from coa.errors import ConfigError

__all__ = [
    "PROXY_KEYS",
    "Layer",
    "absolute",
    "environment_layer",
    "find_project_file",
    "parse_value",
    "read_config_file",
    "with_absolute_paths",
]

PROXY_KEYS = frozenset(
    {
        "assistant_settings",
        "callback_settings",
        "credential_list",
        "environment_variables",
        "files_settings",
        "finetune_settings",
        "general_settings",
        "guardrails",
        "include",
        "mcp_aliases",
        "mcp_servers",
        "mcp_tools",
        "pass_through_endpoints",
        "policies",
        "prompts",
        "search_tools",
        "vector_store_registry",
        "worker_registry",
    }
)
"""Keys of a litellm proxy file that say nothing to coa: passed over, so that one file serves both."""


class Layer(NamedTuple):
    """Values of one source, and how to call that source to a person."""

    values: dict[str, Any]
    origin: str
    folder: Path | None = None
    """What relative paths in it are relative to; None for the working directory."""


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where PyYAML would keep the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return where + " ".join(str(problem).split())


def _load(path: Path) -> object:
    """The parsed file; for pyproject.toml its [tool.coa] table."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file.") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder, not a config file.") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 (byte {exc.start}).") from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}).") from exc
    try:
        if path.suffix == ".toml":
            table: object = tomllib.loads(text)
            if path.name == "pyproject.toml" and isinstance(table, dict):
                tool = table.get("tool", {})
                return tool.get("coa", {}) if isinstance(tool, dict) else {}
            return table
        # _Loader is a SafeLoader: it builds plain data only.
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path}: not valid YAML: {_yaml_problem(exc)}.") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: not valid TOML: {exc}.") from exc


def read_config_file(path: Path) -> dict[str, Any]:
    """The file's top-level mapping; empty for an empty file.

    Raises:
        ConfigError: missing, unreadable, not YAML or TOML, or not a mapping of names.
    """
    data = _load(path)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}; expected `key: value` lines.")
    for key in data:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: {key!r}: a key has to be a name.")
    return data


def find_project_file(cwd: Path) -> Path | None:
    """`coa.yaml`, else a `pyproject.toml` with a [tool.coa] table, in `cwd` itself; else None."""
    if (cwd / "coa.yaml").is_file():
        return cwd / "coa.yaml"
    pyproject = cwd / "pyproject.toml"
    if pyproject.is_file() and b"tool.coa" in pyproject.read_bytes() and read_config_file(pyproject):
        return pyproject
    return None


def environment_layer(env: Mapping[str, str], names: Mapping[str, bool]) -> list[Layer]:
    """One layer for each `COA_<KEY>` that is set and not empty.

    `names` maps each setting to whether its value is a list or mapping, which is written as YAML or JSON.
    """
    layers = []
    for name, nested in names.items():
        variable = f"COA_{name.upper()}"
        text = env.get(variable, "")
        if text:
            value = parse_value(text, variable) if nested else text
            layers.append(Layer({name: value}, f"environment {variable}"))
    return layers


def parse_value(text: str, source: str) -> object:
    """`text` read as YAML (JSON is YAML too); a ConfigError naming `source` if it cannot be."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as exc:
        raise ConfigError(f"{source}: not valid YAML: {_yaml_problem(exc)}.") from exc


def absolute(path: str | os.PathLike[str], folder: Path) -> Path:
    """`path` with `~` expanded, made absolute from `folder`."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else folder / expanded


def with_absolute_paths(key: str, value: object, folder: Path) -> object:
    """The value of setting `key`, its paths as seen from the folder that it stands in."""
    if key == "home" and isinstance(value, str | os.PathLike) and str(value):
        return absolute(value, folder)
    if key == "model":
        return _model_from(value, folder)
    if key == "roles" and isinstance(value, Mapping):
        return {role: _model_from(model, folder) for role, model in value.items()}
    if key == "model_list" and isinstance(value, list):
        return [_entry_from(entry, folder) for entry in value]
    return value


def _model_from(value: object, folder: Path) -> object:
    return str(absolute(value, folder)) if isinstance(value, str) and value.endswith(".gguf") else value


def _entry_from(entry: object, folder: Path) -> object:
    """An entry of model_list with absolute paths to GGUF files ("coa/<path>") and to a tokenizer.json."""
    if not isinstance(entry, Mapping):
        return entry
    changed = dict(entry)
    params, info = entry.get("litellm_params"), entry.get("model_info")
    model = params.get("model") if isinstance(params, Mapping) else None
    if isinstance(params, Mapping) and isinstance(model, str) and model.startswith("coa/"):
        changed["litellm_params"] = {**params, "model": f"coa/{_model_from(model.removeprefix('coa/'), folder)}"}
    tokenizer = info.get("tokenizer") if isinstance(info, Mapping) else None
    if isinstance(info, Mapping) and isinstance(tokenizer, str) and _is_path(tokenizer):
        changed["model_info"] = {**info, "tokenizer": str(absolute(tokenizer, folder))}
    return changed


def _is_path(text: str) -> bool:
    return ("/" in text or text.endswith(".json")) and not text.startswith("os.environ/")
