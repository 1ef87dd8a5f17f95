"""Groups of commands whose module is imported when one of them is called for: `coa --help` needs their names alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
import typer.main
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["late_group"]


def late_group(module: str, *, help: str) -> typer.Typer:
    """A Typer that stands for `app` of the module, and shows `help` before that is imported."""

    class Late(TyperGroup):
        _commands: Mapping[str, Any] | None = None

        @property
        def commands(self) -> Any:
            if self._commands is None:
                group: Any = typer.main.get_command(import_module(module).app)
                self._commands = group.commands
            return self._commands

        @commands.setter
        def commands(self, _none: Any) -> None:
            """What the group is made with: nothing."""

    return typer.Typer(cls=Late, help=help, no_args_is_help=True)
