"""Runs on disk: what was asked, the plan, every finished chunk's note, and the answer.

A run is a folder `<home>/runs/<run id>/`:

    run.json      the record: task, question, settings, state
    plan.json     the chunks, so that a resumed run reads the very same ones
    notes.jsonl   a line for each finished chunk and answer, written before the graph goes on
    state.sqlite  the graph's checkpoints (written by langgraph)
    answer.json   the answer, once there is one
    lock          held by the process that works on the run

Documents are kept once each in `<home>/documents/<sha256>.json`: a run from stdin can be resumed, and a book
that changes on disk meanwhile does not mix into a run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from coa.errors import ConfigError, RunNotFound, StorageError
from coa.run_files import (
    appended,
    fields_of,
    json_in_lines,
    json_of,
    read_json,
    read_lines,
    storage_errors,
    write_atomically,
)
from coa.run_format import (
    FORMAT,
    Finished,
    Part,
    PartAnswer,
    RunPlan,
    StoredNote,
    StoredStep,
    answer_from_json,
    document_from_json,
    finished_from_json,
    finished_to_json,
    plan_from_json,
    plan_to_json,
)
from coa.types import Answer, Document, Forecasted, Note

__all__ = [
    "Finished",
    "Forecasted",
    "Part",
    "PartAnswer",
    "RunLock",
    "RunPlan",
    "RunRecord",
    "RunState",
    "RunStore",
    "StoredNote",
    "StoredStep",
    "Task",
]

Task = Literal["ask", "summarize", "structure", "check"]
RunState = Literal["running", "interrupted", "drained", "failed", "done", "partial"]
"""A stored "running" without a process that holds the lock reads as "interrupted": it was killed."""
_LOCK_TRIES = 5
_LOCK_WAIT_S = 0.02


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as `coa runs` lists it."""

    run_id: str
    task: Task
    state: RunState
    created: str
    updated: str
    document: str
    document_sha256: str
    question: str | None
    strategy: str
    model: str
    n_chunks: int = 0
    n_done: int = 0
    error: str | None = None
    language: str | None = None
    """What the reply is to be written in; None leaves it to the model."""
    words: int | None = None
    per: str = "book"
    form: Literal["ids", "free"] = "ids"
    """Of a structure: sentence numbers, or the model's own statements."""
    estimate: Forecasted | None = None
    """What it was expected to take."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Prompt names and digests, the reading prefix's version among them."""


