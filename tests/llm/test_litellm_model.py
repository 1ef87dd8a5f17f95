"""LitellmModel over a real HTTP server that misbehaves on request."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from coa.errors import (
    AuthenticationFailed,
    BadOutput,
    ContentRefused,
    ContextOverflow,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
)
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, DeploymentKind, ModelGroup
from coa.llm.litellm_model import LitellmModel, load_litellm
from coa.reading import Prompt
from coa.testing.fault_server import FaultKind, Faults, FaultServer, Reply

KEY = "sk-very-secret-0123456789"
ASK = Prompt(tail="Who took the brass key from the harbour?")
SHORT = Decoding(max_tokens=50)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(lambda request: "Ada took the brass key.", api_key=KEY) as running:
        yield running


def _group(server: FaultServer, *, kind: DeploymentKind = "hosted", key: str = KEY, **more: Any) -> ModelGroup:
    return ModelGroup("readers", (Deployment("readers/0", "openai/fault", kind, server.base_url, key, **more),))


class Slept(list[float]):
    """A `sleep` that takes no time and remembers what was asked of it."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def slept() -> Slept:
    return Slept()


@pytest_asyncio.fixture
async def model(server: FaultServer, slept: Slept) -> AsyncIterator[LitellmModel]:
    made = LitellmModel(_group(server), retries=2, sleep=slept)
    yield made
    await made.close()


async def test_a_reply_comes_with_what_it_took(server: FaultServer, model: LitellmModel) -> None:
    long = Prompt(prefix="[1] The harbour lay still.\n" * 40, tail="Who?")
    first = await model.complete(long, SHORT)
    second = await model.complete(long, SHORT)
    assert first.text == "Ada took the brass key."
    assert (first.finish_reason, first.deployment, first.attempts) == ("stop", "readers/0", 1)
    assert first.usage.prompt_tokens == server.stats().prompt_tokens // 2
    assert first.usage.completion_tokens == server.stats().completion_tokens // 2
    assert first.usage.cached_tokens == 0
    assert 0 < second.usage.cached_tokens == server.stats().cached_tokens
    assert first.usage.cost_usd is None, "nobody knows its price"


async def test_what_is_sent_is_the_prompt_and_the_decoding(server: FaultServer, model: LitellmModel) -> None:
    await model.complete(Prompt(prefix="[1] A.\n", tail="Who?"), Decoding(7, temperature=0.25, grammar="root ::= x"))
    body = server.requests[0].body
    assert body["messages"] == Prompt(prefix="[1] A.\n", tail="Who?").messages()
    assert (body["max_tokens"], body["temperature"]) == (7, 0.25)
    assert "grammar" not in body, "a hosted model obeys none"


async def test_a_llama_server_gets_grammar_and_penalty(server: FaultServer) -> None:
    model = LitellmModel(_group(server, kind="llama_server"))
    reply = await model.complete(ASK, Decoding(7, grammar="root ::= x", repeat_penalty=1.1))
    assert model.supports_grammar
    body = server.requests[0].body
    assert (body["grammar"], body["repeat_penalty"], body["cache_prompt"]) == ("root ::= x", 1.1, False)
    assert reply.usage.cost_usd == 0.0
    await model.close()


async def test_a_price_in_the_configuration_is_charged(server: FaultServer) -> None:
    prices = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.01}
    model = LitellmModel(_group(server, info=prices, params=prices))
    usage = (await model.complete(ASK, SHORT)).usage
    assert usage.cost_usd == pytest.approx(usage.prompt_tokens * 0.001 + usage.completion_tokens * 0.01)
    await model.close()


