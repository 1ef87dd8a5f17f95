"""Kills an evaluation again and again, and counts what it paid for twice.

    python tests/tools/eval_kills.py [--kills 20] [--seed 1] [--documents 4]

`coa eval run` is a process of its own over a server that answers after 50 ms. It is ended with SIGKILL after one to
eight calls and started again until it finishes; then the same suite is run without a kill. Calls that were under way at
a kill are made again, two at most, and no others: the exit code is 1 where there were more, a question has more than
one result, or the scores differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import yaml

from coa.testing.fault_server import Faults, FaultServer
from tests.evaluation.conftest import oracle, settings_for, write_set

REPOSITORY = Path(__file__).resolve().parents[2]
_LATENCY_S = 0.05
_AT_ONCE = 2
_MOST_CALLS = 8
"""Between two kills."""


class Tally(NamedTuple):
    """What came of one evaluation."""

    calls: int
    """That the server took."""
    kills: int
    twice: int
    """Questions with more than one result."""
    scores: object


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed = measured(Path(folder) / "killed", given.kills, random.Random(given.seed), given.documents)
        whole = measured(Path(folder) / "whole", 0, random.Random(given.seed), given.documents)
    again = killed.calls - whole.calls
    print(f"{whole.calls} calls without a kill; {killed.calls} with {killed.kills} kills: {again} made again")
    print(f"{killed.twice} questions with two results; scores {'equal' if killed.scores == whole.scores else 'DIFFER'}")
    return int(again > _AT_ONCE * killed.kills or killed.twice > 0 or killed.scores != whole.scores)


def measured(folder: Path, kills: int, rng: random.Random, n_documents: int) -> Tally:
    """An evaluation that is killed at most `kills` times."""
    write_set(folder / "ferries", n_documents)
    suite = {
        "name": "kills",
        "resamples": 200,
        "sets": [{"name": "ferries", "folder": "ferries", "language": "en"}],
        "arms": [{"strategies": ["chain", "alr2"]}, {"controls": ["single_chunk", "bm25"]}],
        "settings": {"preselect": "never"},
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
    n_killed = 0
    with FaultServer(
        reply=lambda request: oracle(str(request.messages[-1]["content"])), faults=Faults(latency_s=_LATENCY_S)
    ) as server:
        settings = settings_for(server, folder / "home", max_parallel_calls=_AT_ONCE).model_dump(
            mode="json", exclude_unset=True
        )
        (folder / "coa.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        while not _ran(folder, server, rng.randint(1, _MOST_CALLS) if n_killed < kills else None):
            n_killed += 1
        calls = server.stats().calls
    results = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
    twice = sum(n > 1 for n in Counter(result["item"] for result in results).values())
    scores = json.loads((folder / "out" / "summary.json").read_text())["scores"]
    return Tally(calls, n_killed, twice, scores)


def _ran(folder: Path, server: FaultServer, n_calls: int | None) -> bool:
    """Whether the evaluation came to its end before it was killed, after `n_calls` more calls."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COA_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "coa", "eval", "run", "suite.yaml", "--out", "out", "-j", "2"],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    before = server.stats().calls
    while process.poll() is None:
        if n_calls is not None and server.stats().calls >= before + n_calls:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return process.returncode == 0  # it may have come to its end just then
        time.sleep(0.01)
    _, said = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the evaluation failed: {said.decode()[-2000:]}")
    return True


if __name__ == "__main__":
    sys.exit(main())
