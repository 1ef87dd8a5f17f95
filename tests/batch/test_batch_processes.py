"""A batch worked on by processes of this machine: what is shared out, what is told, and what happens when one dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from coa.api import StopSignal
from coa.batch.asking import question_payload
from coa.batch.ledger import Lease
from coa.batch.parts import Part, most_parts, settings_of_part, share
from coa.batch.process_worker import _Driver
from coa.batch.processes import n_processes_of
from coa.batch.processing import Worked
from coa.batch.record import BatchOptions, BatchRecord, BatchStore
from coa.batch.results import ResultFolder
from coa.batch.running import Listener, run_batch
from coa.cli import main
from coa.cli.batch_options import Engine, EngineOptions, processes_kept
from coa.config import Settings
from coa.errors import ConfigError
from coa.llm import rates
from coa.llm.rates import Grant, LocalRates, RateLimit
from coa.testing.fault_server import Faults, FaultServer

N_DOCUMENTS = 14


def entry(name: str = "readers", base_url: str = "http://127.0.0.1:1", **params: object) -> dict[str, object]:
    given = {"model": "openai/fault", "api_base": base_url, "api_key": "none", **params}
    return {
        "model_name": name,
        "litellm_params": given,
        "model_info": {"kind": "hosted", "max_input_tokens": 4096},
    }


def created(folder: Path, settings: Settings, **extra: object) -> BatchRecord:
    documents = folder / "documents"
    documents.mkdir()
    for i in range(N_DOCUMENTS):
        text = "\n\n".join(f"On day {j} keeper {i} wrote that the key hung by door {j}." for j in range(40))
        (documents / f"d{i}.txt").write_text(text)
    return BatchStore(settings.home).create(
        task="ask",
        inputs=(str(documents),),
        payloads=(question_payload("Where was the key?"),),
        out=folder / "out",
        settings=settings,
        options=BatchOptions(jobs=5),
        extra=extra,
    )


@pytest.mark.parametrize(("total", "of"), [(64, 3), (64, 64), (5, 2), (3, 1)])
def test_shares_add_up_exactly_and_differ_by_one_at_most(total: int, of: int) -> None:
    shares = [share(total, Part(number, of)) for number in range(of)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_calls_at_once_are_shared_out_and_the_settings_of_the_whole_stay(tmp_path: Path) -> None:
    entries = [entry(max_parallel_requests=5), entry("others")]
    whole = Settings(home=tmp_path, max_parallel_calls=64, model="readers", model_list=entries)
    parts = [settings_of_part(whole, Part(number, 3)) for number in range(3)]
    assert [part.max_parallel_calls for part in parts] == [22, 21, 21]
    assert [part.model_list[0]["litellm_params"]["max_parallel_requests"] for part in parts] == [2, 2, 1]
    assert parts[0].model_list[1] == entries[1]
    assert whole.model_list == entries
    assert settings_of_part(whole, Part(0, 1)) == whole
    assert most_parts(whole, jobs=80) == 5, "each has to have a call at once to each deployment"
    assert most_parts(whole, jobs=4) == 4


def test_a_model_that_coa_serves_itself_is_not_loaded_by_several_processes(tmp_path: Path) -> None:
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    settings = Settings(home=tmp_path, model=str(tmp_path / "own.gguf"), max_parallel_calls=64)
    record = created(tmp_path, settings, processes=2)
    with pytest.raises(ConfigError, match=r"own\.gguf"):
        n_processes_of(record, settings)
    assert n_processes_of(replace(record, extra={"processes": "auto"}), settings) == 1
    assert n_processes_of(replace(record, extra={}), settings) == 1


def test_there_are_as_many_processes_as_the_calls_at_once_are_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    settings = Settings(home=tmp_path, model="readers", model_list=[entry()], max_parallel_calls=64)
    record = created(tmp_path, settings, processes="auto")

    def auto(calls: int) -> int:
        return n_processes_of(replace(record, settings={**record.settings, "max_parallel_calls": calls}), settings)

    assert [auto(calls) for calls in (1, 63, 64, 1000)] == [1, 1, 2, 4]
    assert n_processes_of(replace(record, extra={"processes": 7}), settings) == 7


def test_a_number_of_processes_is_kept_by_the_batch_and_refused_for_a_cluster() -> None:
    assert [processes_kept(given) for given in (None, "3", "auto")] == [{}, {"processes": 3}, {"processes": "auto"}]
    assert EngineOptions(processes="3").extra() == {"processes": 3}
    with pytest.raises(ConfigError, match="--actors"):
        EngineOptions(engine=Engine.RAY, processes="3").extra()


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_of_processes_is_refused(given: str, tmp_path: Path) -> None:
    command = ["batch", "run", str(tmp_path), "-q", "x?", "--out", str(tmp_path / "out"), f"--processes={given}"]
    assert main.run(command) == 2


async def test_rates_are_kept_by_the_driver() -> None:
    ours, theirs = socket.socketpair()
    parent, child = Connection(ours.detach()), Connection(theirs.detach())
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    driver = _Driver(child, gone=lambda code: loop.call_soon_threadsafe(gone.set))
    limits = (RateLimit("endpoint:1", rpm=60),)
    granted = Grant(limits, 100, slot=7, wait_s=0.5)

    booking = asyncio.create_task(driver.book(limits, 100))
    kind, number, asked, tokens = await asyncio.to_thread(parent.recv)
    assert (kind, asked, tokens) == ("book", limits, 100)
    parent.send(("grant", number, granted))
    assert await booking == granted
    await driver.settle(granted, 90)
    assert await asyncio.to_thread(parent.recv) == ("settle", granted, 90)

    given_up = asyncio.create_task(driver.book(limits, 100))
    _, number, *_ = await asyncio.to_thread(parent.recv)
    given_up.cancel()
    await asyncio.wait([given_up])
    parent.send(("grant", number, granted))
    assert await asyncio.to_thread(parent.recv) == ("settle", granted, None), "a call that is not made gives it back"

    parent.close()
    await asyncio.wait_for(gone.wait(), 5)
    child.close()


def test_a_process_ends_when_its_driver_is_gone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "coa.batch.process_worker", str(theirs.fileno())], pass_fds=(theirs.fileno(),)
        )
        theirs.close()
        ours.close()
        assert process.wait(60) == 70


def test_another_driver_waits_for_the_processes_of_one_that_was_killed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, model="readers", model_list=[entry()])
    store, record = BatchStore(tmp_path), created(tmp_path, settings)
    with store.working(record.batch_id) as lock:
        orphan = subprocess.Popen(["sleep", "60"], pass_fds=(lock.fileno(),))
    killing = threading.Timer(0.3, orphan.kill)
    killing.start()
    with store.working(record.batch_id):
        assert orphan.wait(5) == -signal.SIGKILL
    killing.join()


class _Counting(LocalRates):
    """Counts the bookings."""

    booked = 0

    async def book(self, limits: Sequence[RateLimit], tokens: int) -> Grant:
        self.booked += 1
        return await super().book(limits, tokens)


class _Told:
    """What a listener heard."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.states: Counter[str] = Counter()

    def on_work(self, lease: Lease, worked: Worked | None) -> None:
        if worked is None:
            self.begun[lease.token] += 1
        else:
            self.ended[lease.token] += 1
            self.states += worked.states


