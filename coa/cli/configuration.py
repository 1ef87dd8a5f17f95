"""`coa config show|path|init|validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coa.cli.options import CommonOptions, expands_options
from coa.cli.terminal import write_error, write_file, write_note, write_result

__all__ = ["app"]

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
    """Writes a config file with every setting, commented out and explained, and examples of models."""
    from coa.cli.config_template import template
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


def validate(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="A config file; otherwise those in force.", show_default=False)
    ] = None,
    *,
    common: CommonOptions,
) -> int:
    """Checks the config files and every profile in them, without a call; each problem is a line."""
    from coa.config_check import check_configuration

    report = check_configuration(config=file if file is not None else common.config)
    for problem in report.problems:
        write_error(problem)
    if report.problems:
        return 2
    checked = ", ".join(str(each) for each in report.files) or "no config file, defaults only"
    write_note(f"valid: {checked}" + (f" (profiles: {', '.join(report.profiles)})" if report.profiles else ""))
    return 0


for _command in (show, path, validate):
    app.command()(expands_options(_command))
app.command()(init)
