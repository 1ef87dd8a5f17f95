"""`coa runs list|show|rm|path`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coa.cli.options import CommonOptions, expands_options
from coa.cli.terminal import check_writable, uses_colour, write_file, write_note, write_result

if TYPE_CHECKING:
    from coa.report.facts import Entry
    from coa.runs import RunRecord, RunStore

__all__ = ["app"]

app = typer.Typer(help="Lists, shows and removes the runs that are kept.", invoke_without_command=True)

_PIPED_WIDTH = 120

_Json = Annotated[bool, typer.Option("--json", envvar="COA_JSON", help="As JSON.")]


@app.callback()
@expands_options
def _runs(ctx: typer.Context, as_json: _Json = False, *, common: CommonOptions) -> int:
    if ctx.invoked_subcommand is None:
        return _list(ctx, common, as_json=as_json)
    return 0


def _store(ctx: typer.Context, common: CommonOptions) -> RunStore:
    from coa.cli.invocation import settings_of
    from coa.runs import RunStore

    return RunStore(settings_of(ctx, common).settings.home)


def list_runs(ctx: typer.Context, as_json: _Json = False, *, common: CommonOptions) -> int:
    """Lists the runs, the newest first."""
    return _list(ctx, common, as_json=as_json)


def _list(ctx: typer.Context, common: CommonOptions, *, as_json: bool) -> int:
    from coa.cli.render import table_text, to_json

    store = _store(ctx, common)
    records = [_up_to_date(store, record) for record in store.list()]
    if as_json:
        write_result(to_json([_record_object(record) for record in records]))
        return 0
    rows = [_row(record) for record in records]
    header = ("RUN", "STATE", "CHUNKS", "STARTED", "MODEL", "DOCUMENT", "QUESTION")
    terminal = sys.stdout.isatty()
    if terminal and not rows:
        write_note("no runs yet")
    elif terminal:
        write_result(table_text(rows, header=header))
    else:
        write_result("".join("\t".join(row) + "\n" for row in rows))
    return 0


def _up_to_date(store: RunStore, record: RunRecord) -> RunRecord:
    """The record with its chunks counted anew: a killed process leaves the count of its start."""
    from dataclasses import replace

    unfinished = record.state not in ("done", "partial")
    return replace(record, n_done=store.n_done(record.run_id)) if unfinished else record


def _row(record: RunRecord) -> tuple[str, ...]:
    asked = record.question if record.question is not None else f"({record.task})"
    return (
        record.run_id,
        record.state,
        f"{record.n_done}/{record.n_chunks}",
        record.created[:19],
        record.model,
        _one_line(record.document),
        _one_line(asked),
    )


def _one_line(text: str) -> str:
    from coa.cli.terminal import printable

    return printable(" ".join(text.split()))


def _record_object(record: RunRecord) -> dict[str, object]:
    from coa.config import masked

    return {
        "run_id": record.run_id,
        "task": record.task,
        "state": record.state,
        "created": record.created,
        "updated": record.updated,
        "document": record.document,
        "document_sha256": record.document_sha256,
        "question": record.question,
        "strategy": record.strategy,
        "model": record.model,
        "chunks": record.n_chunks,
        "done": record.n_done,
        "error": record.error,
        "expected": None if record.estimate is None else asdict(record.estimate),
        "settings": masked(record.settings),
    }


def show(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(help="The run, or the beginning of its id.", show_default=False)],
    *,
    notes: Annotated[
        bool, typer.Option("--notes", "--show-notes", envvar="COA_SHOW_NOTES", help="Show the notes whole, too.")
    ] = False,
    as_json: _Json = False,
    html: Annotated[
        bool, typer.Option("--html", envvar="COA_HTML", help="As one HTML page, the text with its marked places in it.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", envvar="COA_OUTPUT", help="Write to FILE, whole or not at all."),
    ] = None,
    common: CommonOptions,
) -> int:
    """Shows one run: its state, its steps with their notes and cache hits, and its answer if there is one."""
    if output is not None:
        check_writable(output)
    store = _store(ctx, common)
    record = _up_to_date(store, store.get(run))
    if html:
        text = _page(store, record)
    else:
        text = _shown_as_json(store, record, notes=notes) if as_json else _shown(store, record, common, output, notes)
    if output is None:
        write_result(text)
    else:
        write_file(output, text)
    if record.state not in ("done", "partial", "running"):
        write_note(f"go on with: coa resume {record.run_id}")
    return 0


def _page(store: RunStore, record: RunRecord) -> str:
    from coa.report.facts import facts_of
    from coa.report.run_page import run_page

    return run_page([facts_of(store, record.run_id)])


def _shown_as_json(store: RunStore, record: RunRecord, *, notes: bool) -> str:
    from coa.cli.render import answer_object, to_json
    from coa.cli.run_table import chain_object

    answer = store.answer(record.run_id)
    found = _record_object(record)
    found["answer"] = answer_object(answer) if answer is not None else None
    found["chain"] = chain_object(_entries(store, record))
    if notes:
        kept = store.notes(record.run_id)
        found["notes"] = [{"chunk": n.chunk, "text": n.text, "informative": n.informative} for n in kept]
    return to_json(found)


def _shown(store: RunStore, record: RunRecord, common: CommonOptions, output: Path | None, notes: bool) -> str:
    from coa.cli.render import answer_text, compared_text, mapping_text
    from coa.cli.run_table import chain_text

    answer = store.answer(record.run_id)
    found = _record_object(record)
    rows = {key: value for key, value in found.items() if value is not None and key not in {"settings", "expected"}}
    if answer is not None and (compared := compared_text(answer)) is not None:
        rows["expected"] = compared
    terminal = output is None and sys.stdout.isatty()
    chain = chain_text(
        _entries(store, record),
        width=shutil.get_terminal_size((_PIPED_WIDTH, 24)).columns if terminal else _PIPED_WIDTH,
        colour=output is None and uses_colour(sys.stdout.isatty(), common.color),
        unicode=output is not None or (sys.stdout.encoding or "").lower().startswith("utf"),
    )
    parts = [mapping_text(rows)]
    parts += [f"\n{chain}"] if chain else []
    if notes:
        parts += [f"\n[chunk {n.chunk + 1}] {_one_line(n.text)}\n" for n in store.notes(record.run_id)]
    parts += ["\n" + answer_text(answer)] if answer is not None else []
    return "".join(parts)


def _entries(store: RunStore, record: RunRecord) -> Sequence[Entry]:
    """The run's steps; none where its document is gone, which is no reason not to show the rest."""
    from coa.errors import StorageError
    from coa.report.facts import facts_of

    try:
        return facts_of(store, record.run_id).entries
    except StorageError as error:
        write_note(str(error), label="warning:")
        return ()


