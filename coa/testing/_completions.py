"""What the fault server's model is: a regex tokenizer, a chat template, a prefix cache and a reply."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = [
    "CHAT_TEMPLATE",
    "N_VOCAB",
    "ChatRequest",
    "Completion",
    "PrefixMemory",
    "Reply",
    "ReplyFunction",
    "apply_template",
    "complete",
    "default_reply",
    "pieces",
    "token_id",
]

N_VOCAB = 49152

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Control tokens whole; wide scripts a character each; other letters in runs of five with the space before
# them; digits one by one; white space and signs a character each. No token spans a line break.
_PIECE = re.compile(
    r"<\|[a-z_]+\|>|[\u2e80-\U0010ffff]| ?[^\W\d_\u2e80-\U0010ffff]{1,5}|.",
    re.DOTALL,
)
_NUMBERED = re.compile(r"^\[(\d+)\] (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion call as the server saw it."""

    number: int
    """Counts calls from 0 in order of arrival."""
    messages: tuple[Mapping[str, Any], ...] = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)
    """The request's JSON."""
    headers: Mapping[str, str] = field(repr=False)
    prompt: str = field(repr=False)
    """After the chat template."""
    digest: str = ""
    """Of `messages`: equal for equal prompts; 16 hexadecimal digits."""
    attempt: int = 0
    """How often a call with this digest came before."""

    @property
    def text(self) -> str:
        """The contents of all messages, one after the other."""
        return "\n".join(content_text(m.get("content")) for m in self.messages)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says. Counts that are None are the tokenizer's and the prefix memory's own."""

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    thoughts: str = ""
    """Goes into `reasoning_content`, before the text, and counts as completion and reasoning tokens."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply with its counts."""

    reply: Reply
    tokens: list[str]
    prompt_tokens: int
    cached_tokens: int
    thoughts: list[str] = field(default_factory=list)
    """Tokens of the reply's thoughts."""

    @property
    def n_tokens(self) -> int:
        """Thoughts and text together, as providers count them."""
        return len(self.tokens) + len(self.thoughts)


ReplyFunction = Callable[[ChatRequest], "str | Reply"]
"""Runs in the server's thread: must not block. What it raises becomes a 500 with the error's text."""


def pieces(text: str) -> list[str]:
    """The tokens of `text`; joined they are `text` again."""
    return _PIECE.findall(text)


def token_id(piece: str) -> int:
    """A number for a piece: always the same, not always another for another piece."""
    return zlib.crc32(piece.encode("utf-8", "surrogatepass")) % N_VOCAB


def content_text(content: object) -> str:
    """The text of a message's content: a string, or a list of parts of which the text ones count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return ""


def apply_template(messages: Sequence[Mapping[str, Any]]) -> str:
    """The prompt that `messages` make, ready for the assistant's turn (ChatML)."""
    turns = (f"<|im_start|>{m.get('role', 'user')}\n{content_text(m.get('content'))}<|im_end|>\n" for m in messages)
    return "".join(turns) + "<|im_start|>assistant\n"


def default_reply(request: ChatRequest) -> str:
    """A note made out of the prompt alone: one of its numbered sentences with its id.

    Which one depends on the prompt. Without numbered sentences: the longest line of the last message.
    """
    numbered = _NUMBERED.findall(request.text)
    if numbered:
        number, sentence = numbered[int(request.digest, 16) % len(numbered)]
        return f"{sentence.strip()} [{number}]"
    last = content_text(request.messages[-1].get("content")) if request.messages else ""
    return max((line.strip() for line in last.splitlines()), key=len, default="") or "Nothing was said."


class PrefixMemory:
    """Which prompt prefixes were computed before, in blocks of characters; the oldest are forgotten."""

    def __init__(self, *, block_chars: int = 256, max_blocks: int = 65_536) -> None:
        self._block_chars = block_chars
        self._max_blocks = max_blocks
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def known_chars(self, prompt: str) -> int:
        """Characters of the longest prefix that came before, a multiple of the block; remembers `prompt`."""
        known, parent, unbroken = 0, b"", True
        step = self._block_chars
        for start in range(0, len(prompt) - step + 1, step):
            block = prompt[start : start + step].encode("utf-8", "surrogatepass")
            parent = hashlib.blake2b(parent + block, digest_size=8).digest()
            if parent in self._seen:
                self._seen.move_to_end(parent)
                known = start + step if unbroken else known
            else:
                unbroken = False
                self._seen[parent] = None
        while len(self._seen) > self._max_blocks:
            self._seen.popitem(last=False)
        return known

    def __len__(self) -> int:
        return len(self._seen)


def complete(
    call: ChatRequest, said: str | Reply, fault: str | None, prefixes: PrefixMemory, *, n_prompt: int
) -> Completion:
    """What the caller gets for what the model said: cut to max_tokens, spoiled by `fault`, counted."""
    reply = said if isinstance(said, Reply) else Reply(said)
    if fault in {"empty", "content-filter"}:
        reply = replace(reply, text="", finish_reason="stop" if fault == "empty" else "content_filter")
    tokens = pieces(reply.text)
    limit = call.body.get("max_completion_tokens") or call.body.get("max_tokens")
    most = len(tokens) // 2 if fault == "length" else limit
    if fault == "length" or (most is not None and len(tokens) > most):
        tokens = tokens[:most]
        reply = replace(reply, text="".join(tokens), finish_reason="length")
    known = prefixes.known_chars(call.prompt)
    cached = min(len(pieces(call.prompt[:known])), n_prompt - 1) if known else 0
    return Completion(
        reply,
        tokens,
        prompt_tokens=n_prompt if reply.prompt_tokens is None else reply.prompt_tokens,
        cached_tokens=cached if reply.cached_tokens is None else reply.cached_tokens,
        thoughts=pieces(reply.thoughts),
    )
