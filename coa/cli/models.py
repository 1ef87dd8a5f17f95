"""`coa models list|pull|test`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import CommonOptions, expands_options
from coa.cli.terminal import uses_colour, write_note, write_result

if TYPE_CHECKING:
    from coa.config import Settings

__all__ = ["app"]

app = typer.Typer(help="Lists, fetches and tries models.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="As JSON.")]


def list_models(ctx: typer.Context, as_json: _Json = False, *, common: CommonOptions) -> int:
    """Lists the catalogue, other models in coa's folder, and the groups of the configuration."""
    from coa.cli.invocation import settings_of
    from coa.cli.render import table_text, to_json

    settings = settings_of(ctx, common).settings
    found = _models(settings)
    if as_json:
        write_result(to_json(found))
        return 0
    rows = [
        (
            str(model["name"]),
            str(model["parameters"] or "-"),
            _size(model["size_bytes"]),
            str(model["state"]),
            " ".join(str(part) for part in (model["licence"], model["note"]) if part),
        )
        for model in found
    ]
    if sys.stdout.isatty():
        write_result(table_text(rows, header=("MODEL", "PARAMS", "SIZE", "STATE", "LICENCE AND NOTES")))
    else:
        write_result("".join("\t".join(row) + "\n" for row in rows))
    return 0


def _models(settings: Settings) -> list[dict[str, object]]:
    """Everything that --model takes by a short name."""
    from coa.llm.catalogue import CATALOGUE
    from coa.llm.download import list_models as installed_models

    installed = {model.name: model for model in installed_models(settings.models_dir)}
    found: list[dict[str, object]] = []
    for name, entry in CATALOGUE.items():
        local = installed.pop(name, None)
        found.append(
            {
                "name": name,
                "title": entry.title,
                "parameters": entry.parameters,
                "quantisation": entry.quantisation,
                "window": entry.window,
                "size_bytes": entry.size_bytes,
                "licence": entry.licence,
                "licence_url": entry.licence_url,
                "note": entry.note,
                "state": "installed" if local is not None else "to be pulled",
                "path": str(local.path) if local is not None else None,
            }
        )
    for name, local in installed.items():
        found.append(_entry(name, "installed", path=str(local.path), size_bytes=local.path.stat().st_size))
    groups = dict.fromkeys(str(model["model_name"]) for model in settings.model_list)
    return found + [_group(name, settings) for name in groups]


def _group(name: str, settings: Settings) -> dict[str, object]:
    """A group with the kinds of its deployments; what is wrong with it where it cannot be read."""
    from coa.errors import ConfigError
    from coa.llm.deployments import group_from_model_list

    try:
        group = group_from_model_list(name, settings.model_list)
    except ConfigError as error:
        return _entry(name, "configured", note=error.message)
    deployments = group.deployments if group is not None else ()
    kinds = ", ".join(dict.fromkeys("embedded" if d.embedded else d.kind for d in deployments))
    note = f"{len(deployments)} deployments: {kinds}" if len(deployments) > 1 else kinds
    return _entry(name, "configured", window=group.window if group is not None else None, note=note)


def _entry(name: str, state: str, **known: object) -> dict[str, object]:
    keys = ("title", "parameters", "quantisation", "window", "size_bytes", "licence", "licence_url", "note", "path")
    return {"name": name, "state": state, **dict.fromkeys(keys), **known}


def _size(size_bytes: object) -> str:
    if not isinstance(size_bytes, int):
        return "-"
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def pull(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="From the catalogue; otherwise the configured model.")
    ] = None,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", envvar="COA_NO_PROGRESS", help="No progress bar on the terminal.")
    ] = False,
    *,
    common: CommonOptions,
) -> int:
    """Fetches a model into coa's folder, checks it, and prints where it is."""
    from coa.cli.invocation import settings_of
    from coa.llm.catalogue import catalogue_model
    from coa.llm.download import pull as fetch

    settings = settings_of(ctx, common).settings
    wanted = name or settings.model
    entry = catalogue_model(wanted)
    if entry is not None and not common.quiet:
        write_note(f"{entry.title}, {_size(entry.size_bytes)}, {entry.licence} ({entry.licence_url})")
    if common.quiet or no_progress or not sys.stderr.isatty():
        path = fetch(wanted, models_dir=settings.models_dir, progress=None)
    else:
        from coa.cli.progress import LoadingBar

        with LoadingBar(colour=uses_colour(True, common.color)) as bar:
            path = fetch(wanted, models_dir=settings.models_dir, progress=bar.show)
    write_result(f"{path}\n")
    return 0


def try_model(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[GROUP]", help="As --model takes it; otherwise the configured models.")
    ] = None,
    as_json: _Json = False,
    *,
    common: CommonOptions,
) -> int:
    """Makes a few real calls to each deployment and says what came of them; exit code 7 when one fails."""
    import asyncio

    from coa.cli.doctor import show_checks
    from coa.cli.invocation import invocation_of, settings_of

    overrides: dict[str, object] = {"model": name, "roles": {}} if name is not None else {}
    settings = settings_of(ctx, common, overrides=overrides).settings
    checks = asyncio.run(invocation_of(ctx).load_api().test_model(settings))
    return 0 if show_checks(checks, as_json=as_json, colour=common.color) else 7


app.command("list")(expands_options(list_models))
app.command("pull")(expands_options(pull))
app.command("test")(expands_options(try_model))
