"""Kills processes in the middle of saving states: nothing that is left may ever be restored, and nothing may pile up.

    python tests/tools/kill_saves.py [--kills 20] [--seed 1] [--prefixes 4] [--tokens 256] [--redis] [--stand-in]

Two processes share a folder of states and an engine (llama.cpp with the embedded model). First both read the same
prefixes: each has to be computed once. Then they save, restore and discard without an end, and one of them is killed
(SIGKILL) within milliseconds of a file's appearance, every fifth time the engine instead. After each kill all states
that are found are restored, and have to give the tokens that a cold call gives. `--stand-in` takes a slow writer of
known bytes in the engine's place. Prints a Markdown table; the exit code is 1 where something was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coa.cache.single_flight import FileFlight, RedisFlight, remove_old_flights
from coa.cache.slot_files import SlotFiles
from coa.cache.state_folder import StateFolder
from coa.cache.states import StateKey
from tests.tools.saving_engines import LlamaEngine, SavingEngine, StandIn, key_of

_WORKERS = 2
_SLOT_OF = (0, 2)
"""Of each process. llama.cpp computes what two slots next to each other have to read in common micro-batches, which is
right to the last bit but one: only of slots apart is the same reply a proof that a state is whole."""
_SPARE_SLOT = 4
_POLL_S = 0.0005
_WITHIN_S = 0.02
"""How long after a file appeared a kill may come: while it is written and digested, and its manifest is written."""
_BETWEEN_S = {"stand-in": 0.05, "llama.cpp": 1.0}
"""In which kills come, before the wait for a file."""
_GRACE_S = 1.0


@dataclass
class Ground:
    """What all processes share."""

    folder: Path
    log: Path
    n_prefixes: int
    n_tokens: int
    redis_url: str | None = None
    engine: SavingEngine = field(init=False)
    max_bytes: int = 10_000_000_000
    expected: list[list[int]] = field(default_factory=list)

    def store(self, **told: Any) -> SlotFiles:
        return SlotFiles(StateFolder(self.folder, min_free_bytes=0, grace_s=_GRACE_S, **told), self.max_bytes)

    def flight(self) -> FileFlight | RedisFlight:
        alone = FileFlight(self.folder)
        if self.redis_url is None:
            return alone
        from coa.cache.redis_states import RedisScripts

        return RedisFlight(RedisScripts(self.redis_url), beside=alone, lease_s=2)

    def key(self, prefix: int) -> StateKey:
        return key_of(prefix, self.n_tokens)

    def tell(self, what: str) -> None:
        handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, json.dumps([what, os.getpid()]).encode() + b"\n")
        os.close(handle)

    def told(self, what: str) -> int:
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        return sum(line.startswith(json.dumps([what])[:-1].encode()) for line in lines)

    def unfinished(self) -> set[str]:
        files = list(self.folder.iterdir())
        whole = {file.stem for file in files if file.suffix == ".json"}
        return {file.name for file in files if file.suffix == ".kv" and file.stem not in whole}

    async def read(self, slot: int, prefix: int, store: SlotFiles, flight: FileFlight | RedisFlight) -> None:
        """As a call does it: restore, or compute and save."""
        manifest = await store.find(self.key(prefix))
        if manifest is None:
            async with flight.alone(self.key(prefix)):
                manifest = await store.find(self.key(prefix))
                if manifest is None:
                    self.tell("computed")
                    file = await store.begin(self.key(prefix))
                    if await self.engine.save(slot, prefix, file) and await store.commit(self.key(prefix), file):
                        self.tell("saved")
                    return
        reply = await self.engine.reply(slot, prefix, manifest.file)
        if reply is None and not (self.folder / manifest.file).exists():
            self.tell("gone meanwhile")
        else:
            self.tell("restored" if reply == self.expected[prefix] else "WRONG")


def worker(ground: Ground, slot: int, seed: int, *, once: bool) -> int:
    """The pid of a process that reads all prefixes once, or reads and discards until it is killed."""
    pid = os.fork()
    if pid:
        return pid
    try:
        asyncio.run(_work(ground, _SLOT_OF[slot], random.Random(seed), once=once))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


async def _work(ground: Ground, slot: int, rng: random.Random, *, once: bool) -> None:
    store, flight = ground.store(), ground.flight()
    if once:
        for prefix in range(ground.n_prefixes):
            await ground.read(slot, prefix, store, flight)
        return
    while True:
        prefix = rng.randrange(ground.n_prefixes)
        await ground.read(slot, prefix, store, flight)
        if rng.random() < 0.7:
            await store.discard(ground.key(prefix), "so that it is saved again")


@dataclass
class Figures:
    """What came of it."""

    once_computed: int = 0
    kills: int = 0
    engine_kills: int = 0
    in_saves: int = 0
    """Kills that left a file without a manifest."""
    checked: int = 0
    restored: int = 0
    wrong: int = 0
    found_wrong: int = 0
    afterwards: int = 0
    """States that are there after one more reading that nobody disturbed."""
    most_bytes: int = 0
    pruned_to: int = 0
    left_over: int = 0
    seconds: float = 0.0


async def check_all(ground: Ground, figures: Figures) -> None:
    """Restores all states there are, as a new process would."""
    store = ground.store()
    for prefix in range(ground.n_prefixes):
        manifest = await store.find(ground.key(prefix))
        if manifest is not None:
            reply = await ground.engine.reply(_SPARE_SLOT, prefix, manifest.file)
            if reply is not None or (ground.folder / manifest.file).exists():
                figures.checked += 1
                figures.found_wrong += reply != ground.expected[prefix]
    size = sum(path.stat().st_size for path in ground.folder.glob("*.*") if path.exists())
    figures.most_bytes = max(figures.most_bytes, size)


class Hosts:
    """The engine and the processes at it."""

    def __init__(self, ground: Ground, rng: random.Random, *, stand_in: bool) -> None:
        self.ground = ground
        self.rng = rng
        self._stand_in = stand_in
        self._engine: Any = None
        self.pids: list[int] = []

    def start_engine(self) -> None:
        """Another one, where there was one."""
        if self._stand_in:
            return
        from coa.llm.engine_process import EngineProcess
        from coa.testing.models import test_model_path

        if self._engine is not None:
            self._engine.close()
        n_ctx = self.ground.n_tokens + 64
        self._engine = EngineProcess(
            test_model_path(), slot_save_path=self.ground.folder, n_parallel=_SPARE_SLOT + 1, n_ctx=n_ctx, n_threads=2
        )
        self.ground.engine = LlamaEngine(self._engine.root_url, self._engine.api_key, self.ground.n_tokens)

    def start_worker(self, slot: int, *, once: bool = False) -> None:
        """In a slot of its own."""
        self.pids[slot:slot] = [worker(self.ground, slot, self.rng.randrange(1 << 30), once=once)]

    def kill(self, slot: int) -> None:
        pid = self.pids.pop(slot)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def wait(self) -> list[int]:
        """Exit codes."""
        return [os.waitstatus_to_exitcode(os.waitpid(self.pids.pop(0), 0)[1]) for _ in range(len(self.pids))]

    def kill_engine(self) -> None:
        os.kill(self._engine.pid, signal.SIGKILL)

    @property
    def engine_lives(self) -> bool:
        return self._stand_in or self._engine.returncode is None

    def close(self) -> None:
        while self.pids:
            self.kill(0)
        if self._engine is not None:
            self._engine.close()


def killed_in_saves(hosts: Hosts, kills: int, figures: Figures, *, engine_too: bool) -> None:
    """The second half of the module's text."""
    ground, rng = hosts.ground, hosts.rng
    for slot in range(_WORKERS):
        hosts.start_worker(slot)
    for number in range(1, kills + 1):
        time.sleep(rng.uniform(0, _BETWEEN_S["llama.cpp" if engine_too else "stand-in"]))
        seen = ground.unfinished()
        deadline = time.monotonic() + 30
        while not ground.unfinished() - seen and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        time.sleep(rng.uniform(0, _WITHIN_S))
        if engine_too and number % 5 == 0:
            hosts.kill_engine()
            figures.engine_kills += 1
            figures.in_saves += bool(ground.unfinished() - seen)
            for _ in range(_WORKERS):
                hosts.kill(0)
            hosts.start_engine()
            for slot in range(_WORKERS):
                hosts.start_worker(slot)
        else:
            slot = rng.randrange(_WORKERS)
            hosts.kill(slot)
            figures.kills += 1
            figures.in_saves += bool(ground.unfinished() - seen)
            hosts.start_worker(slot)
        asyncio.run(check_all(ground, figures))
        if not hosts.engine_lives:
            raise RuntimeError("the engine ended by itself: it was given a file that it could not take")


