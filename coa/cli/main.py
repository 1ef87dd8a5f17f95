"""The entry point: assembles the commands, and turns every error into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
import typer.main

from coa.cli import ask, check, configuration, doctor, graph, inspect, models, runs, serve, structure
from coa.cli.invocation import Invocation
from coa.cli.late_group import late_group
from coa.cli.options import expands_options
from coa.cli.terminal import BROKEN_PIPE, INTERRUPTED, write_error, write_note
from coa.errors import CoaError

__all__ = ["main", "run"]

# Plain help: rich's takes 0.1 s longer to start.
app = typer.Typer(
    name="coa",
    help="Reads documents longer than a model's window: workers read the chunks in order, a manager answers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

# The common ancestor of typer's usage errors; typer has no public name for it that all its versions share.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("coa-orchestrator")
        except PackageNotFoundError:
            found = "unknown (not installed)"
        typer.echo(f"coa {found}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(expands_options(ask.ask))
app.command()(expands_options(ask.summarize))
app.command()(expands_options(structure.structure))
app.command()(expands_options(check.check))
app.command(name="inspect")(expands_options(inspect.inspect))
app.command()(expands_options(ask.resume))
app.add_typer(
    late_group("coa.cli.batch", help="Asks the same of many documents, without ever paying twice."), name="batch"
)
app.add_typer(runs.app, name="runs")
app.add_typer(graph.app, name="graph")
app.add_typer(models.app, name="models")
app.add_typer(late_group("coa.cli.cache", help="Shows and clears what is kept between runs."), name="cache")
app.add_typer(configuration.app, name="config")
app.add_typer(late_group("coa.cli.eval", help="Measures strategies on questions with known answers."), name="eval")
app.command()(expands_options(doctor.doctor))
app.command()(expands_options(serve.serve))


def run(args: Sequence[str], invocation: Invocation | None = None) -> int:
    """Runs one command line and gives its exit code; errors are told on stderr."""
    invocation = invocation or Invocation()
    command = typer.main.get_command(app)
    try:
        with command.make_context("coa", list(args), obj=invocation) as context:
            result = command.invoke(context)
        return result if isinstance(result, int) else 0
    except typer.Exit as exc:
        return exc.exit_code
    except _UsageError as exc:
        return _usage_error(exc)
    except CoaError as exc:
        _show_traceback(invocation)
        write_error(str(exc))
        return exc.exit_code
    except (KeyboardInterrupt, typer.Abort):
        write_note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as exc:
        _show_traceback(invocation)
        more = "" if invocation.verbosity > 1 else " (-vv shows the traceback)"
        write_error(f"unexpected {type(exc).__name__}: {exc}{more}")
        return 1


def _usage_error(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        write_note(message)
    else:
        where = f" Try `{context.command_path} --help`." if context is not None else ""
        write_error(message + where)
    return int(getattr(error, "exit_code", 2))


def _show_traceback(invocation: Invocation) -> None:
    if invocation.verbosity > 1:
        import traceback

        traceback.print_exc()


def main() -> None:
    """The `coa` command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")
    if "_COA_COMPLETE" in os.environ:
        app(prog_name="coa")
    sys.exit(run(sys.argv[1:]))
