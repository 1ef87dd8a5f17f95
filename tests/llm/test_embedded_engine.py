"""The engine in this process and in one of its own, on a real small model."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from coa.errors import ModelNotFound, ModelUnavailable
from coa.llm import embedded
from coa.llm.embedded import EmbeddedEngine, usable_cores
from coa.llm.engine_process import EngineProcess
from coa.llm.engine_tokens import EngineTokens
from coa.testing.models import test_model_path as model_path_for_tests

pytestmark = pytest.mark.slow

Engine = EmbeddedEngine | EngineProcess


@pytest.fixture(scope="module")
def model() -> Path:
    return model_path_for_tests()


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[EmbeddedEngine]:
    with EmbeddedEngine.start(model, alias="tiny", n_ctx=2048, n_threads=1) as running:
        yield running


def _post(engine: Engine, path: str, body: dict[str, Any], timeout_s: float = 120.0) -> Any:
    headers = {"Authorization": f"Bearer {engine.api_key}"}
    reply = httpx.post(engine.root_url + path, headers=headers, json=body, timeout=timeout_s)
    reply.raise_for_status()
    return reply.json()


def _chat(engine: Engine, text: str, max_tokens: int = 24, **more: object) -> Any:
    messages = [{"role": "user", "content": text}]
    body = {"messages": messages, "max_tokens": max_tokens, "temperature": 0, **more}
    return _post(engine, "/v1/chat/completions", body)


def _text(reply: Any) -> str:
    return str(reply["choices"][0]["message"]["content"])


def _start_endless_call(engine: Engine) -> threading.Thread:
    """A call that would take minutes, under way when this returns."""

    def call() -> None:
        with pytest.raises(httpx.HTTPError):
            _chat(engine, "Count.", 1900, ignore_eos=True)

    thread = threading.Thread(target=call)
    thread.start()
    headers = {"Authorization": f"Bearer {engine.api_key}"}
    for _ in range(400):
        if httpx.get(engine.root_url + "/slots", headers=headers).json()[0]["is_processing"]:
            return thread
        time.sleep(0.05)
    raise AssertionError("the call did not begin")


def test_it_answers_only_on_loopback_and_only_with_its_key(engine: EmbeddedEngine) -> None:
    assert engine.base_url == f"{engine.root_url}/v1"
    assert engine.root_url.startswith("http://127.0.0.1:")
    assert httpx.get(engine.root_url + "/props").status_code == 401
    assert httpx.get(engine.root_url + "/").status_code == 404
    port = int(engine.root_url.rsplit(":", 1)[1])
    listening = [c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"
                 and c.laddr.port == port]  # fmt: skip
    assert listening == ["127.0.0.1"]


def test_it_serves_the_window_that_was_asked_for(engine: EmbeddedEngine) -> None:
    assert (engine.n_ctx, engine.n_ctx_train, engine.alias) == (2048, 8192, "tiny")
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        _chat(engine, "word " * 3000)


def test_greedy_answers_repeat_across_calls_neighbours_and_restarts(engine: EmbeddedEngine, model: Path) -> None:
    prompt = "Tell a story about a lighthouse. " * 20
    first = _chat(engine, prompt, 48)
    assert first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    again = _chat(engine, prompt, 48)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    _chat(engine, prompt[:300] + "Something else.", 16)
    after_another = _chat(engine, prompt, 48)
    with EmbeddedEngine.start(model, alias="tiny", n_ctx=4096, n_threads=2) as second:
        restarted = _chat(second, prompt, 48)
    assert {_text(each) for each in (again, after_another, restarted)} == {_text(first)}


def test_grammar_schema_stop_and_repeat_penalty_are_honoured(engine: EmbeddedEngine) -> None:
    assert _text(_chat(engine, "Is rain wet?", grammar='root ::= "yes" | "no"')) in ("yes", "no")
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert isinstance(json.loads(_text(_chat(engine, "Give n.", 40, response_format=form)))["n"], int)
    plain = _text(_chat(engine, "Name the four seasons.", 40))
    word = plain.split()[2]
    assert word not in _text(_chat(engine, "Name the four seasons.", 40, stop=[word]))
    assert _text(_chat(engine, "Name the four seasons.", 40, repeat_penalty=1.8)) != plain


def test_closing_with_a_call_under_way_cuts_it_and_frees_threads_and_memory(model: Path) -> None:
    process = psutil.Process()
    EmbeddedEngine.start(model, alias="warm", n_ctx=2048).close()  # libraries keep some threads and memory
    threads, memory = process.num_threads(), process.memory_info().rss
    for _ in range(2):
        engine = EmbeddedEngine.start(model, alias="x", n_ctx=2048)
        call = _start_endless_call(engine)
        engine.close()
        call.join(timeout=10)
        assert not call.is_alive()
        assert engine.closed
        engine.close()
    assert process.num_threads() <= threads + 1
    assert process.memory_info().rss < memory + 80 * 2**20
    with pytest.raises(httpx.ConnectError):
        httpx.get(engine.root_url + "/health")


_END_WHILE_BUSY = """
import sys, threading, time, httpx
from coa.llm.embedded import EmbeddedEngine
engine = EmbeddedEngine.start(sys.argv[1], alias="x", n_ctx=2048)
def call():
    body = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 1900, "ignore_eos": True}
    try:
        httpx.post(engine.base_url + "/chat/completions", json=body, timeout=100,
                   headers={"Authorization": "Bearer " + engine.api_key})
    except httpx.HTTPError:
        pass