def measured(ground: Ground, *, kills: int, seed: int, stand_in: bool) -> Figures:
    """Everything."""
    ground.folder.mkdir()
    ground.engine = StandIn(ground.folder)
    figures, started = Figures(), time.monotonic()
    with contextlib.closing(Hosts(ground, random.Random(seed), stand_in=stand_in)) as hosts:
        hosts.start_engine()
        ground.expected = asyncio.run(_cold_replies(ground))
        for slot in range(_WORKERS):
            hosts.start_worker(slot, once=True)
        if any(hosts.wait()):
            raise RuntimeError("a process failed that nobody killed")
        figures.once_computed = ground.told("computed")
        asyncio.run(check_all(ground, figures))
        state = max(path.stat().st_size for path in ground.folder.glob("*.kv"))
        ground.max_bytes = round((ground.n_prefixes - 0.5) * state)
        killed_in_saves(hosts, kills, figures, engine_too=not stand_in)
        while hosts.pids:
            hosts.kill(0)
        ground.max_bytes = 10_000_000_000
        hosts.start_worker(0, once=True)
        hosts.wait()
        before = figures.checked
        asyncio.run(check_all(ground, figures))
        figures.afterwards = figures.checked - before
    figures.restored, figures.wrong = ground.told("restored"), ground.told("WRONG")
    asyncio.run(ground.store(clock=lambda: time.time() + 3600).prune(2 * state + 1000))
    remove_old_flights(ground.folder, older_than_s=0)
    figures.pruned_to = sum(path.stat().st_size for path in ground.folder.iterdir() if path.is_file())
    figures.left_over = len(ground.unfinished()) + sum(1 for _ in (ground.folder / "flights").glob("*"))
    if not state < figures.pruned_to <= 2 * state + 1000:
        raise RuntimeError(f"pruning to {2 * state + 1000:,} bytes left {figures.pruned_to:,}")
    figures.seconds = time.monotonic() - started
    return figures


