"""`coa batch run|resume|retry|status|cancel|export|list|worker`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli import batch_results
from coa.cli.batch_options import AskedOptions, Batch, Engine, Json, Last, NoProgress, PaceOptions, Yes, named
from coa.cli.options import CommonOptions, RunOptions, expands_options
from coa.cli.terminal import write_note, write_result

if TYPE_CHECKING:
    from coa.batch.record import BatchRecord, BatchStore
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
    engine: Annotated[Engine, typer.Option("--engine", envvar="COA_ENGINE", help="This process, or a Ray cluster.")] = (
        Engine.LOCAL
    ),
    actors: Annotated[
        int | None, typer.Option("--actors", min=1, metavar="N", envvar="COA_ACTORS", help="Of --engine ray.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="ADDRESS", envvar="COA_RAY_ADDRESS", help="Of the Ray cluster."),
    ] = None,
    only_changed: Annotated[
        bool,
        typer.Option("--only-changed", envvar="COA_ONLY_CHANGED", help="Don't open files that are as they were."),
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
    no_progress: NoProgress = False,
    asked: AskedOptions,
    pace: PaceOptions,
    run: RunOptions,
    common: CommonOptions,
) -> int:
    """Asks the same of each document. The same command again goes on, and takes up what is new.

    --max-cost, --max-tokens-total and --max-calls are of the whole batch.
    """
    from coa.batch.record import BatchStore
    from coa.batch.sources import absolute_input
    from coa.cli.batch_options import options_of, payloads_of
    from coa.cli.batch_running import run_on
    from coa.cli.invocation import invocation_of, settings_of
    from coa.errors import ConfigError

    settings = settings_of(ctx, common, run).settings
    places = tuple(absolute_input(given, Path.cwd()) for given in inputs)
    manifest = sys.stdin.read() if "-" in inputs else ""
    listed = bool(manifest) or any(Path(given).suffix.lower() in {".jsonl", ".ndjson"} for given in inputs)
    payloads = payloads_of(asked, manifest=listed)
    target = (Path.cwd() / out.expanduser()).resolve()
    if target.exists() and not target.is_dir():
        raise ConfigError(f"--out {out}: is no folder.")
    options = options_of(pace, settings)
    store = BatchStore(settings.home)
    extra = {"actors": actors, "ray_address": ray_address} if engine is Engine.RAY else {}
    shared = settings.redis_url is not None
    if engine is Engine.RAY and not shared:
        raise ConfigError("--engine ray needs a ledger in Redis, which its actors share.", hint="Set COA_REDIS_URL.")
    begun = _begun_before(store, target, settings, payloads)
    if begun is None:
        record = store.create(
            task=asked.task.value,
            inputs=places,
            payloads=payloads,
            out=target,
            settings=settings,
            options=options,
            engine=engine.value,
            redis=shared,
            manifest=manifest,
            extra=extra,
        )
    else:
        inputs_now = tuple(dict.fromkeys([*begun.inputs, *places]))
        record = replace(begun, inputs=inputs_now, options=options, engine=engine.value, manifest=manifest, extra=extra)
        store.save(record)
    if run.dry_run:
        return _dry_run(settings, record, as_json=as_json)
    write = not common.quiet
    if write:
        write_note(f"batch {record.batch_id}" + (" goes on" if begun is not None else ""))
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
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", min=0, metavar="USD", help="Of the whole batch, from now on.")
    ] = None,
    max_tokens_total: Annotated[
        int | None, typer.Option("--max-tokens-total", min=1, metavar="N", help="The same in tokens, in and out.")
    ] = None,
    max_calls: Annotated[int | None, typer.Option("--max-calls", min=1, metavar="N", help="The same in calls.")] = None,
    common: CommonOptions,
) -> int:
    """Goes on with a batch, with the settings that it was started with. No document is looked for anew."""
    from coa.cli.batch_running import run_on
    from coa.cli.invocation import invocation_of

    settings, store, record = named(ctx, batch, common, last=last)
    limits, options = record.options.limits, record.options
    limits = limits._replace(
        max_cost_usd=limits.max_cost_usd if max_cost is None else max_cost,
        max_tokens=max_tokens_total or limits.max_tokens,
        max_calls=max_calls or limits.max_calls,
    )
    record = replace(record, options=replace(options, limits=limits, jobs=jobs or options.jobs))
    store.save(record)
    return run_on(
        invocation_of(ctx), settings, record, colour=common.color, as_json=as_json, progress=not no_progress, yes=yes
    )


def retry(
    ctx: typer.Context,
    batch: Batch = None,
    *,
    last: Last = False,
    failed: Annotated[bool, typer.Option("--failed", help="Items that failed [default].")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Items that are partial, anew.")] = False,
    cause: Annotated[
        list[str] | None,
        typer.Option("--cause", metavar="KIND", help="Only those of this kind of cause; may be repeated."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="GROUP", help="Another model for these items.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
    no_progress: NoProgress = False,
    common: CommonOptions,
) -> int:
    """Tries failed items again, and goes on with all that are open. What is done stays done."""
    from coa.batch.opening import open_ledger
    from coa.batch.results import ResultFolder
    from coa.batch.running import open_again
    from coa.cli.batch_running import run_on
    from coa.cli.invocation import invocation_of

    settings, store, record = named(ctx, batch, common, last=last)
    config: str | None = None
    if model is not None:
        changed = record.with_config({"model": model, "window": None}, settings)
        config, record = changed.config, replace(changed, config=record.config)
        store.save(record)

    async def reopened() -> None:
        ledger = await open_ledger(record, settings, store)
        results = ResultFolder(Path(record.out))
        n = 0
        try:
            if failed or not partial:
                n += await open_again(ledger, results, {"failed"}, kinds=cause, config=config, fresh=model is not None)
            if partial:
                n += await open_again(ledger, results, {"partial"}, kinds=cause, config=config, fresh=True)
        finally:
            await ledger.close()
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
