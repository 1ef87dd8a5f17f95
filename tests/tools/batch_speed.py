"""How near a batch comes to what its engine allows, and whether its memory grows with the documents.

    python tests/tools/batch_speed.py [--documents 50,500] [--words 500] [--latency 0.2] [--at-once 64]

The engine is a fault server in this process that takes `--latency` seconds for each call. Ideal is all calls at
`--at-once` side by side without a pause; the time counts from the first call to the end of the last. CPU is the batch
process's own, with its readers', from start to end; memory is its peak.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coa.testing.fault_server import Faults, FaultServer

_spec = importlib.util.spec_from_file_location("batch_bench", Path(__file__).with_name("batch_bench.py"))
assert _spec is not None
assert _spec.loader is not None
bench = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("batch_bench", bench)
_spec.loader.exec_module(bench)


@dataclass
class Found:
    """One batch."""

    documents: int
    done: int
    calls: int
    peak_at_once: int
    seconds: float
    """From the first call to the end of the last."""
    ideal_s: float
    cpu_s: float
    peak_mb: float

    @property
    def ratio(self) -> float:
        """Of the ideal throughput."""
        return self.ideal_s / self.seconds


def measure(folder: Path, *, documents: int, words: int, latency_s: float, at_once: int) -> Found:
    """Runs one batch over plain texts, twice as many documents at once as calls."""
    texts = folder / "documents"
    made = bench.loaded("batch_documents")
    made.make_documents(texts, n_good=documents, n_broken=0, words=words, formats=("txt",))
    with FaultServer(faults=Faults(latency_s=latency_s)) as server:
        place = bench.Bench(folder, server, calls_at_once=at_once, response_cache=False)
        process = place.begin(texts, "--quiet", "-j", str(2 * at_once))
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        stats = server.stats()
    seconds = max(stats.times) - min(stats.times) + latency_s
    return Found(
        documents=documents,
        done=place.summary()["counts"]["done"],
        calls=stats.calls,
        peak_at_once=stats.peak_concurrency,
        seconds=seconds,
        ideal_s=stats.calls * latency_s / at_once,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_mb=used.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", default="50,500")
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--at-once", type=int, default=64)
    args = parser.parse_args(arguments)
    found = []
    for n in map(int, args.documents.split(",")):
        with tempfile.TemporaryDirectory(prefix="coa-batch-") as folder:
            found.append(
                measure(Path(folder), documents=n, words=args.words, latency_s=args.latency, at_once=args.at_once)
            )
    head = (
        "documents",
        "done",
        "calls",
        "most at once",
        "seconds",
        "ideal",
        "of the ideal",
        "CPU ms a call",
        "peak MB",
    )
    rows = [
        (
            one.documents,
            one.done,
            one.calls,
            one.peak_at_once,
            f"{one.seconds:.1f}",
            f"{one.ideal_s:.1f}",
            f"{100 * one.ratio:.0f} %",
            f"{1000 * one.cpu_s / one.calls:.1f}",
            f"{one.peak_mb:.0f}",
        )
        for one in found
    ]
    print(bench.table([head, *rows]))
    if len(found) > 1:
        print(f"peak memory, {found[-1].documents} documents to {found[0].documents}: ", end="")
        print(f"x {found[-1].peak_mb / found[0].peak_mb:.2f}; load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
