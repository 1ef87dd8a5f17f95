"""litellm's and its clients' exceptions as ours."""

from __future__ import annotations

import asyncio

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

__all__ = ["translated"]

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

_HINTS: dict[type[ModelError], str] = {
    AuthenticationFailed: "Check the key of this model (its environment variable, or api_key in the configuration).",
    ModelNotFound: "Check the model's name; `coa models list` shows what is there.",
    RateLimited: "Wait and run `coa resume`, or raise `retries` in the configuration.",
    ModelTimeout: "Is the server busy? Raise `timeout_s` in the configuration, then `coa resume`.",
    ModelUnavailable: "Is the server running? `coa doctor` looks; then `coa resume`.",
    ContextOverflow: "Lower --chunk-tokens, or configure the window that is really served.",
}

_CONTEXT_WORDS = ("context length", "context window", "context size", "maximum context", "exceed_context", "n_ctx")
_LINE = 300


def translated(error: Exception, *, deployment: str | None) -> ModelError:
    """The `ModelError` that stands for `error`; to be raised `from` it."""
    if isinstance(error, ModelError):
        return error
    names = [cls.__name__ for cls in type(error).__mro__]
    kind = next((_BY_NAME[name] for name in names if name in _BY_NAME), None)
    text = _one_line(str(error)) or type(error).__name__
    if kind is ModelError and any(word in text.lower() for word in _CONTEXT_WORDS):
        kind = ContextOverflow
    if kind is None:
        # Whatever else a client raises while it reads a reply (a missing key, an odd type) comes from the reply.
        kind = ModelTimeout if isinstance(error, asyncio.TimeoutError) else BadOutput
    return kind(
        f"the call to {deployment or 'the model'} failed: {text}.",
        hint=_HINTS.get(kind),
        deployment=deployment,
        retry_after_s=_retry_after(error),
    )


def _one_line(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    for prefix in ("litellm.", "openai."):
        line = line.removeprefix(prefix)
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"


def _retry_after(error: Exception) -> float | None:
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    if headers is None:
        return None
    try:
        return max(0.0, float(headers.get("retry-after")))
    except (TypeError, ValueError, AttributeError):
        return None
