"""`coa doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import CommonOptions
from coa.cli.terminal import Colour, paint, uses_colour, write_result

if TYPE_CHECKING:
    from coa.cli.api_types import CheckLike

__all__ = ["doctor", "show_checks"]


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="As JSON.")] = False,
    *,
    common: CommonOptions,
) -> int:
    """Checks installation, settings and model; exit code 1 when one fails."""
    import asyncio

    from coa.cli.invocation import invocation_of, settings_of

    settings = settings_of(ctx, common).settings
    checks = asyncio.run(invocation_of(ctx).load_api().diagnose(settings))
    return 0 if show_checks(checks, as_json=as_json, colour=common.color) else 1


def show_checks(checks: Sequence[CheckLike], *, as_json: bool, colour: Colour) -> bool:
    """Prints the checks; True when none failed."""
    from coa.cli.render import SCHEMA_VERSION, table_text, to_json

    ok = all(check.status != "fail" for check in checks)
    if as_json:
        listed = [{"name": c.name, "status": c.status, "detail": c.detail} for c in checks]
        write_result(to_json({"schema_version": SCHEMA_VERSION, "ok": ok, "checks": listed}))
        return ok
    paints = uses_colour(sys.stdout.isatty(), colour)
    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    text = table_text([(c.status.ljust(4), c.name, " ".join(c.detail.split())) for c in checks])
    lines = text.splitlines(keepends=True)
    for check, line in zip(checks, lines, strict=True):
        status = paint(line[:4], styles[check.status], colour=paints)
        write_result(status + line[4:])
    return ok
