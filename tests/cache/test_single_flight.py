"""One prefill of a prefix at a time, over tasks and processes, whatever becomes of the holder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from coa.cache.blocks import root_hash, segment_hash
from coa.cache.embedded_redis import EmbeddedRedis
from coa.cache.redis_states import RedisScripts
from coa.cache.single_flight import FileFlight, RedisFlight, remove_old_flights
from coa.cache.states import StateKey
from coa.testing.redis_process import RedisProcess, redis_servers

REDIS = redis_servers()
KINDS = ["files", "burner-redis", *(f"redis-{version}" for version in REDIS)]
IDENTITY = root_hash("model")

Flight = FileFlight | RedisFlight
Make = Callable[..., Flight]


def key(n: int = 1) -> StateKey:
    return StateKey(IDENTITY, segment_hash([n], IDENTITY), 128)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def redis(kind: str) -> Iterator[RedisProcess | None]:
    if not kind.startswith("redis-"):
        yield None
        return
    with RedisProcess(REDIS[kind.removeprefix("redis-")]) as process:
        yield process


@pytest.fixture
async def make(kind: str, redis: RedisProcess | None, tmp_path: Path) -> AsyncIterator[Make]:
    """Another flight over the same ground each time it is called."""
    made: list[RedisFlight] = []
    embedded = EmbeddedRedis() if kind == "burner-redis" else None

    def flight(patience_s: float = 30.0) -> Flight:
        runner = embedded if redis is None else RedisScripts(redis.url)
        if runner is None:
            return FileFlight(tmp_path, patience_s=patience_s)
        made.append(RedisFlight(runner, lease_s=1, patience_s=patience_s, budget_s=2.0))
        return made[-1]

    yield flight
    for each in made:
        await each.close()


async def test_one_at_a_time_and_only_the_first_did_not_wait(make: Make) -> None:
    inside, most, firsts = 0, 0, []

    async def compute(flight: Flight) -> None:
        nonlocal inside, most
        async with flight.alone(key()) as first:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.02)
            inside -= 1
            firsts.append(first)

    shared = make()
    await asyncio.gather(*(compute(flight) for flight in (shared, shared, make(), make(), make())))
    assert most == 1
    assert firsts == [True, False, False, False, False]


async def test_other_prefixes_are_not_waited_for(make: Make) -> None:
    async with make().alone(key(1)) as one, make().alone(key(2)) as two:
        assert (one, two) == (True, True)


async def test_it_may_be_taken_again_after_an_error_or_a_cancellation(make: Make) -> None:
    flight = make()
    with pytest.raises(ZeroDivisionError):
        async with flight.alone(key()):
            _ = 1 / 0

    async def hold() -> None:
        async with flight.alone(key()):
            await asyncio.sleep(60)

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(hold())
    await asyncio.sleep(0.05)
    for task in (waiting, holding):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    async with asyncio.timeout(5), make().alone(key()) as first:
        assert first


async def test_waiting_for_a_holder_that_hangs_has_an_end(make: Make) -> None:
    async with make().alone(key()):
        started = time.monotonic()
        async with make(patience_s=0.2).alone(key()) as first:
            assert not first
        assert 0.2 <= time.monotonic() - started < 5


async def test_a_lease_is_renewed_as_long_as_its_holder_works() -> None:
    redis = EmbeddedRedis()
    async with RedisFlight(redis, lease_s=1).alone(key()):
        await asyncio.sleep(1.5)
        async with RedisFlight(redis, lease_s=1, patience_s=0.1).alone(key()) as first:
            assert not first
    await redis.close()


HOLDER = """
import asyncio, sys
from pathlib import Path
from coa.cache.single_flight import FileFlight, RedisFlight
from coa.cache.states import StateKey

async def main():
    if sys.argv[1] == "files":
        flight = FileFlight(Path(sys.argv[2]))
    else:
        from coa.cache.redis_states import RedisScripts
        flight = RedisFlight(RedisScripts(sys.argv[2]), lease_s=1, budget_s=2.0)
    async with flight.alone(StateKey(bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4]), 128)):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_holder_that_is_killed_lets_go_of_its_file(tmp_path: Path, number: signal.Signals) -> None:
    holder = await started_holder("files", str(tmp_path))
    async with FileFlight(tmp_path, patience_s=0.05).alone(key()) as first:
        assert not first
    holder.send_signal(number)
    await holder.wait()
    async with FileFlight(tmp_path, patience_s=0).alone(key()) as first:
        assert first


@pytest.mark.slow
@pytest.mark.skipif(not REDIS, reason="no redis-server")
async def test_the_lease_of_a_holder_that_is_killed_runs_out() -> None:
    with RedisProcess(list(REDIS.values())[-1]) as server:
        holder = await started_holder("redis", server.url)
        flight = RedisFlight(RedisScripts(server.url), lease_s=1, patience_s=30, budget_s=2.0)
        holder.kill()
        started = time.monotonic()
        async with flight.alone(key()) as first:
            assert not first
        assert time.monotonic() - started < 15, "its lease, not the patience"
        await holder.wait()
        await flight.close()


async def started_holder(kind: str, where: str) -> asyncio.subprocess.Process:
    told = ["-c", HOLDER, kind, where, IDENTITY.hex(), key().hash.hex()]
    holder = await asyncio.create_subprocess_exec(sys.executable, *told, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    return holder


async def test_lock_files_do_not_pile_up(tmp_path: Path) -> None:
    flight = FileFlight(tmp_path)
    await asyncio.gather(*(enter(flight, n % 5) for n in range(50)))
    assert list((tmp_path / "flights").iterdir()) == []
    left = tmp_path / "flights" / "left-by-a-killed-holder"
    left.touch()
    os.utime(left, (1, 1))
    async with flight.alone(key()):
        held = tmp_path / "flights" / key().name
        os.utime(held, (1, 1))
        remove_old_flights(tmp_path, older_than_s=60)
        assert held.exists()
    assert not left.exists()


async def enter(flight: Flight, n: int) -> None:
    async with flight.alone(key(n)):
        await asyncio.sleep(0)


async def test_a_folder_that_cannot_be_used_makes_nobody_wait(tmp_path: Path) -> None:
    (tmp_path / "flights").write_text("a file where the folder should be")
    flight = FileFlight(tmp_path)
    async with flight.alone(key()) as first, flight.alone(key()) as second:
        assert (first, second) == (True, True)


@pytest.mark.skipif(not REDIS, reason="no redis-server")
async def test_processes_of_one_host_take_turns_without_redis_too(tmp_path: Path) -> None:
    with RedisProcess() as server:
        runner = RedisScripts(server.url)
        flight = RedisFlight(runner, beside=FileFlight(tmp_path), budget_s=2.0)
        async with flight.alone(key()) as first:
            assert first
            server.kill()
        async with flight.alone(key()) as first, FileFlight(tmp_path, patience_s=0.05).alone(key()) as second:
            assert (first, second) == (True, False)
        await asyncio.gather(*(enter(flight, 1) for _ in range(5)))
        started = time.monotonic()
        for _ in range(10):
            await enter(flight, 1)
        assert time.monotonic() - started < 2, "the dead Redis is left alone"
        await flight.close()
