"""`coa models list|pull|test`."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer(help="Lists, fetches and tries models.", no_args_is_help=True)


@app.callback()
def _models() -> None:
    pass
