"""The fault server's replies and failures in their wire form (OpenAI's, with llama.cpp's `timings`)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

from coa.testing._completions import (
    CHAT_TEMPLATE,
    N_VOCAB,
    ChatRequest,
    Completion,
    apply_template,
    pieces,
    token_id,
)
from coa.testing._faults import FaultKind, Faults
from coa.testing._http import Connection

__all__ = ["Ending", "error_body", "fail", "lookup", "respond", "send_error", "stream"]

_POLICY = "content_policy_violation"
_ERRORS: Mapping[str, tuple[int, str, str, str]] = {
    # status, message, type, code
    "400-policy": (400, "This request was rejected by the content filter.", "invalid_request_error", _POLICY),
    "401": (401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    "429": (429, "Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    "429-retry-after": (429, "Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    "500": (500, "The server had an error while processing your request.", "server_error", "internal_error"),
    "503": (503, "The engine is currently overloaded.", "server_error", "overloaded"),
}


class Ending(Protocol):
    """Books the end of a call; only the first time counts."""

    def __call__(self, outcome: str, completion: Completion | None = None) -> None:
        """Has to be called before the last byte of the reply is sent."""


def error_body(status: int, message: str, kind: str, code: str | None = None) -> bytes:
    """An error as OpenAI and llama.cpp put it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code or status}}).encode()


def lookup(path: str, body: Mapping[str, Any], *, model: str, n_ctx: int | None) -> dict[str, Any] | None:
    """The answer of the endpoints that call no model; None for an unknown path."""
    match path:
        case "/v1/models" | "/models":
            entry = {"id": model, "object": "model", "created": 0, "owned_by": "coa"}
            return {"object": "list", "data": [{**entry, "meta": {"n_ctx": n_ctx, "n_vocab": N_VOCAB}}]}
        case "/tokenize":
            found = pieces(body.get("content", ""))
            if body.get("with_pieces"):
                return {"tokens": [{"id": token_id(p), "piece": p} for p in found]}
            return {"tokens": [token_id(p) for p in found]}
        case "/apply-template":
            return {"prompt": apply_template(body.get("messages", ()))}
        case "/props":
            return {
                "default_generation_settings": {"n_ctx": n_ctx or 131_072},
                "total_slots": 1,
                "model_path": model,
                "chat_template": CHAT_TEMPLATE,
                "build_info": "coa-fault-server",
            }
        case "/health":
            return {"status": "ok"}
    return None


def send_error(fault: str, connection: Connection, headers: Mapping[str, str] | None = None) -> None:
    """Sends the error that a fault of that name is."""
    status, message, kind, code = _ERRORS[fault]
    connection.send(status, error_body(status, message, kind, code), headers)


async def fail(
    fault: FaultKind,
    faults: Faults,
    connection: Connection,
    end: Ending,
    *,
    n_prompt: int,
    n_ctx: int | None,
) -> bool:
    """Fails the call where `fault` is a failure before the reply; False where a reply has to follow."""
    if fault in _ERRORS:
        end(fault)
        headers = {"retry-after": f"{faults.retry_after_s:g}"} if fault == "429-retry-after" else None
        send_error(fault, connection, headers)
    elif fault == "400-context":
        end(fault)
        most = n_ctx if n_ctx is not None else n_prompt - 1
        message = f"This model's maximum context length is {most} tokens."
        message += f" However, your messages resulted in {n_prompt} tokens."
        body = error_body(400, message, "invalid_request_error", "context_length_exceeded")
        connection.send(400, body)
    elif fault == "hang":
        await asyncio.sleep(faults.hang_s)
        end(fault)
        connection.close()
    elif fault == "reset":
        end(fault)
        connection.reset()
    elif fault == "slow-first-token":
        await asyncio.sleep(faults.slow_s)
        return False
    else:
        return False
    return True


