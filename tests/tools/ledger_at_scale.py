"""What an operation on a batch's ledger takes with a thousand items and with a million.

    python tests/tools/ledger_at_scale.py [--ledger redis|sqlite|both] [--sizes 1000,10000,100000,1000000]
        [--questions 1] [--rounds 2000] [--drain 8] [--redis-server /usr/bin/redis-server]

A round is what a worker does with a document: lease, heartbeat, reserve, record, reported. The documents have URLs
as sources, and the same `--questions` each; sizes count documents. `--drain N` ends all items of the last size
afterwards, with N holders side by side. Prints Markdown; times are medians and 99 % quantiles in microseconds, as
the caller sees them, and for Redis also the server's own mean.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median

from redis import Redis

from coa.batch.ledger import Entry, Lease, Ledger, NewItem, Outcome, Spending, SpendingLimits
from coa.batch.redis_ledger import open_redis_ledger
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.testing.redis_process import RedisProcess

PAYLOAD = "ask: who inherits the estate, and on what condition? ({})"
CONFIG = "5f1c0b7e2a9d4c36"
PAID = Spending(calls=6, prompt_tokens=9000, completion_tokens=700, cost_usd=0.0123)
OPERATIONS = ("lease", "heartbeat", "reserve", "record", "reported", "status")

_ADDED_AT_ONCE = 5000
_LEASE_S = 600.0
_N_STATUS = 200


@dataclass
class Store:
    """A ledger and how to ask what it takes."""

    name: str
    ledger: Ledger
    server: Redis | None = None
    path: Path | None = None

    def n_bytes(self) -> int:
        """Of memory (Redis) or of the disk (SQLite)."""
        if self.server is not None:
            return int(self.server.info("memory")["used_memory"])
        assert self.path is not None
        return sum(file.stat().st_size for file in self.path.parent.glob("*"))

    def server_time(self) -> tuple[int, float]:
        """Calls of scripts so far, and their microseconds in the server."""
        stats = self.server.info("commandstats").get("cmdstat_evalsha", {}) if self.server is not None else {}
        return int(stats.get("calls", 0)), float(stats.get("usec", 0.0))


@dataclass
class Measured:
    """One size of one ledger."""

    store: str
    n_documents: int
    add_s: float
    n_bytes: int
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds, by operation."""
    server_us: dict[str, float] = field(default_factory=dict)


def entries(start: int, stop: int, n_questions: int = 1) -> Iterator[Entry]:
    """Documents with so many questions each; digests and keys as long as real ones."""
    for i in range(start, stop):
        digest = hashlib.sha256(f"document {i}".encode()).hexdigest()
        keys = (hashlib.sha256(f"{digest} {CONFIG} {n}".encode()).hexdigest() for n in range(n_questions))
        source = f"s3://corpus-bucket/crawl-2026/{i // 1000:04d}/document-{i:07d}.html"
        yield Entry(
            source,
            digest,
            f"ETag={digest[:32]}",
            20_000,
            tuple(NewItem(key, PAYLOAD.format(n), CONFIG) for n, key in enumerate(keys)),
        )


async def grow(store: Store, start: int, stop: int, n_questions: int) -> float:
    """Seconds to add documents `start` to `stop`; the rows are made outside of the clock."""
    seconds, rows = 0.0, entries(start, stop, n_questions)
    while page := list(islice(rows, _ADDED_AT_ONCE)):
        began = time.perf_counter()
        await store.ledger.add(page)
        seconds += time.perf_counter() - began
    return seconds


async def measure(store: Store, n_documents: int, n_rounds: int, add_s: float) -> Measured:
    """Rounds on the ledger as it stands."""
    found = Measured(store.name, n_documents, add_s, store.n_bytes())
    leases: list[Lease] = []
    before = store.server_time()
    for _ in range(n_rounds):
        began = time.perf_counter()
        lease = await store.ledger.lease("worker-1", seconds=_LEASE_S)
        found.times["lease"].append(time.perf_counter() - began)
        assert lease is not None
        leases.append(lease)
    after = store.server_time()
    if store.server is not None:
        found.server_us["lease"] = (after[1] - before[1]) / (after[0] - before[0])
    before = after
    for operation, call in (
        ("heartbeat", lambda x: store.ledger.heartbeat(x, seconds=_LEASE_S, progress=True)),
        ("reserve", lambda x: store.ledger.reserve(x, PAID)),
        ("record", lambda x: store.ledger.record(x, [Outcome(i.key, "done", PAID, seconds=3.5) for i in x.items])),
        ("reported", lambda x: store.ledger.reported([i.key for i in x.items])),
        ("status", lambda _: store.ledger.status()),
    ):
        for lease in leases[: _N_STATUS if operation == "status" else None]:
            began = time.perf_counter()
            await call(lease)
            found.times[operation].append(time.perf_counter() - began)
        after = store.server_time()
        if after[0] > before[0]:
            found.server_us[operation] = (after[1] - before[1]) / (after[0] - before[0])
        before = after
    return found


