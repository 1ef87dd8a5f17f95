"""Where calls go: one layer of retries on every path, other deployments, other groups, cooldowns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from coa.errors import AuthenticationFailed, ContextOverflow, ModelError, ModelUnavailable, RateLimited
from coa.llm.chat import Decoding
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.litellm_model import LitellmModel, load_litellm
from coa.reading import Prompt
from coa.testing.fault_server import FaultKind, Faults, FaultServer

pytestmark = pytest.mark.slow

ASK = Prompt(tail="Who took the brass key from the harbour?")
SHORT = Decoding(max_tokens=50)
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


async def _no_wait(seconds: float) -> None:
    """As if it had passed."""


class Slept(list[float]):
    """Waits that take next to no time and are remembered."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(seconds / 100)


@contextlib.contextmanager
def _servers(n: int) -> Iterator[list[FaultServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FaultServer(_said(at))) for at in range(n)]


def _said(at: int) -> Callable[[Any], str]:
    return lambda call: f"Server {at} says: Ada."


def _group(name: str, *servers: FaultServer, **more: Any) -> ModelGroup:
    made = (
        Deployment(f"{name}/{at}", "openai/fault", "hosted", s.base_url, "none", **more) for at, s in enumerate(servers)
    )
    return ModelGroup(name, tuple(made))


def _calls(*servers: FaultServer) -> int:
    return sum(server.stats().calls for server in servers)


