"""Asks each of the collected books one question, in a process of its own, and checks what comes back.

    python tests/tools/read_books.py [--paper] [--engine embedded|instant] [--share 0.05] [BOOK ...]

The books lie in the folder that COA_TEST_DATA names. The engine is a process of its own, so that peak memory is
coa's alone. Checked for each: the exit code, the JSON contract, that the chunks hold all readable text and each has
its note, and that every quote stands in the file where the citation says. Prints a Markdown table; the exit code is
1 where a check failed or memory grew with the book.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coa.documents import read_document
from coa.llm.engine_process import EngineProcess
from coa.runs import RunPlan, RunStore
from coa.testing.models import test_model_path
from coa.types import Document
from tests.tools.live import MODEL, REPOSITORY, CoaProcess, Finished, write_config

DATA = Path(os.environ.get("COA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
BOOKS = DATA / "books" / "docs"

QUESTIONS = {
    "en-alice": "What did the White Rabbit take out of its waistcoat-pocket?",
    "en-pride-and-prejudice": "Which house does Mr. Bingley take in the neighbourhood of Longbourn?",
    "de-die-verwandlung-latin1": "In was fand sich Gregor Samsa verwandelt, als er erwachte?",
    "fr-tour-du-monde-latin1": "Combien de livres Phileas Fogg parie-t-il avec ses collègues du Reform-Club ?",
    "es-marianela-latin1": "¿Cómo se llama el ciego a quien la Nela sirve de lazarillo?",
    "zh-xiyouji": "如意金箍棒重多少斤？",
}
"""By the file's name without ".txt"; each is answered by single sentences of the book."""

LARGEST_RATIO = 1.3
"""Of the peak memory for the largest book to that for the smallest."""

_WINDOW = 2048
_KIB_PER_MIB = 1024
_SHOWN = 100
_LONG_NOTES = "320"
"""For the server that quotes: a long sentence does not fit into the notes of a small window."""

_Number = (int, float)
_OptionalText = (str, type(None))
_CONTRACT: dict[str, Any] = {
    "schema_version": int,
    "ok": bool,
    "run_id": str,
    "strategy": str,
    "model": str,
    "question": _OptionalText,
    "answer": str,
    "citations": [
        {"quote": str, "start": int, "end": int, "chapter": _OptionalText, "page": (int, type(None)), "status": str}
    ],
    "coverage": {"chunks": int, "read": int, "skipped": [{"index": int, "cause": str}]},
    "usage": {
        "calls": int,
        "prompt_tokens": int,
        "cached_tokens": int,
        "completion_tokens": int,
        "cost_usd": (*_Number, type(None)),
    },
    "warnings": [str],
}
"""The keys of an answer and their types; more keys may be there."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one book came to."""

    name: str
    chapters: int
    chunks: int
    tokens: int
    ended: Finished
    result: dict[str, Any] | None
    faults: list[str]

    def row(self) -> str:
        """A line of the table."""
        found = self.result or {"coverage": {"read": 0}, "usage": {"calls": 0}, "citations": [], "answer": ""}
        answer = " ".join(found["answer"].split()).replace("|", "\\|")[:_SHOWN]
        return (
            f"| {self.name} | {self.chapters} | {self.chunks} | {self.tokens:,} "
            f"| {found['coverage']['read']}/{self.chunks} | {self.ended.code} | {'yes' if self.result else 'no'} "
            f"| {len(found['citations'])} | {self.ended.peak_rss_mib:.0f} | {found['usage']['calls']} "
            f"| {self.ended.seconds:.1f} | {answer} |"
        )


HEADER = (
    "| book | chapters | chunks | tokens | read | exit code | JSON valid | citations, all verified | peak RSS (MiB) "
    "| calls | seconds | answer |\n"
    "| --- | --: | --: | --: | --: | --: | --- | --: | --: | --: | --: | --- |"
)


