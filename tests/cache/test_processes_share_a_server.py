"""Whoever works with one llama.cpp server, under whichever name, has the same slots of it in mind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from coa.cache.blocks import root_hash
from coa.cache.connection import connect
from coa.cache.engines.llama_server import LlamaServer
from coa.cache.kv_cache import KvCache
from coa.cache.opening import prefix_cache_for
from coa.cache.redis_index import RedisIndex
from coa.cache.redis_links import RedisLink
from coa.cache.served_engines import ServedEngine
from coa.config import Settings
from coa.limits import SMALL
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.engine_process import EngineProcess
from coa.llm.opening import OpenModel
from coa.reading import Prompt
from coa.testing import RedisProcess
from coa.testing.models import test_model_path as model_path
from coa.tokens import EstimatedTokens

URL = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest_asyncio.fixture
async def index(redis: RedisProcess) -> AsyncIterator[Callable[[], RedisIndex]]:
    """An index as another process would have it."""
    made: list[RedisIndex] = []
    client = connect(redis.url, timeout_s=5.0)
    client.flushall()
    client.set("coa:{index}:1:boot", "test")

    def another() -> RedisIndex:
        made.append(RedisIndex(RedisLink(connect(redis.url, timeout_s=5.0), budget_s=5.0)))
        return made[-1]

    yield another
    client.close()
    for each in made:
        await each.close()


def told_by(props: dict[str, str], headers: dict[str, str], metrics: str = "") -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/metrics":
            return httpx.Response(200, text=metrics, headers=headers)
        return httpx.Response(200 if request.method == "GET" else 501, json={**props, "total_slots": 2})

    return httpx.MockTransport(answer)


def engine(transport: httpx.MockTransport, name: str = "d", url: str = URL) -> ServedEngine:
    deployment = Deployment(name, "openai/m", "llama_server", f"{url}/v1")
    return ServedEngine(deployment, name, LlamaServer(deployment, transport=transport), identity=lambda: root_hash("m"))


def marked(letter: str) -> httpx.MockTransport:
    return told_by({"media_marker": f"<__media_{letter * 32}__>"}, {})


def started(at: str, marker: str = "<__media__>") -> httpx.MockTransport:
    return told_by({"media_marker": marker}, {"Process-Start-Time-Unix": at})


@pytest.mark.parametrize(
    ("one", "restarted"),
    [(marked("a"), marked("b")), (started("721657869"), started("721687903"))],
    ids=["by its marker", "by its start"],
)
async def test_two_processes_lease_different_slots_of_one_server(
    index: Callable[[], RedisIndex], one: httpx.MockTransport, restarted: httpx.MockTransport
) -> None:
    here, there, anew = engine(one), engine(one, "another/name"), engine(restarted)
    for each in (here, there, anew):
        assert await each.ready()
    first, second = index(), index()
    slots = {await first.seat("r1", here.replica), await second.seat("r2", there.replica)}
    assert slots == {0, 1}
    assert await second.seat("r3", there.replica) is None
    await first.held(here.replica, [bytes(16)])
    await first.flushed()
    assert (await second.contents(there.replica)).blocks == 1
    assert await second.seat("r4", anew.replica) is not None, "what a process before it had says nothing"
    assert (await second.contents(anew.replica)).blocks == 0


async def test_servers_that_started_at_the_same_moment_are_told_apart_by_their_addresses(
    index: Callable[[], RedisIndex],
) -> None:
    one, other = engine(started("7216")), engine(started("7216"), url="http://gpu1:8080")
    assert await one.ready()
    assert await other.ready()
    shared = index()
    assert [await shared.seat(f"r{n}", e.replica) for n, e in enumerate((one, other))] == [0, 0]


async def test_a_server_that_tells_nothing_of_itself_is_at_least_the_same_for_one_process() -> None:
    one, other = (engine(told_by({}, {}, "llamacpp:prompt_tokens_total 7\n"), name) for name in ("a", "b"))
    assert await one.ready()
    assert await other.ready()
    assert (one.replica.server, one.replica.epoch) == (other.replica.server, other.replica.epoch)


@pytest.mark.slow
async def test_two_names_of_one_server_take_turns_in_its_slot(tmp_path: Path) -> None:
    with EngineProcess(model_path(), alias="m", n_ctx=512, n_threads=1) as process:
        groups = [
            ModelGroup(name, (Deployment(f"{name}/0", "openai/m", "llama_server", process.base_url, process.api_key),))
            for name in ("workers", "managers")
        ]
        make = prefix_cache_for(Settings(home=tmp_path))
        assert make is not None
        cache = make([OpenModel(group, EstimatedTokens(), 512, SMALL) for group in groups])
        assert isinstance(cache, KvCache)
        bookings = [
            cache.reserve(group.name, Prompt(prefix="A chunk. ", tail="Say."), Decoding(max_tokens=4))
            for group in groups
        ]
        assert None not in bookings
        worker, manager = [booking for booking in bookings if booking is not None]
        await worker.seat("workers/0")
        assert not cache.has_room("managers")
        waiting = asyncio.create_task(manager.choose(["managers/0"]))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await worker.done(None)
        assert await asyncio.wait_for(waiting, 5) == "managers/0"
        await manager.done(None)
        assert cache.has_room("workers")
        replicas = [engine.replica for engine in cache.engines.values()]
        assert {replica.server for replica in replicas} == {"llama.cpp"}, "it tells which process it is"
        assert len({replica.epoch for replica in replicas}) == 1
        await cache.close()
