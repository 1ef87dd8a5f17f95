"""`coa batch status|cancel|export|list`: what looks at a batch from outside."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coa.cli.batch_options import Batch, Json, Last, named
from coa.cli.options import CommonOptions
from coa.cli.terminal import printable, write_note, write_result

if TYPE_CHECKING:
    from coa.batch.record import BatchRecord
    from coa.config import Settings

__all__ = ["cancel", "export", "list_batches", "status"]


class ExportForm(StrEnum):
    """Values of --format."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    HTML = "html"


def status(
    ctx: typer.Context,
    batch: Batch = None,
    *,
    last: Last = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", envvar="COA_WATCH", help="Stay, and show how it goes on.")
    ] = False,
    as_json: Json = False,
    common: CommonOptions,
) -> int:
    """Shows how far a batch is: counts, tokens, cost, causes. Exit code 3 where items failed or are partial."""
    import asyncio

    from coa.cli.batch_display import status_text
    from coa.cli.render import to_json

    settings, _, record = named(ctx, batch, common, last=last or batch is None)
    if watch and sys.stdout.isatty():
        asyncio.run(_watched(record, settings))
    found = asyncio.run(_status(record, settings))
    write_result(to_json(found) if as_json else status_text(found))
    return 3 if found["counts"]["failed"] or found["counts"]["partial"] else 0


def cancel(ctx: typer.Context, batch: Batch = None, *, last: Last = False, common: CommonOptions) -> int:
    """Stops a batch wherever it runs, after the chunks in hand. `coa batch resume` goes on with it."""
    import asyncio

    from coa.batch.opening import open_ledger

    settings, store, record = named(ctx, batch, common, last=last)

    async def cancelled() -> int:
        ledger = await open_ledger(record, settings, store)
        try:
            await ledger.set_control("cancelled")
            return (await ledger.status()).open
        finally:
            await ledger.close()

    n_open = asyncio.run(cancelled())
    write_note(f"batch {record.batch_id} is cancelled; {n_open:,} items are left")
    return 0


def export(
    ctx: typer.Context,
    batch: Batch = None,
    *,
    last: Last = False,
    form: Annotated[
        ExportForm | None,
        typer.Option("--format", "-f", envvar="COA_EXPORT_FORMAT", help="By default, by the file's ending."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", envvar="COA_OUTPUT", help="[default: among the results]"),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", envvar="COA_EXPORT_STATE", help="done, partial or failed; may be repeated."
        ),
    ] = None,
    common: CommonOptions,
) -> int:
    """Writes the results as a table: CSV, JSON lines, Parquet (extra `parquet`), or a page to look through."""
    import asyncio

    from coa.batch import exporting
    from coa.batch.ledger import ENDED
    from coa.batch.opening import open_ledger
    from coa.errors import ConfigError

    settings, store, record = named(ctx, batch, common, last=last or batch is None)
    chosen = form or _form_of(output)
    if state and not set(state) <= set(ENDED):
        raise ConfigError(f"--state: expected {', '.join(ENDED)}.")
    target = output if output is not None else Path(record.out) / f"export.{chosen.value}"
    states = None if not state else [known for known in ENDED if known in state]

    async def exported() -> int:
        ledger = await open_ledger(record, settings, store)
        try:
            return await exporting.export(record, ledger, target, form=chosen.value, states=states)
        finally:
            await ledger.close()

    n = asyncio.run(exported())
    write_note(f"{n:,} rows")
    write_result(f"{target}\n")
    return 0


def _form_of(output: Path | None) -> ExportForm:
    from coa.errors import ConfigError

    by_ending = {f".{each.value}": each for each in ExportForm}
    chosen = ExportForm.CSV if output is None else by_ending.get(output.suffix.lower())
    if chosen is None:
        raise ConfigError(f"-o {output}: the ending says no format.", hint="Give --format csv, jsonl, parquet or html.")
    return chosen


def list_batches(ctx: typer.Context, *, as_json: Json = False, common: CommonOptions) -> int:
    """Lists the batches, the newest first."""
    import asyncio

    from coa.batch.record import BatchStore
    from coa.cli.invocation import settings_of
    from coa.cli.render import table_text, to_json

    settings = settings_of(ctx, common).settings
    found = [asyncio.run(_listed(record, settings)) for record in BatchStore(settings.home).list()]
    if as_json:
        write_result(to_json(found))
        return 0
    rows = [_row(each) for each in found]
    if sys.stdout.isatty() and not rows:
        write_note("no batches yet")
    elif sys.stdout.isatty():
        write_result(table_text(rows, header=("BATCH", "STATE", "DONE", "FAILED", "STARTED", "TASK", "RESULTS")))
    else:
        write_result("".join("\t".join(row) + "\n" for row in rows))
    return 0


async def _status(record: BatchRecord, settings: Settings) -> dict[str, Any]:
    from coa.batch.opening import open_ledger
    from coa.batch.record import BatchStore
    from coa.batch.summary import status_object

    ledger = await open_ledger(record, settings, BatchStore(settings.home))
    try:
        return status_object(record, await ledger.status())
    finally:
        await ledger.close()


async def _listed(record: BatchRecord, settings: Settings) -> dict[str, Any]:
    """As `_status`; a ledger that cannot be read is told in its place, and hides none of the others."""
    from coa.errors import CoaError

    try:
        return await _status(record, settings)
    except CoaError as error:
        told = {"created": record.created, "task": record.task, "out": record.out}
        return {"batch": record.batch_id, "state": f"unknown ({error.message})", "counts": {}, **told}


async def _watched(record: BatchRecord, settings: Settings) -> None:
    """Shows the counters until nothing is open or nobody works on it any more."""
    import asyncio

    from rich.console import Console
    from rich.live import Live

    from coa.batch.opening import open_ledger
    from coa.batch.record import BatchStore
    from coa.cli.batch_display import status_table

    ledger = await open_ledger(record, settings, BatchStore(settings.home))
    try:
        with Live(console=Console(highlight=False), refresh_per_second=4, transient=True) as live:
            while (found := await ledger.status()).open and found.control == "run":
                live.update(status_table(found))
                await asyncio.sleep(1)
    finally:
        await ledger.close()


def _row(found: Mapping[str, Any]) -> tuple[str, ...]:
    counts = found["counts"]
    total = sum(counts.values())
    return (
        found["batch"],
        found["state"],
        f"{counts.get('done', 0)}/{total}",
        str(counts.get("failed", 0) + counts.get("partial", 0)),
        found["created"][:19],
        found["task"],
        printable(found["out"]),
    )
