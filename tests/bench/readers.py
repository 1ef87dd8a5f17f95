"""How fast coa reads files, against markitdown and pypdf on the same files in one run. Prints Markdown.

    COA_BENCH_PYTHON=peers/bin/python python tests/bench/readers.py

The peers are no dependencies of coa: COA_BENCH_PYTHON is an interpreter that has them
(`pip install 'markitdown[pdf,docx]' pypdf`), by default this one. What it cannot import is left out and named.
Every reader has a process of its own and takes turns with the others; imports are not counted, the best of three is.
coa's time is that of all its work: text, chapters, places, digests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("COA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
PEERS_PYTHON = os.environ.get("COA_BENCH_PYTHON", sys.executable)
SUFFIXES = (".epub", ".pdf", ".docx", ".html")
TURNS = 3

_LOOP = """
for line in sys.stdin:
    path = json.loads(line)
    began = time.perf_counter()
    try:
        text, failed = read(path), None
    except Exception as exc:
        text, failed = "", type(exc).__name__
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "words": len(text.split()), "failed": failed}), flush=True)
"""
_READERS = {
    "coa": """
from coa.documents import read_document
import coa.documents.formats.assembly, coa.documents.formats.docx, coa.documents.formats.epub
import coa.documents.formats.html, coa.documents.formats.pdf
def read(path):
    return read_document(path).text
""",
    "markitdown": """
import logging; logging.disable(logging.CRITICAL)
from markitdown import MarkItDown
converter = MarkItDown()
def read(path):
    return converter.convert(path).text_content
""",
    "pypdf": """
import logging; logging.disable(logging.CRITICAL)
from pypdf import PdfReader
def read(path):
    if not path.endswith(".pdf"):
        raise NotImplementedError
    return "\\n".join(page.extract_text() for page in PdfReader(path).pages)
""",
}


class Best(NamedTuple):
    """A reader's best turn with a file."""

    seconds: float
    words: int
    failed: str | None


class _Reader:
    """A process that reads files with one library."""

    def __init__(self, name: str, python: str) -> None:
        code = "import json, sys, time, warnings\nwarnings.simplefilter('ignore')\n" + _READERS[name] + _LOOP
        self.name = name
        self._process = subprocess.Popen(
            [python, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=REPOSITORY,
        )

    def read(self, path: Path) -> dict[str, Any] | None:
        """Seconds, words and what failed; None where the process is gone: the library is not installed."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(str(path)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        reply = self._process.stdout.readline()
        return json.loads(reply) if reply else None

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def measured(readers: list[_Reader], path: Path, absent: set[str]) -> dict[str, Best]:
    """The best turn of each reader with `path`; who is not installed is put into `absent`."""
    best: dict[str, Best] = {}
    for _ in range(TURNS):
        for reader in readers:
            done = None if reader.name in absent else reader.read(path)
            if done is None:
                absent.add(reader.name)
            elif reader.name not in best or done["seconds"] < best[reader.name].seconds:
                best[reader.name] = Best(done["seconds"], done["words"], done["failed"])
    return best


def main() -> int:
    """Prints the table; 1 where coa is slower than a peer on some file."""
    folder = DATA / "formats"
    paths = [p for p in sorted(folder.iterdir()) if p.suffix in SUFFIXES] if folder.is_dir() else []
    if not paths:
        print("\n## Reading\n\nNo files: set COA_TEST_DATA to a folder with formats/.")
        return 0
    readers = [_Reader(name, sys.executable if name == "coa" else PEERS_PYTHON) for name in _READERS]
    absent: set[str] = set()
    slower: list[str] = []
    print("\n## Reading\n")
    print("| file | MB | coa s | coa MB/s | markitdown s | ratio | pypdf s | ratio | words: coa, markitdown, pypdf |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    try:
        for path in paths:
            best = measured(readers, path, absent)
            own = best["coa"]
            size = path.stat().st_size / 1e6
            cells = [path.name, f"{size:.2f}", f"{own.seconds:.3f}", f"{size / own.seconds:.1f}"]
            for peer in ("markitdown", "pypdf"):
                theirs = best.get(peer)
                if theirs is None or theirs.failed:
                    cells += [
                        "" if theirs is None or theirs.failed == "NotImplementedError" else str(theirs.failed),
                        "",
                    ]
                    continue
                cells += [f"{theirs.seconds:.3f}", f"{theirs.seconds / own.seconds:.1f}"]
                if theirs.seconds < own.seconds:
                    slower.append(f"{path.name} ({peer})")
            cells.append(", ".join(str(best[r].words) if r in best else "" for r in _READERS))
            print(f"| {' | '.join(cells)} |", flush=True)
    finally:
        for reader in readers:
            reader.end()
    for name in sorted(absent):
        print(f"\nNot measured: {name} is not installed in {Path(PEERS_PYTHON).name} (see COA_BENCH_PYTHON).")
    print(f"\nSlower than a peer: {', '.join(slower) or 'none'}.")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
