"""A batch in a process of its own over a fault server in this one: what the measurements of batches share."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from coa.batch.record import BatchStore
from coa.cli import main
from coa.reading import reading_prefix
from coa.runs import RunStore
from coa.testing.fault_server import FaultServer

__all__ = ["QUESTION", "Bench", "command_of", "family", "loaded", "now", "shares", "table", "waited"]

QUESTION = "What is told of the weather?"
_ROOT = Path(__file__).parents[2]
_END = "[End of source text.]\n"


def loaded(name: str) -> ModuleType:
    """Another tool of this folder."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Bench:
    """Commands of `coa batch` in a home of their own, over one server."""

    def __init__(self, folder: Path, server: FaultServer, *, calls_at_once: int = 16, **settings: Any) -> None:
        self.folder = folder
        self.server = server
        self.home = folder / "home"
        self.out = folder / "out"
        folder.mkdir(parents=True, exist_ok=True)
        entry = {
            "model_name": "readers",
            "litellm_params": {"model": "openai/fault", "api_base": server.base_url, "api_key": "none"},
            "model_info": {"kind": "hosted", "max_input_tokens": 4096},
        }
        told = {"model": "readers", "notes": "paper", "chunk_tokens": 400, "model_list": [entry]}
        told |= {"max_parallel_calls": calls_at_once, "timeout_s": 20.0, **settings}
        (folder / "coa.yaml").write_text(json.dumps(told))  # JSON is YAML

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """`coa batch` with those arguments, begun; its errors go into a file of the folder."""
        path = os.pathsep.join([*getattr(self.server, "python_path", ()), str(_ROOT)])
        env = {**self._environment(), "PYTHONPATH": path, **getattr(self.server, "environment", {})}
        with (self.folder / "stderr.txt").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "coa", "batch", *arguments], env=env, stdout=subprocess.DEVNULL, stderr=errors
            )

    def begin(self, documents: Path, *more: str) -> subprocess.Popen[bytes]:
        """`coa batch run` over the documents."""
        return self.start(*self._beginning(documents), *more)

    def run_here(self, documents: Path, *more: str) -> int:
        """The exit code of the same in this process, which spares the start of another."""
        with mock.patch.dict(os.environ, self._environment(), clear=True):
            return main.run(["batch", *self._beginning(documents), "--quiet", *more])

    def _beginning(self, documents: Path) -> list[str]:
        return ["run", str(documents), "-q", QUESTION, "--out", str(self.out), "--yes"]

    def _environment(self) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("COA_")}
        return env | {"COA_HOME": str(self.home), "COA_CONFIG": str(self.folder / "coa.yaml")}

    def summary(self) -> dict[str, Any]:
        """The batch's summary."""
        found: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return found

    def rows(self) -> list[dict[str, Any]]:
        """The list of results."""
        path = self.out / "results.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def results(self) -> dict[str, Any]:
        """What each document came to, without what differs from run to run."""
        return {
            row["document"]: [row["state"], row["answer"], row.get("citations"), row["kind"]] for row in self.rows()
        }

    def needed(self) -> int:
        """Calls that the results take without faults: one a chunk, and one for the answer."""
        return sum(row["coverage"]["chunks"] + 1 for row in self.rows() if row["state"] == "done")

    def runs(self) -> RunStore:
        """The runs of the only batch."""
        (record,) = BatchStore(self.home).list()
        return BatchStore(self.home).runs(record.batch_id, keep=True)

    def stored_prefixes(self, texts: RunStore | None = None) -> dict[str, set[str]]:
        """The reading prefixes of all chunks whose notes are on the disk, by document; `texts` has the documents of a
        batch that does not keep its runs."""
        runs = self.runs()
        found: dict[str, set[str]] = {}
        for run in runs.list():
            document = (texts or runs).document(run.document_sha256)
            parts = runs.plan(run.run_id, document).parts
            for note in runs.stored_notes(run.run_id):
                chunk = parts[note.part].chunks[note.chunk]
                prefix = reading_prefix(chunk.text, chunk.sentences, offset=chunk.span.start)
                found.setdefault(run.document, set()).add(prefix)
        return found

    def prefixes_since(self, number: int) -> list[str]:
        """The reading prefixes of the chunks that were sent since the server's call of that number."""
        sent = []
        for call in self.server.requests:
            content = call.messages[-1]["content"]
            if call.number >= number and _END in content:
                sent.append(content.partition(_END)[0] + _END)
        return sent


def family(pid: int) -> list[int]:
    """A process and those below it, by Linux's /proc; empty where it is gone."""
    found = [pid] if Path(f"/proc/{pid}").exists() else []
    for member in found:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def command_of(pid: int) -> str:
    """The process's command line; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def waited(process: subprocess.Popen[bytes], *, timeout_s: float) -> int:
    """The exit code. Raises: TimeoutExpired, the process killed."""
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows as Markdown, the first one as the head."""
    head, *rest = [[str(cell) for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shares(counts: Mapping[str, int]) -> str:
    """Counts on a line."""
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))


def now() -> float:
    """Seconds of a clock that only goes forward."""
    return time.monotonic()