class RunStore:
    """The runs under one home folder."""

    def __init__(self, home: Path, *, keeps_checkpoints: bool = True, keeps_ended: bool = True) -> None:
        """Without checkpoints a run that is gone on with takes its graph's steps again, from the notes and steps on
        the disk, and makes no call twice: for many short runs that is the cheaper way.

        Without `keeps_ended` neither answers nor states are stored, for a caller who removes runs that have ended and
        keeps their answers: a run's record stays as it began, and one that is gone on with after its end answers by
        its notes, without a call. Documents are held in memory then, until they are forgotten: that caller has them.
        """
        self.home = home
        self._keeps_checkpoints = keeps_checkpoints
        self._keeps_ended = keeps_ended
        self._runs = home / "runs"
        self._documents = home / "documents"
        self._held: dict[str, Document] = {}

    def create(self, record: RunRecord, document: Document, plan: RunPlan) -> None:
        """Stores a new run, whole, before its first call. Raises: StorageError."""
        self.save_document(document)
        text = json_of(plan_to_json(plan))
        write_atomically(self.path(record.run_id) / "plan.json", text, wait=self._keeps_ended)
        self.save(record)

    def checkpoints(self, run_id: str, database: str | None) -> Path | str | None:
        """Where the run's graph keeps its checkpoints: in `database`, or in the run's folder; None for nowhere."""
        if not self._keeps_checkpoints:
            return None
        return database or self.path(run_id) / "state.sqlite"

    def new_id(self) -> str:
        """A new id, its folder made: date, time, and the second's fraction in four hexadecimal digits, so that ids
        sort by time. Raises: StorageError."""
        while True:
            at = datetime.now(UTC)
            run_id = f"{at:%Y%m%d-%H%M%S}-{at.microsecond * 65536 // 1_000_000:04x}"
            with storage_errors(self._runs):
                self._runs.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    (self._runs / run_id).mkdir()
                    return run_id

    def save(self, record: RunRecord) -> None:
        """Writes the record. Raises: StorageError."""
        text = json_in_lines({"format": FORMAT, **fields_of(record)})
        # Where it is damaged, or its plan, there is no run, and one of that id is begun again over the notes.
        write_atomically(self.path(record.run_id) / "run.json", text, wait=self._keeps_ended)

    def changed(self, record: RunRecord, state: RunState, *, error: str | None = None) -> RunRecord:
        """The record with a new state, saved. Raises: StorageError."""
        if not self._keeps_ended:
            return replace(record, state=state, error=error, updated=now())
        changed = replace(record, state=state, error=error, updated=now(), n_done=self.n_done(record.run_id))
        self.save(changed)
        return changed

    def get(self, run_id: str) -> RunRecord:
        """The run of that id, or the only one whose id starts so. Raises: RunNotFound."""
        exact = self._read(run_id)
        if exact is not None:
            return exact
        matching = [r for r in self.list() if r.run_id.startswith(run_id)] if run_id else []
        if len(matching) == 1:
            return matching[0]
        what = f"{len(matching)} runs begin with {run_id!r}" if matching else f"there is no run {run_id!r}"
        raise RunNotFound(f"{what}.", hint="`coa runs list` shows them.")

    def has(self, run_id: str) -> bool:
        """Whether there is a run of just that id."""
        return self._read(run_id) is not None and (self._keeps_ended or self._has_plan(run_id))

    def last(self) -> RunRecord:
        """The newest run. Raises: RunNotFound."""
        runs = self.list()
        if not runs:
            raise RunNotFound("there is no run yet.", hint="`coa ask BOOK QUESTION` makes one.")
        return runs[0]

    def path(self, run_id: str) -> Path:
        """The run's folder."""
        if not run_id or "/" in run_id or run_id.startswith("."):
            raise RunNotFound(f"{run_id!r} is not a run id.", hint="`coa runs list` shows them.")
        return self._runs / run_id

    def remove(self, run_id: str) -> None:
        """Deletes a run; a document that no other run reads goes with it. Raises: RunNotFound, StorageError."""
        record = self.get(run_id)
        with self.locked(record.run_id), storage_errors(self.path(record.run_id)):
            shutil.rmtree(self.path(record.run_id))
            if all(r.document_sha256 != record.document_sha256 for r in self.list()):
                self._document_path(record.document_sha256).unlink(missing_ok=True)

    def locked(self, run_id: str) -> RunLock:
        """A context in which no other process works on the run. Raises: ConfigError when one does."""
        return RunLock(self.path(run_id))

    def plan(self, run_id: str, document: Document) -> RunPlan:
        """The stored plan of a run over `document`. Raises: StorageError."""
        return plan_from_json(read_json(self.path(run_id) / "plan.json"), document)

    def notes(self, run_id: str) -> list[Note]:
        """The units after each chunk, in reading order."""
        return [
            Note(chunk=n.chunk, text=n.text, informative=n.informative, path=n.path)
            for n in self.stored_notes(run_id)
            if n.cause is None
        ]

    def stored_notes(self, run_id: str) -> list[StoredNote]:
        """What became of each chunk, in reading order."""
        return [one for one in self.journal(run_id) if isinstance(one, StoredNote)]

    def n_done(self, run_id: str) -> int:
        """Chunks that are finished."""
        part_of = {(n.part, n.chunk) for n in self.stored_notes(run_id)}
        return len(part_of) or len({chunk for step in self.stored_steps(run_id) for chunk in step.chunks})

    def add_note(self, run_id: str, note: StoredNote) -> None:
        """Stores a finished chunk. Raises: StorageError."""
        self.keep(run_id, note)

    def add_part_answer(self, run_id: str, part: int, answer: PartAnswer) -> None:
        """Stores the answer of one part. Raises: StorageError."""
        self.keep(run_id, (part, answer))

    def add_step(self, run_id: str, step: StoredStep) -> None:
        """Stores a finished step. Raises: StorageError."""
        self.keep(run_id, step)

    def keep(self, run_id: str, finished: Finished) -> None:
        """Stores what is finished; on the disk when it returns. Raises: StorageError."""
        with self.keeping(run_id, finished) as file:
            os.fsync(file)

    def keeping(self, run_id: str, finished: Finished) -> AbstractContextManager[int]:
        """As `keep`, for a caller who waits for the disk himself: see `appended`."""
        return appended(self.path(run_id) / "notes.jsonl", [finished_to_json(finished)])

    def stored_steps(self, run_id: str) -> list[StoredStep]:
        """The finished steps, in the order that they ended in."""
        return [one for one in self.journal(run_id) if isinstance(one, StoredStep)]

    def journal(self, run_id: str) -> list[Finished]:
        """All that is finished, in the order that it ended in; answers with their part's number."""
        found = map(finished_from_json, read_lines(self.path(run_id) / "notes.jsonl"))
        return [one for one in found if one is not None]

    def part_answers(self, run_id: str) -> dict[int, PartAnswer]:
        """The answer of each part that has one."""
        return dict(one for one in self.journal(run_id) if isinstance(one, tuple))

    def with_prompts(self, record: RunRecord, prompts: Mapping[str, str]) -> RunRecord:
        """The record with its prompts' digests, saved. Raises: StorageError."""
        record = replace(record, prompts=dict(prompts))
        if self._keeps_ended:
            self.save(record)
        return record

    def save_answer(self, answer: Answer) -> None:
        """Stores the answer of a run. Raises: StorageError."""
        if not self._keeps_ended:
            return
        write_atomically(self.path(answer.run_id) / "answer.json", json_in_lines(answer))

    def answer(self, run_id: str) -> Answer | None:
        """The stored answer; None where there is none yet."""
        path = self.path(run_id) / "answer.json"
        if not path.exists():
            return None
        return answer_from_json(read_json(path))

    def save_document(self, document: Document) -> None:
        """Stores a document under the digest of its text, once. Raises: StorageError."""
        if not self._keeps_ended:
            self._held[document.sha256] = document
            return
        path = self._document_path(document.sha256)
        if not path.exists():
            write_atomically(path, json_of(document))

    def has_document(self, sha256: str) -> bool:
        """Whether the document of that digest is stored."""
        return sha256 in self._held or self._document_path(sha256).is_file()

    def forget_document(self, sha256: str) -> None:
        """Lets go of a document that is held in memory."""
        self._held.pop(sha256, None)

    def document(self, sha256: str) -> Document:
        """The stored document. Raises: StorageError."""
        held = self._held.get(sha256)
        return document_from_json(read_json(self._document_path(sha256))) if held is None else held

    def list(self) -> list[RunRecord]:
        """All runs, newest first; folders without a readable record are left out."""
        found: list[RunRecord] = []
        if self._runs.is_dir():
            for folder in sorted(self._runs.iterdir(), reverse=True):
                record = self._read(folder.name)
                if record is not None:
                    found.append(record)
        return found

    def _has_plan(self, run_id: str) -> bool:
        """Whether its plan can be read; it was not waited for to be on the disk."""
        try:
            return bool(read_json(self.path(run_id) / "plan.json"))
        except StorageError:
            return False

    def _document_path(self, sha256: str) -> Path:
        return self._documents / f"{sha256}.json"

    def _read(self, run_id: str) -> RunRecord | None:
        path = self._runs / run_id / "run.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw.pop("format", None)
            if raw.get("estimate") is not None:
                raw["estimate"] = Forecasted(**raw["estimate"])
            record = RunRecord(**raw)
        except (OSError, ValueError, TypeError):
            return None
        if record.state == "running" and not RunLock(path.parent).held():
            return replace(record, state="interrupted", n_done=self.n_done(run_id))
        return record


class RunLock:
    """An advisory lock that ends with its process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+", encoding="utf-8")
        try:
            self._take(file)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise ConfigError(
                f"run {self._path.parent.name} is being worked on by process {holder or 'unknown'}.",
                hint="Wait until it ends, or end it first.",
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    @staticmethod
    def _take(file: IO[str]) -> None:
        """Tries for a moment: a listing of runs holds the lock for an instant while it looks."""
        for _ in range(_LOCK_TRIES - 1):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(_LOCK_WAIT_S)
        return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def held(self) -> bool:
        """True while some process works on the run."""
        try:
            with self._path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def now() -> str:
    """The time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
