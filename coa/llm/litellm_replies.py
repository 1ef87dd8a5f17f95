"""What litellm hands back, read once: the text apart from thoughts, why it ended, what it took."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

from coa.errors import BadOutput
from coa.llm.chat import FinishReason, OnText, visible_text

__all__ = ["Emitter", "Reply", "UnusableReply", "finish_reason", "streamed", "whole"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}


class UnusableReply(BadOutput):
    """A reply without text or without a form; servers under load give one now and then, so it is asked for again."""

    retryable = True


class Reply(NamedTuple):
    """A reply as it came."""

    raw: str
    """With `<think>` parts where the server leaves them in."""
    thoughts: str
    """What the server gave apart from the text."""
    finish: str | None
    usage: Any
    hidden: Mapping[str, Any]
    """litellm's own notes: model_id, response_cost."""
    timings: Any = None
    """llama.cpp's, where it sends them."""


class Emitter:
    """Hands on the visible part of a stream, once, also when a retry starts the text over."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._given = ""
        self._raw = ""

    def restart(self) -> None:
        """Another attempt begins."""
        self._raw = ""

    def feed(self, piece: str) -> None:
        """One piece of the stream."""
        self._raw += piece
        held = self._raw.rfind("<")
        # A "<think>" may be cut in two by the stream: what could become one waits for its end.
        settled = self._raw[:held] if held >= 0 and len(self._raw) - held < len("</thinking>") else self._raw
        self._give(visible_text(settled))

    def finish(self) -> None:
        """The stream is at its end."""
        self._give(visible_text(self._raw))

    def _give(self, visible: str) -> None:
        if visible.startswith(self._given) and len(visible) > len(self._given):
            self._on_text(visible[len(self._given) :])
            self._given = visible


def finish_reason(reply: Reply) -> FinishReason:
    """Why the reply ended, in our words."""
    return _FINISH.get(reply.finish or "", "other")


def whole(response: Any) -> Reply:
    """A reply that came in one. Raises: UnusableReply for one without a message."""
    choices: Any = getattr(response, "choices", None)
    message = getattr(choices[0], "message", None) if choices else None
    if message is None:
        raise UnusableReply("the server gave a reply without a message.")
    hidden = getattr(response, "_hidden_params", None) or {}
    return Reply(
        message.content or "",
        _thoughts_of(message),
        choices[0].finish_reason,
        getattr(response, "usage", None),
        hidden,
        getattr(response, "timings", None),
    )


async def streamed(stream: AsyncIterator[Any], emit: Emitter, on_piece: Callable[[], None]) -> Reply:
    """A streamed reply, read to its end; `on_piece` is called for every piece of text or thought.

    The connection is given back whatever happens. Raises: ConnectionError when the stream breaks off.
    """
    parts: list[str] = []
    thoughts: list[str] = []
    finish: str | None = None
    usage: Any = None
    timings: Any = None
    hidden: dict[str, Any] = {}
    try:
        async for chunk in stream:
            usage = getattr(chunk, "usage", None) or usage
            timings = getattr(chunk, "timings", None) or timings
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            piece, thought = getattr(choice.delta, "content", None), _thoughts_of(choice.delta)
            if piece or thought or parts or thoughts:
                on_piece()
            if thought:
                thoughts.append(thought)
            if piece:
                parts.append(piece)
                emit.feed(piece)
            finish = choice.finish_reason or finish
        # Read at the end: a fallback before the first piece changes whose they are.
        hidden = dict(getattr(stream, "_hidden_params", None) or {})
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            with contextlib.suppress(Exception):
                await close()
    if finish is None:
        raise ConnectionError("the stream ended before the reply was complete")
    emit.finish()
    return Reply("".join(parts), "".join(thoughts), finish, usage, hidden, timings)


def _thoughts_of(message: Any) -> str:
    """DeepSeek's field, which litellm gives those of other providers too."""
    thoughts = getattr(message, "reasoning_content", None)
    return thoughts if isinstance(thoughts, str) else ""
