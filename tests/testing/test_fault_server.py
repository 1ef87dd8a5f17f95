from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from coa.testing._completions import PrefixMemory, apply_template, pieces
from coa.testing.fault_server import ChatRequest, FaultKind, Faults, FaultServer, Reply

SOURCE = "Source text, its sentences numbered:\n[1] The lamp was lit.\n[2] Ada closed the ledger.\n[End.]\n"

CLIENT = httpx.Client()


def post(server: FaultServer, text: str = SOURCE, timeout: float = 10.0, **body: Any) -> httpx.Response:
    payload = {"model": "m", "messages": [{"role": "user", "content": text}], **body}
    return CLIENT.post(f"{server.base_url}/chat/completions", json=payload, timeout=timeout)


@pytest.fixture(scope="module", autouse=True)
def _client() -> Iterator[None]:
    with CLIENT:
        yield


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def say(text: str) -> Any:
    return lambda request: text


# replies


def test_default_reply_quotes_a_numbered_sentence_of_its_own_prompt(server: FaultServer) -> None:
    said = post(server).json()["choices"][0]["message"]["content"]
    assert said in {"The lamp was lit. [1]", "Ada closed the ledger. [2]"}
    assert post(server).json()["choices"][0]["message"]["content"] == said


def test_default_reply_without_numbered_sentences_is_the_longest_line_of_the_last_message(
    server: FaultServer,
) -> None:
    said = post(server, "Notes:\nAda closed the ledger at noon.\nWho?").json()
    assert said["choices"][0]["message"]["content"] == "Ada closed the ledger at noon."


def test_reply_function_sees_the_request_and_sets_the_usage() -> None:
    def reply(request: ChatRequest) -> Reply:
        return Reply(f"{request.number} {request.body['temperature']}", prompt_tokens=11, cached_tokens=3)

    with FaultServer(reply) as server:
        answer = post(server, temperature=0).json()
    assert answer["choices"][0]["message"]["content"] == "0 0"
    assert answer["usage"]["prompt_tokens"] == 11
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}


def test_failing_reply_function_is_a_500_that_names_the_error() -> None:
    def reply(request: ChatRequest) -> str:
        raise KeyError("no such chapter")

    with FaultServer(reply) as server:
        response = post(server)
        assert response.status_code == 500
        assert "no such chapter" in response.json()["error"]["message"]
        assert server.stats().by_outcome == {"reply-error": 1}


def test_max_tokens_cuts_the_reply_and_says_so() -> None:
    with FaultServer(say("one two three four five six")) as server:
        answer = post(server, max_tokens=3).json()
        assert answer["choices"][0]["message"]["content"] == "one two three"
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 3
        assert post(server, max_tokens=6).json()["choices"][0]["finish_reason"] == "stop"


def test_usage_counts_what_tokenize_counts_over_apply_template(server: FaultServer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SOURCE}]
    prompt = httpx.post(f"{server.root_url}/apply-template", json={"messages": messages}).json()["prompt"]
    tokens = httpx.post(f"{server.root_url}/tokenize", json={"content": prompt}).json()["tokens"]
    body = {"model": "m", "messages": messages}
    usage = httpx.post(f"{server.base_url}/chat/completions", json=body).json()["usage"]
    assert usage["prompt_tokens"] == len(tokens)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_cached_tokens_grow_with_the_shared_prefix(server: FaultServer) -> None:
    book = "The salt ledger lay open on the desk. " * 100
    cold = post(server, book + "Who?").json()["usage"]
    warm = post(server, book + "Where?").json()["usage"]
    other = post(server, "Once upon a time " + book).json()["usage"]
    cached = [u["prompt_tokens_details"]["cached_tokens"] for u in (cold, warm, other)]
    assert cached[0] == 0
    assert 0.85 * warm["prompt_tokens"] < cached[1] < warm["prompt_tokens"]
    assert cached[2] == 0
    assert server.stats().cached_tokens == sum(cached)


def test_prefix_memory_forgets_the_oldest_blocks() -> None:
    memory = PrefixMemory(block_chars=4, max_blocks=3)
    memory.known_chars("aaaabbbb")
    assert memory.known_chars("aaaabbbb") == 8
    memory.known_chars("ccccddddeeee")
    assert len(memory) == 3
    assert memory.known_chars("aaaabbbb") == 0


# endpoints


@pytest.mark.parametrize("text", ["", "Hello, world\n", "  two  spaces\tand 42", "浅い海 — naïve", "<|im_end|>x"])
def test_pieces_rejoin_to_the_text(server: FaultServer, text: str) -> None:
    answer = httpx.post(f"{server.root_url}/tokenize", json={"content": text, "with_pieces": True}).json()
    assert "".join(token["piece"] for token in answer["tokens"]) == text
    plain = httpx.post(f"{server.root_url}/tokenize", json={"content": text}).json()
    assert plain["tokens"] == [token["id"] for token in answer["tokens"]]


