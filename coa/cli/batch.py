"""`coa batch run|resume|retry|status|cancel|export|list|worker`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli import batch_results
from coa.cli.batch_options import (
    AgainOptions,
    AskedOptions,
    Batch,
    Engine,
    EngineOptions,
    Json,
    Last,
    LimitOptions,
    NoProgress,
    PaceOptions,
    Processes,
    Yes,
    named,
    processes_kept,
)
from coa.cli.options import CommonOptions, RunOptions, expands_options
from coa.cli.terminal import write_note, write_result

if TYPE_CHECKING:
    from coa.batch.ledger import Ledger
    from coa.batch.record import BatchRecord, BatchStore
    from coa.batch.results import ResultFolder
    from coa.config import Settings

__all__ = ["app"]

app = typer.Typer(help="Asks the same of many documents, without ever paying twice.", no_args_is_help=True)


def run(
    ctx: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER|GLOB|manifest.jsonl|FILE|URL|-...", help="The documents.", show_default=False),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", envvar="COA_OUT", help="Where the results go.")],
    only_changed: Annotated[
        bool,
        typer.Option("--only-changed", envvar="COA_ONLY_CHANGED", help="Don't open files that are as they were."),
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
    no_progress: NoProgress = False,
    asked: AskedOptions,
    pace: PaceOptions,
    engine: EngineOptions,
    run: RunOptions,
    common: CommonOptions,
) -> int:
    """Asks the same of each document. The same command again goes on, and takes up what is new.

    --max-cost, --max-tokens-total and --max-calls are of the whole batch.
    """
    from coa.cli.batch_running import run_on
    from coa.cli.invocation import invocation_of, settings_of

    settings = settings_of(ctx, common, run).settings
    record, goes_on = _recorded(settings, inputs, out, asked=asked, pace=pace, engine=engine)
    if run.dry_run:
        return _dry_run(settings, record, as_json=as_json)
    if not common.quiet:
        write_note(f"batch {record.batch_id}" + (" goes on" if goes_on else ""))
    return run_on(
        invocation_of(ctx),
        settings,
        record,
        colour=common.color,
        as_json=as_json,
        progress=not no_progress,
        yes=yes,
        new_documents=True,
        only_changed=only_changed,
    )


def resume(
    ctx: typer.Context,
    batch: Batch = None,
    *,
    last: Last = False,
    yes: Yes = False,
    as_json: Json = False,
    no_progress: NoProgress = False,
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, metavar="N", envvar="COA_JOBS", help="Documents at once.")
    ] = None,
    processes: Processes = None,
    limits: LimitOptions,
    common: CommonOptions,
) -> int:
    """Goes on with a batch, with the settings that it was started with. Looks for documents only where that was
    interrupted."""
    from coa.cli.batch_running import run_on
    from coa.cli.invocation import invocation_of

    settings, store, record = named(ctx, batch, common, last=last)
    options = record.options
    options = replace(options, limits=limits.instead_of(options.limits), jobs=jobs or options.jobs)
    record = _with_processes(replace(record, options=options), processes)
    store.save(record)
    return run_on(
        invocation_of(ctx), settings, record, colour=common.color, as_json=as_json, progress=not no_progress, yes=yes
    )


def retry(
    ctx: typer.Context,
    batch: Batch = None,
    *,
    last: Last = False,
    yes: Yes = False,
    as_json: Json = False,
    no_progress: NoProgress = False,
    processes: Processes = None,
    again: AgainOptions,
    common: CommonOptions,
) -> int:
    """Tries failed items again, and goes on with all that are open. What is done stays done."""
    from coa.cli.batch_running import run_on
    from coa.cli.invocation import invocation_of

    settings, store, record = named(ctx, batch, common, last=last)
    record = _with_processes(record, processes)
    config: str | None = None
    if again.model is not None:
        changed = record.with_config({"model": again.model, "window": None}, settings)
        config, record = changed.config, replace(changed, config=record.config)
        store.save(record)

    async def reopened(ledger: Ledger, results: ResultFolder) -> None:
        n = await _reopened(ledger, results, again, config=config)
        write_note(f"{n:,} items are tried again")

    return run_on(
        invocation_of(ctx),
        settings,
        record,
        colour=common.color,
        as_json=as_json,
        progress=not no_progress,
        yes=yes,
        before=reopened,
    )


def worker(
    ctx: typer.Context,
    batch: Batch = None,
    *,
    last: Last = False,
    as_json: Json = False,
    jobs: Annotated[
        int | None, typer.Option("-j", "--jobs", min=1, metavar="N", envvar="COA_JOBS", help="Documents at once.")
    ] = None,
    common: CommonOptions,
) -> int:
    """Works on a batch whose ledger is in Redis, beside any number of others, until it is over."""
    from coa.cli.batch_running import work_on
    from coa.cli.invocation import invocation_of

    settings, _, record = named(ctx, batch, common, last=last)
    return work_on(invocation_of(ctx), settings, record, jobs=jobs, as_json=as_json)


def _with_processes(record: BatchRecord, given: str | None) -> BatchRecord:
    """The record with that number of processes; as it was where none is given. Raises: ConfigError for Ray."""
    from coa.errors import ConfigError

    if given is not None and record.engine == "ray":
        raise ConfigError("--processes belongs to --engine local; this batch is on a Ray cluster.")
    return replace(record, extra={**record.extra, **processes_kept(given)})


async def _reopened(ledger: Ledger, results: ResultFolder, again: AgainOptions, *, config: str | None) -> int:
    """The number of items that are open again; what was partial, and what another `config` is for, begins anew."""
    from coa.batch.running import open_again

    n = 0
    for state in again.states():
        fresh = config is not None or state == "partial"
        n += await open_again(ledger, results, {state}, kinds=again.cause, config=config, fresh=fresh)
    return n


def _recorded(
    settings: Settings, inputs: list[str], out: Path, *, asked: AskedOptions, pace: PaceOptions, engine: EngineOptions
) -> tuple[BatchRecord, bool]:
    """The batch that the command is about, saved, and whether it was begun before.

    Raises: ConfigError where `out` is a file or another batch's, where what is asked makes no sense, and for Ray
    without Redis.
    """
    from coa.batch.record import BatchStore
    from coa.batch.sources import absolute_input
    from coa.cli.batch_options import options_of, payloads_of
    from coa.errors import ConfigError

    places = tuple(absolute_input(given, Path.cwd()) for given in inputs)
    manifest = sys.stdin.read() if "-" in inputs else ""
    listed = bool(manifest) or any(Path(given).suffix.lower() in {".jsonl", ".ndjson"} for given in inputs)
    payloads = payloads_of(asked, manifest=listed)
    target = (Path.cwd() / out.expanduser()).resolve()
    if target.exists() and not target.is_dir():
        raise ConfigError(f"--out {out}: is no folder.")
    shared = settings.redis_url is not None
    if engine.engine is Engine.RAY and not shared:
        raise ConfigError("--engine ray needs a ledger in Redis, which its actors share.", hint="Set COA_REDIS_URL.")
    options, store = options_of(pace, settings), BatchStore(settings.home)
    begun = _begun_before(store, target, settings, payloads)
    if begun is not None:
        record = replace(
            begun,
            inputs=tuple(dict.fromkeys([*begun.inputs, *places])),
            options=options,
            engine=engine.engine.value,
            manifest=manifest,
            extra=engine.extra(),
            scanned=False,
        )
        store.save(record)
        return record, True
    record = store.create(
        task=asked.task.value,
        inputs=places,
        payloads=payloads,
        out=target,
        settings=settings,
        options=options,
        engine=engine.engine.value,
        redis=shared,
        manifest=manifest,
        extra=engine.extra(),
    )
    return record, False


def _begun_before(store: BatchStore, out: Path, settings: Settings, payloads: tuple[str, ...]) -> BatchRecord | None:
    """The batch whose results are in `out`, where the command goes on with it. Raises: ConfigError where it is
    another one."""
    from coa.batch.asking import fingerprint
    from coa.batch.record import batch_named
    from coa.batch.results import ResultFolder
    from coa.errors import ConfigError

    before = batch_named(out)
    if before is None:
        return None
    record = store.get(str(out))
    differs = _differs(record, settings) if fingerprint(settings) != record.config else None
    if differs is None and payloads != record.payloads:
        differs = "what is asked"
    if differs is not None and not ResultFolder(out).lines.exists():
        return None  # nothing came of it
    if differs is not None:
        raise ConfigError(
            f"{out} holds the results of batch {before}, and {differs} is another here.",
            hint="Name another --out; or go on with `coa batch resume`, or `coa batch retry --model`.",
        )
    return record


def _differs(record: BatchRecord, settings: Settings) -> str:
    from coa.batch.asking import result_settings

    before = record.settings_of(record.config, settings)
    names = [name for name in result_settings() if getattr(before, name) != getattr(settings, name)]
    return f"the setting {names[0]}" if names else "the model"


def _dry_run(settings: Settings, record: BatchRecord, *, as_json: bool) -> int:
    """What the open items would take; documents are read and counted, and no call is made."""
    import asyncio
    from dataclasses import asdict

    from coa.batch.running import only_estimated
    from coa.cli.batch_display import expected_text
    from coa.cli.render import to_json

    expected = asyncio.run(only_estimated(record, settings))
    write_result(to_json({"batch": record.batch_id, **asdict(expected)}) if as_json else expected_text(expected) + "\n")
    return 0


app.command("run")(expands_options(run))
app.command("resume")(expands_options(resume))
app.command("retry")(expands_options(retry))
app.command("status")(expands_options(batch_results.status))
app.command("cancel")(expands_options(batch_results.cancel))
app.command("export")(expands_options(batch_results.export))
app.command("list")(expands_options(batch_results.list_batches))
app.command("worker")(expands_options(worker))
