"""Logs and spans of calls: what they tell, under which names, and what they never hold."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coa.errors import ConfigError, ModelTimeout
from coa.llm.call_labels import call_labels, labelled, labels
from coa.llm.chat import Completion, Decoding
from coa.llm.deployments import Deployment, ModelGroup
from coa.llm.response_cache import CachedModel
from coa.llm.response_store import InMemoryResponses
from coa.llm.scripted import ScriptedModel
from coa.llm.tracing import ObservedModel, set_up_tracing, tracer
from coa.log_format import JsonLines, PlainLines, hide, set_up_logging
from coa.reading import Prompt
from coa.types import CallUsage

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
conventions = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")

CANARY = "The canary sang at midnight."
PROMPT = Prompt(tail="Who sang?", prefix=f"[1] {CANARY}\n")
DECODING = Decoding(max_tokens=64, temperature=0.5, seed=7, schema={"type": "object"})
GROUP = ModelGroup("books", (Deployment("books/0", "hosted_vllm/Qwen/Qwen2.5-7B", "vllm"),))
USAGE = CallUsage(prompt_tokens=120, cached_tokens=100, completion_tokens=9, cost_usd=0.25, reasoning_tokens=4)
REPLY = Completion(CANARY, "stop", USAGE, "books/0", 1.5, attempts=2)
Spans = Callable[[], list[Any]]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # OpenTelemetry lets a process set its provider once; a test takes it back.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return lambda: list(exporter.get_finished_spans())


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    def told() -> list[str]:
        return capsys.readouterr().err.splitlines()

    yield told
    set_up_logging(0)


def observed(*replies: object) -> ObservedModel:
    return ObservedModel(ScriptedModel(list(replies), name="books"), GROUP)  # type: ignore[arg-type]


async def test_a_call_is_one_span_with_the_conventional_attributes(spans: Spans) -> None:
    with labels(run_id="r1", role="worker"):
        await observed(REPLY).complete(PROMPT, DECODING)
    (span,) = spans()
    assert (span.name, span.kind) == ("chat books", trace.SpanKind.CLIENT)
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "books",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stream": False,
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "Qwen/Qwen2.5-7B",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "coa.run_id": "r1",
        "coa.role": "worker",
        "coa.deployment": "books/0",
        "coa.attempts": 2,
        "coa.reused": False,
        "coa.cost_usd": 0.25,
    }
    known = {value for value in vars(conventions).values() if isinstance(value, str)}
    assert {name for name in span.attributes if name.startswith("gen_ai.")} <= known


async def test_a_reply_that_is_given_again_is_a_span_too(spans: Spans) -> None:
    model = CachedModel(ScriptedModel([REPLY], name="books"), InMemoryResponses(10_000), "w")
    seen = ObservedModel(model, GROUP)
    for _ in range(2):
        await seen.complete(PROMPT, DECODING)
    first, second = spans()
    assert first.attributes["coa.reused"] is False
    assert second.attributes["coa.reused"] is True
    assert second.attributes["gen_ai.usage.input_tokens"] == 0


async def test_a_failure_is_told_by_its_type_alone(spans: Spans) -> None:
    with pytest.raises(ModelTimeout):
        await observed(ModelTimeout(f"no reply to {CANARY}", deployment="books/0")).complete(PROMPT, DECODING)
    (span,) = spans()
    assert span.attributes["error.type"] == "ModelTimeout"
    assert span.attributes["coa.deployment"] == "books/0"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert CANARY not in span.to_json()
    assert span.events == ()


async def test_messages_are_in_spans_only_when_they_are_asked_for(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = observed(REPLY, REPLY)
    await model.complete(PROMPT, DECODING)
    monkeypatch.setenv("COA_TRACE_CONTENT", "1")
    await model.complete(PROMPT, DECODING)
    without, with_ = spans()
    assert "canary" not in without.to_json()
    asked = json.loads(with_.attributes["gen_ai.input.messages"])
    assert [message["role"] for message in asked] == ["system", "user"]
    assert CANARY in asked[1]["parts"][0]["content"]
    (told,) = json.loads(with_.attributes["gen_ai.output.messages"])
    assert (told["parts"][0]["content"], told["finish_reason"]) == (CANARY, "stop")


async def test_spans_of_calls_lie_within_the_hosts_own(spans: Spans) -> None:
    with trace.get_tracer("host").start_as_current_span("request"):
        await observed(REPLY).complete(PROMPT, DECODING)
    call, request = spans()
    assert call.parent.span_id == request.context.span_id


def test_without_a_provider_nothing_is_traced() -> None:
    assert tracer() is None


def test_opentelemetry_is_not_imported_where_nobody_asks_for_spans() -> None:
    script = (
        "import asyncio, sys\n"
        "from coa.llm.scripted import ScriptedModel\n"
        "from coa.llm.tracing import ObservedModel, set_up_tracing\n"
        "from coa.llm.chat import Decoding\n"
        "from coa.reading import Prompt\n"
        "assert set_up_tracing({}) is None\n"
        "asyncio.run(ObservedModel(ScriptedModel(['x'])).complete(Prompt(tail='x'), Decoding(max_tokens=1)))\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_command_line_sends_spans_where_opentelemetrys_variables_say() -> None:
    script = (
        "import asyncio, os\n"
        "from coa.llm.scripted import ScriptedModel\n"
        "from coa.llm.tracing import ObservedModel, set_up_tracing\n"
        "from coa.llm.chat import Decoding\n"
        "from coa.reading import Prompt\n"
        "assert set_up_tracing() is None\n"
        "asyncio.run(ObservedModel(ScriptedModel(['x'])).complete(Prompt(tail='x'), Decoding(max_tokens=1)))\n"
    )
    env = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "books", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "", "it is the answer's"
    span = json.loads(done.stderr)
    assert span["name"] == "chat scripted"
    assert span["resource"]["attributes"]["service.name"] == "books"


def test_an_exporter_that_is_not_there_is_told_and_no_error() -> None:
    assert set_up_tracing({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}) is None
    assert set_up_tracing({"OTEL_TRACES_EXPORTER": "nowhere", "OTEL_SDK_DISABLED": "true"}) is None
    problem = set_up_tracing({"OTEL_TRACES_EXPORTER": "nowhere"})
    assert problem is not None
    assert "'nowhere'" in problem


async def test_calls_are_lines_for_people_at_v(lines: Callable[[], list[str]]) -> None:
    set_up_logging(1)
    model = labelled(observed(REPLY, ModelTimeout(CANARY)), role="worker")
    await model.complete(PROMPT, DECODING)
    with pytest.raises(ModelTimeout):
        await model.complete(PROMPT, DECODING)
    first, second = lines()
    assert first.startswith("INFO coa.calls: worker: 120 tokens in (100 cached), 9 out, 0.0 s, books/0, attempt 2")
    assert second.startswith("WARNING coa.calls: worker: ModelTimeout after 0.0 s")


async def test_calls_are_objects_for_machines(lines: Callable[[], list[str]]) -> None:
    set_up_logging(0, form="json")
    await labelled(observed(REPLY), role="manager", run_id="r7").complete(PROMPT, DECODING)
    (line,) = lines()
    told = json.loads(line)
    assert told.pop("time").endswith("+00:00")
    assert told.pop("seconds") >= 0
    assert told == {
        "level": "info",
        "logger": "coa.calls",
        "message": "manager: 120 tokens in (100 cached), 9 out, 0.0 s, books/0, attempt 2",
        "run_id": "r7",
        "role": "manager",
        "model": "books",
        "deployment": "books/0",
        "prompt_tokens": 120,
        "cached_tokens": 100,
        "completion_tokens": 9,
        "reasoning_tokens": 4,
        "cost_usd": 0.25,
        "attempts": 2,
        "finish_reason": "stop",
        "reused": False,
    }


async def test_without_a_wish_for_logs_there_are_none(lines: Callable[[], list[str]]) -> None:
    set_up_logging(0)
    await observed(REPLY).complete(PROMPT, DECODING)
    assert lines() == []


def test_setting_up_twice_writes_each_line_once_and_the_last_wins(lines: Callable[[], list[str]]) -> None:
    set_up_logging(2)
    set_up_logging(1)
    logging.getLogger("coa.x").info("once")
    logging.getLogger("coa.x").debug("never")
    assert lines() == ["INFO coa.x: once"]
    set_up_logging(1, quiet=True)
    logging.getLogger("coa.x").warning("quiet")
    assert lines() == []


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="COA_LOG_FORMAT: 'xml'"):
        set_up_logging(0, form="xml")


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_blotted_out_of_whatever_is_logged(
    lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("CANARY_API_KEY", "sk-environment-canary")
    set_up_logging(1, form=form)
    hide(["sk-configured-canary"])
    logger = logging.getLogger("coa.x")
    logger.warning("refused: %s and sk-configured-canary, Bearer tok-canary", "sk-environment-canary")
    try:
        raise ValueError("sk-configured-canary")
    except ValueError:
        logger.exception("failed", extra={"coa": {"detail": "sk-environment-canary", "n": 1}})
    told = lines()
    assert "canary" not in "\n".join(told)
    assert "********" in told[0]
    if form == "json":
        assert all(json.loads(line) for line in told)
        assert json.loads(told[1])["n"] == 1
        assert "ValueError" in json.loads(told[1])["traceback"]


def test_the_two_forms_are_formatters_that_a_host_may_use() -> None:
    record = logging.LogRecord("coa.x", logging.INFO, "", 0, "said %s", ("it",), None)
    assert PlainLines().format(record) == "INFO coa.x: said it"
    assert json.loads(JsonLines().format(record))["message"] == "said it"


async def test_labels_are_those_of_the_task_and_end_with_it() -> None:
    seen: dict[str, object] = {}

    async def look(name: str) -> None:
        with labels(role=name):
            await asyncio.sleep(0)
            seen[name] = dict(call_labels())

    with labels(run_id="r"):
        await asyncio.gather(look("a"), look("b"))
    assert seen == {"a": {"run_id": "r", "role": "a"}, "b": {"run_id": "r", "role": "b"}}
    assert call_labels() == {}
