"""What the prefix index costs a call: in use, and when Redis is dead. Prints Markdown.

    python tests/bench/index_latency.py [--blocks 100000] [--calls 2000]

Look-up plus reservation is one `reserve` of a prompt of 512 blocks over four replicas that hold 100,000 blocks each,
awaited as a call awaits it, booking on the mirror included. The clients, the index and the measuring share one
process; redis-server is another one, on a unix socket and on loopback TCP.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from coa.cache.connection import connect
from coa.cache.index import Replica, Wanted
from coa.cache.redis_index import RedisIndex, open_index
from coa.cache.redis_links import RedisLink
from coa.testing.redis_process import RedisProcess, redis_servers

T = TypeVar("T")


class InUse(NamedTuple):
    """Seconds of each reservation, and of what follows a call; blocks loaded a second; answers that the mirror gave
    because the server took longer than 50 ms."""

    reserved: list[float]
    told: list[float]
    blocks_per_s: float
    elsewhere: int


N_REPLICAS = 4
PROMPT_BLOCKS = 512
BLOCK_TOKENS = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=100_000, help="per replica")
    parser.add_argument("--calls", type=int, default=2000)
    args = parser.parse_args(arguments)
    print(f"\n## Prefix index, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"{args.blocks:,} blocks x {N_REPLICAS} replicas, prompts of {PROMPT_BLOCKS} blocks, {args.calls} calls.\n")
    print("| index | reserve, median ms | p99 ms | by the mirror | release + held, median ms | loading, blocks/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    _print_row("embedded", asyncio.run(in_use(None, args.blocks, args.calls)))
    for version, program in redis_servers().items():
        for tcp in (False, True):
            with RedisProcess(program, tcp=tcp) as redis:
                row = asyncio.run(in_use(redis.url, args.blocks, args.calls))
            _print_row(f"redis-server {version}, {'TCP' if tcp else 'unix socket'}", row)
    print("\n| Redis | first calls, ms | most of one call before the breaker opens | after: median ms | p99 ms |")
    print("| --- | --- | --- | --- | --- |")
    for name, url in (("nobody listens", dead), ("deaf: takes connections, answers nothing", deaf)):
        with url() as address:
            _print_outage(name, asyncio.run(out_of_reach(address, args.calls)))
    return 0


def _print_row(name: str, row: InUse) -> None:
    times = f"{median_ms(row.reserved)} | {p99_ms(row.reserved)} | {row.elsewhere} | {median_ms(row.told)}"
    print(f"| {name} | {times} | {row.blocks_per_s:,.0f} |", flush=True)


def _print_outage(name: str, row: tuple[list[float], list[float]]) -> None:
    first, after = row
    shown = ", ".join(f"{1e3 * seconds:.1f}" for seconds in first)
    print(f"| {name} | {shown} | {1e3 * max(first):.1f} | {median_ms(after)} | {p99_ms(after)} |", flush=True)


async def in_use(url: str | None, blocks: int, calls: int) -> InUse:
    """Calls one after the other, each with a prefix of its own length of some document."""
    chosen = random.Random(1)
    replicas = [Replica(f"r{i}", "1", "events", 8, 5000.0, 50.0, 1.0) for i in range(N_REPLICAS)]
    documents = [chain(f"book{i}", PROMPT_BLOCKS) for i in range(blocks // PROMPT_BLOCKS)]
    index = open_index(url)
    # Loading is not on any call's path, so it may take its time.
    loading = index if url is None else RedisIndex(RedisLink(connect(url, timeout_s=10.0), budget_s=10.0))
    started = time.perf_counter()
    for replica in replicas:
        for i, document in enumerate(documents):
            await loading.held(replica, document)
            if i % 50 == 0:
                await loading.flushed()
    await loading.flushed()
    speed = blocks * len(replicas) / (time.perf_counter() - started)
    for i in range(20):  # connected, scripts known, and the first announcement made
        await index.reserve(wanted(f"first{i}", documents[0]), replicas)
        await index.flushed()
        for replica in replicas:
            await index.release(f"first{i}", replica)
    reserved, told, elsewhere = [], [], 0
    for i in range(calls):
        document = chosen.choice(documents)
        shared = chosen.randrange(PROMPT_BLOCKS)
        prompt = chain("new", PROMPT_BLOCKS, after=document[:shared])
        seconds, choice = await timed(index.reserve(wanted(str(i), prompt), replicas))
        if choice is None or (choice.shared and choice.hit_tokens != shared * BLOCK_TOKENS):
            raise AssertionError(f"{choice} for a prefix of {shared} blocks")
        elsewhere += not choice.shared
        reserved.append(seconds)
        replica = next(each for each in replicas if each.id == choice.replica)
        ended, _ = await timed(index.release(str(i), replica))
        held, _ = await timed(index.held(replica, document))
        told.append(ended + held)
        await index.flushed()
    if url is not None:
        await loading.close()
    await index.close()
    return InUse(reserved, told, speed, elsewhere)


async def out_of_reach(url: str, calls: int) -> tuple[list[float], list[float]]:
    """Seconds that the index takes of a call (reserve, seat, held, unseat, release) until the breaker is open, and
    after."""
    index = open_index(url)
    replicas = [Replica(f"r{i}", "1", "owned", 8, 5000.0, 50.0, 0.9) for i in range(N_REPLICAS)]
    hashes = chain("book", PROMPT_BLOCKS)
    first, after = [], []
    warm = RedisIndex(None)
    await whole_call(warm, "warm", hashes, replicas)  # what Python has to load is not Redis's doing
    await warm.close()
    for i in range(5):
        first.append(await whole_call(index, f"first{i}", hashes, replicas))
    for i in range(calls):
        after.append((await timed(index.reserve(wanted(f"after{i}", hashes), replicas)))[0])
        for replica in replicas:
            await index.release(f"after{i}", replica)
    await index.close()
    return first, after


async def whole_call(index: RedisIndex, name: str, hashes: Sequence[bytes], replicas: Sequence[Replica]) -> float:
    started = time.perf_counter()
    choice = await index.reserve(wanted(name, hashes), replicas)
    if choice is None:
        raise AssertionError("nothing was chosen")
    replica = next(each for each in replicas if each.id == choice.replica)
    slot = await index.seat(name, replica, hashes[-1])
    await index.held(replica, hashes)
    if slot is not None:
        await index.unseat(name, replica, slot, hashes[-1])
    await index.release(name, replica)
    return time.perf_counter() - started


async def timed(call: Awaitable[T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = await call
    return time.perf_counter() - started, result


def chain(name: str, n: int, after: Sequence[bytes] = ()) -> tuple[bytes, ...]:
    hashes = list(after)
    for i in range(len(hashes), n):
        before = hashes[-1] if hashes else b""
        hashes.append(blake2b(before + f"{name}{i}".encode(), digest_size=16).digest())
    return tuple(hashes)


def wanted(request: str, hashes: Sequence[bytes]) -> Wanted:
    tokens = tuple(BLOCK_TOKENS * (i + 1) for i in range(len(hashes)))
    return Wanted(request, tuple(hashes), tokens, tokens[-1] + 300, 100, affinity=hashes[0].hex())


@contextmanager
def dead() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def deaf() -> Iterator[str]:
    """A server that takes connections and reads, and never says anything."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
    for each in kept:
        each.close()


def median_ms(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.2f}"


def p99_ms(seconds: Sequence[float]) -> str:
    return f"{1e3 * sorted(seconds)[int(0.99 * (len(seconds) - 1))]:.2f}"


if __name__ == "__main__":
    sys.exit(main())
