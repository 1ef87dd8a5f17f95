"""A batch that is killed again and again, against one that is not.

    python tests/tools/batch_kills.py [--kills 20] [--processes 1] [--documents 60] [--words 900] [--seed 1]

The process gets SIGKILL at a random moment after its first call, and `coa batch resume` goes on. With several
processes each kill is the driver's, whose processes have to end by themselves then, or that of one of them, which the
driver has to replace. Looked at: that the results are those of the undisturbed batch, each once; that no chunk whose
note was on the disk at a kill, or whose document was done, is sent to the server after it; and that no prompt is sent
more often than kills can account for: a call that was under way, or whose reply was not stored yet. Replies are not
kept for other runs (--no-cache). Exit code 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coa.runs import RunStore
from coa.testing.fault_server import Faults, FaultServer

_spec = importlib.util.spec_from_file_location("batch_bench", Path(__file__).with_name("batch_bench.py"))
assert _spec is not None
assert _spec.loader is not None
bench = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("batch_bench", bench)
_spec.loader.exec_module(bench)

_LATENCY_S = 0.1
_STARTS_WITHIN_S = 90.0
_ENDS_WITHIN_S = 10.0
_OF_WORKERS = 0.5
"""Of the kills, where there are several processes."""


@dataclass
class Kill:
    """One kill."""

    what: str
    at_call: int
    """Calls that the server had seen."""
    in_flight: int
    stored: int
    """Chunks with notes on the disk."""
    done: int
    """Items with a line of results."""
    sent_again: int = 0
    """Chunks of those with notes that were sent later."""


@dataclass
class Found:
    """What came of it."""

    kills: list[Kill]
    calls: int
    distinct: int
    needed: int
    exit_code: int
    seconds: float
    problems: list[str] = field(default_factory=list)


def measure(
    folder: Path, *, kills: int, documents: int, words: int, seed: int, calls_at_once: int = 8, processes: int = 1
) -> Found:
    """Runs the batch undisturbed, then killed."""
    rng = random.Random(seed)
    texts = folder / "documents"
    bench.loaded("batch_documents").make_documents(texts, n_good=documents, n_broken=2, words=words)
    faults = Faults(latency_s=_LATENCY_S)
    with FaultServer(faults=faults, keep=200_000) as server:
        whole = bench.Bench(folder / "whole", server, calls_at_once=calls_at_once, response_cache=False)
        whole.run_here(texts, "--keep-runs")
        needed, prefixes = whole.needed(), whole.stored_prefixes()
    with FaultServer(faults=faults, keep=200_000) as server:
        place = bench.Bench(folder / "killed", server, calls_at_once=calls_at_once, response_cache=False)
        started = bench.now()
        more = ["--processes", str(processes)] if processes > 1 else []
        process = place.begin(texts, *more)
        paid = _Paid(place, whole.runs(), prefixes)
        found, code = _killed(place, server, process, paid, kills=kills, needed=needed, rng=rng)
        seconds = bench.now() - started
        stats = server.stats()
        for kill, stored in found:
            later = place.prefixes_since(kill.at_call)
            kill.sent_again = sum(prefix in stored for prefix in later)
    result = Found([kill for kill, _ in found], stats.calls, stats.distinct_prompts, needed, code, seconds)
    _look(result, whole, place)
    return result


def _killed(
    place: bench.Bench,  # type: ignore[name-defined]
    server: FaultServer,
    process: subprocess.Popen[bytes],
    paid: _Paid,
    *,
    kills: int,
    needed: int,
    rng: random.Random,
) -> tuple[list[tuple[Kill, set[str]]], int]:
    """The kills, each with the reading prefixes that were paid for by then, and the last exit code."""
    found: list[tuple[Kill, set[str]]] = []
    for n in range(kills):
        seen = server.stats().calls
        left = max(1, needed - seen)
        wanted = seen + 1 + rng.randrange(max(1, 2 * left // (kills - n + 1)))
        until = bench.now() + _STARTS_WITHIN_S
        while server.stats().calls < wanted and process.poll() is None and bench.now() < until:
            time.sleep(0.003)
        if process.poll() is not None:
            break
        time.sleep(rng.random() * _LATENCY_S)
        what, gone = _kill_one(process, rng)
        stats = server.stats()
        stored = paid.so_far() if gone else set()
        if gone:
            found.append((Kill(what, stats.calls, stats.in_flight, len(stored), len(place.rows())), stored))
            process = place.start("resume", str(place.out), "--yes")
        else:  # the others go on meanwhile, so what is stored now may have been sent a moment ago
            found.append((Kill(what, stats.calls, stats.in_flight, 0, len(place.rows())), stored))
    return found, bench.waited(process, timeout_s=3000)


class _Paid:
    """What has been paid for."""

    def __init__(self, place: bench.Bench, texts: RunStore, prefixes: dict[str, set[str]]) -> None:  # type: ignore[name-defined]
        """`texts` has the documents, `prefixes` the reading prefixes of each, from the batch that was not disturbed."""
        self._place = place
        self._texts = texts
        self._prefixes = prefixes

    def so_far(self) -> set[str]:
        """Prefixes of chunks with notes, and of all documents that are done."""
        done = [row["document"] for row in self._place.rows() if row["state"] == "done"]
        unfinished = self._place.stored_prefixes(self._texts)
        return set().union(*unfinished.values(), *(self._prefixes[name] for name in done))


def _kill_one(process: subprocess.Popen[bytes], rng: random.Random) -> tuple[str, bool]:
    """Kills the batch's driver, or one of its processes; what, and whether the batch has ended with it."""
    family = bench.family(process.pid)
    workers = [pid for pid in family if "coa.batch.process_worker" in bench.command_of(pid)]
    if workers and rng.random() < _OF_WORKERS:
        os.kill(rng.choice(workers), signal.SIGKILL)
        return "process", False
    process.kill()
    process.wait()
    until = bench.now() + _ENDS_WITHIN_S
    while any(bench.command_of(pid) for pid in workers) and bench.now() < until:
        time.sleep(0.005)
    return "driver", True