async def drain(store: Store, ledgers: Sequence[Ledger]) -> tuple[int, float]:
    """Ends all that is open, one holder for each of `ledgers`; items and seconds."""
    ended, began = 0, time.perf_counter()

    async def work(ledger: Ledger, owner: str) -> None:
        nonlocal ended
        while (lease := await ledger.lease(owner, seconds=_LEASE_S)) is not None:
            outcomes = [Outcome(item.key, "done", PAID, seconds=3.5) for item in lease.items]
            assert await ledger.record(lease, outcomes)
            await ledger.reported([item.key for item in lease.items])
            ended += len(outcomes)

    await asyncio.gather(*(work(ledger, f"worker-{n}") for n, ledger in enumerate(ledgers)))
    return ended, time.perf_counter() - began


@asynccontextmanager
async def opened(
    name: str, folder: Path, program: Path | None, n_more: int
) -> AsyncIterator[tuple[Store, list[Ledger]]]:
    """A ledger of its own, and `n_more` views of it."""
    if name == "sqlite":
        path = folder / "ledger" / "ledger.sqlite"
        store = Store("SQLite", SQLiteLedger(path), path=path)
        more: list[Ledger] = [SQLiteLedger(path) for _ in range(n_more)]
        try:
            yield store, more
        finally:
            for ledger in (store.ledger, *more):
                await ledger.close()
        return
    with RedisProcess(program) as server:
        first = await open_redis_ledger(server.url, "scale")
        more = [await open_redis_ledger(server.url, "scale") for _ in range(n_more)]
        try:
            yield Store(f"Redis {server.version}", first, server=Redis.from_url(server.url)), more
        finally:
            for ledger in (first, *more):
                await ledger.close()


async def run(
    name: str, sizes: Sequence[int], n_questions: int, *, n_rounds: int, n_drain: int, program: Path | None
) -> None:
    """All sizes of one ledger, each grown from the one before."""
    with tempfile.TemporaryDirectory(prefix="coa-ledger-") as folder:
        async with opened(name, Path(folder), program, n_drain) as (store, more):
            empty, there = store.n_bytes(), 0
            await store.ledger.set_limits(SpendingLimits(max_cost_usd=1e6))
            for size in sizes:
                added = await grow(store, there, size, n_questions)
                found = await measure(store, size, min(n_rounds, (size - there) // 2), added)
                found.n_bytes -= empty
                print(row_of(found, size - there), flush=True)
                there = size
            if n_drain:
                ended, seconds = await drain(store, more)
                status = await store.ledger.status()
                print(
                    f"\n{store.name}: {ended:,} items ended by {n_drain} holders in {seconds:,.0f} s "
                    f"({ended / seconds:,.0f} a second); then {(store.n_bytes() - empty) / there:,.0f} "
                    "bytes a document; "
                    f"counts {json_of(status.counts)}, ${status.spent.cost_usd:,.4f}\n",
                    flush=True,
                )


def json_of(counts: object) -> str:
    """On one line."""
    return str(dict(counts)) if isinstance(counts, dict) else repr(counts)


def row_of(found: Measured, n_added: int) -> str:
    """A line of the table."""
    each = found.n_bytes / found.n_documents
    cells = [found.store, f"{found.n_documents:,}", f"{n_added / found.add_s:,.0f}", f"{each:,.0f}"]
    for operation in OPERATIONS:
        times = sorted(found.times[operation])
        cell = f"{median(times) * 1e6:,.0f} / {times[int(len(times) * 0.99)] * 1e6:,.0f}"
        server = found.server_us.get(operation)
        cells.append(cell + (f" ({server:,.0f})" if server is not None else ""))
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", choices=["redis", "sqlite", "both"], default="both")
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--questions", type=int, default=1, help="of each document")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--drain", type=int, default=0, metavar="HOLDERS")
    parser.add_argument("--redis-server", type=Path, default=None)
    args = parser.parse_args(arguments)
    sizes = [int(size) for size in args.sizes.split(",")]
    print(
        "| ledger | documents | added a second | bytes a document | "
        + " | ".join(f"{o} (µs)" for o in OPERATIONS)
        + " |"
    )
    print("| --- |" + " --: |" * (len(OPERATIONS) + 3))
    for name in ("sqlite", "redis") if args.ledger == "both" else (args.ledger,):
        asyncio.run(
            run(name, sizes, args.questions, n_rounds=args.rounds, n_drain=args.drain, program=args.redis_server)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
