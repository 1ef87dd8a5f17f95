"""Counts of the prefix cache: nothing counts twice, and a kill tears nothing but its own last line."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coa.cache.kv_stats import Counts, KvStats, Totals


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "kv-stats.jsonl"


def test_counts_add_up_by_document_replica_and_reason(path: Path) -> None:
    first, second = KvStats(path, clock=lambda: 100.0), KvStats(path, clock=lambda: 50.0)
    first.add(Counts(calls=1, prompt_tokens=100, cached_tokens=60), document="a" * 64, replica="one")
    first.missed("never read before")
    second.add(Counts(calls=1, prompt_tokens=50), document="b" * 64, replica="one")
    second.add(Counts(saved=1, saved_bytes=7))
    for why in ("never read before", "evicted", "evicted"):
        second.missed(why)
    second.discarded("truncated")
    first.flush_now()
    second.flush_now()
    found = KvStats(path).totals()
    assert found.total == Counts(calls=2, prompt_tokens=150, cached_tokens=60, saved=1, saved_bytes=7)
    assert found.documents == {
        "a" * 64: Counts(calls=1, prompt_tokens=100, cached_tokens=60),
        "b" * 64: Counts(calls=1, prompt_tokens=50),
    }
    assert found.replicas == {"one": Counts(calls=2, prompt_tokens=150, cached_tokens=60)}
    assert found.top("missed") == [("evicted", 2), ("never read before", 2)]
    assert found.top("discarded") == [("truncated", 1)]
    assert found.top("refused") == []
    assert found.since == 50.0


def test_what_is_not_written_down_yet_is_told_and_not_twice(path: Path) -> None:
    stats = KvStats(path)
    stats.add(Counts(calls=1))
    assert stats.totals().total.calls == 1
    assert not path.exists()
    stats.flush_now()
    stats.flush_now()
    assert stats.totals().total.calls == 1
    assert not KvStats(path.with_name("another")).totals()


def test_folding_keeps_every_count_and_the_file_small(path: Path) -> None:
    stats = KvStats(path)
    for n in range(2000):
        stats.add(Counts(calls=1, prompt_tokens=n), document=f"{n % 7:064x}", replica=f"r{n % 3}")
        stats.missed("never read before")
        stats.flush_now()
    assert path.stat().st_size < 70_000
    found = stats.totals()
    assert found.total == Counts(calls=2000, prompt_tokens=1999 * 1000)
    assert sum(counts.calls for counts in found.documents.values()) == 2000
    assert found.reasons["missed"] == {"never read before": 2000}


def test_only_the_documents_counted_last_are_kept_apart(path: Path) -> None:
    stats = KvStats(path)
    for n in range(1200):
        stats.add(Counts(calls=1), document=f"{n:064x}")
        if n % 40 == 0:
            stats.flush_now()
    stats.flush_now()
    found = stats.totals()
    assert found.total.calls == 1200
    assert len(found.documents) < 1200
    assert list(found.documents)[-1] == f"{1199:064x}"


@pytest.mark.parametrize("torn", [b'{"format":1,"coun', b"\xff\xfe", b'{"format":2,"counted":{}}', b"[]", b"\n\n"])
def test_a_line_that_a_kill_tore_costs_itself_alone(path: Path, torn: bytes) -> None:
    stats = KvStats(path)
    stats.add(Counts(calls=1))
    stats.flush_now()
    path.write_bytes(path.read_bytes() + torn)
    stats.add(Counts(calls=2))
    stats.flush_now()
    assert KvStats(path).totals().total.calls == 3


def test_a_folder_that_cannot_be_written_keeps_the_counts_in_memory(path: Path) -> None:
    path.parent.parent.joinpath("cache").write_text("a file where the folder should be")
    stats = KvStats(path)
    stats.add(Counts(calls=1))
    stats.flush_now()
    stats.add(Counts(calls=1))
    stats.flush_now()
    assert stats.totals().total.calls == 2
    path.parent.unlink()
    stats.flush_now()
    assert KvStats(path).totals().total.calls == 2


def test_clearing_begins_anew(path: Path) -> None:
    stats = KvStats(path)
    stats.add(Counts(calls=1))
    stats.flush_now()
    stats.add(Counts(calls=1))
    stats.clear()
    assert not stats.totals()
    stats.add(Counts(calls=5))
    stats.flush_now()
    assert stats.totals().total.calls == 5


async def test_in_a_loop_counts_are_written_down_by_themselves(path: Path) -> None:
    stats = KvStats(path, flush_s=0.05)
    for _ in range(100):
        stats.add(Counts(calls=1))
        await asyncio.sleep(0.002)
    before = KvStats(path).totals().total.calls
    assert 0 < before <= 100
    await stats.flush()
    assert KvStats(path).totals().total.calls == 100


def test_totals_of_nothing_are_empty() -> None:
    assert not Totals()
    assert Totals().top("missed") == []


WRITER = """
import sys
from pathlib import Path
from coa.cache.kv_stats import Counts, KvStats

stats = KvStats(Path(sys.argv[1]))
print("ready", flush=True)
for n in range(int(sys.argv[2])):
    stats.add(Counts(calls=1), document=sys.argv[3], replica="r" * 4000)
    stats.flush_now()
stats.flush_now()
"""


@pytest.mark.slow
def test_processes_that_count_at_once_and_are_killed_lose_nothing_of_the_others(path: Path) -> None:
    def writer(times: int, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WRITER, str(path), str(times), name]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    steady = [writer(60, "steady") for _ in range(2)]
    doomed = [writer(10_000_000, "doomed") for _ in range(2)]
    for process in doomed:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    for process in (*steady, *doomed):
        process.communicate(timeout=60)
    found = KvStats(path).totals()
    assert found.documents["steady"].calls == 120
    assert found.total.calls == 120 + found.documents["doomed"].calls