def _look(found: Found, whole: bench.Bench, place: bench.Bench) -> None:  # type: ignore[name-defined]
    results, wanted = place.results(), whole.results()
    if results != wanted:
        other = [name for name in wanted if results.get(name) != wanted[name]]
        found.problems.append(f"{len(other)} results differ: {other[:5]}")
    keys = [row["key"] for row in place.rows()]
    if len(keys) != len(set(keys)):
        found.problems.append(f"{len(keys)} lines for {len(set(keys))} items")
    again = sum(kill.sent_again for kill in found.kills)
    if again:
        found.problems.append(f"{again} chunks were paid for again")
    if found.distinct != found.needed:
        found.problems.append(f"{found.distinct} different prompts, {found.needed} needed")
    summary = place.summary()
    if summary["usage"]["calls"] != found.needed:
        found.problems.append(f"the summary counts {summary['usage']['calls']} calls, {found.needed} needed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table and what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--words", type=int, default=900)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="coa-batch-") as folder:
        found = measure(
            Path(folder),
            kills=args.kills,
            documents=args.documents,
            words=args.words,
            seed=args.seed,
            processes=args.processes,
        )
    head = ("kill", "of", "calls before", "under way", "chunks stored", "items done", "stored chunks sent again")
    rows = [(n, k.what, k.at_call, k.in_flight, k.stored, k.done, k.sent_again) for n, k in enumerate(found.kills, 1)]
    print(bench.table([head, *rows]))
    print(f"{len(found.kills)} kills, {found.seconds:.1f} s, exit code {found.exit_code}")
    print(f"calls {found.calls}, needed {found.needed}, different prompts {found.distinct}: ", end="")
    print(f"{found.calls - found.needed} calls were cut or not stored yet when a kill came")
    for problem in found.problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
