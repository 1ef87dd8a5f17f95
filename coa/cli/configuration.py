"""`coa config show|path|init|validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import CommonOptions, expands_options
from coa.cli.terminal import write_file, write_note, write_result

if TYPE_CHECKING:
    from coa.config import Settings

__all__ = ["app", "template"]

app = typer.Typer(help="Shows, writes and checks settings.", no_args_is_help=True)


def show(
    ctx: typer.Context,
    origin: Annotated[
        bool, typer.Option("--origin", envvar="COA_ORIGIN", help="Say where each value comes from.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="As JSON.")] = False,
    *,
    common: CommonOptions,
) -> int:
    """Shows the settings in force; secrets are hidden."""
    from coa.cli.invocation import settings_of
    from coa.cli.render import table_text, to_json
    from coa.config import masked

    settings, origins = settings_of(ctx, common)
    values = {key: masked(value, key) for key, value in settings.model_dump(mode="json").items()}
    if as_json:
        shown: object = {key: {"value": v, "origin": origins[key]} for key, v in values.items()} if origin else values
        write_result(to_json(shown))
        return 0
    rows = [[key, _shown(value), *(["# " + origins[key]] if origin else [])] for key, value in values.items()]
    write_result(table_text(rows))
    return 0


def _shown(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def path(
    user: Annotated[bool, typer.Option("--user", envvar="COA_USER", help="The user's own file, there or not.")] = False,
    *,
    common: CommonOptions,
) -> int:
    """Prints the config files in force, the strongest first; the user's own place if there is none."""
    from coa.config import config_files, user_config_file

    found = [] if user else config_files(config=common.config)
    write_result("".join(f"{file}\n" for file in found or [user_config_file()]))
    return 0


def init(
    user: Annotated[
        bool, typer.Option("--user", envvar="COA_USER", help="Write the user's own file, not ./coa.yaml.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", envvar="COA_FORCE", help="Replace a file that is there.")] = False,
) -> int:
    """Writes a config file with every setting, commented out, and an example of a model."""
    from coa.config import user_config_file
    from coa.errors import ConfigError, StorageError

    target = user_config_file() if user else Path("coa.yaml")
    if target.exists() and not force:
        raise ConfigError(f"{target} is there already.", hint="--force replaces it.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"cannot create {target.parent}: {exc.strerror}.") from exc
    write_file(target, template())
    write_note(f"wrote {target}")
    return 0


_TEMPLATE_HEAD = """\
# Settings of coa. Precedence: flags, COA_* variables, this file (./coa.yaml), the user's own file, defaults.
# `coa config show --origin` says where each value comes from.

"""

_LIMITS_HEAD = """
# Bounds against hostile documents; what is over one of them is refused.
# reading_limits:
"""

_TEMPLATE_TAIL = """
# Models, in the form of litellm's proxy; keys are read from the environment.
# model_list:
#   - model_name: reader
#     litellm_params:
#       model: openai/gpt-5-mini
#       api_key: os.environ/OPENAI_API_KEY
#   - model_name: local
#     litellm_params:
#       model: openai/qwen
#       api_base: http://127.0.0.1:8000/v1
#       api_key: none

# profiles:
#   fast:
#     model: local
#     note_tokens: 200
"""


_ABOUT = {
    "home": "runs, models and documents",
    "model": "a model_list name, a catalogue name (coa models list), a GGUF file, or a litellm model",
    "strategy": "how the document is read",
    "window": "tokens in and out; null: the model's own",
    "chunk_tokens": "null: what the window leaves",
    "question_tokens": "room for the question",
    "notes": "paper: the model's own; quotes: sentences of the text; auto: by the model's size",
    "note_tokens": "of a worker's notes; null: by the window",
    "answer_tokens": "null: by the window",
    "on_worker_failure": "skip: go on without that chunk and say so; fail: stop",
    "temperature": "0: the same answer each time",
    "retries": "of one call",
    "timeout_s": "of one call; null: scaled to its tokens",
    "max_calls": "of a run; null: no limit",
    "max_tokens_total": "of a run, in and out; null: no limit",
    "max_cost_usd": "of a run; null: no limit",
    "max_document_bytes": "larger documents are refused",
    "reader": "of documents, by name, as docling (layout and OCR); null: by content",
    "n_threads": "of the embedded engine; null: all cores",
    "redis_url": "null: no Redis",
}


def template() -> str:
    """A config file with each plain setting commented out at its default."""
    import json

    from coa.config import Settings

    lines = []
    for key, about in _ABOUT.items():
        default = "~/coa" if key == "home" else json.dumps(Settings.model_fields[key].default)
        lines.append(f"# {key}: {default}".ljust(36) + f"  # {about}")
    limits = Settings.model_fields["reading_limits"].get_default(call_default_factory=True)
    bounds = "".join(f"#   {key}: {json.dumps(limit)}\n" for key, limit in limits.items())
    return _TEMPLATE_HEAD + "\n".join(lines) + "\n" + _LIMITS_HEAD + bounds + _TEMPLATE_TAIL


def validate(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="A config file; otherwise those in force.", show_default=False)
    ] = None,
    *,
    common: CommonOptions,
) -> int:
    """Checks the config files, every profile in them, and the environment variables that models refer to."""
    import dataclasses

    from coa.cli.invocation import settings_of
    from coa.config import config_files, profiles_of

    if file is not None:
        common = dataclasses.replace(common, config=file)
    settings = settings_of(ctx, common).settings
    files = config_files(config=common.config)
    _check_references(settings)
    profiles = sorted({name for each in files for name in profiles_of(each)})
    for name in profiles:
        _check_references(settings_of(ctx, dataclasses.replace(common, profile=name)).settings)
    checked = ", ".join(str(each) for each in files) or "no config file, defaults only"
    write_note(f"valid: {checked}" + (f" (profiles: {', '.join(profiles)})" if profiles else ""))
    return 0


def _check_references(settings: Settings) -> None:
    from coa.config import resolve_environment

    for value in (settings.model_list, settings.router_settings, settings.litellm_settings, settings.redis_url):
        resolve_environment(value)


for _command in (show, path, validate):
    app.command()(expands_options(_command))
app.command()(init)
