"""One run of the command line: what its parts share, and the seams that tests replace."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from coa.cli.terminal import write_note

if TYPE_CHECKING:
    from coa.cli.api_types import Api
    from coa.cli.options import CommonOptions, RunOptions
    from coa.config import LoadedSettings

__all__ = ["Invocation", "invocation_of", "settings_of"]


def _load_api() -> Api:
    return importlib.import_module("coa.api")


@dataclass
class Invocation:
    """State of one `coa ...`; `ctx.obj` of every command."""

    load_api: Callable[[], Api] = _load_api
    verbosity: int = 0
    """Times -v was given."""
    quiet: bool = False


def invocation_of(ctx: typer.Context) -> Invocation:
    """The invocation that the command belongs to."""
    found = ctx.find_object(Invocation)
    return found if found is not None else Invocation()


def settings_of(
    ctx: typer.Context,
    common: CommonOptions,
    run: RunOptions | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
) -> LoadedSettings:
    """The settings in force for a command, `overrides` among its flags; also takes over -v and --quiet."""
    from coa.config import load_settings

    invocation = invocation_of(ctx)
    invocation.verbosity = common.verbose
    invocation.quiet = common.quiet
    _set_up_logging(common.verbose, quiet=common.quiet)
    loaded = load_settings(
        config=common.config, profile=common.profile, overrides={**_flags(ctx, run), **(overrides or {})}
    )
    if "coa.log_format" in sys.modules:
        from coa.log_format import hide
        from coa.secrets import secret_strings

        hide(secret_strings(loaded.settings.model_dump()))
    return loaded


def _flags(ctx: typer.Context, run: RunOptions | None) -> dict[str, object]:
    """Settings given as flags; what came from `COA_*` is left to load_settings, so that it names its origin."""
    if run is None:
        return {}
    names = {
        "model": "model",
        "strategy": "strategy",
        "window": "window",
        "reader": "reader",
        "chunk_tokens": "chunk_tokens",
        "notes": "notes",
        "note_tokens": "note_tokens",
        "answer_tokens": "answer_tokens",
        "max_cost": "max_cost_usd",
        "max_tokens_total": "max_tokens_total",
        "max_calls": "max_calls",
        "response_cache": "response_cache",
        "passes": "passes",
        "demos": "demos",
        "paths": "paths",
        "choose": "choose",
        "rounds": "rounds",
        "top_k": "top_k",
        "preselect": "preselect",
        "review": "review",
        "verify": "verify",
        "strict": "strict",
    }
    flags: dict[str, object] = {}
    for option, key in names.items():
        source = ctx.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            flags[key] = getattr(run, option)
    if flags.get("response_cache") is False:  # --no-cache: neither kept replies nor kept attention KV
        flags["kv_cache"] = False
    return flags


def _set_up_logging(verbosity: int, *, quiet: bool) -> None:
    form = os.environ.get("COA_LOG_FORMAT", "")
    if verbosity or form or "coa.log_format" in sys.modules:
        from coa.log_format import set_up_logging

        set_up_logging(verbosity, form=form, quiet=quiet)
    if any(name.startswith("OTEL_") for name in os.environ):
        from coa.llm.tracing import set_up_tracing

        problem = set_up_tracing()
        if problem is not None:
            write_note(f"warning: {problem}")
