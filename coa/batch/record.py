"""Batches on disk: what was asked of which documents, with which settings.

A batch is a folder `<home>/batches/<batch id>/`:

    batch.json      the record
    ledger.sqlite   its ledger, where that is not kept elsewhere
    runs/, documents/   the runs of items that are not done yet, as in coa's own folder
    lock            held by the process that works on a ledger of this machine, or that has others work on it
    working         held by those others, too

and the results stand in the folder that the user named, whose `batch.json` names the batch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from coa.batch.asking import fingerprint
from coa.batch.ledger import SpendingLimits
from coa.config import Settings
from coa.errors import ConfigError, RunNotFound
from coa.llm.gateway import models_named
from coa.run_files import read_json, storage_errors, write_atomically
from coa.runs import RunStore, now
from coa.secrets import with_secrets, without_secrets

__all__ = ["BatchOptions", "BatchRecord", "BatchStore", "batch_named", "record_from_json", "record_to_json"]

_FORMAT = 1
_UNLIMITED = SpendingLimits()
_MARK = "batch.json"
_ORPHANS_END_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a batch goes about its documents; none of it changes a result."""

    jobs: int
    """Documents at once."""
    limits: SpendingLimits = _UNLIMITED
    """Of the whole batch."""
    document_limits: SpendingLimits = _UNLIMITED
    """Of each document, shared out evenly among its questions."""
    max_seconds: float | None = None
    """Of one document, all its questions together; None is no limit."""
    max_tries: int = 3
    """Of an item, before it fails for good; only failures that may pass are tried again."""
    keep_runs: bool = False
    """Whether the runs of finished items stay on the disk."""


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch as it was started."""

    batch_id: str
    created: str
    task: str
    inputs: tuple[str, ...]
    """Folders, globs, manifests, files and URLs, absolute."""
    payloads: tuple[str, ...]
    """What is asked of every document that does not bring questions of its own."""
    out: str
    """The folder of the results, absolute."""
    settings: Mapping[str, Any]
    """Without secrets."""
    config: str
    """The configuration of new items."""
    configs: Mapping[str, Mapping[str, Any]]
    """What each configuration changes in `settings`, by its fingerprint."""
    options: BatchOptions
    engine: Literal["local", "ray"] = "local"
    redis: bool = False
    """Whether the ledger is the one in Redis."""
    manifest: str = ""
    """What was read from standard input; it is gone otherwise."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Of the engine."""
    scanned: bool = True
    """Whether all documents of the inputs are in the ledger."""

    def settings_of(self, config: str, present: Settings) -> Settings:
        """The settings of a configuration; what is secret, and where coa's folder is, from `present`.

        Raises: ConfigError for a configuration that is none.
        """
        if config not in self.configs:
            raise ConfigError(f"the batch {self.batch_id} has no configuration {config!r}.")
        stored = with_secrets(self.settings, present)
        return Settings.model_validate({**stored, **self.configs[config], "home": present.home})

    def with_config(self, changes: Mapping[str, Any], present: Settings) -> BatchRecord:
        """The record with another configuration for new items: its first one with `changes`."""
        settings = Settings.model_validate({**with_secrets(self.settings, present), **changes, "home": present.home})
        name = fingerprint(settings)
        return replace(self, config=name, configs={**self.configs, name: dict(changes)})


def record_to_json(record: BatchRecord) -> str:
    """The record as JSON."""
    return json.dumps({"format": _FORMAT, **asdict(record)}, ensure_ascii=False, indent=1)


def record_from_json(raw: Mapping[str, Any]) -> BatchRecord:
    """The record that `record_to_json` wrote. Raises: KeyError, TypeError or ValueError for anything else."""
    values = {name: value for name, value in raw.items() if name != "format"}
    if raw["format"] != _FORMAT:
        raise ValueError(f"a batch of format {raw['format']}")
    options = dict(values.pop("options"))
    for name in ("limits", "document_limits"):
        options[name] = SpendingLimits(*options[name])
    values["inputs"], values["payloads"] = tuple(values["inputs"]), tuple(values["payloads"])
    return BatchRecord(**values, options=BatchOptions(**options))