def remove(
    ctx: typer.Context,
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs to remove.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all runs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", envvar="COA_YES", help="Don't ask.")] = False,
    *,
    common: CommonOptions,
) -> int:
    """Removes runs, with their notes and answers."""
    from coa.errors import ConfigError

    store = _store(ctx, common)
    if bool(runs) == everything:
        raise ConfigError("name the runs to remove or say --all, and not both.")
    # All are looked up first: a wrong id removes nothing.
    ids = [store.get(run).run_id for run in runs] if runs else [record.run_id for record in store.list()]
    ids = list(dict.fromkeys(ids))
    if everything and not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"--all would remove {len(ids)} runs.", hint="Say --yes as well.")
        typer.confirm(f"Remove {len(ids)} runs?", abort=True, err=True)
    for run_id in ids:
        store.remove(run_id)
    write_note(f"removed {len(ids)} {'run' if len(ids) == 1 else 'runs'}")
    return 0


def path(
    ctx: typer.Context,
    run: Annotated[str | None, typer.Argument(help="A run; otherwise all of them.", show_default=False)] = None,
    *,
    common: CommonOptions,
) -> int:
    """Prints the folder that holds the runs, or one run."""
    from coa.cli.invocation import settings_of

    if run is None:
        folder = settings_of(ctx, common).settings.runs_dir
    else:
        store = _store(ctx, common)
        folder = store.path(store.get(run).run_id)
    write_result(f"{folder}\n")
    return 0


app.command("list")(expands_options(list_runs))
app.command("show")(expands_options(show))
app.command("rm")(expands_options(remove))
app.command("path")(expands_options(path))
