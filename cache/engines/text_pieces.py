"""A prompt's prefix in pieces of text, for engines whose tokens nobody tells.

A piece is four bytes of UTF-8, close to a token of English (and about three quarters of a Chinese character, which is
close to one, too). Pieces of two texts agree as far as the texts do, which is all that an index asks of tokens.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from coa.reading import Prompt

__all__ = ["PieceMemory", "text_pieces"]

_BYTES = 4
_REMEMBERED = 512


def text_pieces(prompt: Prompt) -> list[int]:
    """32-bit numbers that stand for the tokens up to the end of the reading prefix; a last piece is filled up."""
    data = prompt.system.encode() + b"\0" + prompt.prefix.encode()
    data += bytes(-len(data) % _BYTES)
    return list(struct.unpack(f"<{len(data) // _BYTES}I", data))


class PieceMemory:
    """Knows again which prompt pieces came from: an engine without tokens has to be sent the text."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[bytes, Prompt] = OrderedDict()

    def tokens(self, prompt: Prompt) -> list[int]:
        """See `text_pieces`."""
        pieces = text_pieces(prompt)
        key = _key(pieces)
        self._prompts[key] = Prompt(system=prompt.system, prefix=prompt.prefix, tail="")
        self._prompts.move_to_end(key)
        if len(self._prompts) > _REMEMBERED:
            self._prompts.popitem(last=False)
        return pieces

    def prompt(self, pieces: Sequence[int]) -> Prompt | None:
        """The prefix that these came from, without a tail; None for ones not met lately."""
        return self._prompts.get(_key(pieces))


def _key(pieces: Sequence[int]) -> bytes:
    return blake2b(struct.pack(f"<{len(pieces)}I", *pieces), digest_size=16).digest()
