"""`coa serve`: the service on this machine or the network, or an MCP server over stdio."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from coa.cli.options import CommonOptions, RunOptions

__all__ = ["serve"]


def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(envvar="COA_SERVE_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, envvar="COA_SERVE_PORT", help="0 takes a free one.")] = 8321,
    mcp: Annotated[
        bool, typer.Option("--mcp", envvar="COA_SERVE_MCP", help="MCP over stdio in place of HTTP.")
    ] = False,
    *,
    max_runs: Annotated[int, typer.Option(min=1, envvar="COA_SERVE_MAX_RUNS", help="Runs at once.")] = 64,
    max_seconds: Annotated[
        float, typer.Option(min=1, envvar="COA_SERVE_MAX_SECONDS", help="Of one run; it can be gone on with.")
    ] = 3600,
    run: RunOptions,
    common: CommonOptions,
) -> int:
    """Serves questions over HTTP, with events as they come, or as tools of an assistant (--mcp).

    Outside this machine's own addresses a token is needed: COA_SERVE_TOKEN.
    """
    from coa.cli.invocation import settings_of
    from coa.cli.terminal import write_note
    from coa.errors import ConfigError

    settings = settings_of(ctx, common, run).settings
    try:
        if mcp:
            from coa.serve.mcp import create_mcp_server

            create_mcp_server(settings).run("stdio")
            return 0
        from coa.serve import ServeLimits, create_app
        from coa.serve.guard import checked_token
        from coa.serve.process import bound_socket, run_app
    except ImportError as error:
        raise ConfigError(
            f"serving needs {error.name}, which is not installed.", hint="pip install 'coa-orchestrator[serve]'"
        ) from error
    token = checked_token(host, os.environ.get("COA_SERVE_TOKEN") or None)
    app = create_app(settings, token=token, limits=ServeLimits(max_runs=max_runs, max_seconds=max_seconds), warm=True)
    with bound_socket(host, port) as sock:
        shown = f"[{host}]" if ":" in host else host
        told = f"coa listens on http://{shown}:{sock.getsockname()[1]} (OpenAPI: /openapi.json); Ctrl-C ends it"
        run_app(app, sock, verbose=common.verbose > 0, on_ready=lambda: write_note(told))
    return 0
