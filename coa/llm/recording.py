"""Who listens to the calls of the work in hand: told of each before it is made, and of what came of it.

A listener is set around work, like labels, and hears all calls in it, also those of tasks that it starts. So prompts
and replies can be kept, and spending held to a limit over many runs, without a word of it in agents or graphs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from coa.llm.call_labels import call_labels
from coa.llm.chat import Completion, Decoding, OnText, WrappedModel
from coa.reading import Prompt

__all__ = ["CallListener", "HeardModel", "MadeCall", "listening"]


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A call that has come to its end."""

    model: str
    prompt: Prompt
    decoding: Decoding
    completion: Completion | None
    """None where it failed or was broken off."""
    error: BaseException | None
    seconds: float
    """Wall time, retries and waiting for a place included."""
    labels: Mapping[str, str]
    """What it was made for: "run_id", "role"."""


class CallListener(Protocol):
    """Hears calls."""

    def before(self, model: str, prompt: Prompt, decoding: Decoding) -> None:
        """A call is about to be made. Raises: a CoaError that refuses it, which ends the run it is made for."""
        ...

    def after(self, call: MadeCall) -> None:
        """The call of a `before` that did not refuse has ended."""
        ...


_LISTENER: ContextVar[CallListener | None] = ContextVar("coa_call_listener", default=None)


@contextmanager
def listening(listener: CallListener) -> Iterator[None]:
    """Has `listener` hear the calls within; the one outside of it does not."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class HeardModel(WrappedModel):
    """`model`, its calls heard by the listener in force; see `ChatModel`."""

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        """The model's reply. Raises: also the listener's refusal."""
        listener = _LISTENER.get()
        if listener is None:
            return await self._model.complete(prompt, decoding, on_text=on_text)
        listener.before(self.name, prompt, decoding)
        started = time.perf_counter()
        completion: Completion | None = None
        failure: BaseException | None = None
        try:
            completion = await self._model.complete(prompt, decoding, on_text=on_text)
            return completion
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = time.perf_counter() - started
            listener.after(MadeCall(self.name, prompt, decoding, completion, failure, seconds, dict(call_labels())))
