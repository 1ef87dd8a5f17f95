"""Mutated files through the readers, each in a worker that can be killed: typed errors or documents, nothing else.

    python tests/fuzz/fuzz_readers.py --seconds 600 --seeds ../shared/data/formats --keep build/fuzz

Prints how many files were tried and what came of them, and keeps each that crashed, hung, failed with an untyped
error, gave a document that breaks its own rules, or made the workers grow. Exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from coa.documents.isolation import ReaderFailed, end_workers, read_document_isolated
from coa.documents.limits import ReadingLimits
from coa.errors import CoaError, DocumentError, DocumentTooLarge
from coa.testing.pdf_files import Bookmark, Page, pdf_file, prose
from coa.types import Document

LIMITS = ReadingLimits(
    max_bytes=20_000_000,
    max_unpacked_bytes=100_000_000,
    max_archive_entries=2000,
    max_pages=500,
    max_seconds=30,
    max_memory_bytes=2_000_000_000,
)
_LARGEST_SEED = 400_000
_INTERESTING = (
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"-1", b"99999999999", b"<", b">", b"&#0;", b"&a;",
    b"<!--",
    b"]]>", b"<![CDATA[", b"<table><tr><td>", b"</p>", b"PK\x03\x04", b"PK\x01\x02", b"%PDF-", b"endobj", b"endstream",
    b"/Kids[1 0 R]", b"/Count 99999", b"/Length 99999999", b"/Rotate 90", b"/Type/Page", b"xref", b"stream\n",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\x0c", b"../", b"\xcc\x81" * 50, b"(" * 500, b"[" * 500, b"<div>" * 300,
)  # fmt: skip


class Finding(NamedTuple):
    """A file that should not have come out as it did."""

    data: bytes
    name: str
    what: str


class Outcome(NamedTuple):
    """Of a run."""

    n_files: int
    results: Counter[str]
    findings: list[Finding]


def seeds(folder: Path | None) -> list[tuple[str, bytes]]:
    """Files to begin with: small ones made here, and the real ones of `folder`, large ones cut down."""
    page = Page(prose(["The tide came in over the flats.", "Nobody minded."] * 12))
    made = [
        ("made.pdf", pdf_file([page] * 4, outline=[Bookmark("One", 0), Bookmark("Two", 2)], labels="0<</S/r>>")),
        ("made.html", b"<html><head><title>T</title></head><body><h1>One</h1><p>It rained.</p><table><tr><td>x"),
        ("made.md", b"# One\n\nIt rained.\n\n## Two\n\n- a\n- b\n\n```\ncode\n```\n"),
        ("made.txt", "CHAPTER I\n\nIt rained. “Nobody” minded.\n\nCHAPTER II\n\nKäthe.\n".encode() * 20),
        ("made.zip", _zip([("01.txt", b"CHAPTER I\n\nIt rained.\n"), ("02.html", b"<p>More rain.</p>")])),
    ]
    for path in sorted(folder.iterdir()) if folder and folder.is_dir() else []:
        if path.suffix in (".epub", ".docx"):
            made.append((path.name, _smaller(path.read_bytes())))
        elif path.suffix in (".html", ".txt"):
            made.append((path.name, path.read_bytes()[:_LARGEST_SEED]))
        elif path.suffix == ".pdf":
            made.append((path.name, path.read_bytes()))
    return made


def _zip(entries: Sequence[tuple[str, bytes]]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else None)
    return data.getvalue()


def _entries(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist() if not info.is_dir()]


def _smaller(data: bytes) -> bytes:
    """The archive without its pictures and with long parts cut."""
    kept = [(n, d) for n, d in _entries(data) if not n.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".ttf"))]
    return _zip([(name, content if len(content) < 300_000 else content[:60_000]) for name, content in kept])


def mutated(data: bytes, chance: random.Random) -> bytes:
    """`data` with a few of its bytes changed; of an archive, mostly inside of one of its entries."""
    if data.startswith(b"PK\x03\x04") and chance.random() < 0.7:
        try:
            entries = _entries(data)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return _changed(data, chance)
        if entries:
            at = chance.randrange(len(entries))
            name, content = entries[at]
            entries[at] = (name, _changed(content, chance))
            if chance.random() < 0.1:
                entries.pop(chance.randrange(len(entries)))
            return _zip(entries)
    return _changed(data, chance)


def _changed(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 if changed:
                changed[at % len(changed)] = chance.randrange(256)
            case 1:
                changed[at:at] = chance.choice(_INTERESTING)
            case 2:
                del changed[at : at + chance.randrange(1, 200)]
            case 3:
                stretch = changed[at : at + chance.randrange(1, 400)]
                to = chance.randrange(len(changed) + 1)
                changed[to:to] = stretch
            case 4:
                some = chance.choice(_INTERESTING)
                changed[at : at + len(some)] = some
            case 5 if chance.random() < 0.1:
                del changed[at:]
            case 6 if changed:
                changed[at % len(changed)] ^= 1 << chance.randrange(8)
            case _:
                pass
    return bytes(changed)


def broken_rule(document: Document) -> str | None:
    """Which of the rules that every document keeps this one breaks."""
    size = len(document.text)
    if "\x00" in document.text or "\r" in document.text or not document.text.strip():
        return "its text is not canonical"
    for kind, spans in (
        ("left_out", [p.span for p in document.left_out]),
        ("places", [p.span for p in document.places]),
        ("outermost sections", [s.span for s in document.sections if s.level == 1]),
    ):
        if any(not 0 <= s.start <= s.end <= size for s in spans):
            return f"{kind} reach over the text"
        if any(a.end > b.start for a, b in pairwise(spans)):
            return f"{kind} overlap"
    return None


def tried(data: bytes, name: str) -> tuple[str, str | None]:
    """What came of a file, and what is wrong with that."""
    began = time.monotonic()
    try:
        document = read_document_isolated(data, name=name, limits=LIMITS)
    except DocumentTooLarge as exc:
        hung = "seconds to read" in str(exc) and time.monotonic() - began > LIMITS.max_seconds
        return ("hang", str(exc)) if hung else ("too large", None)
    except DocumentError as exc:
        return ("crash", f"{exc}\n{exc.__cause__}") if isinstance(exc.__cause__, ReaderFailed) else ("refused", None)
    except CoaError as exc:
        return "other", f"{type(exc).__name__}: {exc}"
    rule = broken_rule(document)
    return ("read", None) if rule is None else ("broken", rule)


def files(begin: Sequence[tuple[str, bytes]], chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Mutated files without end."""
    while True:
        name, data = chance.choice(begin)
        yield name, mutated(data, chance)


def fuzz(begin: Sequence[tuple[str, bytes]], *, seconds: float, seed: int) -> Outcome:
    """What came of as many mutated files as `seconds` allow; the same files for the same `seed`."""
    results: Counter[str] = Counter()
    findings: list[Finding] = []
    end = time.monotonic() + seconds
    for name, data in files(begin, random.Random(seed)):
        if time.monotonic() > end:
            break
        result, wrong = tried(data, name)
        results[result] += 1
        results[Path(name).suffix] += 1
        if wrong:
            findings.append(Finding(data, name, wrong))
    end_workers()
    return Outcome(sum(n for key, n in results.items() if not key.startswith(".")), results, findings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seeds", type=Path, help="a folder of real files")
    parser.add_argument("--seed", type=int, default=None, help="to have the same files again")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    outcome = fuzz(seeds(options.seeds), seconds=options.seconds, seed=seed)
    print(f"seed {seed}: {outcome.n_files} files, {dict(outcome.results)}")
    for finding in outcome.findings:
        options.keep.mkdir(parents=True, exist_ok=True)
        path = options.keep / f"{hashlib.sha256(finding.data).hexdigest()[:12]}-{finding.name}"
        path.write_bytes(finding.data)
        print(f"{path}: {finding.what}")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
