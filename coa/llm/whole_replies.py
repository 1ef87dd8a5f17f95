"""Replies in one piece, where nobody watches them being written.

A stream costs its reader a piece of work for each token: of hundreds of calls at once, more than all the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from coa.llm.chat import Completion, Decoding, OnText, WrappedModel
from coa.reading import Prompt

__all__ = ["WholeModel", "whole_replies"]

_WHOLE: ContextVar[bool] = ContextVar("coa_whole_replies", default=False)


@contextmanager
def whole_replies() -> Iterator[None]:
    """No call within asks for a stream, those of tasks started within included."""
    token = _WHOLE.set(True)
    try:
        yield
    finally:
        _WHOLE.reset(token)


class WholeModel(WrappedModel):
    """`model`, whose replies come in one piece within `whole_replies`; see `ChatModel`."""

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        """The model's reply; `on_text` is told of it once."""
        if on_text is None or not _WHOLE.get():
            return await self._model.complete(prompt, decoding, on_text=on_text)
        completion = await self._model.complete(prompt, decoding)
        on_text(completion.text)
        return completion