class Refusing:
    """A server that counts requests and answers none of them as it should."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.n_requests = 0
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next((int(line[15:]) for line in head.splitlines() if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                self.n_requests += 1
                if self.how == "closes":
                    break
                status, _, more = self.how.partition(" ")
                body = b'{"error": {"message": "no", "type": "server_error", "code": null}}'
                writer.write(
                    f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\n{more}"
                    f"content-length: {len(body)}\r\n\r\n".encode()
                    + body
                )
        writer.close()


PROVIDERS = ["openai", "hosted_vllm", "ollama_chat", "ollama", "anthropic", "llamafile", "lm_studio", "mistral", "groq"]


@pytest.mark.filterwarnings("ignore:Items .* on TypedDict class:UserWarning")  # litellm's, read by pydantic
@pytest.mark.parametrize(
    ("how", "streamed"),
    [("500", False), ("429", True), ("closes", False), ("closes", True)],
    ids=["500", "429-streamed", "closes", "closes-streamed"],
)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_no_provider_retries_by_itself(provider: str, how: str, *, streamed: bool) -> None:
    server = Refusing(how)
    async with server.running() as url:
        deployment = Deployment("one/0", f"{provider}/some-model", "hosted", url, "sk-none")
        model = LitellmModel(ModelGroup("one", (deployment,)), retries=1, sleep=_no_wait)
        with pytest.raises(ModelError) as caught:
            await model.complete(ASK, SHORT, on_text=(lambda text: None) if streamed else None)
        await model.close()
    assert server.n_requests == 2, f"one attempt and one retry: {caught.value}"


async def test_a_hosts_own_settings_do_not_multiply_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_litellm(), "num_retries", 4)
    with _servers(1) as (server,):
        server.faults = Faults(rates={"500": 1.0})
        model = LitellmModel(_group("one", server, params={"num_retries": 5}), retries=1, sleep=_no_wait)
        with pytest.raises(ModelUnavailable):
            await model.complete(ASK, SHORT)
        await model.close()
        assert _calls(server) == 2


@STREAMED
@pytest.mark.parametrize(
    ("fault", "key"),
    [
        ("500", "fallbacks"),
        ("429", "fallbacks"),
        ("reset", "fallbacks"),
        ("400-context", "context_window_fallbacks"),
        ("400-policy", "content_policy_fallbacks"),
    ],
)
async def test_a_fallback_group_answers_under_its_own_name_and_price(
    fault: FaultKind, key: str, *, streamed: bool
) -> None:
    prices = {"input_cost_per_token": 0.5, "output_cost_per_token": 0.25}
    with _servers(2) as (first, second):
        first.faults = Faults(rates={fault: 1.0})
        model = LitellmModel(
            _group("one", first, info={"input_cost_per_token": 7.0, "output_cost_per_token": 7.0}),
            retries=2,
            other_groups=(_group("two", second, info=prices, params=dict(prices)),),
            router_settings={
                key: [{"one": ["two"]}],
                "num_retries": 9,
                "retry_policy": {"InternalServerErrorRetries": 9},
            },
            sleep=_no_wait,
        )
        reply = await model.complete(ASK, SHORT, on_text=(lambda text: None) if streamed else None)
        await model.close()
        assert (_calls(first), _calls(second)) == (1, 1)
    assert (reply.text, reply.deployment) == ("Server 1 says: Ada.", "two/0")
    assert reply.usage.cost_usd == pytest.approx(0.5 * reply.usage.prompt_tokens + 0.25 * reply.usage.completion_tokens)


async def test_with_fallbacks_that_fail_as_well_each_attempt_asks_each_group_once() -> None:
    with _servers(3) as servers:
        for server in servers:
            server.faults = Faults(rates={"500": 1.0})
        model = LitellmModel(
            _group("one", servers[0]),
            retries=2,
            other_groups=(_group("two", servers[1], params={"num_retries": 3}), _group("three", servers[2])),
            router_settings={"fallbacks": [{"one": ["two", "three"]}]},
            sleep=_no_wait,
        )
        with pytest.raises(ModelUnavailable):
            await model.complete(ASK, SHORT)
        await model.close()
        assert [_calls(server) for server in servers] == [3, 3, 3]


@STREAMED
@pytest.mark.parametrize("fault", ["500", "429", "429-retry-after", "reset", "hang", "broken-stream", "401", "empty"])
async def test_a_retry_goes_to_a_deployment_that_has_not_failed_the_call(fault: FaultKind, *, streamed: bool) -> None:
    slept = Slept()
    with _servers(3) as servers:
        for server in servers[:2]:
            server.faults = Faults(rates={fault: 1.0}, retry_after_s=30.0)
        for _ in range(3):
            # Only what hangs waits for the limit: a busy machine may take its time for a sound reply.
            limit = 0.4 if fault == "hang" else 10.0
            model = LitellmModel(_group("one", *servers), retries=2, timeout_s=limit, sleep=slept)
            reply = await model.complete(ASK, SHORT, on_text=(lambda text: None) if streamed else None)
            await model.close()
            assert reply.deployment == "one/2"
        assert all(server.stats().calls <= 3 for server in servers), "none is asked twice for one reply"
    assert all(seconds <= 0.1 for seconds in slept), "nobody waits where another deployment is there"


async def test_when_all_have_failed_the_next_round_waits() -> None:
    slept = Slept()
    with _servers(2) as servers:
        for server in servers:
            server.faults = Faults(script=["503"])
        model = LitellmModel(_group("one", *servers), retries=3, sleep=slept)
        reply = await model.complete(ASK, SHORT)
        await model.close()
        assert reply.attempts == 3
        assert [server.stats().by_outcome["503"] for server in servers] == [1, 1]
    assert len(slept) == 2


async def test_a_key_that_one_deployment_refuses_is_an_error_only_when_all_do() -> None:
    with _servers(2) as servers:
        for server in servers:
            server.faults = Faults(rates={"401": 1.0})
        model = LitellmModel(_group("one", *servers), retries=5, sleep=_no_wait)
        with pytest.raises(AuthenticationFailed):
            await model.complete(ASK, SHORT)
        await model.close()
        assert [_calls(server) for server in servers] == [1, 1]


async def test_a_dead_deployment_is_hardly_asked_again() -> None:
    with _servers(2) as (alive, dead):
        group = _group("one", alive, dead)
        dead.stop()
        model = LitellmModel(group, retries=2, sleep=_no_wait)
        replies = [await model.complete(Prompt(tail=f"Who took key {n}?"), SHORT) for n in range(30)]
        await model.close()
    assert {reply.deployment for reply in replies} == {"one/0"}
    assert sum(reply.attempts - 1 for reply in replies) <= 4


@pytest.mark.parametrize("retry_after_s", [1.0, 3.0])
async def test_a_group_that_cools_down_as_a_whole_is_waited_for(retry_after_s: float) -> None:
    with _servers(2) as servers:
        for server in servers:
            server.faults = Faults(script=["429-retry-after"], retry_after_s=retry_after_s)
        model = LitellmModel(_group("one", *servers), retries=2, router_settings={"cooldown_time": retry_after_s})
        started = asyncio.get_running_loop().time()
        reply = await model.complete(ASK, SHORT)
        took = asyncio.get_running_loop().time() - started
        await model.close()
        assert reply.attempts == 3
        assert _calls(*servers) == 3, "waiting makes no call"
    assert retry_after_s * 0.8 < took < retry_after_s + 4


async def test_a_group_that_never_warms_up_is_given_up_as_rate_limited() -> None:
    with _servers(2) as servers:
        model = LitellmModel(_group("one", *servers), retries=0, sleep=_no_wait)
        for server in servers:
            server.faults = Faults(rates={"429-retry-after": 1.0}, retry_after_s=3000.0)
        for _ in range(3):
            with pytest.raises(RateLimited):
                await model.complete(ASK, SHORT)
        await model.close()
        assert [_calls(server) for server in servers] == [1, 1]


async def test_an_order_among_deployments_is_kept_and_left_only_for_failures() -> None:
    with _servers(2) as (first, second):
        deployments = tuple(
            Deployment(f"one/{at}", "openai/fault", "hosted", server.base_url, "none", params={"order": at + 1})
            for at, server in enumerate((first, second))
        )
        model = LitellmModel(ModelGroup("one", deployments), retries=2, sleep=_no_wait)
        for _ in range(6):
            assert (await model.complete(ASK, SHORT)).deployment == "one/0"
        first.faults = Faults(rates={"503": 1.0})
        assert (await model.complete(ASK, SHORT)).deployment == "one/1"
        await model.close()


async def test_a_prompt_that_is_too_long_is_told_at_once() -> None:
    with FaultServer(n_ctx=5) as small, FaultServer(n_ctx=5) as other:
        model = LitellmModel(_group("one", small, other), retries=3, sleep=_no_wait)
        with pytest.raises(ContextOverflow):
            await model.complete(ASK, SHORT)
        await model.close()
        assert _calls(small, other) == 1


async def test_routes_leave_nothing_in_litellms_lists() -> None:
    litellm = load_litellm()
    with _servers(2) as servers:
        before = list(litellm.callbacks)
        models = [LitellmModel(_group("one", *servers)) for _ in range(2)]
        for model in models:
            await model.complete(ASK, SHORT)
            await model.close()
            await model.close()
        ours = [c for c in litellm.callbacks if c not in before]
    assert ours == []
    listed = [*litellm.success_callback, *litellm._async_success_callback, *litellm._async_failure_callback]
    assert not [c for c in listed if type(c).__module__.startswith("coa.")]