async def test_a_stream_gives_its_pieces_and_the_same_reply(model: LitellmModel) -> None:
    pieces: list[str] = []
    reply = await model.complete(ASK, SHORT, on_text=pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == reply.text == "Ada took the brass key."
    assert reply.usage.prompt_tokens > 0
    assert reply.usage.completion_tokens > 0


FAILURES: list[tuple[FaultKind, type[ModelError], bool]] = [
    ("400-context", ContextOverflow, False),
    ("401", AuthenticationFailed, False),
    ("429", RateLimited, True),
    ("500", ModelUnavailable, True),
    ("503", ModelUnavailable, True),
    ("reset", ModelUnavailable, True),
    ("wrong-json", ModelUnavailable, True),
    ("broken-stream", ModelUnavailable, True),
    ("empty", BadOutput, True),
    ("content-filter", ContentRefused, False),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("fault", "error", "retried"), FAILURES, ids=[f[0] for f in FAILURES])
async def test_each_failure_has_its_type_and_is_retried_only_where_that_helps(
    server: FaultServer,
    model: LitellmModel,
    fault: FaultKind,
    error: type[ModelError],
    *,
    retried: bool,
    streamed: bool,
) -> None:
    server.faults = Faults(script=[fault] * 20)
    with pytest.raises(error) as caught:
        await model.complete(ASK, SHORT, on_text=(lambda text: None) if streamed else None)
    assert server.stats().calls == (3 if retried else 1), "one layer of retries, or none"
    assert caught.value.retryable is retried
    message = str(caught.value)
    assert KEY not in message
    assert "\n" not in message
    assert "litellm" not in message.lower()
    assert "OpenAIException" not in message


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", [f for f, _, retried in FAILURES if retried])
async def test_a_passing_failure_ends_in_the_reply(
    server: FaultServer, model: LitellmModel, slept: Slept, fault: FaultKind, *, streamed: bool
) -> None:
    server.faults = Faults(script=[fault, fault, None])
    pieces: list[str] = []
    reply = await model.complete(ASK, SHORT, on_text=pieces.append if streamed else None)
    assert reply.text == "Ada took the brass key."
    assert reply.attempts == server.stats().calls == 3
    assert len(slept) == 2
    if streamed:
        assert "".join(pieces) == reply.text, "nothing is given twice"


async def test_the_servers_own_wish_is_waited_for_up_to_a_minute(
    server: FaultServer, model: LitellmModel, slept: Slept
) -> None:
    server.faults = Faults(script=["429-retry-after", "429-retry-after", None], retry_after_s=7.0)
    await model.complete(ASK, SHORT)
    assert len(slept) == 2
    assert all(7.0 <= seconds <= 7.7 for seconds in slept), "with jitter, never sooner"
    server.faults = Faults(script=["429-retry-after", None], retry_after_s=4000.0)
    await model.complete(ASK, SHORT)
    assert slept[2:] == [60.0]


async def test_a_hung_server_is_a_timeout(server: FaultServer, slept: Slept) -> None:
    server.faults = Faults(script=["hang"] * 5)
    model = LitellmModel(_group(server), retries=1, timeout_s=0.3, sleep=slept)
    with pytest.raises(ModelTimeout):
        await model.complete(ASK, SHORT)
    assert server.stats().calls == 2
    await model.close()


async def test_a_server_that_is_gone_is_unavailable(server: FaultServer, model: LitellmModel) -> None:
    server.stop()
    with pytest.raises(ModelUnavailable, match="Is the server running"):
        await model.complete(ASK, SHORT)
    server.start()
    assert (await model.complete(ASK, SHORT)).text


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_a_reply_at_its_cap_is_given_as_it_is(
    server: FaultServer, model: LitellmModel, *, streamed: bool
) -> None:
    reply = await model.complete(ASK, Decoding(max_tokens=2), on_text=(lambda text: None) if streamed else None)
    assert reply.finish_reason == "length"
    assert server.stats().calls == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("raw", "visible"),
    [
        ("<think>Hm. Bo? No.</think>Ada did.", "Ada did."),
        ("<think>\nHm.\n</think>\n\nAda did. ", "Ada did."),
        ("<thinking>Hm</thinking> Ada <b>did</b>.", "Ada <b>did</b>."),
        ("Is 1 < 2? Ada did.", "Is 1 < 2? Ada did."),
    ],
)
async def test_thinking_aloud_is_no_part_of_the_reply(raw: str, visible: str, *, streamed: bool) -> None:
    with FaultServer(lambda request: raw) as server:
        model = LitellmModel(_group(server, key="none"))
        pieces: list[str] = []
        reply = await model.complete(ASK, Decoding(200), on_text=pieces.append if streamed else None)
        await model.close()
    assert reply.text == visible
    if streamed:
        assert "".join(pieces).strip() == visible


async def test_thinking_that_never_ends_is_an_empty_reply_unless_it_was_cut_off(slept: Slept) -> None:
    def endless(finish: str) -> Reply:
        return Reply("<think>Hm, who could it be", finish)

    with FaultServer(lambda request: endless("stop")) as server:
        model = LitellmModel(_group(server, key="none"), retries=1, sleep=slept)
        with pytest.raises(BadOutput, match="empty reply") as caught:
            await model.complete(ASK, SHORT)
        await model.close()
        assert server.stats().calls == 2
        assert caught.value.usage is not None
        assert caught.value.usage.completion_tokens == server.stats().completion_tokens, "both are paid for"
    with FaultServer(lambda request: endless("length")) as server:
        model = LitellmModel(_group(server, key="none"), sleep=slept)
        reply = await model.complete(ASK, SHORT)
        await model.close()
    assert (reply.text, reply.finish_reason) == ("", "length")


