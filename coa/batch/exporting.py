"""The results of a batch as a table: CSV, JSON lines, Parquet, or a page to look through."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import IO, Any, Literal

from coa.batch.asking import id_of, question_of, task_of
from coa.batch.ledger import ItemState, Ledger, Row
from coa.batch.record import BatchRecord
from coa.batch.remote import is_url, name_of
from coa.batch.results import ResultFolder
from coa.errors import ConfigError
from coa.report.batch_index import IndexRow, batch_index
from coa.run_files import storage_errors
from coa.types import Usage

__all__ = ["COLUMNS", "ExportFormat", "export"]

ExportFormat = Literal["csv", "jsonl", "parquet", "html"]

_PAGE = 1000
_TEXTS = ("source", "document", "id", "task", "question", "state", "answer", "verdict", "citations", "cause", "kind")
_MADE_BY = ("model", "strategy", "language")
_COUNTS = ("chunks", "chunks_read", "calls", "prompt_tokens", "cached_tokens", "completion_tokens")
_NUMBERS = ("cost_usd", "seconds")
_KEYS = ("digest", "key", "file")

COLUMNS = (*_TEXTS, *_MADE_BY, *_COUNTS, *_NUMBERS, *_KEYS)
"""Of CSV and Parquet, in order; "citations" is JSON. JSON lines hold what the results hold, whole."""


async def export(
    record: BatchRecord,
    ledger: Ledger,
    target: Path,
    *,
    form: ExportFormat,
    states: Collection[ItemState] | None = None,
) -> int:
    """The number of rows written to `target`, which is replaced whole: one for each item and source, in the order of
    adding; `states` None is all that have ended. Pages aside, memory does not grow with the rows.

    Raises: ConfigError where Parquet's extra is not installed, StorageError.
    """
    wanted = ("done", "partial", "failed") if states is None else states
    rows = _rows(ledger, ResultFolder(Path(record.out)), wanted)
    temporary = target.with_name(f".{target.name}.new")
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            n = await _WRITERS[form](record, rows, temporary)
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return n


async def _rows(ledger: Ledger, results: ResultFolder, states: Collection[ItemState]) -> AsyncIterator[dict[str, Any]]:
    kept: tuple[str, dict[str, Any]] = ("", {})
    async for row in ledger.rows(states):
        if kept[0] != row.digest:
            kept = (row.digest, await asyncio.to_thread(results.document, row.digest))
        entry = kept[1].get("items", {}).get(row.key) or {}
        for source in row.sources:
            yield _joined(row, source, kept[1], entry, results)


def _joined(
    row: Row, source: str, document: dict[str, Any], entry: dict[str, Any], results: ResultFolder
) -> dict[str, Any]:
    """An item of one source; what the ledger says goes before what its file says."""
    told = {
        "source": source,
        "document": name_of(source) if is_url(source) else Path(source).name,
        "id": id_of(row.payload),
        "task": task_of(row.payload),
        "question": question_of(row.payload),
        "state": row.state,
        "cause": row.cause,
        "kind": row.kind,
        "digest": row.digest,
        "key": row.key,
        "file": str(results.path(row.digest).relative_to(results.out)),
    }
    return {"language": document.get("language"), **entry, **told}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row in `COLUMNS`."""
    usage, coverage = row.get("usage") or {}, row.get("coverage") or {}
    flat = {column: row.get(column) for column in COLUMNS}
    flat |= {name: usage.get(name) for name in _COUNTS if name in usage} | {"cost_usd": usage.get("cost_usd")}
    flat |= {"chunks": coverage.get("chunks"), "chunks_read": coverage.get("read")}
    citations = row.get("citations")
    flat["citations"] = None if citations is None else json.dumps(citations, ensure_ascii=False)
    return flat


async def _write_csv(record: BatchRecord, rows: AsyncIterator[dict[str, Any]], target: Path) -> int:
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        return await _each(rows, lambda row: writer.writerow({k: _harmless(v) for k, v in _flat(row).items()}))


async def _write_jsonl(record: BatchRecord, rows: AsyncIterator[dict[str, Any]], target: Path) -> int:
    def write(file: IO[str], row: dict[str, Any]) -> None:
        file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")

    with target.open("w", encoding="utf-8") as file:
        return await _each(rows, lambda row: write(file, row))


async def _write_parquet(record: BatchRecord, rows: AsyncIterator[dict[str, Any]], target: Path) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs the package pyarrow.", hint="pip install 'coa-orchestrator[parquet]' brings it."
        ) from error
    types = dict.fromkeys(_COUNTS, pyarrow.int64()) | dict.fromkeys(_NUMBERS, pyarrow.float64())
    schema = pyarrow.schema([(column, types.get(column, pyarrow.string())) for column in COLUMNS])
    page: list[dict[str, Any]] = []
    n = 0
    with parquet.ParquetWriter(str(target), schema) as writer:
        async for row in rows:
            page.append(_flat(row))
            n += 1
            if len(page) == _PAGE:
                writer.write_table(pyarrow.Table.from_pylist(page, schema=schema))
                page = []
        if page:
            writer.write_table(pyarrow.Table.from_pylist(page, schema=schema))
    return n


async def _write_html(record: BatchRecord, rows: AsyncIterator[dict[str, Any]], target: Path) -> int:
    """A page for a person: it holds all rows."""
    shown = [
        IndexRow(
            document=row["source"],
            state=row["state"],
            question=row["question"],
            answer=row.get("answer") or "",
            usage=Usage(**(row.get("usage") or {})),
            seconds=row.get("seconds"),
            error=row["cause"],
        )
        async for row in rows
    ]
    details = [("Batch", record.batch_id), ("Task", record.task), ("Model", str(record.settings.get("model")))]
    page = batch_index(shown, title=f"Batch {record.batch_id}", details=details)
    await asyncio.to_thread(target.write_text, page, encoding="utf-8")
    return len(shown)


async def _each(rows: AsyncIterator[dict[str, Any]], write: Callable[[dict[str, Any]], object]) -> int:
    n = 0
    async for row in rows:
        write(row)
        n += 1
    return n


def _harmless(value: object) -> object:
    """Spreadsheets run a cell that begins like a formula; a document's text must not be one."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


_WRITERS = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet, "html": _write_html}
