"""What a call is made for, as logs and spans tell it: the run and the role.

Labels are set around work and seen by all calls in it, also by those of tasks that it starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from coa.llm.chat import ChatModel, Completion, Decoding, OnText, WrappedModel
from coa.reading import Prompt

__all__ = ["call_labels", "labelled", "labels"]

_LABELS: ContextVar[Mapping[str, str]] = ContextVar("coa_call_labels", default={})  # noqa: B039 - never changed in place


def call_labels() -> Mapping[str, str]:
    """The labels in force here: "run_id", "role"."""
    return _LABELS.get()


@contextmanager
def labels(**values: str) -> Iterator[None]:
    """Adds labels to the calls within."""
    token = _LABELS.set({**_LABELS.get(), **values})
    try:
        yield
    finally:
        _LABELS.reset(token)


def labelled(model: ChatModel, **values: str) -> ChatModel:
    """`model` with these labels around each of its calls."""
    return _Labelled(model, values)


class _Labelled(WrappedModel):
    def __init__(self, model: ChatModel, values: Mapping[str, str]) -> None:
        super().__init__(model)
        self._values = values

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        with labels(**self._values):
            return await self._model.complete(prompt, decoding, on_text=on_text)