def test_no_token_spans_the_border_of_prefix_and_tail() -> None:
    prefix, tail = "[1] The lamp was lit.\n[End of source text.]\n", "Question: who?"
    assert pieces(prefix) + pieces(tail) == pieces(prefix + tail)


def test_template_joins_text_parts_and_ends_with_the_assistants_turn() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    prompt = apply_template([{"role": "user", "content": parts}])
    assert prompt == "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"


def test_models_props_and_health_answer_in_their_engines_form() -> None:
    with FaultServer(model="tiny", n_ctx=512) as server:
        models = httpx.get(f"{server.base_url}/models").json()
        props = httpx.get(f"{server.root_url}/props").json()
        health = httpx.get(f"{server.root_url}/health").json()
    assert [m["id"] for m in models["data"]] == ["tiny"]
    assert props["default_generation_settings"]["n_ctx"] == 512
    assert "im_start" in props["chat_template"]
    assert health == {"status": "ok"}


def test_unknown_path_and_malformed_calls_are_told_apart(server: FaultServer) -> None:
    assert httpx.get(f"{server.root_url}/nowhere").status_code == 404
    for content in (b"{", b"[]", b'{"messages": 3}', b'{"messages": ["x"]}'):
        response = httpx.post(f"{server.base_url}/chat/completions", content=content)
        assert response.status_code == 400, content
    assert httpx.post(f"{server.root_url}/tokenize", content=b"[1]").status_code == 400
    assert server.stats().by_outcome == {"bad-request": 4}


def test_stats_endpoint_says_what_stats_says(server: FaultServer) -> None:
    post(server)
    post(server)
    told = httpx.get(f"{server.root_url}/stats").json()
    stats = server.stats()
    assert told["calls"] == stats.calls == 2
    assert told["by_outcome"] == {"ok": 2}
    assert told["digests"] == list(stats.digests)
    assert len(set(stats.digests)) == stats.distinct_prompts == 1
    server.reset_stats()
    assert server.stats().calls == 0
    assert server.requests == []


# http


def test_chunked_bodies_pipelined_requests_and_expect_are_understood(server: FaultServer) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    expecting = head + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(chunked[:70])
        time.sleep(0.02)
        sock.sendall(chunked[70:] + expecting + body)
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.count(b"HTTP/1.1 100 Continue") == 1


def test_garbage_is_refused_and_the_connection_closed(server: FaultServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 400")


# faults


def test_unknown_faults_and_impossible_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown fault '418'"):
        Faults.parse_rates("418:0.5")
    with pytest.raises(ValueError, match="unknown fault"):
        Faults(script=["teapot"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="add up to 1"):
        Faults(rates={"429": 0.7, "500": 0.7})
    assert Faults.parse_rates(" 429:0.1, 500:0.05,") == {"429": 0.1, "500": 0.05}


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("401", 401, "invalid_api_key"),
        ("429", 429, "rate_limit_exceeded"),
        ("429-retry-after", 429, "rate_limit_exceeded"),
        ("500", 500, "internal_error"),
        ("503", 503, "overloaded"),
        ("400-context", 400, "context_length_exceeded"),
    ],
)
def test_scripted_errors_come_once_with_openais_codes(fault: FaultKind, status: int, code: str) -> None:
    with FaultServer(faults=Faults(script=[fault, None], retry_after_s=0.5)) as server:
        failed, good = post(server), post(server)
        assert failed.status_code == status
        assert failed.json()["error"]["code"] == code
        assert failed.headers.get("retry-after") == ("0.5" if fault == "429-retry-after" else None)
        assert good.status_code == 200
        assert server.stats().by_outcome == {fault: 1, "ok": 1}


def test_a_prompt_longer_than_the_window_is_refused_with_its_size() -> None:
    with FaultServer(n_ctx=40) as server:
        assert post(server, "short").status_code == 200
        refused = post(server, "long " * 100).json()["error"]
    assert refused["code"] == "context_length_exceeded"
    assert "maximum context length is 40 tokens" in refused["message"]


def test_a_wrong_key_is_refused() -> None:
    with FaultServer(api_key="right") as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        for key, status in (("wrong", 401), ("right", 200)):
            headers = {"Authorization": f"Bearer {key}"}
            url = f"{server.base_url}/chat/completions"
            assert httpx.post(url, json=body, headers=headers).status_code == status


def test_a_hanging_call_is_counted_as_gone_when_the_client_gives_up() -> None:
    with FaultServer(faults=Faults(script=["hang"])) as server:
        with pytest.raises(httpx.ReadTimeout):
            post(server, timeout=0.2)
        _until(lambda: server.stats().in_flight == 0)
        assert server.stats().by_outcome == {"gone": 1}


