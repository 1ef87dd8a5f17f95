"""A batch on a real Ray cluster of this machine, one of whose actors is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coa.api import StopSignal
from coa.batch.asking import question_payload
from coa.batch.estimating import Sample
from coa.batch.opening import open_ledger
from coa.batch.placed_worker import WorkOrder
from coa.batch.ray_cluster import RayFailed, joined_cluster
from coa.batch.ray_engine import drive_on_ray
from coa.batch.record import BatchOptions, BatchStore
from coa.batch.results import ResultFolder
from coa.batch.running import scan
from coa.batch.watching import Cluster, Placed, watch_workers
from coa.config import load_settings
from coa.errors import ConfigError
from coa.testing.fault_server import Faults, FaultServer
from coa.testing.redis_process import RedisProcess, redis_servers

N_DOCUMENTS = 6


@pytest.fixture
def engine() -> Iterator[FaultServer]:
    with FaultServer(faults=Faults(latency_s=0.1)) as server:
        yield server


class _Deadly:
    """A cluster that kills the process of its first actor when half of the documents have been read."""

    def __init__(self, cluster: Cluster, engine: FaultServer) -> None:
        self._cluster = cluster
        self._engine = engine
        self.placed: list[Placed] = []
        self.killed: int | None = None

    @property
    def hint(self) -> str:
        return self._cluster.hint

    def place(self, order: WorkOrder) -> Placed:
        self.placed.append(self._cluster.place(order))
        return self.placed[-1]

    async def kill_first(self) -> None:
        place = await self.placed[0].place()
        while self._engine.stats().calls < N_DOCUMENTS:  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.02)
        self.killed = place.pid
        os.kill(place.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not redis_servers(), reason="no redis-server here")
async def test_a_batch_outlives_an_actor_that_is_killed(
    tmp_path: Path, engine: FaultServer, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    params = {"model": "openai/fault", "api_base": engine.base_url, "api_key": "x"}
    given: dict[str, Any] = {
        "home": tmp_path / "home",
        "model": "fault",
        "model_list": [{"model_name": "fault", "litellm_params": params}],
        "response_cache": False,
        "window": 4000,
        "notes": "paper",
        "chunk_tokens": 300,
        "max_parallel_calls": 2,
    }
    (tmp_path / "documents").mkdir()
    for i in range(N_DOCUMENTS):
        text = " ".join(f"Sentence {j} of document {i} says that the lamp was lit." for j in range(30))
        (tmp_path / "documents" / f"d{i}.txt").write_text(text)
    before = signal.getsignal(signal.SIGTERM)
    with RedisProcess() as redis:
        settings = load_settings(overrides={**given, "redis_url": redis.url}, cwd=tmp_path, env={}).settings
        store = BatchStore(settings.home)
        record = store.create(
            task="ask",
            inputs=(str(tmp_path / "documents"),),
            payloads=(question_payload("Who lit the lamp?"),),
            out=tmp_path / "out",
            settings=settings,
            options=BatchOptions(jobs=2),
            redis=True,
        )
        ledger = await open_ledger(record, settings, store)
        record = await scan(record, ledger, store, sample=Sample())
        with joined_cluster(None) as cluster:
            assert signal.getsignal(signal.SIGTERM) is before, "a signal still drains the batch"
            deadly = _Deadly(cluster, engine)
            killing = asyncio.create_task(_when_placed(deadly))
            driven = await watch_workers(deadly, record, settings, ledger, n_workers=2, stop=StopSignal())
            await killing
        status = await ledger.status()
        await ledger.close()
    assert driven.ending == "finished"
    assert deadly.killed is not None
    assert not psutil.pid_exists(deadly.killed)
    assert status.counts["done"] == N_DOCUMENTS
    rows = list(ResultFolder(tmp_path / "out").rows())
    assert Counter(row["document"] for row in rows) == {f"d{i}.txt": 1 for i in range(N_DOCUMENTS)}
    paid_again = engine.stats().calls - sum(row["usage"]["calls"] for row in rows)
    assert 0 <= paid_again <= 1, "the chunk that the dead actor had in hand"
    assert capfd.readouterr().out == "", "standard output is for results"


async def _when_placed(deadly: _Deadly) -> None:
    while not deadly.placed:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await deadly.kill_first()


def test_ray_that_is_not_installed_is_told_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"coa-orchestrator\[ray\]"), joined_cluster(None):
        pass


def test_a_cluster_that_is_not_there_is_told() -> None:
    pytest.importorskip("ray")
    with pytest.raises(RayFailed, match=r"127\.0\.0\.1:1 does not answer"), joined_cluster("127.0.0.1:1"):
        pass


async def test_a_ledger_in_a_file_cannot_be_shared_with_actors(tmp_path: Path) -> None:
    settings = load_settings(overrides={"home": tmp_path / "home"}, cwd=tmp_path, env={}).settings
    store = BatchStore(settings.home)
    record = store.create(
        task="ask", inputs=(), payloads=(), out=tmp_path / "out", settings=settings, options=BatchOptions(jobs=1)
    )
    ledger = await open_ledger(record, settings, store)
    with pytest.raises(ConfigError, match="Redis"):
        await drive_on_ray(record, settings, ledger, stop=StopSignal())
    await ledger.close()
