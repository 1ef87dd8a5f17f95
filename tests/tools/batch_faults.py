"""A batch over a server that fails in 5 % of calls, with broken documents among the good ones.

    python tests/tools/batch_faults.py [--good 480] [--broken 20] [--words 500] [--rate 0.05]

Every good document is to be done, every broken one to fail with its cause, the exit code to be 3, and the calls to be
at most 1.1 times those needed without faults. Exit code 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coa.testing.fault_server import Faults, FaultServer

_spec = importlib.util.spec_from_file_location("batch_bench", Path(__file__).with_name("batch_bench.py"))
assert _spec is not None
assert _spec.loader is not None
bench = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("batch_bench", bench)
_spec.loader.exec_module(bench)

KINDS = ("429", "500", "503", "reset", "empty", "wrong-json", "broken-stream")


@dataclass
class Found:
    """What came of it."""

    exit_code: int
    calls: int
    needed: int
    faults: dict[str, int]
    states: dict[str, int]
    causes: dict[str, str]
    """Of the broken documents, by name."""
    seconds: float
    problems: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Calls to those needed."""
        return self.calls / max(1, self.needed)


def measure(folder: Path, *, n_good: int, n_broken: int, words: int, rate: float, calls_at_once: int = 16) -> Found:
    """Makes the documents, runs the batch, and looks at what it left."""
    documents = folder / "documents"
    made = bench.loaded("batch_documents").make_documents(documents, n_good=n_good, n_broken=n_broken, words=words)
    faults = Faults(rates=dict.fromkeys(KINDS, rate / len(KINDS)), latency_s=0.02)  # type: ignore[arg-type]
    with FaultServer(faults=faults, seed=8) as server:
        place = bench.Bench(folder, server, calls_at_once=calls_at_once, response_cache=False)
        started = bench.now()
        code = bench.waited(place.begin(documents), timeout_s=3000)
        seconds = bench.now() - started
        stats = server.stats()
    rows = place.rows()
    by_name = {row["document"]: row for row in rows}
    found = Found(
        exit_code=code,
        calls=stats.calls,
        needed=place.needed(),
        faults={kind: n for kind, n in stats.by_outcome.items() if kind != "ok"},
        states=dict(Counter(row["state"] for row in rows)),
        causes={name: str(by_name[name]["cause"]) for name in made.broken if name in by_name},
        seconds=seconds,
    )
    if code != 3:
        found.problems.append(f"exit code {code}")
    found.problems += [f"{n}: {by_name.get(n)}" for n in made.good if by_name.get(n, {}).get("state") != "done"]
    for name in made.broken:
        row = by_name.get(name, {})
        if row.get("state") != "failed" or not row.get("cause"):
            found.problems.append(f"{name}: {row}")
    if len(rows) != len(by_name):
        found.problems.append(f"{len(rows)} lines for {len(by_name)} documents")
    if found.ratio > 1.1:
        found.problems.append(f"{found.calls} calls, {found.needed} needed")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=480)
    parser.add_argument("--broken", type=int, default=20)
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--rate", type=float, default=0.05)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="coa-batch-") as folder:
        found = measure(Path(folder), n_good=args.good, n_broken=args.broken, words=args.words, rate=args.rate)
    print(f"documents: {args.good} good, {args.broken} broken; {found.seconds:.1f} s; exit code {found.exit_code}")
    print(f"items: {bench.shares(found.states)}")
    print(f"calls: {found.calls}, needed {found.needed} (x {found.ratio:.3f}); faults: {bench.shares(found.faults)}")
    for name, cause in found.causes.items():
        print(f"  {name}: {cause}")
    for problem in found.problems:
        print(f"PROBLEM {problem}", file=sys.stderr)
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