@pytest.mark.parametrize("streamed", [False, True])
def test_reset_and_broken_replies_surface_as_transport_errors(streamed: bool) -> None:
    with FaultServer(say("a b c d e f"), faults=Faults(script=["reset", "broken-stream"])) as server:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            post(server, stream=streamed)
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            post(server, stream=streamed)


def test_broken_stream_delivers_the_first_half() -> None:
    received: list[str] = []

    def read(server: FaultServer) -> None:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body) as response:
            for line in filter(None, response.iter_lines()):
                delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
                received.append(delta["content"])

    plan = Faults(script=["broken-stream"])
    with FaultServer(say("one two three four"), faults=plan) as server, pytest.raises(httpx.RemoteProtocolError):
        read(server)
    assert "".join(received) == "one two"


def test_spoiled_replies_are_spoiled_in_the_way_they_say() -> None:
    kinds: list[FaultKind] = ["wrong-json", "empty", "length", "content-filter", "no-usage", "wrong-usage"]
    with FaultServer(say("one two three four"), faults=Faults(script=kinds)) as server:
        answers = [post(server) for _ in kinds]
        assert server.stats().by_outcome == dict.fromkeys(kinds, 1)
    assert all(a.status_code == 200 for a in answers)
    with pytest.raises(json.JSONDecodeError):
        answers[0].json()
    empty, length, refused, unpaid, wrong = (a.json() for a in answers[1:])
    assert _content(empty) == ("", "stop")
    assert _content(length) == ("one two", "length")
    assert _content(refused) == ("", "content_filter")
    assert "usage" not in unpaid
    assert wrong["usage"]["prompt_tokens"] == -1


def test_latency_jitter_and_slow_first_token_delay_the_reply() -> None:
    plan = Faults(script=[None, "slow-first-token"], latency_s=0.05, jitter_s=0.01, slow_s=0.15)
    with FaultServer(faults=plan) as server:
        durations = []
        for _ in range(2):
            start = time.monotonic()
            assert post(server).status_code == 200
            durations.append(time.monotonic() - start)
    assert durations[0] >= 0.05
    assert durations[1] >= 0.2


def test_rates_hit_the_same_prompts_in_any_order_and_a_retry_draws_anew() -> None:
    plan = Faults(rates={"429": 0.3, "500": 0.2})

    def outcomes(order: list[int]) -> dict[int, list[int]]:
        with FaultServer(faults=plan, seed=7) as server:
            found: dict[int, list[int]] = {n: [] for n in order}
            for n in order + order:
                found[n].append(post(server, f"prompt {n}").status_code)
            return found

    forward = outcomes(list(range(60)))
    assert forward == outcomes(list(reversed(range(60))))
    firsts = [codes[0] for codes in forward.values()]
    assert 8 <= firsts.count(429) <= 28
    assert 4 <= firsts.count(500) <= 20
    assert any(first != second for first, second in forward.values())


def test_faults_can_depend_on_the_request_and_be_changed_while_it_runs(server: FaultServer) -> None:
    server.faults = Faults(when=lambda request: "500" if "lamp" in request.text else None)
    assert [post(server).status_code, post(server, "no light").status_code] == [500, 200]
    server.faults = Faults(script=["503"])
    assert [post(server).status_code, post(server).status_code] == [503, 200]


# life


