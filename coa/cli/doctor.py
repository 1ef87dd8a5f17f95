"""`coa doctor`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import CommonOptions
from coa.cli.terminal import Colour, paint, printable, uses_colour, write_result

if TYPE_CHECKING:
    from coa.cli.api_types import CheckLike

__all__ = ["doctor", "show_checks"]

_NARROWEST = 24
"""Characters of a column that is still worth breaking lines for."""


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
    from coa.cli.render import SCHEMA_VERSION, to_json

    ok = all(check.status != "fail" for check in checks)
    if as_json:
        listed = [{"name": c.name, "status": c.status, "detail": c.detail} for c in checks]
        write_result(to_json({"schema_version": SCHEMA_VERSION, "ok": ok, "checks": listed}))
        return ok
    paints = uses_colour(sys.stdout.isatty(), colour)
    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    names = max((len(check.name) for check in checks), default=0)
    for check in checks:
        lines = _lines(" ".join(check.detail.split()), width=width, indent=len("fail  ") + names + 2)
        status = paint(check.status.ljust(4), styles[check.status], colour=paints)
        write_result(f"{status}  {check.name.ljust(names)}  {lines}".rstrip() + "\n")
    return ok


def _lines(text: str, *, width: int | None, indent: int) -> str:
    """`text` broken to stay in its column; whole where it goes to a file or the column would be narrow."""
    import textwrap

    text = printable(text)
    if width is None or width - indent < _NARROWEST:
        return text
    found = textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(found)
