"""A model that answers from a script: deterministic, offline, shipped for our users' tests as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from coa.errors import BadOutput, ModelError
from coa.llm.chat import Completion, Decoding, OnText, visible_text
from coa.reading import Prompt
from coa.types import CallUsage

__all__ = ["ScriptedCall", "ScriptedModel"]

Reply = str | Completion | ModelError | Callable[[Prompt, Decoding], "str | Completion"]


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """One call as the model saw it."""

    prompt: Prompt
    decoding: Decoding


@dataclass
class ScriptedModel:
    """Replies in the order of `replies`, or by `respond` for every call; records what it was asked.

    A reply may be text, a whole `Completion` (to script finish reasons and usage), an error to raise, or a
    function of the prompt. Tokens are counted as white-space separated words.
    """

    replies: Iterable[Reply] = ()
    respond: Callable[[Prompt, Decoding], str | Completion] | None = None
    name: str = "scripted"
    supports_grammar: bool = False
    supports_schema: bool = False
    calls: list[ScriptedCall] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._queue = iter(self.replies)

    async def complete(self, prompt: Prompt, decoding: Decoding, *, on_text: OnText | None = None) -> Completion:
        """The next scripted reply."""
        self.calls.append(ScriptedCall(prompt, decoding))
        reply: Reply
        if self.respond is not None:
            reply = self.respond
        else:
            try:
                reply = next(self._queue)
            except StopIteration:
                raise BadOutput(f"the script of {self.name!r} has no reply for call {len(self.calls)}.") from None
        if isinstance(reply, ModelError):
            raise reply
        made = reply(prompt, decoding) if callable(reply) else reply
        completion = made if isinstance(made, Completion) else self._completed(prompt, made)
        if on_text is not None:
            for piece in completion.text.splitlines(keepends=True):
                on_text(piece)
        return completion

    def _completed(self, prompt: Prompt, text: str) -> Completion:
        n_prompt = len((prompt.system + " " + prompt.prefix + " " + prompt.tail).split())
        usage = CallUsage(prompt_tokens=n_prompt, completion_tokens=len(text.split()), cost_usd=0.0)
        return Completion(visible_text(text), "stop", usage, deployment=self.name, seconds=0.0)
