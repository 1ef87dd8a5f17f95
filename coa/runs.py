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
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from coa.errors import ConfigError, RunNotFound, StorageError
from coa.run_files import append_line, read_lines, storage_errors, write_atomically
from coa.types import (
    Answer,
    Chunk,
    Citation,
    Coverage,
    Document,
    LeftOut,
    Note,
    Place,
    Section,
    SkippedChunk,
    Span,
    Usage,
)

__all__ = ["Part", "PartAnswer", "RunPlan", "RunRecord", "RunState", "RunStore", "StoredNote"]

RunState = Literal["running", "interrupted", "drained", "failed", "done", "partial"]
"""A stored "running" without a process that holds the lock reads as "interrupted": it was killed."""
_FORMAT = 1
_LOCK_TRIES = 5
_LOCK_WAIT_S = 0.02


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the document that gets an answer of its own: the book, or a chapter."""

    title: str | None
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run reads."""

    parts: tuple[Part, ...]
    tokenizer: str
    exact: bool

    @property
    def n_chunks(self) -> int:
        """Chunks of all parts."""
        return sum(len(p.chunks) for p in self.parts)

    @property
    def n_tokens(self) -> int:
        """Tokens of all chunks, as rendered."""
        return sum(c.n_tokens for p in self.parts for c in p.chunks)


@dataclass(frozen=True, slots=True)
class StoredNote:
    """What became of one chunk."""

    part: int
    chunk: int
    """Index within the part."""
    text: str
    """The unit after the chunk."""
    unit_chunk: int
    informative: bool
    usage: Usage
    seconds: float = 0.0
    cause: str | None = None
    """Why the chunk was skipped; None when it was read."""


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """The manager's reply for one part, sentence ids still in it."""

    text: str
    truncated: bool
    """True when it was cut off at the token cap."""
    usage: Usage


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as `coa runs` lists it."""

    run_id: str
    task: Literal["ask", "summarize"]
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
    settings: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Prompt names and digests, the reading prefix's version among them."""


class RunStore:
    """The runs under one home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._runs = home / "runs"
        self._documents = home / "documents"

    def create(self, record: RunRecord, document: Document, plan: RunPlan) -> None:
        """Stores a new run, whole, before its first call. Raises: StorageError."""
        self.save_document(document)
        write_atomically(self.path(record.run_id) / "plan.json", json.dumps(_plan_to_json(plan)))
        self.save(record)

    def new_id(self) -> str:
        """An id that sorts by time: date, time, four random hexadecimal digits."""
        return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"

    def save(self, record: RunRecord) -> None:
        """Writes the record. Raises: StorageError."""
        text = json.dumps({"format": _FORMAT, **asdict(record)}, ensure_ascii=False, indent=1)
        write_atomically(self.path(record.run_id) / "run.json", text)

    def changed(self, record: RunRecord, state: RunState, *, error: str | None = None) -> RunRecord:
        """The record with a new state, saved. Raises: StorageError."""
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

    def locked(self, run_id: str) -> _RunLock:
        """A context in which no other process works on the run. Raises: ConfigError when one does."""
        return _RunLock(self.path(run_id))

    def plan(self, run_id: str, document: Document) -> RunPlan:
        """The stored plan of a run over `document`. Raises: StorageError."""
        path = self.path(run_id) / "plan.json"
        with storage_errors(path):
            text = path.read_text(encoding="utf-8")
        return _plan_from_json(json.loads(text), document)

    def notes(self, run_id: str) -> list[Note]:
        """The units after each chunk, in reading order."""
        return [
            Note(chunk=n.chunk, text=n.text, informative=n.informative)
            for n in self.stored_notes(run_id)
            if n.cause is None
        ]

    def stored_notes(self, run_id: str) -> list[StoredNote]:
        """What became of each chunk, in reading order."""
        lines = read_lines(self.path(run_id) / "notes.jsonl")
        return [_note_from_json(line) for line in lines if line.get("kind") == "note"]

    def n_done(self, run_id: str) -> int:
        """Chunks that are finished."""
        return len(self.stored_notes(run_id))

    def add_note(self, run_id: str, note: StoredNote) -> None:
        """Stores a finished chunk. Raises: StorageError."""
        append_line(self.path(run_id) / "notes.jsonl", {"kind": "note", **asdict(note)})

    def add_part_answer(self, run_id: str, part: int, answer: PartAnswer) -> None:
        """Stores the answer of one part. Raises: StorageError."""
        append_line(self.path(run_id) / "notes.jsonl", {"kind": "answer", "part": part, **asdict(answer)})

    def part_answers(self, run_id: str) -> dict[int, PartAnswer]:
        """The answer of each part that has one."""
        found: dict[int, PartAnswer] = {}
        for line in read_lines(self.path(run_id) / "notes.jsonl"):
            if line.pop("kind", None) == "answer":
                values: dict[str, Any] = line
                usage = Usage(**values["usage"])
                found[values["part"]] = PartAnswer(values["text"], values["truncated"], usage)
        return found

    def with_prompts(self, record: RunRecord, prompts: Mapping[str, str]) -> RunRecord:
        """The record with its prompts' digests, saved. Raises: StorageError."""
        record = replace(record, prompts=dict(prompts))
        self.save(record)
        return record

    def save_answer(self, answer: Answer) -> None:
        """Stores the answer of a run. Raises: StorageError."""
        write_atomically(
            self.path(answer.run_id) / "answer.json", json.dumps(asdict(answer), ensure_ascii=False, indent=1)
        )

    def answer(self, run_id: str) -> Answer | None:
        """The stored answer; None where there is none yet."""
        path = self.path(run_id) / "answer.json"
        if not path.exists():
            return None
        with storage_errors(path):
            return _answer_from_json(json.loads(path.read_text(encoding="utf-8")))

    def save_document(self, document: Document) -> None:
        """Stores a document under the digest of its text, once. Raises: StorageError."""
        path = self._document_path(document.sha256)
        if not path.exists():
            write_atomically(path, json.dumps(asdict(document), ensure_ascii=False))

    def document(self, sha256: str) -> Document:
        """The stored document. Raises: StorageError."""
        path = self._document_path(sha256)
        with storage_errors(path):
            raw = json.loads(path.read_text(encoding="utf-8"))
        raw["sections"] = tuple(Section(**{**s, "span": Span(*s["span"])}) for s in raw["sections"])
        raw["places"] = tuple(Place(**{**p, "span": Span(*p["span"])}) for p in raw["places"])
        raw["left_out"] = tuple(LeftOut(**{**p, "span": Span(*p["span"])}) for p in raw["left_out"])
        raw["warnings"] = tuple(raw["warnings"])
        return Document(**raw)

    def list(self) -> list[RunRecord]:
        """All runs, newest first; folders without a readable record are left out."""
        found: list[RunRecord] = []
        if self._runs.is_dir():
            for folder in sorted(self._runs.iterdir(), reverse=True):
                record = self._read(folder.name)
                if record is not None:
                    found.append(record)
        return found

    def _document_path(self, sha256: str) -> Path:
        return self._documents / f"{sha256}.json"

    def _read(self, run_id: str) -> RunRecord | None:
        path = self._runs / run_id / "run.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            raw.pop("format", None)
            record = RunRecord(**raw)
        except (OSError, ValueError, TypeError):
            return None
        if record.state == "running" and not _RunLock(path.parent).held():
            return replace(record, state="interrupted", n_done=self.n_done(run_id))
        return record


