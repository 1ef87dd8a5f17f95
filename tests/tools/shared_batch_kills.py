"""Kills what works on a shared batch, by pid, and lets others go on: nothing may be lost, done twice, or paid twice.

    python tests/tools/shared_batch_kills.py ray [--good 480] [--broken 20] [--seed 1]
    python tests/tools/shared_batch_kills.py workers [--kills 3] …

"ray": `coa batch run --engine ray` with two actors; one actor is killed, then the driver with all that hangs on it,
then `coa batch resume` goes on. "workers": three `coa batch worker` processes; each one that is killed is followed by
a new one. Each process has one call under way at a time, so that its kill can cost no more than the one chunk in hand
(a driver's kill is that of its two actors). The documents are those of tests/tools/batch_documents.py; one fault
server counts every call, with faults in 5 % of them; replies are not cached. Prints Markdown; the exit code is 1
where something was lost, done twice or paid more often than allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from coa.batch.ledger import LedgerStatus
from coa.batch.record import batch_named
from coa.batch.redis_ledger import open_redis_ledger
from coa.testing.fault_server import Faults, FaultServer
from coa.testing.redis_process import RedisProcess
from tests.tools.batch_documents import Made, make_documents
from tests.tools.live import CoaProcess, Finished

QUESTION = "Who is spoken of, and what becomes of them?"
RATES = "429:0.02,500:0.02,reset:0.01"

_POLL_S = 0.2
_N_WORKERS = 3
_N_ACTORS = 2
_OUTLIVES_S = 60.0
_PARTIAL = 3
"""Exit code of a batch with documents that failed."""


@dataclass
class Killed:
    """One SIGKILL."""

    what: str
    pid: int
    ended: int
    """Items that had ended by then."""
    processes: int = 1
    """That worked on documents and died of it."""


@dataclass
class Trial:
    """One batch with its kills."""

    kills: list[Killed] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Bench:
    """One folder of documents, one Redis, one fault server."""

    def __init__(self, folder: Path, redis: RedisProcess, server: FaultServer, *, words: int) -> None:
        self.documents, self.out = folder / "documents", folder / "out"
        self.redis, self.server = redis, server
        self._folder = folder
        params = {"model": "openai/fault", "api_base": server.base_url, "api_key": "x"}
        self._settings = {
            "model": "fault",
            "model_list": [{"model_name": "fault", "litellm_params": params}],
            "redis_url": redis.url,
            "notes": "paper",
            "window": 4096,
            "chunk_tokens": words,  # two or three chunks a document
            "retries": 5,
        }

    def coa(self, *arguments: str, parallel_calls: int = 1) -> CoaProcess:
        """`coa batch ARGUMENTS`."""
        config = self._folder / f"coa-{parallel_calls}.yaml"
        config.write_text(yaml.safe_dump({**self._settings, "max_parallel_calls": parallel_calls}), encoding="utf-8")
        return CoaProcess(["batch", *arguments, "--quiet"], home=self._folder / "home", config=config)

    def run(self, *more: str, parallel_calls: int = 1) -> CoaProcess:
        """`coa batch run` over all documents."""
        asked = [str(self.documents), "--out", str(self.out), "-q", QUESTION]
        return self.coa("run", *asked, *more, parallel_calls=parallel_calls)

    def status(self) -> LedgerStatus | None:
        """The batch's counters; None before it has begun."""
        batch = batch_named(self.out)
        return None if batch is None else asyncio.run(self._status(batch))

    async def _status(self, batch: str) -> LedgerStatus:
        ledger = await open_redis_ledger(self.redis.url, batch)
        try:
            return await ledger.status()
        finally:
            await ledger.close()

    def n_ended(self) -> int:
        """Items that are done, partial or failed."""
        status = self.status()
        return 0 if status is None else sum(status.counts.values()) - status.open

    def wait_for(self, ready: Callable[[], bool], *processes: CoaProcess) -> bool:
        """False where all of `processes` have ended before it was so."""
        while not ready():
            if all(process.ended() for process in processes):
                return False
            time.sleep(_POLL_S)
        return True