threading.Thread(target=call, daemon=True).start()
time.sleep(1)
sys.exit(5)
"""


def test_a_process_that_ends_while_busy_ends_cleanly_and_in_silence(model: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COA_ENGINE_LOG"}
    done = subprocess.run(
        [sys.executable, "-c", _END_WHILE_BUSY, str(model)],
        capture_output=True, timeout=120, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (5, b"", b"")


def test_the_log_can_be_asked_for(model: Path) -> None:
    code = (
        "import sys; from coa.llm.embedded import EmbeddedEngine\n"
        "EmbeddedEngine.start(sys.argv[1], alias='x', n_ctx=512).close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)],
        capture_output=True, timeout=120, env={**os.environ, "COA_ENGINE_LOG": "3"},
    )  # fmt: skip
    assert done.returncode == 0
    assert b"load" in done.stderr


def test_a_model_that_does_not_fit_into_memory_is_told_before_loading(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_available_bytes", lambda: 200 * 2**20)
    with pytest.raises(ModelUnavailable, match="smaller window"):
        EmbeddedEngine.start(model, alias="x")


def test_an_architecture_that_llama_cpp_does_not_know_is_an_error_not_a_crash(model: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.gguf"
    named = b"\x05\x00\x00\x00\x00\x00\x00\x00llama"
    strange.write_bytes(model.read_bytes().replace(named, named[:-2] + b"bo", 1))
    with pytest.raises(ModelUnavailable, match="llabo"):
        EmbeddedEngine.start(strange, alias="x")


def test_cut_off_files_are_refused_before_llama_cpp_sees_them(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    for length in (3, 11, 1000, len(data) // 2, len(data) - 4096):
        cut = tmp_path / f"{length}.gguf"
        cut.write_bytes(data[:length])
        with pytest.raises(ModelNotFound):
            EmbeddedEngine.start(cut, alias="x")


def test_counts_are_those_of_each_text_alone(engine: EmbeddedEngine) -> None:
    counter = EngineTokens(engine.root_url, engine.api_key, "tiny")
    texts = ["One line.\n", "", "\n\n  then ", "我们 don't", "<|im_end|>", "a<|im_end|>b", "<|im_end", "|>\t\t", "end"]
    alone = [len(_post(engine, "/tokenize", {"content": text, "parse_special": True})["tokens"]) for text in texts]
    assert counter.count(texts) == alone
    assert counter.count(texts * 40) == alone * 40
    assert counter.count([]) == []
    counter.close()


def test_many_texts_travel_in_few_requests(engine: EmbeddedEngine) -> None:
    counter = EngineTokens(engine.root_url, engine.api_key, "tiny")
    counter.count(["warm"])
    sent: list[str] = []
    counter._client.event_hooks["request"] = [lambda request: sent.append(request.url.path)]
    n_tokens = counter.count([f"Sentence number {n}.\n" for n in range(5000)])
    assert len(n_tokens) == 5000
    assert sent == ["/tokenize"]
    counter.close()


def test_a_chat_s_count_is_the_one_that_the_call_reports(engine: EmbeddedEngine) -> None:
    counter = EngineTokens(engine.root_url, engine.api_key, "tiny")
    for text in ("Hello.", "A <|im_end|> inside.", "Zeile\n\n" * 50):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        reply = _post(engine, "/v1/chat/completions", {"messages": messages, "max_tokens": 1})
        assert counter.count_chat(messages) == reply["usage"]["prompt_tokens"]
    counter.close()


def test_an_engine_process_serves_and_ends_on_close(model: Path) -> None:
    with EngineProcess(model, alias="child", n_ctx=1024, n_threads=1) as child:
        assert child.n_ctx == 1024
        assert _text(_chat(child, "Say hello.", 8))
        assert child.api_key not in " ".join(psutil.Process(child.pid).cmdline())
        call = _start_endless_call(child)
    assert child.returncode == 0
    call.join(timeout=10)
    assert not call.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_engine_process_ends_with_zero_on_a_signal(model: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "coa.llm.engine_process", "--model", str(model), "--n-ctx", "512"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready["pid"] == process.pid
    assert ready["base_url"].endswith("/v1")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


def test_an_engine_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="There is no model file"):
        EngineProcess(tmp_path / "missing.gguf")


def test_cores_are_counted_within_the_process_s_own_set() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