async def _cold_replies(ground: Ground) -> list[list[int]]:
    replies = [await ground.engine.reply(_SPARE_SLOT, prefix, None) for prefix in range(ground.n_prefixes)]
    return [reply or [] for reply in replies]


def sound(figures: Figures, n_prefixes: int) -> bool:
    """Whether nothing was wrong."""
    whole = figures.once_computed == figures.afterwards == n_prefixes
    return whole and not figures.wrong + figures.found_wrong + figures.left_over


def table(figures: Figures, n_prefixes: int) -> str:
    """In Markdown."""
    rows = {
        f"computed by two processes for {n_prefixes} prefixes": figures.once_computed,
        "processes killed": figures.kills,
        "engines killed": figures.engine_kills,
        "kills that left a file without a manifest": figures.in_saves,
        "states restored and checked after kills": figures.checked,
        "of these wrong": figures.found_wrong,
        "states restored by the processes themselves": figures.restored,
        "of those wrong": figures.wrong,
        "states after one more reading": figures.afterwards,
        "most bytes in the folder": f"{figures.most_bytes:,}",
        "bytes after pruning to two states": f"{figures.pruned_to:,}",
        "files left over": figures.left_over,
        "seconds": f"{figures.seconds:.0f}",
    }
    return "| | |\n|---|---|\n" + "".join(f"| {what} | {how_many} |\n" for what, how_many in rows.items())


@contextlib.contextmanager
def _redis(wanted: bool) -> Iterator[str | None]:
    if not wanted:
        yield None
        return
    from coa.testing.redis_process import RedisProcess, redis_servers

    with RedisProcess(list(redis_servers().values())[-1]) as redis:
        yield redis.url


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefixes", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256, help="of a prefix; a multiple of 128")
    parser.add_argument("--redis", action="store_true", help="take turns by a lease in a redis-server")
    parser.add_argument("--stand-in", action="store_true", help="no engine, known bytes")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="coa-kills-") as folder, _redis(args.redis) as redis_url:
        ground = Ground(Path(folder) / "kv", Path(folder) / "log.jsonl", args.prefixes, args.tokens, redis_url)
        figures = measured(ground, kills=args.kills, seed=args.seed, stand_in=args.stand_in)
    print(table(figures, args.prefixes))
    return 0 if sound(figures, args.prefixes) else 1


if __name__ == "__main__":
    sys.exit(main())
