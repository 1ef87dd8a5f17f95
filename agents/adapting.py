"""Agents that go about the same work with another temperature, or with something said before.

What varies is the model that an agent speaks to, so that every agent with a `model` attribute can be adapted,
a host's own as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from coa.errors import ConfigError
from coa.llm.chat import ChatModel, Completion, Decoding, OnText, WrappedModel
from coa.reading import Prompt

__all__ = ["prefaced", "sampled"]

_Agent = TypeVar("_Agent")


class _Sampled(WrappedModel):
    def __init__(self, model: ChatModel, seed: int, temperature: float) -> None:
        super().__init__(model)
        self._seed = seed
        self._temperature = temperature

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        decoding = replace(decoding, temperature=self._temperature, seed=self._seed)
        return await self._model.complete(prompt, decoding, on_text=on_text)


class _Prefaced(WrappedModel):
    def __init__(self, model: ChatModel, text: str) -> None:
        super().__init__(model)
        self._text = text

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        return await self._model.complete(replace(prompt, tail=self._text + prompt.tail), decoding, on_text=on_text)


def sampled(agent: _Agent, *, seed: int, temperature: float) -> _Agent:
    """A copy of `agent` whose replies are drawn at `temperature`, the same ones for the same seed where the engine
    has seeds. Raises: ConfigError for an agent without a `model`."""
    return _over(agent, lambda model: _Sampled(model, seed, temperature))


def prefaced(agent: _Agent, text: str) -> _Agent:
    """A copy of `agent` that says `text` before its instruction, after the reading prefix; `agent` itself where it is
    empty. `text` has to begin with an ASCII letter. Raises: ConfigError for an agent without a `model`."""
    return _over(agent, lambda model: _Prefaced(model, text)) if text else agent


def _over(agent: _Agent, wrap: Callable[[ChatModel], ChatModel]) -> _Agent:
    model = getattr(agent, "model", None)
    if model is None:
        raise ConfigError(
            f"{type(agent).__name__} cannot be adapted: it has no attribute 'model'.",
            hint="Give your agent the chat model that it speaks to as `model`.",
        )
    adapted = copy.copy(agent)
    object.__setattr__(adapted, "model", wrap(model))  # agents may be frozen; the copy is nobody else's yet
    return adapted
