"""The one form of a text that every span refers to."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Canonical", "canonical", "canonicalise", "text_digest"]

_NEWLINES = ("\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")
_REMOVED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff]")
_REMOVABLE = [c for c in map(chr, range(0x10000)) if _REMOVED.match(c)]
_SURROGATES = re.compile("[\ud800-\udfff]")
_KINDS = (
    ("NUL characters", "\x00"),
    ("zero-width characters and soft hyphens", "\u00ad\u200b\u2060\ufeff"),
)
# Composing takes four bytes for each code point: it is done by pieces of this many.
_PIECE = 1 << 20
_ASCII = re.compile("[\x00-\x7f]")


class Canonical(NamedTuple):
    """A canonical text and what had to be changed beyond line breaks, one sentence each."""

    text: str
    warnings: tuple[str, ...]


def canonical(text: str) -> str:
    """`text` in Unicode NFC with LF line breaks, without NUL, other controls, BOMs and lone surrogates.

    Idempotent. Tabs stay; form feeds and the Unicode line separators become LF. The zero-width joiners of
    Persian, the Indic scripts and emoji stay, since they change what is written.
    """
    return canonicalise(text).text


def canonicalise(text: str) -> Canonical:
    """The canonical form of `text` and what was lost on the way to it.

    Holds no more than one copy of `text` beside it at any time.
    """
    warnings: list[str] = []
    for newline in _NEWLINES:
        text = text.replace(newline, "\n")
    if _REMOVED.search(text):
        counts = {c: n for c in _REMOVABLE if (n := text.count(c))}
        for c in counts:
            text = text.replace(c, "")
        warnings += _removal_warnings(counts)
    if _SURROGATES.search(text):
        text, n_surrogates = _SURROGATES.subn("\ufffd", text)
        warnings.append(f"Replaced {n_surrogates} lone surrogates, which are no characters, by U+FFFD.")
    if not all(unicodedata.is_normalized("NFC", piece) for piece in _pieces(text)):
        text = "".join(unicodedata.normalize("NFC", piece) for piece in _pieces(text))
        warnings.append("Composed accents with their letters (Unicode NFC).")
    return Canonical(text, tuple(warnings))


def text_digest(text: str) -> str:
    """The SHA-256 of `text` in UTF-8, hexadecimal, without a copy of the whole in that encoding."""
    digest = hashlib.sha256()
    for start in range(0, len(text), _PIECE):
        digest.update(text[start : start + _PIECE].encode())
    return digest.hexdigest()


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces that are composed alike alone and together: each but the first begins with ASCII."""
    if text.isascii():
        return
    start = 0
    while start < len(text):
        border = _ASCII.search(text, start + _PIECE)
        end = border.start() if border else len(text)
        yield text if start == 0 and end == len(text) else text[start:end]
        start = end


def _removal_warnings(counts: dict[str, int]) -> list[str]:
    left = sum(counts.values())
    warnings = []
    for kind, members in _KINDS:
        n = sum(counts.get(c, 0) for c in members)
        left -= n
        if n:
            warnings.append(f"Removed {n} {kind}.")
    if left:
        warnings.append(f"Removed {left} control characters.")
    return warnings