class _RunLock:
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


def _plan_to_json(plan: RunPlan) -> dict[str, object]:
    def chunk(c: Chunk) -> list[object]:
        return [c.span.start, c.n_tokens, [s.start for s in c.sentences], c.span.end]

    return {
        "format": _FORMAT,
        "tokenizer": plan.tokenizer,
        "exact": plan.exact,
        "parts": [{"title": p.title, "chunks": [chunk(c) for c in p.chunks]} for p in plan.parts],
    }


def _plan_from_json(raw: Mapping[str, Any], document: Document) -> RunPlan:
    if raw.get("format") != _FORMAT:
        raise StorageError("the run was made by another version of coa.", hint="Start it again.")
    tokenizer, exact = str(raw["tokenizer"]), bool(raw["exact"])
    parts = []
    for part in raw["parts"]:
        chunks = []
        for index, (start, n_tokens, starts, end) in enumerate(part["chunks"]):
            sentences = tuple(Span(a, b) for a, b in zip(starts, [*starts[1:], end], strict=True))
            text = document.text[start:end]
            chunks.append(Chunk(index, text, Span(start, end), sentences, n_tokens, tokenizer, exact))
        parts.append(Part(part["title"], tuple(chunks)))
    return RunPlan(tuple(parts), tokenizer, exact)


def _note_from_json(line: Mapping[str, Any]) -> StoredNote:
    values = {k: v for k, v in line.items() if k != "kind"}
    values["usage"] = Usage(**values["usage"])
    return StoredNote(**values)


def _answer_from_json(raw: dict[str, Any]) -> Answer:
    coverage = raw["coverage"]
    raw["coverage"] = Coverage(
        coverage["chunks"], coverage["read"], tuple(SkippedChunk(**s) for s in coverage["skipped"])
    )
    raw["usage"] = Usage(**raw["usage"])
    raw["citations"] = tuple(Citation(**c) for c in raw["citations"])
    raw["notes"] = tuple(Note(**n) for n in raw["notes"])
    raw["warnings"] = tuple(raw["warnings"])
    return Answer(**raw)
