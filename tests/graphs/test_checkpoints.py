"""Checkpoints in sqlite, PostgreSQL and Redis: the same run goes on from each, in another process too."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from coa.errors import ConfigError, RunDrained, StorageError
from coa.events import ChunkRead, Event
from coa.graphs import strategy
from coa.graphs.checkpoints import checkpointer
from coa.testing.fault_server import Faults, FaultServer
from coa.testing.postgres_process import PostgresProcess, postgres_programs
from coa.testing.reading_model import read_by_words
from coa.testing.redis_process import RedisProcess, redis_servers

pytestmark = pytest.mark.slow

NewWorld = Callable[..., Any]

QUESTION = "Who kept the lighthouse key in the blue jar?"
COA = (sys.executable, "-m", "coa")

needs_postgres = pytest.mark.skipif(
    postgres_programs() is None or importlib.util.find_spec("langgraph.checkpoint.postgres") is None,
    reason="needs PostgreSQL and the extra postgres",
)
needs_redis = pytest.mark.skipif(
    not redis_servers() or importlib.util.find_spec("langgraph.checkpoint.redis") is None,
    reason="needs a redis-server and the extra redis",
)


def _ferry(n_days: int) -> str:
    days = [f"On day {n} the ferry crossed the sound with {n + 3} barrels of herring. " * 4 for n in range(n_days)]
    days[n_days // 2] += "Ada Brown kept the lighthouse key in the blue jar."
    return "\n\n".join(days)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess() as started:
        yield started


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow])])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    if request.param == "sqlite":
        return tmp_path / "state.sqlite"
    url: str = request.getfixturevalue("postgres").url
    return url


def _drained_after(world: Any, n: int) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if isinstance(event, ChunkRead) and event.index == n:
            world.drain("enough")

    return on_event


async def _state(place: Path | str, run_id: str) -> dict[str, Any]:
    async with checkpointer(place) as saver:
        compiled = strategy("chain").build().compile(checkpointer=saver)
        return dict((await compiled.aget_state({"configurable": {"thread_id": run_id}})).values)


async def test_a_drained_chain_goes_on_from_its_checkpoint_to_the_same_answer(
    world: NewWorld, place: Path | str
) -> None:
    whole = await world().run("chain")
    stopped = world(checkpoints=place, run_id=f"drained-{time.monotonic_ns()}")
    stopped.on_event = _drained_after(stopped, 2)
    with pytest.raises(RunDrained):
        await stopped.run("chain")
    before = len(stopped.model.calls)
    assert (await _state(place, stopped.run_id))["position"] == 3
    assert await stopped.run("chain") == whole
    assert len(stopped.model.calls) - before == stopped.n_chunks - 3 + 1


async def test_a_chain_without_checkpoints_goes_on_from_its_notes_to_the_same_answer(world: NewWorld) -> None:
    whole = await world().run("chain")
    stopped = world(keeps_checkpoints=False)
    stopped.on_event = _drained_after(stopped, 2)
    with pytest.raises(RunDrained):
        await stopped.run("chain")
    before = len(stopped.model.calls)
    stopped.on_event = lambda event: None  # it is told of the chunks again
    assert await stopped.run("chain") == whole
    assert len(stopped.model.calls) - before == stopped.n_chunks - 3 + 1
    assert not list(stopped.folder.glob("state.sqlite*"))


async def test_a_finished_run_is_not_run_again(world: NewWorld, place: Path | str) -> None:
    run = world(checkpoints=place, run_id=f"finished-{time.monotonic_ns()}")
    first = await run.run("chain")
    before = len(run.model.calls)
    assert await run.run("chain") == first
    assert len(run.model.calls) == before


@needs_postgres
@pytest.mark.slow
async def test_a_killed_process_is_gone_on_with_by_another_over_postgres(
    postgres: PostgresProcess, tmp_path: Path
) -> None:
    with FaultServer(reply=lambda request: read_by_words(str(request.messages[-1]["content"]))) as engine:
        engine.faults = Faults(latency_s=0.2)
        entry = {
            "model_name": "readers",
            "litellm_params": {"model": "openai/fault", "api_base": engine.base_url, "api_key": "k"},
            "model_info": {"max_input_tokens": 8192},
        }
        config = {"model": "readers", "model_list": [entry], "chunk_tokens": 200, "response_cache": False}
        (tmp_path / "coa.yaml").write_text(yaml.safe_dump({**config, "checkpoints": "os.environ/KEPT_AT"}))
        (tmp_path / "ferry.txt").write_text(_ferry(16))
        environment = {**os.environ, "COA_HOME": str(tmp_path / "home"), "KEPT_AT": postgres.url}
        where: dict[str, Any] = {"cwd": tmp_path, "env": environment}
        first = await asyncio.create_subprocess_exec(*COA, "ask", "ferry.txt", QUESTION, stderr=DEVNULL, **where)
        while engine.stats().calls < 4:
            assert first.returncode is None
            await asyncio.sleep(0.05)
        first.kill()
        await first.wait()
        (run_folder,) = (tmp_path / "home" / "runs").iterdir()
        read = (await _state(postgres.url, run_folder.name))["position"]
        assert read >= 2
        engine.faults = Faults()
        before = engine.stats().calls
        second = await asyncio.create_subprocess_exec(
            *COA, "resume", run_folder.name, stdout=PIPE, stderr=PIPE, **where
        )
        said, told = await second.communicate()
    assert second.returncode == 0, told.decode()
    assert "Ada Brown kept the lighthouse key in the blue jar. [1]" in said.decode()
    made = engine.stats().calls - before
    finished = await _state(postgres.url, run_folder.name)
    assert finished["finished"]
    assert made <= finished["coverage"]["chunks"] - read + 1
    assert not (run_folder / "state.sqlite").exists()


@needs_postgres
@pytest.mark.slow
async def test_tables_are_made_once_where_many_begin_at_the_same_time(postgres: PostgresProcess) -> None:
    psycopg = pytest.importorskip("psycopg")
    database = f"fresh{time.monotonic_ns()}"
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {database}".encode())
    url = postgres.url.removesuffix("postgres") + database

    async def opened() -> bool:
        async with checkpointer(url) as saver:
            return await saver.aget_tuple({"configurable": {"thread_id": "none"}}) is None

    assert all(await asyncio.gather(*(opened() for _ in range(8))))


@needs_postgres
async def test_a_database_that_is_not_there_is_a_storage_error_without_its_password() -> None:
    with pytest.raises(StorageError, match="Connection refused") as caught:
        async with checkpointer("postgresql://coa:hidden-1@127.0.0.1:1/kept"):
            pass
    assert "postgresql://127.0.0.1:1/kept" in str(caught.value)
    assert "hidden-1" not in str(caught.value)


@needs_redis
@pytest.mark.filterwarnings("ignore:get_async_redis_connection:DeprecationWarning")
async def test_a_redis_without_search_is_a_storage_error_that_says_what_it_takes() -> None:
    with RedisProcess(tcp=True) as redis, pytest.raises(StorageError, match="Redis 8 or Redis Stack"):
        async with checkpointer(redis.url):
            pass
    with pytest.raises(StorageError, match=r"redis://127\.0\.0\.1:1/0: ") as caught:
        async with checkpointer("redis://me:hidden-1@127.0.0.1:1/0"):
            pass
    assert "hidden-1" not in str(caught.value)


@pytest.mark.parametrize("extra", ["postgres", "redis"])
async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    missing = f"langgraph.checkpoint.{extra}"
    original = importlib.import_module

    def importing(name: str, package: str | None = None) -> ModuleType:
        if name.startswith((missing, "psycopg", "redisvl")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", importing)
    scheme = {"postgres": "postgresql", "redis": "redis"}[extra]
    with pytest.raises(ConfigError) as caught:
        async with checkpointer(f"{scheme}://127.0.0.1/0"):
            pass
    assert caught.value.hint == f"pip install 'coa-orchestrator[{extra}]'"


async def test_other_databases_are_refused() -> None:
    with pytest.raises(ConfigError, match="mysql://"):
        async with checkpointer("mysql://127.0.0.1/0"):
            pass
