"""`coa cache warm`: has a book read before anybody asks about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import Book, CommonOptions, RunOptions

if TYPE_CHECKING:
    from coa.cli.api_types import WarmedLike
    from coa.cli.invocation import Invocation
    from coa.cli.progress import Display
    from coa.config import Settings
    from coa.types import Document

__all__ = ["warm"]


def warm(
    ctx: typer.Context,
    book: Book,
    as_json: Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="The result as JSON.")] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", envvar="COA_NO_PROGRESS", help="No progress bar on the terminal.")
    ] = False,
    *,
    run: RunOptions,
    common: CommonOptions,
) -> int:
    """Has the model read BOOK now, so that questions find its chunks computed.

    Say the options that questions will have: another model or window means other chunks.
    """
    import asyncio

    from coa.cli.book import read_book
    from coa.cli.invocation import invocation_of, settings_of
    from coa.cli.render import to_json
    from coa.cli.session import INCOMPLETE, display_for
    from coa.cli.terminal import write_note, write_result
    from coa.errors import ConfigError

    settings = settings_of(ctx, common, run).settings
    invocation = invocation_of(ctx)
    if not settings.kv_cache:
        raise ConfigError("kv_cache is off, so nothing would be kept.", hint="Leave out --no-cache, or set kv_cache.")
    document = read_book(book, settings)
    if run.dry_run:
        n_chunks = asyncio.run(_n_chunks(invocation, settings, document))
        write_result(to_json({"chunks": n_chunks}) if as_json else f"{n_chunks} chunks\n")
        return 0
    display = display_for(invocation, common.color, progress=not no_progress)
    try:
        warmed = asyncio.run(_warmed(invocation, settings, document, display, quiet=common.quiet))
    finally:
        display.close()
    if as_json:
        told = ("chunks", "ready", "found", "computed_tokens", "seconds")
        write_result(to_json({name: getattr(warmed, name) for name in told}))
    elif not common.quiet:
        write_note(_summary(warmed))
    return 0 if warmed.ready == warmed.chunks else INCOMPLETE


async def _n_chunks(invocation: Invocation, settings: Settings, document: Document) -> int:
    async with invocation.load_api().Session(settings) as session:
        return (await session.plan(document, None)).n_chunks


async def _warmed(
    invocation: Invocation, settings: Settings, document: Document, display: Display, *, quiet: bool
) -> WarmedLike:
    """What reading ahead took; `display` shows how far it is."""
    from coa.cli.progress import Tally
    from coa.cli.terminal import write_note
    from coa.events import Event, StageChanged, WarningRaised

    tally = Tally()

    def on_event(event: Event) -> None:
        if isinstance(event, WarningRaised):
            display.close()
            if not quiet:
                write_note(event.message, label="warning:")
        else:
            display.show(event, tally)

    def on_progress(done: int, total: int) -> None:
        tally.n_done, tally.n_chunks = done, total
        display.show(StageChanged(f"chunk {done} of {total}"), tally)

    async with invocation.load_api().Session(settings, on_event=on_event) as session:
        return await session.warm(document, on_progress=on_progress)


def _summary(warmed: WarmedLike) -> str:
    computed = warmed.ready - warmed.found
    text = f"{warmed.ready} of {warmed.chunks} chunks are in place: {computed} computed"
    text += f" ({warmed.computed_tokens:,} tokens), {warmed.found} were there before | {warmed.seconds:.1f} s"
    if warmed.ready < warmed.chunks:
        text += " | -v says why some are not"
    return text
