"""`coa graph list|show`: the strategies and their graphs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coa.cli.terminal import write_result

__all__ = ["app"]

app = typer.Typer(help="Shows the reading strategies as graphs.", no_args_is_help=True)


def list_graphs(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="As JSON.")] = False
) -> int:
    """Lists the strategies, those of installed packages among them."""
    from coa.cli.invocation import invocation_of
    from coa.cli.render import table_text, to_json

    found = invocation_of(ctx).load_api().list_strategies()
    if as_json:
        write_result(to_json([{"name": s.name, "description": s.description, "agents": s.agents} for s in found]))
    elif sys.stdout.isatty():
        write_result(table_text([(s.name, s.description) for s in found], header=("STRATEGY", "WHAT IT DOES")))
    else:
        write_result("".join(f"{s.name}\t{s.description}\n" for s in found))
    return 0


def show_graph(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The strategy.", show_default=False)],
    mermaid: Annotated[bool, typer.Option("--mermaid", envvar="COA_MERMAID", help="The graph as Mermaid.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", envvar="COA_SCHEMA", help="Input, output and context as JSON.")
    ] = False,
) -> int:
    """Shows one strategy: what it does, its nodes, which agents it needs."""
    from coa.cli.invocation import invocation_of
    from coa.cli.render import table_text, to_json
    from coa.errors import ConfigError

    if mermaid and schema:
        raise ConfigError("--mermaid and --schema are one or the other.")
    found = invocation_of(ctx).load_api().show_strategy(name)
    if mermaid:
        write_result(found.mermaid)
    elif schema:
        write_result(to_json(found.schemas))
    else:
        rows = [
            ("strategy", found.name),
            ("does", found.description),
            ("nodes", ", ".join(found.nodes)),
            ("agents", ", ".join(found.agents)),
            ("takes", ", ".join(found.schemas["input"]["properties"])),
            ("gives", ", ".join(found.schemas["output"]["properties"])),
        ]
        write_result(table_text(rows))
    return 0


app.command(name="list")(list_graphs)
app.command(name="show")(show_graph)
