"""One log record and one OpenTelemetry span for each call of a model.

Neither holds what was asked or replied, nor a key; with COA_TRACE_CONTENT=1 spans do hold the messages. Spans cost
nothing where nobody collects them: OpenTelemetry is not even imported. Attribute names are those of the semantic
conventions for generative AI (opentelemetry-semantic-conventions 0.66b2); what they have no name for begins with
"coa.".
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coa.errors import CoaError
from coa.llm.call_labels import call_labels
from coa.llm.chat import ChatModel, Completion, Decoding, OnText, WrappedModel
from coa.llm.deployments import ModelGroup
from coa.reading import Prompt

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

__all__ = ["ObservedModel", "set_up_tracing", "tracer"]

_log = logging.getLogger("coa.calls")

_EXPORTERS = "opentelemetry_traces_exporter"
_CONFIGURED_BY = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


class ObservedModel(WrappedModel):
    """`model` with its calls told to logs and traces; see `ChatModel`."""

    def __init__(self, model: ChatModel, group: ModelGroup | None = None) -> None:
        """`group` tells which model a deployment serves."""
        super().__init__(model)
        self._group = group

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        """See `ChatModel.complete`."""
        found = tracer()
        if found is None:
            return await self._logged(prompt, decoding, on_text)
        from opentelemetry.trace import SpanKind

        with found.start_as_current_span(
            f"chat {self.name}",
            kind=SpanKind.CLIENT,
            attributes=self._asked(decoding, on_text is not None),
            record_exception=False,  # its message may hold what a server said, and that the document
            set_status_on_exception=False,
        ) as span:
            try:
                completion = await self._logged(prompt, decoding, on_text)
            except BaseException as error:
                _note_failure(span, error)
                raise
            span.set_attributes(self._replied(completion))
            if _with_content() and span.is_recording():
                span.set_attributes(_content(prompt, completion))
            return completion

    async def _logged(self, prompt: Prompt, decoding: Decoding, on_text: OnText | None) -> Completion:
        if not _log.isEnabledFor(logging.INFO):
            return await self._model.complete(prompt, decoding, on_text=on_text)
        started = time.perf_counter()
        told: dict[str, object] = {**call_labels(), "model": self.name}
        try:
            completion = await self._model.complete(prompt, decoding, on_text=on_text)
        except BaseException as error:
            seconds = round(time.perf_counter() - started, 3)
            told |= {"error": type(error).__name__, "seconds": seconds}
            deployment = getattr(error, "deployment", None)
            if deployment is not None:
                told["deployment"] = deployment
            level = logging.WARNING if isinstance(error, CoaError) else logging.INFO
            _log.log(level, "%s: %s after %.1f s", _who(told), type(error).__name__, seconds, extra={"coa": told})
            raise
        _log_reply(told, completion, time.perf_counter() - started)
        return completion

    def _asked(self, decoding: Decoding, streams: bool) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._provider(),
            "gen_ai.request.model": self.name,
            "gen_ai.request.max_tokens": decoding.max_tokens,
            "gen_ai.request.temperature": decoding.temperature,
            "gen_ai.request.stream": streams,
            "gen_ai.output.type": "text" if decoding.schema is None else "json",
        }
        if decoding.seed is not None:
            asked["gen_ai.request.seed"] = decoding.seed
        return asked | {f"coa.{name}": value for name, value in call_labels().items()}

    def _provider(self) -> str:
        """litellm's name of the provider, or the engine's kind for models behind "openai/" that are not OpenAI's."""
        if self._group is None:
            return "unknown"
        first = self._group.deployments[0]
        return first.kind if first.kind != "hosted" else first.provider or "unknown"

    def _replied(self, completion: Completion) -> dict[str, Any]:
        usage = completion.usage
        replied: dict[str, Any] = {
            "gen_ai.response.finish_reasons": (completion.finish_reason,),
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            "coa.deployment": completion.deployment,
            "coa.attempts": completion.attempts,
            "coa.reused": usage.reused,
        }
        if usage.cost_usd is not None:
            replied["coa.cost_usd"] = usage.cost_usd
        deployment = self._group.deployment(completion.deployment) if self._group is not None else None
        if deployment is not None:
            replied["gen_ai.response.model"] = deployment.served_name
        return replied


def tracer() -> Tracer | None:
    """Where spans go; None unless this process, or the host that coa runs in, has set up a provider."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    found: Tracer = trace.get_tracer("coa")
    return found


def set_up_tracing(env: Mapping[str, str] | None = None) -> str | None:
    """Sends spans where OpenTelemetry's own variables say; why that cannot be done, or None.

    Only for a process of our own (the command line): a host sets up its provider itself. Does nothing where no
    variable names an exporter or an endpoint, or OTEL_SDK_DISABLED says so.
    """
    env = os.environ if env is None else env
    wanted = env.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(env.get(name) for name in _CONFIGURED_BY) else "none")
    if wanted == "none" or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return 'spans are asked for, and OpenTelemetry is not installed: pip install "coa-orchestrator[otel]".'
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    from importlib.metadata import entry_points

    name = _OTLP.get(env.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), wanted) if wanted == "otlp" else wanted
    found = next(iter(entry_points(group=_EXPORTERS, name=name)), None)
    if found is None:
        return f"spans are asked for, and there is no exporter {name!r} (OTEL_TRACES_EXPORTER): is it installed?"
    resource = Resource.create({"service.name": env.get("OTEL_SERVICE_NAME") or "coa"})
    provider = TracerProvider(resource=resource)  # it sends what is left when the process ends
    exporter = found.load()
    # stdout is the answer's.
    provider.add_span_processor(BatchSpanProcessor(exporter(out=sys.stderr) if name == "console" else exporter()))
    trace.set_tracer_provider(provider)
    return None


def _log_reply(told: dict[str, object], completion: Completion, seconds: float) -> None:
    usage = completion.usage
    told |= {
        "deployment": completion.deployment,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": usage.cost_usd,
        "seconds": round(seconds, 3),
        "attempts": completion.attempts,
        "finish_reason": completion.finish_reason,
        "reused": usage.reused,
    }
    if usage.reused:
        _log.info("%s: a reply of %s is given again", _who(told), completion.deployment, extra={"coa": told})
        return
    again = f", attempt {completion.attempts}" if completion.attempts > 1 else ""
    _log.info(
        "%s: %d tokens in (%d cached), %d out, %.1f s, %s%s",
        _who(told),
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        seconds,
        completion.deployment,
        again,
        extra={"coa": told},
    )


def _who(told: Mapping[str, object]) -> object:
    return told.get("role") or told["model"]


def _note_failure(span: Span, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", type(error).__name__)
    deployment = getattr(error, "deployment", None)
    if deployment is not None:
        span.set_attribute("coa.deployment", str(deployment))
    span.set_status(Status(StatusCode.ERROR))


def _with_content() -> bool:
    return os.environ.get("COA_TRACE_CONTENT", "").lower() in ("1", "true")


def _content(prompt: Prompt, completion: Completion) -> dict[str, str]:
    def part(role: str, text: str) -> dict[str, object]:
        return {"role": role, "parts": [{"type": "text", "content": text}]}

    asked = [part(message["role"], message["content"]) for message in prompt.messages()]
    reply = {**part("assistant", completion.text), "finish_reason": completion.finish_reason}
    return {
        "gen_ai.input.messages": json.dumps(asked, ensure_ascii=False),
        "gen_ai.output.messages": json.dumps([reply], ensure_ascii=False),
    }
