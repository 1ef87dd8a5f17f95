"""Storms of refusals, and what a deployment's pace does about them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from coa.errors import RateLimited
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.litellm_model import LitellmModel
from coa.llm.pacing import Pace
from coa.llm.rates import Grant, RateLimit
from coa.reading import Prompt
from coa.testing.fault_server import Faults, FaultServer

pytestmark = pytest.mark.slow

SHORT = Decoding(max_tokens=20)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda call: "Ada.") as running:
        yield running


def _group(server: FaultServer, **params: object) -> ModelGroup:
    return ModelGroup("one", (Deployment("one/0", "openai/fault", "hosted", server.base_url, "none", params=params),))


async def test_refusals_halve_what_goes_out_at_once_and_successes_raise_it_again() -> None:
    pace = Pace()
    tickets = [await pace.enter() for _ in range(8)]
    assert [pace.leave(ticket, "limited") for ticket in tickets] == [True, *[False] * 7], "one refusal, not eight"
    assert pace.window == 4.0
    probe = await pace.enter()
    assert not pace.free, "one finds out whether it is over"
    assert pace.leave(probe, "limited")
    assert pace.window == 1.0
    pace.leave(await pace.enter(), "ok")
    assert pace.window == 2.0
    for _ in range(40):
        pace.leave(await pace.enter(), "ok")
    assert 8.0 < pace.window < 10.0, "about one more for each window that went well"


async def test_nothing_goes_out_while_the_refused_one_waits_and_then_in_order() -> None:
    pace, order = Pace(), []
    ticket = await pace.enter()
    pace.leave(ticket, "limited")

    async def call(name: int) -> None:
        ticket = await pace.enter()
        order.append(name)
        await asyncio.sleep(0)
        pace.leave(ticket, "ok")

    async with pace.hold():
        waiting = [asyncio.create_task(call(n)) for n in range(6)]
        await asyncio.sleep(0.02)
        assert order == []
        waiting[2].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == [0, 1, 3, 4, 5], "first come, first served, and who leaves leaves no gap"
    assert pace.in_flight == 0


async def test_one_that_is_cancelled_the_moment_it_is_let_in_lets_the_next_one_in() -> None:
    pace = Pace(1)
    ticket = await pace.enter()
    first, second = asyncio.create_task(pace.enter()), asyncio.create_task(pace.enter())
    await asyncio.sleep(0)
    pace.leave(ticket, "ok")
    first.cancel()
    await asyncio.wait_for(second, 1.0)
    assert pace.in_flight == 1
    assert first.cancelled()


async def test_in_a_storm_calls_a_second_fall_then_recover_and_none_is_lost(server: FaultServer) -> None:
    """Eight callers without end; for a second and a half the server refuses everything, then asks for a pause."""
    server.faults = Faults(latency_s=0.02)
    model = LitellmModel(_group(server), retries=6, max_parallel_calls=8)
    answered, stop = 0, asyncio.Event()

    async def caller(name: int) -> None:
        nonlocal answered
        n = 0
        while not stop.is_set():
            reply = await model.complete(Prompt(tail=f"Caller {name} asks {n}: who?"), SHORT)
            assert reply.text == "Ada."
            answered, n = answered + 1, n + 1

    await model.complete(Prompt(tail="A first call takes its time."), SHORT)

    async def rate() -> float:
        """Answers a second, over twenty of them at least."""
        before, started = answered, time.perf_counter()
        while answered < before + 20 or time.perf_counter() - started < 0.7:  # noqa: ASYNC110 - a count, no event
            await asyncio.sleep(0.01)
        return (answered - before) / (time.perf_counter() - started)

    callers = [asyncio.create_task(caller(name)) for name in range(8)]
    calm = await rate()
    server.reset_stats()
    server.faults = Faults(rates={"429-retry-after": 1.0}, retry_after_s=0.5)
    await asyncio.sleep(1.5)
    in_storm = server.stats().calls / 1.5
    server.faults = Faults(latency_s=0.02)
    after = answered
    while answered < after + 50:  # noqa: ASYNC110 - it rises with every answer, whatever the time
        await asyncio.sleep(0.01)
    recovered = await rate()
    stop.set()
    await asyncio.gather(*callers)
    await model.close()
    assert in_storm < calm / 2
    assert server.stats().by_outcome["429-retry-after"] < 8 * 3
    assert recovered > calm / 2, (calm, in_storm, recovered)


async def test_a_provider_that_counts_by_the_minute_and_says_nothing_else_is_waited_out() -> None:
    waited: list[float] = []

    async def minutes(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.sleep(seconds / 60)

    with FaultServer(lambda call: "Ada.", rpm=5, window_s=1.0) as server:
        model = LitellmModel(_group(server), sleep=minutes)
        replies = await asyncio.gather(
            *(model.complete(Prompt(tail=f"Who took key {n}?"), SHORT) for n in range(20)), return_exceptions=True
        )
        await model.close()
        stats = server.stats()
    assert [r for r in replies if isinstance(r, BaseException)] == []
    assert stats.by_outcome["ok"] == 20
    assert stats.calls <= 20 * 4
    assert waited


async def test_three_refusals_take_more_than_a_minute_to_be_given_up(server: FaultServer) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    server.faults = Faults(rates={"429": 1.0})
    model = LitellmModel(_group(server), sleep=note)
    with pytest.raises(RateLimited):
        await model.complete(Prompt(tail="Who?"), SHORT)
    await model.close()
    assert 60.0 < sum(waited) < 80.0


class Recorder:
    """A limiter that lets everything pass after a given wait, and writes down what it is told."""

    def __init__(self, wait_s: float = 0.0) -> None:
        self.wait_s = wait_s
        self.booked: list[int] = []
        self.settled: list[int | None] = []

    async def book(self, limits: object, tokens: int) -> Grant:
        self.booked.append(tokens)
        return Grant((RateLimit("a", 1),), tokens, 0, self.wait_s)

    async def settle(self, grant: Grant, tokens: int | None) -> None:
        self.settled.append(tokens)

    async def close(self) -> None:
        """Nothing."""


async def test_tokens_are_booked_at_most_and_settled_at_what_the_reply_took(server: FaultServer) -> None:
    limiter = Recorder()
    model = LitellmModel(_group(server, rpm=5, tpm=1000), limiter=limiter)
    reply = await model.complete(Prompt(tail="Who took the key?"), SHORT)
    await model.close()
    took = reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert limiter.settled == [took]
    assert took < limiter.booked[0] < 200


@pytest.mark.parametrize("n", [1, 2], ids=["direct", "routed"])
async def test_waiting_for_a_limit_is_no_part_of_a_calls_time(server: FaultServer, n: int) -> None:
    limiter = Recorder(wait_s=0.6)
    deployments = tuple(
        Deployment(f"one/{at}", "openai/fault", "hosted", server.base_url, "none", params={"rpm": 5}) for at in range(n)
    )
    model = LitellmModel(ModelGroup("one", deployments), limiter=limiter, timeout_s=0.5, retries=0)
    started = time.perf_counter()
    reply = await model.complete(Prompt(tail="Who?"), SHORT)
    assert time.perf_counter() - started > 0.6
    assert reply.seconds < 0.5
    waiting = asyncio.create_task(model.complete(Prompt(tail="Who else?"), SHORT))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert limiter.settled[-1] is None, "its place is given back"
    assert server.stats().calls == 1
    await model.close()


async def test_limits_in_an_entry_are_kept_without_one_refusal() -> None:
    """litellm's Router would answer 429 itself above an rpm; here calls wait."""
    with FaultServer(lambda call: "Ada.") as server:
        model = LitellmModel(_group(server, rpm=3), retries=0)
        calls = [asyncio.create_task(model.complete(Prompt(tail=f"Who took key {n}?"), SHORT)) for n in range(5)]
        done, waiting = await asyncio.wait(calls, timeout=3.0)
        assert (len(done), len(waiting)) == (3, 2)
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await model.close()
        assert server.stats().calls == 3
