"""Time limits and cancellation of calls: whatever a server does, a call ends, and its connection with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from coa.errors import ModelTimeout
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.litellm_model import LitellmModel
from coa.reading import Prompt
from coa.testing.fault_server import FaultKind, Faults, FaultServer, Reply

pytestmark = pytest.mark.slow

ASK = Prompt(tail="Who took the brass key from the harbour?")
SHORT = Decoding(max_tokens=50)
TEXT = "Ada took the brass key from the harbour at noon."


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda request: TEXT) as running:
        yield running


def _group(server: FaultServer, n: int = 1, **params: object) -> ModelGroup:
    """One deployment is called straight, two through litellm's Router."""
    deployments = (
        Deployment(f"readers/{at}", "openai/fault", "hosted", server.base_url, "none", params=params) for at in range(n)
    )
    return ModelGroup("readers", tuple(deployments))


@pytest_asyncio.fixture(autouse=True)
async def _warm(server: FaultServer) -> None:
    """What only first calls do (litellm imports more of itself) is not timed."""
    warming = LitellmModel(_group(server), retries=0)
    await warming.complete(ASK, SHORT)
    await warming.complete(ASK, SHORT, on_text=lambda text: None)
    await warming.close()
    server.reset_stats()


@pytest_asyncio.fixture(params=[1, 2], ids=["direct", "routed"])
async def model(server: FaultServer, request: pytest.FixtureRequest) -> AsyncIterator[LitellmModel]:
    made = LitellmModel(_group(server, request.param), retries=0, timeout_s=0.6, idle_timeout_s=0.25)
    yield made
    await made.close()


async def _gone(server: FaultServer) -> bool:
    """Whether the server sees its client leave, within two seconds."""
    for _ in range(100):
        if server.stats().in_flight == 0:
            return server.stats().by_outcome.get("gone", 0) == server.stats().calls
        await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", ["hang", "drip", "stall"])
async def test_a_server_that_does_not_come_to_an_end_is_left(
    server: FaultServer, model: LitellmModel, fault: FaultKind, *, streamed: bool
) -> None:
    server.faults = Faults(script=[fault], drip_s=0.02)
    started = time.perf_counter()
    with pytest.raises(ModelTimeout, match=r"no (whole )?reply within 0\.6 s|fell silent for 0\.25 s"):
        await model.complete(ASK, SHORT, on_text=(lambda text: None) if streamed else None)
    assert time.perf_counter() - started < 5.0
    assert await _gone(server)


async def test_a_stream_that_falls_silent_is_told_from_one_that_is_slow(server: FaultServer) -> None:
    model = LitellmModel(_group(server), retries=0, timeout_s=20.0, idle_timeout_s=0.6)
    server.faults = Faults(token_s=0.1)
    assert (await model.complete(ASK, SHORT, on_text=lambda text: None)).text == TEXT
    server.faults = Faults(script=["slow-first-token"], slow_s=1.0)
    assert (await model.complete(ASK, SHORT, on_text=lambda text: None)).text == TEXT
    server.faults = Faults(script=["stall"])
    with pytest.raises(ModelTimeout, match=r"the stream fell silent for 0\.6 s") as caught:
        await model.complete(ASK, SHORT, on_text=lambda text: None)
    assert caught.value.deployment == "readers/0"
    await model.close()


async def test_thinking_is_no_silence(server: FaultServer) -> None:
    thoughts = " ".join(["Hm."] * 30)
    with FaultServer(lambda call: Reply(f"<think>{thoughts}</think>Ada.", thoughts=thoughts)) as thinker:
        thinker.faults = Faults(token_s=0.02)
        model = LitellmModel(_group(thinker), retries=0, timeout_s=20.0, idle_timeout_s=0.5)
        reply = await model.complete(ASK, Decoding(400), on_text=lambda text: None)
        await model.close()
    assert reply.text == "Ada."


async def test_a_retry_after_a_silence_starts_the_text_over(server: FaultServer) -> None:
    async def no_wait(seconds: float) -> None:
        """As if it had passed."""

    model = LitellmModel(_group(server), retries=1, timeout_s=20.0, idle_timeout_s=0.2, sleep=no_wait)
    server.faults = Faults(script=["stall", None])
    pieces: list[str] = []
    reply = await model.complete(ASK, SHORT, on_text=pieces.append)
    assert "".join(pieces) == reply.text == TEXT
    assert reply.attempts == 2
    await model.close()


async def test_a_deployments_own_timeout_holds(server: FaultServer) -> None:
    model = LitellmModel(_group(server, timeout=0.3), retries=0)
    server.faults = Faults(script=["hang"])
    with pytest.raises(ModelTimeout, match=r"no reply within 0\.3 s"):
        await model.complete(ASK, SHORT)
    await model.close()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", ["hang", "stall"])
@pytest.mark.parametrize("n", [1, 2], ids=["direct", "routed"])
async def test_cancelling_a_call_closes_its_connection_and_leaves_no_task(
    server: FaultServer, fault: FaultKind, n: int, *, streamed: bool
) -> None:
    model = LitellmModel(_group(server, n), retries=3)
    on_text = (lambda text: None) if streamed else None
    await model.complete(ASK, SHORT, on_text=on_text)
    await asyncio.sleep(0.05)
    before = asyncio.all_tasks()
    server.reset_stats()
    server.faults = Faults(script=[fault] * 8)
    calls = [asyncio.create_task(model.complete(ASK, SHORT, on_text=on_text)) for _ in range(3)]
    while server.stats().calls < 3:  # noqa: ASYNC110 - the server is in another thread
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert await _gone(server), server.stats().by_outcome
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() - before == set()
    server.faults = Faults()
    assert (await model.complete(ASK, SHORT, on_text=on_text)).text == TEXT, "nothing is held on to"
    await model.close()


async def test_calls_at_once_keep_to_their_limit(server: FaultServer) -> None:
    server.faults = Faults(latency_s=0.05)
    model = LitellmModel(_group(server), max_parallel_calls=3)
    await asyncio.gather(*(model.complete(Prompt(tail=f"Who took key {n}?"), SHORT) for n in range(9)))
    assert server.stats().peak_concurrency == 3
    await model.close()


async def test_a_deployments_own_limit_of_calls_at_once_is_waited_for(server: FaultServer) -> None:
    server.faults = Faults(latency_s=0.05)
    model = LitellmModel(_group(server, max_parallel_requests=2), retries=0)
    await asyncio.gather(*(model.complete(Prompt(tail=f"Who took key {n}?"), SHORT) for n in range(6)))
    assert server.stats().peak_concurrency == 2
    await model.close()
