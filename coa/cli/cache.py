"""`coa cache stats|warm|prune|clear|dir|lmcache-config`: what coa keeps so as not to compute or pay it again."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from coa.cli.options import CommonOptions, expands_options
from coa.cli.terminal import write_note, write_result
from coa.cli.warm import warm

if TYPE_CHECKING:
    from coa.config import Settings
    from coa.llm.response_store import ResponseStore, StoreStats

__all__ = ["app"]

app = typer.Typer(help="Shows and clears what is kept between runs.", no_args_is_help=True)

_T = TypeVar("_T")
_DAY_S = 86_400


class Section(StrEnum):
    """What is kept."""

    RESPONSES = "responses"
    STATES = "states"


_Sections = Annotated[
    list[Section] | None, typer.Argument(metavar="[WHAT]...", help="responses, states; otherwise both.")
]


def stats(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="As JSON.")] = False,
    *,
    common: CommonOptions,
) -> int:
    """Shows what is kept: replies by model, states by book and how much of prompts they saved; why some did not."""
    from coa.cli import kept_states
    from coa.cli.invocation import settings_of
    from coa.cli.render import to_json

    settings = settings_of(ctx, common).settings
    found = _with_responses(settings, lambda store: store.stats())
    kept = kept_states.kept_states(settings)
    if as_json:
        write_result(to_json({"responses": _object(found), "states": kept_states.states_object(kept)}))
    elif sys.stdout.isatty():
        write_result(_text(found) + kept_states.states_text(kept, _size))
    else:
        rows: list[tuple[str, ...]] = [
            (Section.RESPONSES, model, *map(str, share)) for model, share in found.models.items()
        ]
        rows += kept_states.states_rows(kept)
        write_result("".join("\t".join(row) + "\n" for row in rows))
    return 0


def prune(
    ctx: typer.Context,
    what: _Sections = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-bytes",
            min=0,
            metavar="N",
            envvar="COA_CACHE_MAX_BYTES",
            help="Of replies and of states, down to so much each; otherwise as configured.",
        ),
    ] = None,
    unused_days: Annotated[
        float | None,
        typer.Option(
            "--unused-days",
            min=0,
            metavar="DAYS",
            envvar="COA_CACHE_UNUSED_DAYS",
            help="What was not used for so long.",
        ),
    ] = None,
    *,
    common: CommonOptions,
) -> int:
    """Removes what was not used for longest."""
    from coa.cli.invocation import settings_of

    settings = settings_of(ctx, common).settings
    unused_s = None if unused_days is None else unused_days * _DAY_S
    return _removed(settings, what, max_bytes, unused_s=unused_s)


def clear(ctx: typer.Context, what: _Sections = None, *, common: CommonOptions) -> int:
    """Removes all of it; nothing but time and money is lost."""
    from coa.cli.invocation import settings_of

    return _removed(settings_of(ctx, common).settings, what, None, everything=True)


def folder(
    ctx: typer.Context,
    what: Annotated[
        Section | None, typer.Argument(metavar="[WHAT]", help="states; otherwise the folder of everything.")
    ] = None,
    *,
    common: CommonOptions,
) -> int:
    """Prints the folder of what is kept on disk."""
    from coa.cli.invocation import settings_of
    from coa.llm.response_file import responses_file

    settings = settings_of(ctx, common).settings
    path = settings.kv_dir if what is Section.STATES else responses_file(settings.home).parent
    write_result(f"{path}\n")
    return 0


def lmcache_config(ctx: typer.Context, *, common: CommonOptions) -> int:
    """Prints a configuration with which vLLM keeps what it computes in the configured Redis (LMCache)."""
    from coa.cache.lmcache import lmcache_config
    from coa.cli.invocation import settings_of
    from coa.config import resolve_environment
    from coa.errors import ConfigError

    url = resolve_environment(settings_of(ctx, common).settings.redis_url)
    if url is None:
        raise ConfigError("no Redis is configured.", hint="Set redis_url, or COA_REDIS_URL.")
    write_result(lmcache_config(url))
    return 0


def _removed(
    settings: Settings,
    what: list[Section] | None,
    max_bytes: int | None,
    *,
    unused_s: float | None = None,
    everything: bool = False,
) -> int:
    if not what or Section.RESPONSES in what:
        limit = settings.response_cache_bytes if max_bytes is None else max_bytes
        limit = 0 if everything else limit
        entries, size = _with_responses(settings, lambda store: store.prune(limit, unused_s=unused_s))
        write_note(f"removed {entries} {'reply' if entries == 1 else 'replies'}, {_size(size)}")
    if not what or Section.STATES in what:
        from coa.cli.kept_states import remove_states

        states, size = remove_states(settings, max_bytes, unused_s=unused_s, everything=everything)
        write_note(f"removed {states} {'state' if states == 1 else 'states'}, {_size(size)}")
    return 0


def _with_responses(settings: Settings, work: Callable[[ResponseStore], Awaitable[_T]]) -> _T:
    """What `work` gives for the store that calls use."""
    import asyncio

    from coa.cache.responses import responses_for
    from coa.llm.response_file import FileResponses, responses_file

    async def worked() -> _T:
        limit = settings.response_cache_bytes
        store = responses_for(settings, patient=True) or FileResponses(responses_file(settings.home), limit)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(worked())


def _object(found: StoreStats) -> dict[str, object]:
    return {
        "place": found.place,
        "limit_bytes": found.limit_bytes,
        **found.total._asdict(),
        "models": {model: share._asdict() for model, share in found.models.items()},
    }


def _text(found: StoreStats) -> str:
    from coa.cli.render import table_text

    entries, size, hits = found.total
    head = f"responses: {entries:,} kept, {_size(size)} of {_size(found.limit_bytes)}, given again {hits:,} times\n"
    rows = [(model, f"{s.entries:,}", _size(s.bytes), f"{s.hits:,}") for model, s in found.models.items()]
    table = table_text(rows, header=("MODEL", "KEPT", "SIZE", "GIVEN AGAIN")) if rows else ""
    return f"{head}{table}{found.place}\n"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


app.command("stats")(expands_options(stats))
app.command("prune")(expands_options(prune))
app.command("clear")(expands_options(clear))
app.command("dir")(expands_options(folder))
app.command("warm")(expands_options(warm))
app.command("lmcache-config")(expands_options(lmcache_config))