class BatchStore:
    """The batches under one home folder."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "batches"

    def path(self, batch_id: str) -> Path:
        """The batch's folder."""
        return self._folder / batch_id

    def ledger_path(self, batch_id: str) -> Path:
        """Where its ledger is, if it is a file."""
        return self.path(batch_id) / "ledger.sqlite"

    def runs(self, batch_id: str, *, keep: bool = False) -> RunStore:
        """The runs of its items; with `keep` those that ended are looked at later."""
        return RunStore(self.path(batch_id), keeps_checkpoints=False, keeps_ended=keep)

    @contextlib.contextmanager
    def locked(self, batch_id: str) -> Iterator[None]:
        """A context in which no other process of this machine works on the batch; the lock ends with its process.

        Raises: ConfigError when one does, StorageError.
        """
        path = self.path(batch_id) / "lock"
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"the batch {batch_id} is being worked on by another process.",
                    hint=f"`coa batch status {batch_id}` shows how far it is.",
                ) from error
            yield

    def working(self, batch_id: str) -> IO[str]:
        """An open file, locked, to be held open by all processes that work for the holder of `locked`, and closed by
        it: whoever comes after the holder was killed waits here until the last of them is gone. Blocking.

        Raises: ConfigError where they do not end, StorageError.
        """
        path = self.path(batch_id) / "working"
        with storage_errors(path):
            file = path.open("a")
        until = time.monotonic() + _ORPHANS_END_WITHIN_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() > until:
                    file.close()
                    raise ConfigError(
                        f"processes of an earlier run still work on the batch {batch_id}.", hint="Wait, or end them."
                    ) from error
                time.sleep(_LOOK_EVERY_S)
            else:
                return file

    def runs_of(self, record: BatchRecord) -> RunStore:
        """The runs of a batch as it goes about them."""
        return self.runs(record.batch_id, keep=record.options.keep_runs)

    def new_id(self) -> str:
        """A new id, its folder made; ids sort by time. Raises: StorageError."""
        while True:
            at = datetime.now(UTC)
            batch_id = f"{at:%Y%m%d-%H%M%S}-{at.microsecond * 65536 // 1_000_000:04x}"
            with storage_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    self.path(batch_id).mkdir()
                    return batch_id

    def create(
        self,
        *,
        task: str,
        inputs: tuple[str, ...],
        payloads: tuple[str, ...],
        out: Path,
        settings: Settings,
        options: BatchOptions,
        **rest: Any,
    ) -> BatchRecord:
        """A new batch, stored, and its mark in the folder of the results. Raises: StorageError."""
        name = fingerprint(settings)
        record = BatchRecord(
            batch_id=self.new_id(),
            created=now(),
            task=task,
            inputs=inputs,
            payloads=payloads,
            out=str(out),
            settings=without_secrets(settings.model_copy(update={"model": models_named(settings)[0]})),
            config=name,
            configs={name: {}},
            options=options,
            scanned=False,
            **rest,
        )
        self.save(record)
        write_atomically(out / _MARK, json.dumps({"batch": record.batch_id, "task": task}) + "\n")
        return record

    def save(self, record: BatchRecord) -> None:
        """Writes the record. Raises: StorageError."""
        write_atomically(self.path(record.batch_id) / _MARK, record_to_json(record))

    def scanned(self, batch_id: str) -> BatchRecord:
        """The record, which says from now on that its documents are all in the ledger. Raises: StorageError."""
        record = replace(self.get(batch_id), scanned=True)
        self.save(record)
        return record

    def get(self, name: str) -> BatchRecord:
        """The batch of that id or beginning of one, or the one whose results are in the folder `name`.

        Raises: RunNotFound, StorageError.
        """
        marked = batch_named(Path(name))
        wanted = marked or name
        exact = self._read(wanted) if wanted and "/" not in wanted else None
        if exact is not None:
            return exact
        if marked is not None:
            raise RunNotFound(
                f"{name} holds results of batch {marked}, of which this home knows nothing.",
                hint="Set COA_HOME to the folder that it was started with.",
            )
        found = [record for record in self.list() if record.batch_id.startswith(wanted)] if wanted else []
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} batches begin with {name!r}" if found else f"there is no batch {name!r}"
        raise RunNotFound(f"{what}.", hint="`coa batch list` shows them.")

    def last(self) -> BatchRecord:
        """The newest batch. Raises: RunNotFound."""
        found = self.list()
        if not found:
            raise RunNotFound("there is no batch yet.", hint="`coa batch run FOLDER --out DIR` makes one.")
        return found[0]

    def list(self) -> list[BatchRecord]:
        """All batches, the newest first; folders without a readable record are left out."""
        if not self._folder.is_dir():
            return []
        found = (self._read(folder.name) for folder in sorted(self._folder.iterdir(), reverse=True))
        return [record for record in found if record is not None]

    def _read(self, batch_id: str) -> BatchRecord | None:
        path = self.path(batch_id) / _MARK
        if not path.is_file():
            return None
        try:
            return record_from_json(read_json(path))
        except (KeyError, TypeError, ValueError):
            return None


def batch_named(out: Path) -> str | None:
    """The id of the batch whose results are in the folder `out`; None where it holds none."""
    mark = out / _MARK
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))["batch"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
