"""An OpenAI-compatible server on loopback that misbehaves on request.

In a test, or as the engine without latency in a benchmark:

    with FaultServer(faults=Faults(rates={"429": 0.1}), seed=1) as server:
        model = LiteLLMModel(..., api_base=server.base_url)
        ...
        assert server.stats().by_outcome["429"] > 0

As a process, which prints one JSON line when it listens:

    python -m coa.testing.fault_server --port 0 --latency 0.2 --faults 429:0.1,500:0.05 --seed 1

Endpoints: /v1/chat/completions (also as a stream) and /v1/models in OpenAI's form, /tokenize, /apply-template,
/props and /health in llama.cpp's, and /stats. Token counts in `usage` are those of /tokenize over /apply-template, and
`cached_tokens` is what a prefix cache over all earlier prompts would have spared. Memory is bounded however
many calls are made.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Self

from coa.testing._completions import (
    ChatRequest,
    Completion,
    PrefixMemory,
    Reply,
    ReplyFunction,
    apply_template,
    complete,
    default_reply,
    pieces,
)
from coa.testing._faults import FaultKind, Faults
from coa.testing._http import Connection, HttpRequest
from coa.testing._stats import CallLimit, ServerStats
from coa.testing._wire import Ending, error_body, fail, lookup, respond, send_error, stream

__all__ = ["ChatRequest", "FaultKind", "FaultServer", "Faults", "Reply", "ReplyFunction", "ServerStats"]

_REMEMBERED_PROMPTS = 16_384
_REMEMBERED_CALLS = 65_536


class FaultServer:
    """A chat completions server in a thread of its own. Can be stopped and started again on the same port.

    `reply` is a function of the request; without one each reply quotes a numbered sentence of its prompt.
    `n_ctx` refuses prompts that do not fit (error code context_length_exceeded); `api_key` refuses calls
    without it; `rpm` refuses calls (429) above so many in any `window_s` seconds. `keep` bounds what `requests` holds.
    """

    def __init__(
        self,
        reply: ReplyFunction = default_reply,
        *,
        faults: Faults | None = None,
        seed: int = 0,
        model: str = "fault",
        n_ctx: int | None = None,
        api_key: str | None = None,
        rpm: int | None = None,
        window_s: float = 60.0,
        port: int = 0,
        keep: int = 256,
    ) -> None:
        self._reply = reply
        self._faults = faults or Faults()
        self._seed = seed
        self._model = model
        self._n_ctx = n_ctx
        self._api_key = api_key
        self._call_limit = CallLimit(rpm, window_s)
        self._port = port
        self._lock = threading.Lock()
        self._requests: deque[ChatRequest] = deque(maxlen=keep)
        self._digests: deque[str] = deque(maxlen=_REMEMBERED_CALLS)
        self._times: deque[float] = deque(maxlen=_REMEMBERED_CALLS)
        self._attempts: OrderedDict[str, int] = OrderedDict()
        self._prefixes = PrefixMemory()
        self._script_at = 0
        self._numbers = 0
        self._in_flight = 0
        self._zero()
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = _nothing
        self._failure: BaseException | None = None

    # life

    def start(self) -> Self:
        """Listens when it returns. Raises OSError when the port is taken."""
        if self._thread is not None:
            raise RuntimeError("this server is running already")
        listening = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, args=(listening,), name="fault-server", daemon=True)
        self._thread.start()
        listening.wait()
        if self._failure is not None:
            self._thread.join()
            self._thread = None
            raise self._failure
        return self

    def stop(self) -> None:
        """Breaks off what is going on and gives the port back; counts stay readable."""
        if self._thread is None:
            return
        self._stop()
        self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # for the test

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the first start unless one was given."""
        return self._port

    @property
    def root_url(self) -> str:
        """Where /tokenize, /props and /stats are; without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client calls its base URL: ends in /v1."""
        return f"{self.root_url}/v1"

    @property
    def faults(self) -> Faults:
        """The plan; setting one starts its script from the beginning."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._lock:
            self._faults, self._script_at = faults, 0

    @property
    def requests(self) -> list[ChatRequest]:
        """The last calls in order of arrival, as many as `keep` says."""
        with self._lock:
            return list(self._requests)

    def stats(self) -> ServerStats:
        """Counts so far; consistent with each other."""
        with self._lock:
            return ServerStats(
                calls=self._calls,
                by_outcome=dict(self._by_outcome),
                in_flight=self._in_flight,
                peak_concurrency=self._peak,
                prompt_tokens=self._prompt_tokens,
                cached_tokens=self._cached_tokens,
                completion_tokens=self._completion_tokens,
                distinct_prompts=len(self._attempts),
                digests=tuple(self._digests),
                times=tuple(self._times),
            )

    def reset_stats(self) -> None:
        """Counts from zero again; the prefix cache and the attempts that faults are drawn by stay."""
        with self._lock:
            self._zero()
            self._requests.clear()
            self._digests.clear()
            self._times.clear()

    def _zero(self) -> None:
        self._calls = 0
        self._by_outcome: Counter[str] = Counter()
        self._peak = self._in_flight
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._completion_tokens = 0

    # the thread

    def _run(self, listening: threading.Event) -> None:
        try:
            asyncio.run(self._serve(listening))
        except BaseException as error:
            if listening.is_set():
                raise
            self._failure = error
            listening.set()

    async def _serve(self, listening: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        connections: set[Connection] = set()
        server = await loop.create_server(
            lambda: Connection(self._dispatch, connections), "127.0.0.1", self._port, backlog=1024
        )
        self._port = server.sockets[0].getsockname()[1]
        listening.set()
        await stopping.wait()
        server.close()
        for connection in tuple(connections):
            connection.reset()
        await server.wait_closed()

    # requests

    async def _dispatch(self, request: HttpRequest, connection: Connection) -> None:
        if request.path in {"/v1/chat/completions", "/chat/completions"} and request.method == "POST":
            await self._chat(request, connection)
            return
        try:
            body = json.loads(request.body) if request.body else {}
            answer = (
                asdict(self.stats())
                if request.path == "/stats"
                else lookup(request.path, body, model=self._model, n_ctx=self._n_ctx)
            )
        except (ValueError, AttributeError, TypeError) as error:
            _refuse(connection, f"cannot read this request: {error!r}")
            return
        if answer is None:
            connection.send(404, error_body(404, f"no such path: {request.path}", "not_found_error"))
        else:
            connection.send(200, json.dumps(answer).encode())

    async def _chat(self, request: HttpRequest, connection: Connection) -> None:
        with self._lock:
            self._calls += 1
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)
        end = self._ending()
        try:
            try:
                call, script_at = self._register(request)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                end("bad-request")
                _refuse(connection, f"not a chat completion: {error!r}")
            else:
                await self._answer(call, script_at, connection, end)
        finally:
            end("gone")

    def _ending(self) -> Ending:
        """What books the end of one call, once.

        It is called before the reply's last byte goes out, so that whoever holds the reply finds it in the stats.
        """
        open_calls = [1]

        def end(outcome: str, completion: Completion | None = None) -> None:
            with self._lock:
                if not open_calls:
                    return
                open_calls.pop()
                self._in_flight -= 1
                self._by_outcome[outcome] += 1
                if completion is not None:
                    self._prompt_tokens += completion.prompt_tokens
                    self._cached_tokens += completion.cached_tokens
                    self._completion_tokens += completion.n_tokens

        return end

    def _register(self, request: HttpRequest) -> tuple[ChatRequest, int]:
        """The call with its place among the others, and its place in the plan's script."""
        body = json.loads(request.body)
        messages = tuple(body["messages"])
        canonical = json.dumps(messages, sort_keys=True).encode()
        digest = hashlib.sha256(canonical).hexdigest()[:16]
        prompt = apply_template(messages)
        with self._lock:
            attempt = self._attempts.pop(digest, 0)
            self._attempts[digest] = attempt + 1
            if len(self._attempts) > _REMEMBERED_PROMPTS:
                self._attempts.popitem(last=False)
            call = ChatRequest(self._numbers, messages, body, request.headers, prompt, digest, attempt)
            self._numbers += 1
            self._requests.append(call)
            self._digests.append(digest)
            self._times.append(time.monotonic())
            script_at = self._script_at
            self._script_at += 1
        return call, script_at

    async def _answer(self, call: ChatRequest, script_at: int, connection: Connection, end: Ending) -> None:
        """Answers or fails as planned."""
        faults = self._faults
        if not self._call_limit.admits(time.monotonic()):
            end("over-rpm")
            send_error("429", connection)
            return
        delay_s = faults.delay_s(call, seed=self._seed)
        if delay_s:
            await asyncio.sleep(delay_s)
        n_prompt = len(pieces(call.prompt))
        try:
            fault = self._fault(call, faults.pick(call, seed=self._seed, script_at=script_at), n_prompt)
            if fault and await fail(fault, faults, connection, end, n_prompt=n_prompt, n_ctx=self._n_ctx):
                return
            completion = complete(call, self._reply(call), fault, self._prefixes, n_prompt=n_prompt)
        except Exception as error:
            end("reply-error")
            message = f"the caller's own function failed: {error!r}"
            connection.send(500, error_body(500, message, "server_error"))
            return
        if call.body.get("stream"):
            await stream(call, completion, fault, faults, connection, end=end)
            return
        if faults.token_s:
            await asyncio.sleep(faults.token_s * len(completion.tokens))
        if fault not in {"drip", "stall"}:  # those end when they end, or when the client goes
            end(fault or "ok", completion)
        await respond(call, completion, fault, faults, connection)
        end(fault or "ok", completion)

    def _fault(self, call: ChatRequest, planned: FaultKind | None, n_prompt: int) -> FaultKind | None:
        """The planned fault, unless the key is wrong or the prompt too long."""
        if self._api_key is not None and call.headers.get("authorization") != f"Bearer {self._api_key}":
            return "401"
        if self._n_ctx is not None and n_prompt > self._n_ctx:
            return "400-context"
        return planned


def _refuse(connection: Connection, message: str) -> None:
    connection.send(400, error_body(400, message, "invalid_request_error"))


def _nothing() -> None:
    """What there is to stop before the first start."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; the first line of stdout is JSON and comes when it listens."""
    parser = argparse.ArgumentParser(prog="python -m coa.testing.fault_server", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--jitter", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--faults", type=Faults.parse_rates, default={}, metavar="KIND:RATE,...")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="fault")
    parser.add_argument("--n-ctx", type=int, default=None, help="refuse longer prompts")
    parser.add_argument("--api-key", default=None)
    parser.add_argument("--rpm", type=int, default=None, help="refuse calls above so many in a window")
    parser.add_argument("--window", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    faults = Faults(rates=options.faults, latency_s=options.latency, jitter_s=options.jitter)
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    server = FaultServer(
        faults=faults,
        seed=options.seed,
        model=options.model,
        n_ctx=options.n_ctx,
        api_key=options.api_key,
        rpm=options.rpm,
        window_s=options.window,
        port=options.port,
    )
    with server:
        print(json.dumps({"base_url": server.base_url, "port": server.port, "pid": os.getpid()}), flush=True)
        signal.sigwait(endings)


if __name__ == "__main__":
    main()
