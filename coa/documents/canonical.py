"""The one form of a text that every span refers to."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

__all__ = ["Canonical", "canonical", "canonicalise"]

_NEWLINES = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_REMOVED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")

_KINDS = (
    ("NUL characters", "\x00"),
    ("zero-width characters and soft hyphens", "\u00ad\u200b\u2060\ufeff"),
)


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
    """The canonical form of `text` and what was lost on the way to it."""
    warnings: list[str] = []
    text = _NEWLINES.sub("\n", text)
    removed = _REMOVED.findall(text)
    if removed:
        text = _REMOVED.sub("", text)
        warnings += _removal_warnings(removed)
    text, n_surrogates = _SURROGATES.subn("\ufffd", text)
    if n_surrogates:
        warnings.append(f"Replaced {n_surrogates} lone surrogates, which are no characters, by U+FFFD.")
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        warnings.append("Composed accents with their letters (Unicode NFC).")
    return Canonical(text, tuple(warnings))


def _removal_warnings(removed: list[str]) -> list[str]:
    left = len(removed)
    warnings = []
    for kind, members in _KINDS:
        n = sum(1 for c in removed if c in members)
        left -= n
        if n:
            warnings.append(f"Removed {n} {kind}.")
    if left:
        warnings.append(f"Removed {left} control characters.")
    return warnings
