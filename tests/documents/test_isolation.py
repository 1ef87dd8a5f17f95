"""Reading in a worker process: the same documents, and an end to whatever goes wrong there."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest

from coa.documents import isolation, read_document
from coa.documents.isolation import ReaderFailed, end_workers, read_document_isolated
from coa.documents.limits import ReadingLimits
from coa.errors import ConfigError, DocumentEmpty, DocumentError, DocumentTooLarge
from coa.testing.pdf_files import Page, pdf_file, prose

pytestmark = pytest.mark.slow

PDF = pdf_file([Page(prose(["It rained on the harbour."]))])

# A reader as a plug-in brings it, that does to its process what hostile files do to readers.
PLUGIN = """
import ctypes, os, time
from coa.documents.formats.raw import Block, RawText

def read(data, *, name, limits):
    deed = data.decode()
    if deed == "crash":
        ctypes.string_at(0)
    if deed == "hang":
        while True:
            pass
    if deed == "sleep":
        time.sleep(600)
    if deed == "eat":
        held = [bytearray(1 << 20) for _ in range(100_000)]
    if deed == "exit":
        os._exit(3)
    if deed == "raise":
        raise RuntimeError("a bug in the plug-in")
    if deed == "environment":
        deed = " ".join(os.environ)
    return RawText((Block(deed),), "text/x-deed")
"""


@pytest.fixture(autouse=True)
def _no_workers_left() -> Iterator[None]:
    yield
    end_workers()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an installed reader: the worker gets the import path of its parent."""
    (tmp_path / "deeds.py").write_text(PLUGIN)
    info = tmp_path / "deeds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deeds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[coa.readers]\ndeeds = deeds:read\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    end_workers()
    return "deeds"


def children() -> list[psutil.Process]:
    """Reading workers and what they started; other tests of this process may have children of their own."""
    return [
        process
        for worker in psutil.Process().children()
        if worker.status() != psutil.STATUS_ZOMBIE and "coa.documents.worker" in worker.cmdline()
        for process in (worker, *worker.children(recursive=True))
    ]


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "stream"])
def test_the_document_is_the_one_that_reading_in_place_gives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "made.pdf"
    path.write_bytes(PDF)
    sources: dict[str, str | Path | bytes | BinaryIO] = {
        "path": path,
        "str": str(path),
        "bytes": PDF,
        "stream": io.BytesIO(PDF),
    }
    assert read_document_isolated(sources[kind], name="made.pdf") == read_document(PDF, name="made.pdf")


def test_a_worker_reads_several_documents() -> None:
    read_document_isolated(PDF)
    (first,) = children()
    for _ in range(3):
        read_document_isolated(PDF)
    assert children() == [first]


def test_small_text_is_read_in_place() -> None:
    read_document_isolated(b"It rained. Nobody minded.")
    assert not children()


def test_large_text_is_read_in_a_worker_and_alike(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("It rained. Nobody minded.\n\n" * 50_000)
    assert read_document_isolated(path) == read_document(path)
    assert len(children()) == 1


def test_errors_are_those_of_reading_in_place() -> None:
    with pytest.raises(DocumentError, match="damaged PDF"):
        read_document_isolated(b"%PDF-1.7\n" + bytes(200))
    with pytest.raises(DocumentEmpty, match="hold no text"):
        read_document_isolated(pdf_file([Page()]))
    with pytest.raises(ConfigError, match="no reader 'nobody'"):
        read_document_isolated(b"text", reader="nobody")
    with pytest.raises(DocumentError, match="no file"):
        read_document_isolated("/nowhere/at/all.pdf")
    with pytest.raises(DocumentTooLarge, match="at most"):
        read_document_isolated(PDF, max_bytes=100)


def test_limits_reach_the_worker() -> None:
    with pytest.raises(DocumentTooLarge, match="2 pages where at most 1 are read"):
        read_document_isolated(pdf_file([Page(), Page()]), limits=ReadingLimits(max_pages=1))


@pytest.mark.parametrize(("deed", "how"), [("crash", "SIGSEGV"), ("exit", "exit code 3")])
def test_a_crash_is_a_document_error_with_its_cause(plugin: str, deed: str, how: str) -> None:
    with pytest.raises(DocumentError, match=rf"made the reader crash .*{how}") as caught:
        read_document_isolated(deed.encode(), reader=plugin, name="made.txt")
    assert isinstance(caught.value.__cause__, ReaderFailed)
    assert read_document_isolated(b"well", reader=plugin).text == "well\n"


def test_a_bug_in_a_reader_is_a_document_error_with_its_traceback(plugin: str) -> None:
    with pytest.raises(DocumentError, match="RuntimeError: a bug in the plug-in") as caught:
        read_document_isolated(b"raise", reader=plugin)
    assert "deeds.py" in str(caught.value.__cause__)


@pytest.mark.slow
@pytest.mark.parametrize("deed", ["hang", "sleep"])
def test_what_takes_too_long_is_killed(plugin: str, deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_GRACE_S", 1.0)
    began = time.monotonic()
    with pytest.raises(DocumentTooLarge, match="takes more than 1 seconds"):
        read_document_isolated(deed.encode(), reader=plugin, limits=ReadingLimits(max_seconds=1))
    assert time.monotonic() - began < 10
    assert not children()


def test_memory_is_bounded(plugin: str) -> None:
    with pytest.raises(DocumentTooLarge, match="more than 600 MB of memory"):
        read_document_isolated(b"eat", reader=plugin, limits=ReadingLimits(max_memory_bytes=600_000_000))


def test_a_worker_that_was_killed_while_it_waited_is_replaced() -> None:
    expected = read_document_isolated(PDF)
    (worker,) = children()
    os.kill(worker.pid, signal.SIGKILL)
    assert read_document_isolated(PDF) == expected


def test_secrets_of_the_environment_do_not_reach_the_worker(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "OPENAI_API_KEY" not in read_document_isolated(b"environment", reader=plugin).text


def test_threads_read_at_the_same_time(plugin: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda n: read_document_isolated(b"deed %d" % n, reader=plugin).text, range(12)))
    assert texts == [f"deed {n}\n" for n in range(12)]
    assert len(children()) <= 2


def test_no_file_descriptors_or_threads_are_left() -> None:
    read_document_isolated(PDF)
    end_workers()
    before = psutil.Process().num_fds(), threading.active_count()
    for _ in range(3):
        read_document_isolated(PDF)
        end_workers()
    assert (psutil.Process().num_fds(), threading.active_count()) == before
