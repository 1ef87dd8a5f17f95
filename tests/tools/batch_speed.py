"""How near a batch comes to what its engine allows, and whether its memory grows with the documents.

    python tests/tools/batch_speed.py [--documents 50,500] [--processes 1,2] [--words 500] [--latency 0.2]
        [--at-once 64] [--engines inside,served]

The engine takes `--latency` seconds for each call and hardly any CPU: `served` is `quick_engine.py`, a process of its
own behind litellm and HTTP; `inside` stands in litellm's place in the batch's own processes, which leaves what coa
itself takes. Ideal is all calls at `--at-once` side by side without a pause; the time counts from the first call to
the end of the last. CPU is that of all of the batch's processes from start to end, and while calls go on; memory is
the most that they hold together. What others take of the machine meanwhile is told, since it falsifies all else.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_spec = importlib.util.spec_from_file_location("batch_bench", Path(__file__).with_name("batch_bench.py"))
assert _spec is not None
assert _spec.loader is not None
bench = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("batch_bench", bench)
_spec.loader.exec_module(bench)

_LOOK_S = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Found:
    """One batch."""

    engine: str
    documents: int
    processes: int
    done: int
    calls: int
    most_at_once: int
    seconds: float
    """From the first call to the end of the last."""
    ideal_s: float
    cpu_s: float
    """Of the batch, from start to end."""
    cpu_calling_s: float
    """Of the batch, while calls went on."""
    engine_cpu_s: float
    others: float
    """Cores that everybody else on the machine took while calls went on."""
    peak_mb: float

    @property
    def ratio(self) -> float:
        """Of the ideal throughput."""
        return self.ideal_s / self.seconds


@dataclass(frozen=True)
class _Look:
    at: float
    cpu_s: float
    busy_s: float
    """Of all cores, by everybody."""
    mb: float


def measure(
    folder: Path, *, engine: str, documents: int, processes: int, words: int, latency_s: float, at_once: int
) -> Found:
    """Runs one batch over plain texts, twice as many documents at once as calls."""
    texts = folder / "documents"
    made = bench.loaded("batch_documents")
    made.make_documents(texts, n_good=documents, n_broken=0, words=words, formats=("txt",))
    kinds = {"inside": bench.loaded("inside_engine").InsideEngine, "served": bench.loaded("quick_engine").QuickEngine}
    with kinds[engine](latency_s=latency_s) as serving:
        place = bench.Bench(folder, serving, calls_at_once=at_once, response_cache=False)
        more = ["--processes", str(processes)] if processes > 1 else []
        process = place.begin(texts, "--quiet", "-j", str(2 * at_once), *more)
        looks = _watched(process.pid)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        seen = serving.ended()
    calling = [look for look in looks if seen.first <= look.at <= seen.last] or looks[:1]
    first, last = calling[0], calling[-1]
    took_s = last.cpu_s - first.cpu_s + seen.cpu_s
    return Found(
        engine=engine,
        documents=documents,
        processes=processes,
        done=place.summary()["counts"]["done"],
        calls=seen.calls,
        most_at_once=seen.most_at_once,
        seconds=seen.last - seen.first,
        ideal_s=seen.calls * latency_s / at_once,
        cpu_s=used.ru_utime + used.ru_stime,
        cpu_calling_s=last.cpu_s - first.cpu_s,
        engine_cpu_s=seen.cpu_s,
        others=(last.busy_s - first.busy_s - took_s) / max(_LOOK_S, last.at - first.at),
        peak_mb=max((look.mb for look in looks), default=0.0),
    )


def _watched(pid: int) -> list[_Look]:
    """Looks at the process and those below it, until it has ended. Takes Linux's /proc."""
    looks = []
    while _state(pid)[:1] not in {"Z", ""}:
        time.sleep(_LOOK_S)
        cpu_s = mb = 0.0
        for member in bench.family(pid):
            fields = _state(member).split()
            if fields:
                # utime, stime, and those of the processes that it has waited for; rss in pages.
                cpu_s += sum(map(int, fields[11:15])) / _TICKS
                mb += int(fields[21]) * _PAGE_BYTES / (1 << 20)
        looks.append(_Look(time.monotonic(), cpu_s, _busy_s(), mb))
    return looks


def _busy_s() -> float:
    user, nice, system, _, _, irq, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + stolen) / _TICKS


def _state(pid: int) -> str:
    """/proc/PID/stat from its third field on; empty where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except OSError:
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", default="50,500")
    parser.add_argument("--processes", default="1")
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--engines", default="inside,served")
    args = parser.parse_args(arguments)
    found = []
    counts = [int(n) for n in args.documents.split(",")]
    for engine, processes, n in itertools.product(args.engines.split(","), args.processes.split(","), counts):
        with tempfile.TemporaryDirectory(prefix="coa-batch-") as folder:
            one = measure(
                Path(folder),
                engine=engine,
                documents=n,
                processes=int(processes),
                words=args.words,
                latency_s=args.latency,
                at_once=args.at_once,
            )
            found.append(one)
    print(bench.table([_HEAD, *map(_row, found)]))
    for at in range(0, len(found), len(counts)):
        first, last = found[at], found[at + len(counts) - 1]
        if first is not last:
            print(f"{first.engine}, {first.processes} processes, peak memory, ", end="")
            print(f"{last.documents} documents to {first.documents}: x {last.peak_mb / first.peak_mb:.2f}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


_HEAD = (
    "engine",
    "processes",
    "documents",
    "done",
    "calls",
    "most at once",
    "seconds",
    "ideal",
    "of the ideal",
    "CPU ms a call",
    "while calling",
    "engine's",
    "others' cores",
    "peak MB",
)


def _row(one: Found) -> tuple[object, ...]:
    return (
        one.engine,
        one.processes,
        one.documents,
        one.done,
        one.calls,
        one.most_at_once,
        f"{one.seconds:.1f}",
        f"{one.ideal_s:.1f}",
        f"{100 * one.ratio:.0f} %",
        f"{1000 * one.cpu_s / one.calls:.1f}",
        f"{1000 * one.cpu_calling_s / one.calls:.1f}",
        f"{1000 * one.engine_cpu_s / one.calls:.2f}",
        f"{max(0.0, one.others):.1f}",
        f"{one.peak_mb:.0f}",
    )


if __name__ == "__main__":
    sys.exit(main())