def test_peak_concurrency_counts_calls_at_the_same_time() -> None:
    with FaultServer(faults=Faults(latency_s=0.2)) as server:
        threads = [threading.Thread(target=post, args=(server,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        _until(lambda: server.stats().in_flight == 5)
        for thread in threads:
            thread.join()
        stats = server.stats()
    assert stats.peak_concurrency == 5
    assert stats.in_flight == 0
    assert stats.by_outcome == {"ok": 5}


def test_stopping_breaks_off_calls_and_starting_again_takes_the_same_port() -> None:
    server = FaultServer(faults=Faults(script=["hang"])).start()
    port, failures = server.port, []

    def call() -> None:
        try:
            post(server)
        except httpx.TransportError as error:
            failures.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    _until(lambda: server.stats().in_flight == 1)
    server.stop()
    caller.join(timeout=5)
    assert len(failures) == 1
    with pytest.raises(httpx.ConnectError):
        post(server)
    with server:
        assert server.port == port
        assert post(server).status_code == 200


def test_a_taken_port_is_an_error_at_start(server: FaultServer) -> None:
    with pytest.raises(OSError, match="in use"):
        FaultServer(port=server.port).start()
    with pytest.raises(RuntimeError, match="running already"):
        server.start()


def test_process_tells_its_address_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "coa.testing.fault_server", "--faults", "500:1", "--latency", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        body = {"model": "m", "messages": []}
        status = httpx.post(f"{ready['base_url']}/chat/completions", json=body).status_code
        os.kill(ready["pid"], signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert status == 500


@pytest.mark.slow
async def test_memory_stays_flat_over_30_000_calls() -> None:
    def reply(request: ChatRequest) -> str:
        return "noted"

    with FaultServer(reply) as server:
        before = await _calls(server, 10_000, start=0)
        after = await _calls(server, 20_000, start=10_000)
        assert server.stats().calls == 30_000
        assert server.stats().by_outcome == {"ok": 30_000}
    assert after - before < 16 * 1024, f"peak RSS grew from {before} to {after} KiB"


async def test_litellm_reads_replies_usage_streams_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm
    from litellm.exceptions import ContextWindowExceededError, RateLimitError

    plan = Faults(script=[None, None, "429", "400-context"])
    with FaultServer(say("a note [1]"), faults=plan) as server:
        target: dict[str, Any] = {
            "model": "openai/x",
            "api_base": server.base_url,
            "api_key": "none",
            "max_retries": 0,
            "messages": [{"role": "user", "content": SOURCE}],
        }
        whole = await litellm.acompletion(**target)
        assert whole.choices[0].message.content == "a note [1]"
        assert whole.usage.prompt_tokens == len(pieces(apply_template(target["messages"])))
        streamed = await litellm.acompletion(**target, stream=True)
        parts = [part.choices[0].delta.content or "" async for part in streamed]
        assert "".join(parts) == "a note [1]"
        with pytest.raises(RateLimitError):
            await litellm.acompletion(**target)
        with pytest.raises(ContextWindowExceededError):
            await litellm.acompletion(**target)


def _content(answer: dict[str, Any]) -> tuple[str, str]:
    choice = answer["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def _until(condition: Any, timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


async def _calls(server: FaultServer, n: int, *, start: int) -> int:
    """Peak RSS in KiB after `n` calls with different prompts over eight raw connections."""

    async def one(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for number in range(first, start + n, 8):
            text = f"call {number} " + "word " * 60
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            size = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as group:
        for offset in range(8):
            group.create_task(one(start + offset))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# limits of calls, thoughts, and replies that do not end


def test_calls_above_the_limit_of_a_window_are_refused_and_counted_apart() -> None:
    with FaultServer(rpm=3, window_s=0.5) as server:
        said = [post(server).status_code for _ in range(5)]
        time.sleep(0.55)
        said += [post(server).status_code for _ in range(4)]
        assert said == [200, 200, 200, 429, 429, 200, 200, 200, 429]
        assert server.stats().by_outcome == {"ok": 6, "over-rpm": 3}
        assert len(server.stats().times) == 9
        assert list(server.stats().times) == sorted(server.stats().times)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_thoughts_go_beside_the_text_and_are_counted(*, streamed: bool) -> None:
    with FaultServer(lambda call: Reply("Ada did.", thoughts="Was it Bo? No.")) as server:
        reply = post(server, stream=streamed, stream_options={"include_usage": True})
        if streamed:
            events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
            deltas = [e["choices"][0]["delta"] for e in events if e["choices"]]
            usage = events[-1]["usage"]
            texts = tuple("".join(d.get(key) or "" for d in deltas) for key in ("reasoning_content", "content"))
        else:
            message, usage = reply.json()["choices"][0]["message"], reply.json()["usage"]
            texts = (message["reasoning_content"], message["content"])
    assert texts == ("Was it Bo? No.", "Ada did.")
    n_thought = len(pieces(texts[0]))
    assert usage["completion_tokens_details"]["reasoning_tokens"] == n_thought
    assert usage["completion_tokens"] == n_thought + len(pieces(texts[1]))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("fault", "ends_in"),
    [("drip", TimeoutError), ("stall", httpx.ReadTimeout), ("half-close", httpx.RemoteProtocolError)],
    ids=["drip", "stall", "half-close"],
)
def test_a_reply_that_does_not_come_to_its_end(fault: FaultKind, ends_in: type[Exception], *, streamed: bool) -> None:
    got: list[bytes] = []

    def read(server: FaultServer) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": SOURCE}], "stream": streamed}
        started = time.monotonic()
        with CLIENT.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=0.4) as reply:
            for piece in reply.iter_raw():
                got.append(piece)
                if time.monotonic() - started > 1.0:
                    raise TimeoutError

    with FaultServer(faults=Faults(script=[fault], drip_s=0.05)) as server, pytest.raises(ends_in):
        read(server)
    assert got, "it begins"


def test_what_users_need_is_in_coa_testing() -> None:
    import coa.testing

    assert set(dir(coa.testing)) == set(coa.testing.__all__)
    assert coa.testing.FaultServer is FaultServer
    assert all(getattr(coa.testing, name) is not None for name in coa.testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = coa.testing.Nothing