async def test_empty_replies_that_were_paid_for_are_in_the_usage_of_the_good_one(
    server: FaultServer, model: LitellmModel
) -> None:
    server.faults = Faults(script=["empty", None])
    reply = await model.complete(ASK, SHORT)
    assert reply.usage.prompt_tokens == server.stats().prompt_tokens
    assert reply.attempts == 2


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", ["no-usage", "wrong-usage"])
async def test_usage_that_is_missing_or_absurd_is_estimated_and_said_once(
    server: FaultServer, model: LitellmModel, fault: FaultKind, caplog: pytest.LogCaptureFixture, *, streamed: bool
) -> None:
    server.faults = Faults(script=[fault, fault])
    on_text = (lambda text: None) if streamed else None
    usage = (await model.complete(ASK, SHORT, on_text=on_text)).usage
    await model.complete(ASK, SHORT, on_text=on_text)
    true = server.stats()
    assert true.prompt_tokens / 2 * 0.6 < usage.prompt_tokens < true.prompt_tokens / 2 * 2
    assert 0 < usage.completion_tokens < 20
    assert usage.cached_tokens == 0
    said = [r.message for r in caplog.records if "estimated" in r.message]
    if not streamed or fault == "wrong-usage":  # of a stream without usage litellm makes an estimate of its own
        assert said == ["readers/0 does not say what its replies take: tokens are estimated."]


async def test_a_wrong_key_is_not_repeated(server: FaultServer) -> None:
    wrong = "sk-wrong-but-secret-42"
    model = LitellmModel(_group(server, key=wrong))
    with pytest.raises(AuthenticationFailed) as caught:
        await model.complete(ASK, SHORT)
    await model.close()
    assert wrong not in str(caught.value)


def test_a_key_that_the_server_repeats_is_blotted_out() -> None:
    from coa.llm.litellm_errors import translated

    error = translated(ValueError(f"Incorrect API key provided: {KEY}."), deployment="g", secrets=[KEY])
    assert str(error) == "the call to g failed: Incorrect API key provided: ********."


async def test_calls_of_many_lengths_share_their_connections(server: FaultServer, model: LitellmModel) -> None:
    litellm = load_litellm()
    await model.complete(ASK, SHORT)
    clients = set(litellm.in_memory_llm_clients_cache.cache_dict)
    for n in range(2, 12):
        await model.complete(Prompt(tail="Who took it? " * n), Decoding(n * 10))
    assert set(litellm.in_memory_llm_clients_cache.cache_dict) == clients


async def test_two_models_at_once_and_the_first_to_close_leaves_the_other_its_connections(server: FaultServer) -> None:
    first, second = LitellmModel(_group(server)), LitellmModel(_group(server))
    await asyncio.gather(first.complete(ASK, SHORT), second.complete(ASK, SHORT))
    await first.close()
    assert (await second.complete(ASK, SHORT)).text
    await second.close()
    await second.close()


def test_nothing_is_left_open_when_a_model_is_closed() -> None:
    async def call(server: FaultServer) -> None:
        model = LitellmModel(_group(server, key="none"))
        await model.complete(ASK, SHORT)
        await model.complete(ASK, SHORT, on_text=lambda text: None)
        await model.close()

    with FaultServer() as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):  # a second loop must not find the first one's clients
            asyncio.run(call(server))
        gc.collect()
    assert [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)] == []


async def test_a_second_deployment_takes_over_from_a_dead_one(server: FaultServer, slept: Slept) -> None:
    with FaultServer(api_key=KEY) as dead:
        address = dead.base_url
    group = ModelGroup(
        "readers",
        (
            Deployment("readers/0", "openai/fault", "hosted", address, KEY),
            Deployment("readers/1", "openai/fault", "hosted", server.base_url, KEY),
        ),
    )
    model = LitellmModel(group, retries=8, sleep=slept, router_settings={"allowed_fails": 0})
    replies = [await model.complete(ASK, SHORT) for _ in range(6)]
    await model.close()
    assert {reply.deployment for reply in replies} == {"readers/1"}