async def respond(
    call: ChatRequest, completion: Completion, fault: FaultKind | None, faults: Faults, connection: Connection
) -> None:
    """Sends the reply in one piece, or as `fault` spoils it."""
    reply = completion.reply
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.thoughts:
        message["reasoning_content"] = reply.thoughts
    payload = _envelope(call, "chat.completion") | {
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        "timings": _timings(completion),
    }
    if fault != "no-usage":
        payload["usage"] = _usage(completion, fault)
    body = json.dumps(payload).encode()
    half = len(body) // 2
    if fault == "wrong-json":
        connection.send(200, body[:half])
    elif fault == "broken-stream":
        connection.send_cut(200, body)
    elif fault == "half-close":
        connection.send_part(200, body, half)
        connection.half_close()
    elif fault == "stall":
        connection.send_part(200, body, half)
        await asyncio.sleep(faults.hang_s)
        connection.close()
    elif fault == "drip":
        connection.send_part(200, body, 0)
        for at in range(len(body)):
            await asyncio.sleep(faults.drip_s)
            connection.send_bytes(body[at : at + 1])
    else:
        connection.send(200, body)


async def stream(
    call: ChatRequest,
    completion: Completion,
    fault: FaultKind | None,
    faults: Faults,
    connection: Connection,
    *,
    end: Ending,
) -> None:
    """Sends the reply token by token as server-sent events."""
    envelope = _envelope(call, "chat.completion.chunk")
    connection.start_stream()
    _send_event(connection, envelope | _delta({"role": "assistant", "content": ""}))
    if fault == "wrong-json":
        end(fault, completion)
        connection.send_chunk(b'data: {"id": "chatcmpl-\n\n')
        connection.end_stream()
        return
    cut = fault in {"broken-stream", "half-close", "stall"}
    for token in completion.thoughts:
        _send_event(connection, envelope | _delta({"reasoning_content": token}))
    for token in completion.tokens[: len(completion.tokens) // 2 if cut else None]:
        if faults.token_s:
            await asyncio.sleep(faults.token_s)
        if fault == "drip":
            await _drip(connection, envelope | _delta({"content": token}), faults.drip_s)
        else:
            _send_event(connection, envelope | _delta({"content": token}))
    if fault == "stall":
        await asyncio.sleep(faults.hang_s)
    if cut:
        end(fault or "ok", completion)
        if fault == "half-close":
            connection.half_close()
        else:
            connection.close()
        return
    end(fault or "ok", completion)
    _send_event(connection, envelope | _delta({}, completion.reply.finish_reason))
    options = call.body.get("stream_options") or {}
    if options.get("include_usage") and fault != "no-usage":
        usage = {"choices": [], "usage": _usage(completion, fault), "timings": _timings(completion)}
        _send_event(connection, envelope | usage)
    connection.send_chunk(b"data: [DONE]\n\n")
    connection.end_stream()


def _send_event(connection: Connection, payload: Mapping[str, Any]) -> None:
    connection.send_chunk(_event(payload))


async def _drip(connection: Connection, payload: Mapping[str, Any], drip_s: float) -> None:
    data = _event(payload)
    for at in range(len(data)):
        await asyncio.sleep(drip_s)
        connection.send_chunk(data[at : at + 1])


def _event(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _envelope(call: ChatRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{call.number}",
        "object": kind,
        "created": int(time.time()),
        "model": call.body.get("model", ""),
        "system_fingerprint": "coa-fault-server",
    }


def _delta(delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def _usage(completion: Completion, fault: FaultKind | None) -> dict[str, Any]:
    if fault == "wrong-usage":
        details = {"cached_tokens": completion.prompt_tokens + 7}
        return {
            "prompt_tokens": -1,
            "completion_tokens": -1,
            "total_tokens": 0,
            "prompt_tokens_details": details,
        }
    usage: dict[str, Any] = {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.n_tokens,
        "total_tokens": completion.prompt_tokens + completion.n_tokens,
        "prompt_tokens_details": {"cached_tokens": completion.cached_tokens},
    }
    if completion.thoughts:
        usage["completion_tokens_details"] = {"reasoning_tokens": len(completion.thoughts)}
    return usage


def _timings(completion: Completion) -> dict[str, int]:
    return {
        "cache_n": completion.cached_tokens,
        "prompt_n": completion.prompt_tokens - completion.cached_tokens,
        "predicted_n": completion.n_tokens,
    }