@pytest.fixture
def limiter() -> Iterator[_Counting]:
    counting, before = _Counting(), rates.local_limiter()
    rates.set_local_limiter(counting)
    yield counting
    rates.set_local_limiter(before)


def workers() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE and "coa.batch.process_worker" in process.cmdline()
    ]


@pytest.mark.slow
async def test_processes_share_a_batch_and_one_that_is_killed_is_replaced(tmp_path: Path, limiter: _Counting) -> None:
    stop, told = StopSignal(), _Told()
    with FaultServer(faults=Faults(latency_s=0.1)) as server:
        entries = [entry(base_url=server.base_url, rpm=100_000)]
        settings = Settings(
            home=tmp_path / "home", model="readers", notes="paper", chunk_tokens=200, response_cache=False,
            max_parallel_calls=3, model_list=entries,
        )  # fmt: skip
        record = created(tmp_path, settings, processes=2)

        async def disturb() -> None:
            while server.stats().calls < 6:  # noqa: ASYNC110 - the server is in another thread
                await asyncio.sleep(0.01)
            victim, _ = workers()
            victim.kill()
            while told.states["done"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            stop.request("SIGTERM")

        disturbing = asyncio.create_task(disturb())
        end = await run_batch(record, settings, stop=stop, listener=Listener(on_work=told.on_work), estimate=False)
        await disturbing
        assert (end.ending, end.exit_code) == ("stopped", 75)
        assert end.summary["counts"]["leased"] == 0
        assert not workers()
        assert told.begun == told.ended
        assert told.states["done"] == end.summary["counts"]["done"] > 0

        goes_on = replace(record, extra={})
        end = await run_batch(goes_on, settings, estimate=False)
        stats = server.stats()
    assert end.exit_code == 0
    rows = list(ResultFolder(Path(record.out)).rows())
    assert Counter(row["document"] for row in rows) == {f"d{i}.txt": 1 for i in range(N_DOCUMENTS)}
    paid_again = stats.calls - sum(row["usage"]["calls"] for row in rows)
    assert 0 <= paid_again <= 2, "the calls that the dead process had in hand"
    assert stats.peak_concurrency <= 3
    assert 0 <= limiter.booked - stats.calls <= 2, "each call was booked with the driver"
