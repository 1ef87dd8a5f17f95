"""What an evaluation keeps in its folder: enough to go on after a kill, and to report without the documents.

    suite.json       the suite, its arms and what was asked for
    questions.jsonl  the questions with their gold answers and places
    started.jsonl    which run belongs to which item
    results.jsonl    the answers, or why there is none
    judgements.jsonl what a judge said of them
    calls.jsonl      every prompt and reply, its reading prefix by digest
    prefixes.jsonl   those prefixes, once each
    summary.json     the scores

Everything is appended as whole lines that are on the disk before the evaluation goes on; a torn last line is left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coa.errors import ConfigError, ModelError
from coa.llm.recording import MadeCall
from coa.run_files import append_line, read_json, read_lines, storage_errors, write_atomically
from coa.types import Usage

__all__ = ["Ledger"]

_FORMAT = 1


class Ledger:
    """The files of one evaluation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._prefixes: set[str] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder this process's while it writes. Raises: ConfigError where another one does, StorageError."""
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(f"{self.folder}: another evaluation is writing there.") from error
            yield

    def describe(self, suite: Mapping[str, Any], questions: list[dict[str, Any]]) -> None:
        """Writes down the suite and its questions anew. Raises: StorageError."""
        write_atomically(self.folder / "suite.json", _pretty({"format": _FORMAT, **suite}))
        lines = "".join(json.dumps(q, ensure_ascii=False, separators=(",", ":")) + "\n" for q in questions)
        write_atomically(self.folder / "questions.jsonl", lines)

    def suite(self) -> dict[str, Any]:
        """What `describe` was told of the suite. Raises: ConfigError for a folder without an evaluation."""
        if not (self.folder / "suite.json").is_file():
            raise ConfigError(f"{self.folder}: holds no evaluation.", hint="Name the folder of `coa eval run --out`.")
        found = read_json(self.folder / "suite.json")
        if found.get("format") != _FORMAT:
            raise ConfigError(f"{self.folder}: was written by another version of coa.")
        return found

    def questions(self) -> list[dict[str, Any]]:
        """The questions, in the order of the suite."""
        return read_lines(self.folder / "questions.jsonl")

    def start(self, item: str, run_id: str) -> None:
        """Keeps which run answers an item."""
        append_line(self.folder / "started.jsonl", {"item": item, "run_id": run_id})

    def started(self) -> dict[str, str]:
        """Run ids by item, the last one of each."""
        return {str(line["item"]): str(line["run_id"]) for line in read_lines(self.folder / "started.jsonl")}

    def add_result(self, result: Mapping[str, Any]) -> None:
        """Keeps what came of an item."""
        append_line(self.folder / "results.jsonl", result)

    def results(self) -> dict[str, dict[str, Any]]:
        """What came of the items, the last word on each."""
        return {str(line["item"]): line for line in read_lines(self.folder / "results.jsonl")}

    def add_judgement(self, item: str, judge: str, scores: Mapping[str, float]) -> None:
        """Keeps a judge's scores of an item."""
        append_line(self.folder / "judgements.jsonl", {"item": item, "judge": judge, "scores": dict(scores)})

    def judgements(self) -> dict[str, dict[str, Any]]:
        """Judgements by item, the last one of each."""
        return {str(line["item"]): line for line in read_lines(self.folder / "judgements.jsonl")}

    def add_call(self, call: MadeCall) -> None:
        """Keeps a prompt and its reply, or its failure."""
        completion, prompt = call.completion, call.prompt
        told: dict[str, Any] = {
            **call.labels,
            "model": call.model,
            "system": prompt.system,
            "prefix": self._prefix(prompt.prefix),
            "tail": prompt.tail,
            "decoding": {k: v for k, v in asdict(call.decoding).items() if v is not None},
            "seconds": round(call.seconds, 3),
        }
        if completion is not None:
            told |= {
                "reply": completion.text,
                "finish_reason": completion.finish_reason,
                "deployment": completion.deployment,
                "usage": asdict(completion.usage),
            }
        else:
            paid = call.error.usage if isinstance(call.error, ModelError) else None
            told |= {"error": f"{type(call.error).__name__}: {call.error}", "paid": asdict(paid) if paid else None}
        append_line(self.folder / "calls.jsonl", told)

    def calls(self) -> Iterator[dict[str, Any]]:
        """Every call, in the order in which they ended."""
        yield from read_lines(self.folder / "calls.jsonl")

    def spent(self) -> Usage:
        """What all calls so far have taken, by every process that wrote here."""
        total = Usage()
        for call in self.calls():
            usage, paid = call.get("usage"), call.get("paid")
            if usage is not None and not usage["reused"]:
                total = total.merged(
                    Usage(
                        1, usage["prompt_tokens"], usage["cached_tokens"], usage["completion_tokens"], usage["cost_usd"]
                    )
                )
            elif paid is not None:
                total = total.merged(Usage(**paid))
        return total

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes the scores. Raises: StorageError."""
        write_atomically(self.folder / "summary.json", _pretty(summary))

    def _prefix(self, text: str) -> str | None:
        if not text:
            return None
        file = self.folder / "prefixes.jsonl"
        if self._prefixes is None:
            self._prefixes = {str(line["sha256"]) for line in read_lines(file)}
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in self._prefixes:
            append_line(file, {"sha256": digest, "text": text})
            self._prefixes.add(digest)
        return digest


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n"
