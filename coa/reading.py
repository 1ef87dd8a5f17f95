"""The reading prefix: the bytes that every agent reading a chunk has in front.

    [system: one constant text][chunk: its sentences numbered] | [role's instruction][notes so far][question]
    <-------- reading prefix: depends on the chunk alone ------>   <-------- tail: short, changes ------------>

Nothing in the prefix depends on the question, the role, the position in the chain, the date or the run, so
the attention KV of a chunk serves them all. A golden test pins the bytes: each change of them loses every
cached prefix, and is a new `PREFIX_VERSION`.

Token borders: the prefix ends in punctuation and one line break, the tail begins with an ASCII letter. In the
pre-tokenizers of the GPT-2, cl100k, o200k, Llama 3 and Qwen families, and in SentencePiece ones, no token
spans that border, so tokens(prefix) is a prefix of tokens(prompt).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coa.types import Chunk, Span

__all__ = [
    "PREFIX_VERSION",
    "SYSTEM",
    "Prompt",
    "harmless",
    "reading_prefix",
    "reading_prompt",
    "render_sentence",
    "render_text",
]

PREFIX_VERSION = "1"

SYSTEM = "You read long documents part by part. Use only what the given text says. Be brief and exact."

_OPEN = "Source text, its sentences numbered:\n"
_CLOSE = "[End of source text.]\n"

_CONTROL = re.compile(
    r"<(?=[|｜])|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think)>)|\[(?=/?INST\])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt, its cacheable part apart from its changing part."""

    tail: str
    prefix: str = ""
    """The reading prefix's chunk part; empty for agents that read no chunk (the manager)."""
    system: str = SYSTEM

    def messages(self) -> list[dict[str, str]]:
        """Chat messages: the system text, then prefix and tail as one user message."""
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": self.prefix + self.tail},
        ]


def harmless(text: str) -> str:
    """`text` with the control tokens of the usual chat templates broken up.

    A book may hold "<|im_end|>": servers parse such tokens inside message contents, so a space is put in
    after their first character. Quotes are never taken from rendered text, so sources stay verbatim.
    """
    if "<" not in text and "[" not in text:
        return text
    return _CONTROL.sub(lambda m: m.group() + " ", text)


def render_text(text: str) -> str:
    """`text` on one line, control tokens broken up."""
    return harmless(" ".join(text.split()))


def render_sentence(number: int, text: str) -> str:
    """One numbered line of the prefix, line break included; `number` counts from 1 within the chunk."""
    return f"[{number}] {render_text(text)}\n"


def reading_prefix(text: str, sentences: Sequence[Span], *, offset: int = 0) -> str:
    """The user message's cacheable part for the sentences of one chunk.

    `sentences` are document offsets; `offset` is where `text` starts in the document.
    """
    lines = (render_sentence(n, text[s.start - offset : s.end - offset]) for n, s in enumerate(sentences, 1))
    return _OPEN + "".join(lines) + _CLOSE


def reading_prompt(chunk: Chunk, tail: str) -> Prompt:
    """The prompt of an agent that reads `chunk`; `tail` has to begin with an ASCII letter."""
    if not tail[:1].isascii() or not tail[:1].isalpha():
        raise ValueError(f"a tail begins with an ASCII letter, or a token would span the border: {tail[:20]!r}")
    return Prompt(prefix=reading_prefix(chunk.text, chunk.sentences, offset=chunk.span.start), tail=tail)
