"""A run over a book, with every log and span that coa can make: neither the book nor a key is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coa.cli.main import run
from coa.log_format import set_up_logging
from coa.testing.fault_server import ChatRequest, Faults, FaultServer

trace = pytest.importorskip("opentelemetry.trace")

KEY = "sk-canary-key-0123456789"
CANARY = "the vermilion cormorant whispered"
BOOK = "CHAPTER I.\n\n" + "\n".join(
    f"On day {n} {CANARY} to the crew, and the wind of week {n} turned north." for n in range(1, 60)
)


def _reply(call: ChatRequest) -> str:
    return f"A note that says: {CANARY} on day {call.number} [1]."


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(_reply, api_key=KEY, n_ctx=4096) as running:
        yield running


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("key", [KEY, "sk-canary-wrong-9876543210"], ids=["served", "refused"])
def test_neither_the_book_nor_a_key_is_in_logs_or_spans(
    *,
    server: FaultServer,
    spans: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
    key: str,
) -> None:
    server.faults = Faults(script=[None, "503"])
    (tmp_path / "voyage.txt").write_text(BOOK, encoding="utf-8")
    params = {"model": "openai/fault", "api_base": server.base_url, "api_key": key}
    entry = {"model_name": "readers", "litellm_params": params, "model_info": {"max_input_tokens": 4096}}
    config = {"model": "readers", "model_list": [entry], "chunk_tokens": 1200, "home": str(tmp_path / "home")}
    (tmp_path / "coa.yaml").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COA_LOG_FORMAT", form)
    monkeypatch.setenv("CANARY_TOKEN", KEY)
    try:
        codes = [run(["ask", "voyage.txt", f"Who heard what {CANARY}?", "-vv", "--json"]) for _ in range(2)]
    finally:
        set_up_logging(0)
    out, err = capsys.readouterr()
    told = "\n".join(span.to_json() for span in spans.get_finished_spans())
    assert codes == ([0, 0] if key == KEY else [4, 4])
    assert (CANARY in out) is (key == KEY), "the answer itself is what was asked for"
    assert "coa.calls" in err
    assert "chat readers" in told
    for secret in (CANARY, "cormorant", KEY, key, "canary"):
        assert secret not in err.replace(str(tmp_path), "")
        assert secret not in told
    if form == "json":
        calls = [json.loads(line) for line in err.splitlines() if line.startswith('{"time"') and "coa.calls" in line]
        assert {call["role"] for call in calls} >= {"worker"}
        assert all((call["run_id"] and "seconds" in call) or "reused" in call for call in calls)
        if key == KEY:
            assert any(call["reused"] for call in calls), "the second run was given the first one's replies"
