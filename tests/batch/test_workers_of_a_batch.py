"""Workers that join a batch whose ledger is in Redis, over a server that answers at once."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from coa.api import StopSignal
from coa.batch.asking import question_payload
from coa.batch.estimating import Sample
from coa.batch.ledger import Ledger, SpendingLimits
from coa.batch.opening import open_ledger
from coa.batch.record import BatchOptions, BatchRecord, BatchStore
from coa.batch.redis_ledger import RedisLedger
from coa.batch.results import ResultFolder
from coa.batch.running import run_batch, scan
from coa.batch.worker import join_batch
from coa.config import Settings, load_settings
from coa.errors import ConfigError, RunNotFound
from coa.testing.fault_server import Faults, FaultServer
from coa.testing.redis_process import RedisProcess, redis_servers

pytestmark = [
    pytest.mark.skipif(not redis_servers(), reason="no redis-server here"),
    # litellm makes a coroutine in a thread; a time limit that ends just then leaves it unawaited.
    pytest.mark.filterwarnings("ignore:coroutine 'OpenAIChatCompletion:RuntimeWarning"),
]

N_DOCUMENTS = 6


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as server:
        yield server


@pytest.fixture(scope="module")
def engine() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, redis: RedisProcess, engine: FaultServer) -> Settings:
    params = {"model": "openai/fault", "api_base": engine.base_url, "api_key": "x"}
    given: dict[str, Any] = {
        "home": tmp_path / "home",
        "model": "fault",
        "model_list": [{"model_name": "fault", "litellm_params": params}],
        "redis_url": redis.url,
        "response_cache": False,
        "window": 4000,
        "notes": "paper",
        "chunk_tokens": 200,
    }
    engine.faults = Faults()
    engine.reset_stats()
    return load_settings(overrides=given, cwd=tmp_path, env={}).settings


def created(settings: Settings, tmp_path: Path, *, redis: bool = True, n: int = N_DOCUMENTS) -> BatchRecord:
    folder = tmp_path / "documents"
    folder.mkdir()
    for i in range(n):
        sentences = [f"Sentence {j} of document {i} says that the lamp was lit {i * j} times." for j in range(30)]
        (folder / f"d{i}.txt").write_text(" ".join(sentences))
    return BatchStore(settings.home).create(
        task="ask",
        inputs=(str(folder),),
        payloads=(question_payload("How often was the lamp lit?"),),
        out=tmp_path / "out",
        settings=settings,
        options=BatchOptions(jobs=2),
        redis=redis,
    )


@pytest.fixture
async def record(settings: Settings, tmp_path: Path) -> BatchRecord:
    """Documents added, and nobody at work."""
    made = created(settings, tmp_path)
    return await scanned(made, settings)


async def scanned(made: BatchRecord, settings: Settings) -> BatchRecord:
    store = BatchStore(settings.home)
    ledger = await open_ledger(made, settings, store)
    made = await scan(made, ledger, store, sample=Sample())
    await ledger.close()
    return made


@pytest.fixture
async def ledger(record: BatchRecord, settings: Settings) -> AsyncIterator[Ledger]:
    opened = await open_ledger(record, settings, BatchStore(settings.home))
    yield opened
    await opened.close()


async def test_workers_share_the_documents_and_each_is_read_once(
    record: BatchRecord, settings: Settings, engine: FaultServer
) -> None:
    ends = await asyncio.gather(*(join_batch(record.batch_id, settings) for _ in range(3)))
    assert [(end.ending, end.exit_code) for end in ends] == [("finished", 0)] * 3
    rows = list(ResultFolder(Path(record.out)).rows())
    assert sorted(row["document"] for row in rows) == [f"d{i}.txt" for i in range(N_DOCUMENTS)]
    calls = sum(row["usage"]["calls"] for row in rows)
    assert engine.stats().calls == calls == ends[0].summary["usage"]["calls"]
    assert await join_batch(str(record.out), settings), "a batch that has ended is no error to join"
    assert engine.stats().calls == calls


async def test_a_worker_stays_as_long_as_documents_are_looked_for(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coa.batch.worker._LOOK_S", 0.02)
    made = created(settings, tmp_path)
    early = asyncio.create_task(join_batch(made.batch_id, settings))
    await asyncio.sleep(0.3)
    assert not early.done(), "nothing is open, and nobody has said that there is nothing"
    await scanned(made, settings)
    end = await early
    assert (end.exit_code, end.summary["counts"]["done"]) == (0, N_DOCUMENTS)


async def test_a_worker_leaves_a_batch_whose_documents_nobody_looks_for_any_more(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coa.batch.worker._LOOK_S", 0.02)
    monkeypatch.setattr("coa.batch.worker._NO_NEWS_S", 0.2)
    end = await join_batch(created(settings, tmp_path).batch_id, settings)
    assert (end.exit_code, end.summary["state"]) == (75, "open")


async def test_a_worker_goes_on_where_one_was_killed(
    record: BatchRecord, settings: Settings, engine: FaultServer, ledger: Ledger
) -> None:
    engine.faults = Faults(latency_s=0.05)
    working = asyncio.create_task(join_batch(record.batch_id, settings, jobs=3))
    while engine.stats().calls < 8:  # noqa: ASYNC110 - the server is in another thread
        await asyncio.sleep(0.01)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    # What a kill leaves behind, but for what a cancellation tidies up: leases that nobody holds.
    assert await ledger.lease("dead", seconds=3600) is not None
    paid_before = engine.stats().calls
    await ledger.expire(owner="dead")
    end = await join_batch(record.batch_id, settings)
    rows = list(ResultFolder(Path(record.out)).rows())
    assert (end.exit_code, len({row["key"] for row in rows}), len(rows)) == (0, N_DOCUMENTS, N_DOCUMENTS)
    needed = sum(row["usage"]["calls"] for row in rows)
    assert engine.stats().calls - needed <= 3, "at most the chunks that were in hand"
    assert paid_before > 3


async def test_workers_of_a_ledger_that_was_lost_pay_nothing_again_and_add_no_second_line(
    record: BatchRecord, settings: Settings, engine: FaultServer, ledger: Ledger
) -> None:
    await join_batch(record.batch_id, settings)
    results, calls = ResultFolder(Path(record.out)), engine.stats().calls
    before = sorted(row["key"] for row in results.rows())
    assert len(set(before)) == N_DOCUMENTS
    assert isinstance(ledger, RedisLedger)
    await ledger.remove()
    gone = before[:2]
    results.forget(gone, before=results.size())  # as of workers that were killed before these had their lines
    await scanned(record, settings)
    ends = await asyncio.gather(*(join_batch(record.batch_id, settings) for _ in range(3)))
    assert [(end.exit_code, end.summary["counts"]["done"]) for end in ends] == [(0, N_DOCUMENTS)] * 3
    assert sorted(row["key"] for row in results.rows()) == before
    assert engine.stats().calls == calls
    assert await ledger.unreported() == []


async def test_a_stop_from_another_thread_gives_back_what_is_not_done(
    record: BatchRecord, settings: Settings, engine: FaultServer, ledger: Ledger
) -> None:
    engine.faults = Faults(latency_s=0.1)
    stop = StopSignal()
    bell = threading.Timer(0.5, stop.request, ["end of the shift"])
    bell.start()
    end = await join_batch(record.batch_id, settings, stop=stop)
    bell.join()
    assert (end.ending, end.exit_code) == ("stopped", 75)
    status = await ledger.status()
    assert status.counts["leased"] == 0
    assert status.counts["pending"] > 0


async def test_a_cancelled_batch_lets_its_workers_go(record: BatchRecord, settings: Settings, ledger: Ledger) -> None:
    await ledger.set_control("cancelled")
    end = await join_batch(record.batch_id, settings)
    assert (end.ending, end.summary["counts"]["pending"]) == ("cancelled", N_DOCUMENTS)


async def test_a_budget_holds_over_all_workers(
    record: BatchRecord, settings: Settings, engine: FaultServer, ledger: Ledger
) -> None:
    await ledger.set_limits(SpendingLimits(max_calls=20))
    ends = await asyncio.gather(*(join_batch(record.batch_id, settings) for _ in range(3)))
    assert {end.exit_code for end in ends} == {6}
    assert 0 < engine.stats().calls <= 20
    status = await ledger.status()
    assert status.spent.calls == engine.stats().calls
    assert status.counts["done"] > 0


async def test_a_batch_in_a_file_cannot_be_joined(settings: Settings, tmp_path: Path) -> None:
    made = created(settings, tmp_path, redis=False)
    with pytest.raises(ConfigError, match="file"):
        await join_batch(made.batch_id, settings)


async def test_a_worker_says_what_keeps_it_from_joining(record: BatchRecord, settings: Settings) -> None:
    with pytest.raises(RunNotFound):
        await join_batch("20200101-000000-0000", settings)
    with pytest.raises(ConfigError, match="COA_REDIS_URL"):
        await join_batch(record.batch_id, settings.model_copy(update={"redis_url": None}))


async def test_documents_at_urls_are_read_and_one_that_is_gone_fails_with_its_cause(
    settings: Settings, tmp_path: Path
) -> None:
    pytest.importorskip("fsspec")
    made = replace(created(settings, tmp_path, n=3), inputs=(f"file://{tmp_path}/documents",))
    BatchStore(settings.home).save(made)
    made = await scanned(made, settings)
    (tmp_path / "documents" / "d1.txt").unlink()
    end = await join_batch(made.batch_id, settings)
    assert end.exit_code == 3
    rows = {row["document"]: row for row in ResultFolder(Path(made.out)).rows()}
    assert {name: row["state"] for name, row in rows.items()} == {
        "d0.txt": "done",
        "d1.txt": "failed",
        "d2.txt": "done",
    }
    assert "no file" in rows["d1.txt"]["cause"]
    assert rows["d0.txt"]["source"] == f"file://{tmp_path}/documents/d0.txt"


async def test_a_batch_over_redis_is_run_as_one_over_a_file_is(settings: Settings, tmp_path: Path) -> None:
    made = created(settings, tmp_path, n=2)
    end = await run_batch(made, settings)
    assert (end.exit_code, end.summary["counts"]["done"]) == (0, 2)


class _Celery:
    """As much of Celery as the recipe uses: tasks are functions, and what they queue is written down."""

    queued: ClassVar[list[str]] = []

    def __init__(self, name: str, *, broker: str) -> None:
        self.conf: dict[str, object] = {}

    def task(self, **options: object) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
        def queueable(function: Callable[[str], None]) -> Callable[[str], None]:
            function.delay = self.queued.append  # type: ignore[attr-defined]
            return function

        return queueable


def test_the_recipe_for_celery_works_in_shifts(
    settings: Settings, tmp_path: Path, engine: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = created(settings, tmp_path)
    asyncio.run(scanned(made, settings))
    monkeypatch.setitem(sys.modules, "celery", SimpleNamespace(Celery=_Celery))
    monkeypatch.setenv("COA_REDIS_URL", str(settings.redis_url))
    recipe = Path(__file__).parents[2] / "examples" / "batch" / "celery_app.py"
    spec = importlib.util.spec_from_file_location("celery_recipe", recipe)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "load_settings", lambda: SimpleNamespace(settings=settings))
    monkeypatch.setattr(module, "SHIFT_S", 0.3)
    engine.faults = Faults(latency_s=0.1)
    module.shift(made.batch_id)
    assert _Celery.queued == [made.batch_id], "the next shift goes on"
    engine.faults = Faults()
    monkeypatch.setattr(module, "SHIFT_S", 60.0)
    module.shift(made.batch_id)
    assert _Celery.queued == [made.batch_id], "there is nothing left for another one"
    rows = list(ResultFolder(Path(made.out)).rows())
    assert sorted(row["document"] for row in rows) == [f"d{i}.txt" for i in range(N_DOCUMENTS)]
