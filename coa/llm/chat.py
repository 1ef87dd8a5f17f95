"""The seam between agents and models: one protocol, one reply type."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from coa.reading import Prompt
from coa.types import CallUsage

__all__ = ["ChatModel", "Completion", "Decoding", "FinishReason", "OnText", "WrappedModel", "visible_text"]

FinishReason = Literal["stop", "length", "content_filter", "other"]
OnText = Callable[[str], None]

_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a reply is to be written."""

    max_tokens: int
    """A cap on the reply, in tokens of the model; a reply that reaches it ends with "length"."""
    temperature: float = 0.0
    grammar: str | None = None
    """GBNF; obeyed by llama.cpp engines, ignored where the engine has no grammars."""
    repeat_penalty: float | None = None
    """llama.cpp's; ignored elsewhere."""
    schema: Mapping[str, object] | None = None
    """A JSON schema that the reply has to keep to; enforced where the engine can, see `ChatModel.supports_schema`."""
    seed: int | None = None
    """Tells samples of one prompt apart at a temperature above 0; also part of the response cache's key."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's reply."""

    text: str
    """Without the reasoning part of thinking models; stripped of white space around it."""
    finish_reason: FinishReason
    usage: CallUsage
    deployment: str
    """Id of the deployment that answered."""
    seconds: float
    """Wall time of the call that succeeded, retries apart."""
    attempts: int = 1
    """Calls that it took, the successful one included."""


class ChatModel(Protocol):
    """A model group that answers prompts.

    Implementations raise only `coa.errors.ModelError` and its children.
    """

    @property
    def name(self) -> str:
        """The group's name, as the user gave it."""
        ...

    @property
    def supports_grammar(self) -> bool:
        """True when every deployment of the group obeys `Decoding.grammar`."""
        ...

    @property
    def supports_schema(self) -> bool:
        """True when every deployment of the group holds its reply to `Decoding.schema`."""
        ...

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        """The reply to `prompt`; with `on_text`, its pieces as they come.

        A call that is retried after it has streamed something starts its text over; `on_text` then receives
        only what goes beyond the part already given when the texts agree, which they do under greedy decoding.
        """
        ...


class WrappedModel:
    """What wrappers of a `ChatModel` share: they say of themselves what the wrapped one does, and change its calls."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """See `ChatModel`."""
        return self._model.name

    @property
    def supports_grammar(self) -> bool:
        """See `ChatModel`."""
        return self._model.supports_grammar

    @property
    def supports_schema(self) -> bool:
        """See `ChatModel`."""
        return self._model.supports_schema


def visible_text(text: str) -> str:
    """`text` without `<think>` parts (an unclosed one runs to the end) and white space around it."""
    return _THINKING.sub("", text).strip()