def _own_peak_mib() -> float:
    """Of this program alone. A child's ru_maxrss begins with what its parent's memory held at the fork; this
    process's own ru_maxrss would begin with what started it, a test runner of several hundred MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / _KIB_PER_MIB


def read_book(book: Path, question: str, arguments: Sequence[str], *, home: Path, config: Path | None) -> Reading:
    """Asks one question about `book`, and checks the outcome against the file read anew."""
    command = ["ask", str(book), question, "--json", "--no-progress", "--quiet", *arguments]
    own_peak = _own_peak_mib()
    ended = CoaProcess(command, home=home, config=config).wait()
    faults = [] if ended.code == 0 else [f"exit code {ended.code}: {ended.err.strip()[-300:]}"]
    if own_peak >= ended.peak_rss_mib:
        faults.append(f"the child's peak memory is hidden by this process's own ({own_peak:.0f} MiB)")
    document = read_document(book)
    try:
        result: dict[str, Any] = json.loads(ended.out)
    except ValueError as error:
        return Reading(book.stem, len(document.chapters()), 0, 0, ended, None, [*faults, f"no JSON: {error}"])
    faults += contract_faults(result, _CONTRACT)
    store = RunStore(home)
    plan = store.plan(result["run_id"], document)
    noted = [(n.part, n.chunk) for n in store.stored_notes(result["run_id"])]
    faults += _coverage_faults(document, plan, noted, result)
    faults += _citation_faults(document, result)
    n_chapters = len(document.chapters())
    return Reading(book.stem, n_chapters, plan.n_chunks, plan.n_tokens, ended, result, faults)


def contract_faults(value: object, wanted: Any, at: str = "answer") -> list[str]:
    """Where `value` lacks a key of the contract or has it in another type."""
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            return [f"{at} is no object"]
        missing = [f"{at}.{key} is missing" for key in wanted.keys() - value.keys()]
        held = [(key, inner) for key, inner in wanted.items() if key in value]
        return missing + [f for key, inner in held for f in contract_faults(value[key], inner, f"{at}.{key}")]
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return [f"{at} is no list"]
        return [f for i, item in enumerate(value) for f in contract_faults(item, wanted[0], f"{at}[{i}]")]
    is_flag = isinstance(value, bool) and wanted is not bool
    return [] if isinstance(value, wanted) and not is_flag else [f"{at} is {value!r}"]


def _coverage_faults(
    document: Document, plan: RunPlan, noted: Sequence[tuple[int, int]], result: dict[str, Any]
) -> list[str]:
    faults = []
    unread, at = [], 0
    spans = [c.span for p in plan.parts for c in p.chunks]
    for gap in sorted([*spans, *(p.span for p in document.left_out)]):
        unread.append(document.text[at : gap.start])
        at = max(at, gap.end)
    unread.append(document.text[at:])
    if missed := sum(len(text.strip()) for text in unread):
        faults.append(f"{missed} readable characters are in no chunk")
    chunks = [(i, c.index) for i, p in enumerate(plan.parts) for c in p.chunks]
    if sorted(noted) != chunks:
        faults.append(f"{len(noted)} notes for {len(chunks)} chunks")
    whole = {"chunks": len(chunks), "read": len(chunks), "skipped": [], "unselected": 0}
    if result["coverage"] != whole or not result["ok"]:
        faults.append(f"coverage {result['coverage']}")
    return faults


def _citation_faults(document: Document, result: dict[str, Any]) -> list[str]:
    if result["document_sha256"] != document.sha256:
        return ["the answer is about another text"]
    faults = []
    for citation in result["citations"]:
        start, end = citation["start"], citation["end"]
        if document.text[start:end] != citation["quote"]:
            faults.append(f"{citation['quote'][:40]!r} does not stand at {start}..{end}")
        section = document.section_at(start)
        if citation["chapter"] != (section.title if section is not None else None):
            faults.append(f"{start} is not in {citation['chapter']!r}")
    return faults


def beginning(book: Path, share: float, folder: Path) -> Path:
    """A copy of the first `share` of the file, cut after a line."""
    if share >= 1:
        return book
    data = book.read_bytes()
    part = folder / book.name
    part.write_bytes(data[: data.rfind(b"\n", 0, int(len(data) * share)) + 1])
    return part


@contextlib.contextmanager
def _engine(folder: Path, *, kind: str) -> Iterator[tuple[Path | None, list[str]]]:
    """The configuration to use, and arguments."""
    if kind == "embedded":
        yield None, ["--model", str(test_model_path().resolve()), "--window", str(_WINDOW)]
        return
    if kind == "instant":
        with _instant_server() as base_url:
            yield write_config(folder / "coa.yaml", base_url=base_url, api_key="none"), ["--note-tokens", _LONG_NOTES]
        return
    with EngineProcess(test_model_path(), alias=MODEL, n_ctx=_WINDOW) as engine:
        yield write_config(folder / "coa.yaml", base_url=engine.base_url, api_key=engine.api_key), []


@contextlib.contextmanager
def _instant_server() -> Iterator[str]:
    """A server that quotes a sentence of each prompt at once, in a process of its own."""
    command = [sys.executable, "-m", "coa.testing.fault_server", "--n-ctx", str(_WINDOW)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["base_url"]
        finally:
            server.terminate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where a check failed, 2 where the books are not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", nargs="*", metavar="BOOK", help="of: " + ", ".join(QUESTIONS))
    parser.add_argument("--paper", action="store_true", help="the model reads every chunk and takes the notes itself")
    parser.add_argument(
        "--engine",
        choices=["own-process", "embedded", "instant"],
        default="own-process",
        help="embedded: inside coa's process, without a config; instant: no model, a server that quotes at once",
    )
    parser.add_argument("--share", type=float, default=1.0, help="read only the first part of each book, 0..1")
    args = parser.parse_args(arguments)
    if unknown := [name for name in args.books if name not in QUESTIONS]:
        parser.error(f"no such book: {', '.join(unknown)}")
    if not BOOKS.is_dir():
        print(f"there is no folder {BOOKS}; COA_TEST_DATA names the collection", file=sys.stderr)
        return 2
    print(HEADER, flush=True)
    readings = []
    with tempfile.TemporaryDirectory(prefix="coa-books-") as name:
        folder = Path(name)
        with _engine(folder, kind=args.engine) as (config, options):
            options += ["--notes", "paper" if args.paper else "quotes"]
            for book in args.books or QUESTIONS:
                path = beginning(BOOKS / f"{book}.txt", args.share, folder)
                readings.append(read_book(path, QUESTIONS[book], options, home=folder / "home", config=config))
                print(readings[-1].row(), flush=True)
    faults = [f"{r.name}: {fault}" for r in readings for fault in r.faults]
    peaks = [r.ended.peak_rss_mib for r in readings]
    ratio = max(peaks) / min(peaks)
    if ratio > LARGEST_RATIO:
        faults.append(f"peak memory of the largest is {ratio:.2f} times that of the smallest")
    print(f"\nlargest / smallest peak RSS: {ratio:.2f}; faults: {len(faults)}")
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
