"""litellm's and its clients' exceptions as ours."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

from coa.errors import (
    AuthenticationFailed,
    BadOutput,
    ContentRefused,
    ContextOverflow,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
)
from coa.secrets import blotted, environment_secrets
from coa.types import Usage

__all__ = ["TIMEOUT_HINT", "blotted_cause", "translated"]

# By class name along the exception's ancestry, so that neither litellm nor openai is imported here and a
# class that one of their releases lacks does no harm. The first match wins.
_BY_NAME: dict[str, type[ModelError]] = {
    "ContextWindowExceededError": ContextOverflow,
    "ContentPolicyViolationError": ContentRefused,
    "AuthenticationError": AuthenticationFailed,
    "PermissionDeniedError": AuthenticationFailed,
    "NotFoundError": ModelNotFound,
    "LiteLLMUnknownProvider": ModelNotFound,
    "RateLimitError": RateLimited,
    "RouterRateLimitError": RateLimited,
    "RouterRateLimitErrorBasic": RateLimited,
    "Timeout": ModelTimeout,
    "APITimeoutError": ModelTimeout,
    "TimeoutError": ModelTimeout,
    "TimeoutException": ModelTimeout,
    "UnprocessableEntityError": ModelError,
    "BadRequestError": ModelError,
    "ServiceUnavailableError": ModelUnavailable,
    "InternalServerError": ModelUnavailable,
    "APIConnectionError": ModelUnavailable,
    "APIError": ModelUnavailable,
    "TransportError": ModelUnavailable,
    "ConnectionError": ModelUnavailable,
    "JSONDecodeError": ModelUnavailable,
}

TIMEOUT_HINT = "Is the server busy? Raise `timeout_s` in the configuration, then `coa resume`."

_HINTS: dict[type[ModelError], str] = {
    AuthenticationFailed: "Check the key of this model (its environment variable, or api_key in the configuration).",
    ModelNotFound: "Check the model's name; `coa models list` shows what is there.",
    RateLimited: "Wait and run `coa resume`, or raise `retries` in the configuration.",
    ModelTimeout: TIMEOUT_HINT,
    ModelUnavailable: "Is the server running? `coa doctor` looks; then `coa resume`.",
    ContextOverflow: "Lower --chunk-tokens, or configure the window that is really served.",
}

_NO_KEY_WORDS = ("missing credentials", "api_key client option must be set", "no api key", "api key is required")
_CONTEXT_WORDS = ("context length", "context window", "context size", "maximum context", "exceed_context", "n_ctx")
_LINE = 300
_LONGEST_CHAIN = 8
# "litellm.RateLimitError: RateLimitError: OpenAIException - " says three times what our class says.
_CLASSES = re.compile(r"^(?:(?:litellm\.|openai\.)?\w*(?:Error|Timeout|Exception)(?::| -) +)+")
_ADVICE = re.compile(r"\s*(?:LiteLLM: model group|model=\S+ context_window_fallbacks=).*", re.DOTALL)


def translated(
    error: Exception, *, deployment: str | None, secrets: Sequence[str] = (), usage: Usage | None = None
) -> ModelError:
    """The `ModelError` that stands for `error`; to be raised from its `blotted_cause`.

    `secrets`, those of the environment, and bearer tokens are blotted out of its message: servers repeat a wrong
    key, and clients the headers that they could not send. `usage` is what was paid before.
    """
    if isinstance(error, ModelError):
        return error
    inner = getattr(error, "original_exception", None)
    if type(error).__name__ == "MidStreamFallbackError" and isinstance(inner, Exception):
        error = inner  # of a stream that broke off: what it wraps is what happened
    names = [cls.__name__ for cls in type(error).__mro__]
    kind = next((_BY_NAME[name] for name in names if name in _BY_NAME), None)
    text = _one_line(_blotted(str(error), secrets)) or type(error).__name__
    if kind is ModelError and any(word in text.lower() for word in _CONTEXT_WORDS):
        kind = ContextOverflow
    if kind in (ModelError, ModelUnavailable) and any(word in text.lower() for word in _NO_KEY_WORDS):
        kind = AuthenticationFailed  # litellm says InternalServerError when a client finds no key at all
    if kind is None:
        # Whatever else a client raises while it reads a reply (a missing key, an odd type) comes from the reply.
        kind = ModelTimeout if isinstance(error, asyncio.TimeoutError) else BadOutput
    return kind(
        f"the call to {deployment or 'the model'} failed: {text}.",
        hint=_HINTS.get(kind),
        deployment=deployment,
        usage=usage,
        retry_after_s=_retry_after(error),
    )


def blotted_cause(error: Exception, secrets: Sequence[str] = ()) -> Exception:
    """`error` itself; where it or what it came from tells a secret, a stand-in without one and without a past.

    Tracebacks and whoever stores an exception whole (a graph's checkpoint, a log) would show it otherwise.
    """
    current: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if current is None:
            return error
        for text in (str(current), repr(current)):
            if _blotted(text, secrets) != text:
                return RuntimeError(f"{type(error).__name__}: {_blotted(str(error), secrets)}")
        current = current.__cause__ or current.__context__
    return RuntimeError(f"{type(error).__name__}: {_blotted(str(error), secrets)}")


def _blotted(text: str, secrets: Sequence[str]) -> str:
    return blotted(text, (*secrets, *environment_secrets()))


def _one_line(text: str) -> str:
    line = " ".join(_CLASSES.sub("", _ADVICE.sub("", text)).split()).rstrip(".")
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"


def _retry_after(error: BaseException) -> float | None:
    """Seconds, by the headers of the error or of what it was raised from; litellm's own errors lack them."""
    current: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if current is None:
            return None
        for holder in (current, getattr(current, "response", None)):
            for name in ("litellm_response_headers", "headers"):
                headers = getattr(holder, name, None)
                seconds = _wished(headers) if isinstance(headers, Mapping) else None
                if seconds is not None:
                    return seconds
        current = current.__cause__
    return None


def _wished(headers: Mapping[str, str]) -> float | None:
    """What Retry-After asks for, as a number or a date (RFC 9110, 10.2.3), or OpenAI's own in milliseconds."""
    found = {str(name).lower(): str(value) for name, value in headers.items()}
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            seconds = float(found[name]) * unit
            if math.isfinite(seconds):
                return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(found.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - time.time())