def actors_of(driver: int) -> list[int]:
    """Processes of the actors below a driver."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        try:
            if " ".join(child.cmdline()).startswith("ray::PlacedWorker"):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def on_ray(bench: Bench, n_documents: int, rng: random.Random) -> Trial:
    """An actor is killed, then the driver; `coa batch resume` goes on."""
    trial, began = Trial(), time.monotonic()
    more = ["--engine", "ray", "--actors", str(_N_ACTORS), "--jobs", str(_N_ACTORS)]
    driver = bench.run(*more, parallel_calls=_N_ACTORS)
    first, second = (int(n_documents * share * rng.uniform(0.9, 1.1)) for share in (0.25, 0.55))
    if bench.wait_for(lambda: bench.n_ended() >= first and len(actors_of(driver.pid)) > 0, driver):
        victim = rng.choice(actors_of(driver.pid))
        os.kill(victim, signal.SIGKILL)
        trial.kills.append(Killed("actor", victim, bench.n_ended()))
    if bench.wait_for(lambda: bench.n_ended() >= second, driver):
        below = [psutil.Process(pid) for pid in actors_of(driver.pid)]
        trial.kills.append(Killed("driver", driver.pid, bench.n_ended(), processes=_N_ACTORS))
        trial.finished.append(driver.kill())
        _, alive = psutil.wait_procs(below, timeout=_OUTLIVES_S)
        trial.faults += [f"the actor {process.pid} outlived its driver" for process in alive]
    trial.finished.append(bench.coa("resume", str(bench.out), parallel_calls=_N_ACTORS).wait())
    trial.seconds = time.monotonic() - began
    return trial


def with_workers(bench: Bench, n_documents: int, n_kills: int, rng: random.Random) -> Trial:
    """Workers are killed, and others take their places."""
    trial, began = Trial(), time.monotonic()
    added = bench.run("--dry-run").wait()
    if added.code != 0:
        raise RuntimeError(f"the documents could not be added: {added.err}")

    def joined() -> CoaProcess:
        return bench.coa("worker", str(bench.out), "--jobs", "1")

    workers = [joined() for _ in range(_N_WORKERS)]
    for moment in sorted(int(n_documents * rng.uniform(0.1, 0.8)) for _ in range(n_kills)):
        if not bench.wait_for(lambda moment=moment: bench.n_ended() >= moment, *workers):  # type: ignore[misc]
            break
        victim = workers.pop(rng.randrange(len(workers)))
        trial.kills.append(Killed("worker", victim.pid, bench.n_ended()))
        trial.finished.append(victim.kill())
        workers.append(joined())
    trial.finished += [worker.wait() for worker in workers]
    trial.seconds = time.monotonic() - began
    return trial


def check(bench: Bench, trial: Trial, made: Made) -> dict[str, Any]:
    """The figures; what is wrong goes into the trial's faults."""
    rows = [json.loads(line) for line in (bench.out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    status, stats = bench.status(), bench.server.stats()
    assert status is not None
    states = Counter(row["state"] for row in rows)
    paid = stats.by_outcome.get("ok", 0) + stats.by_outcome.get("gone", 0)
    allowed = sum(kill.processes for kill in trial.kills)
    spent = sum(row["usage"]["calls"] for row in rows)
    told = trial.faults
    told += [f"{n} lines for {name}" for name, n in Counter(row["document"] for row in rows).items() if n > 1]
    missing = {*made.good, *made.broken} - {row["document"] for row in rows}
    if missing or status.open:
        told.append(f"{len(missing)} documents without a result, {status.open} items open")
    wrong = [row["document"] for row in rows if (row["state"] == "failed") != (row["document"] in made.broken)]
    told += [f"{name} has come out wrong" for name in wrong]
    told += [
        f"{row['document']} has failed without a cause" for row in rows if row["state"] != "done" and not row["cause"]
    ]
    if not 0 <= paid - spent <= allowed:
        told.append(f"{paid - spent} calls were paid again, where {len(trial.kills)} kills allow {allowed}")
    if status.spent.calls != spent:
        told.append(f"the ledger has {status.spent.calls} calls, the results {spent}")
    codes = {_PARTIAL if made.broken else 0, -signal.SIGKILL}
    told += [f"exit code {ended.code}: {ended.err[-500:]}" for ended in trial.finished if ended.code not in codes]
    return {
        "documents": len({row["document"] for row in rows}),
        "lines in results.jsonl": len(rows),
        "states": dict(states),
        "calls": stats.calls,
        "calls by outcome": dict(stats.by_outcome),
        "calls that the results are made of": spent,
        "paid again": f"{paid - spent} (allowed: {allowed})",
        "exit codes": [ended.code for ended in trial.finished],
        "seconds": round(trial.seconds),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where something was lost, done twice, or paid too often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=["ray", "workers"])
    parser.add_argument("--good", type=int, default=480)
    parser.add_argument("--broken", type=int, default=20)
    parser.add_argument("--words", type=int, default=500, help="of a document")
    parser.add_argument("--kills", type=int, default=3, help="of workers")
    parser.add_argument("--latency", type=float, default=0.02, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    rng, n_documents = random.Random(args.seed), args.good + args.broken
    faults = Faults(rates=Faults.parse_rates(RATES), latency_s=args.latency)
    with (
        tempfile.TemporaryDirectory(prefix="coa-batch-") as folder,
        RedisProcess() as redis,
        FaultServer(faults=faults, seed=args.seed) as server,
    ):
        bench = Bench(Path(folder), redis, server, words=args.words)
        made = make_documents(bench.documents, n_good=args.good, n_broken=args.broken, words=args.words)
        if args.engine == "ray":
            trial = on_ray(bench, n_documents, rng)
        else:
            trial = with_workers(bench, n_documents, args.kills, rng)
        figures = check(bench, trial, made)
    print("| killed | pid | items ended by then |\n| --- | --: | --: |")
    for kill in trial.kills:
        print(f"| {kill.what} | {kill.pid} | {kill.ended} |")
    print()
    for name, value in figures.items():
        print(f"- {name}: {value}")
    for fault in trial.faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if trial.faults else 0


if __name__ == "__main__":
    sys.exit(main())
