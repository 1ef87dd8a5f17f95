"""Counting tokens: a protocol, and an estimate for models whose tokenizer is out of reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["EstimatedTokens", "TokenCounter"]


class TokenCounter(Protocol):
    """Counts the tokens of plain text (no chat template, no begin-of-text token).

    Blocking: call it in a thread from async code.
    """

    @property
    def name(self) -> str:
        """Which tokenizer this is, for people and for keys."""
        ...

    @property
    def exact(self) -> bool:
        """True where the counts are those of the model itself."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, in order; one call for many texts is cheaper than many calls.

        Texts are counted as if each stood alone; an implementation may join them as long as each text
        ends in a line break, where no tokenizer merges across.
        """
        ...


class EstimatedTokens:
    """Estimates after how many bytes the characters take in UTF-8, rounded up, with a margin.

    Meant for hosted models, whose vocabularies are large: on books in English, German, French, Spanish and
    Chinese, chunk by chunk, it stays at or above cl100k and o200k but for odd stretches. Small English-centred
    vocabularies take up to 1.5 times as many tokens for other languages; engines with such models count exactly.
    """

    exact = False

    def __init__(self, margin: float = 0.15) -> None:
        self._factor = 1.0 + margin
        self.name = f"estimate+{round(margin * 100)}%"

    def count(self, texts: Sequence[str]) -> list[int]:
        """Estimated tokens of each text."""
        return [self._estimate(text) for text in texts]

    def _estimate(self, text: str) -> int:
        if not text:
            return 0
        n_ascii = len(text.encode("ascii", "ignore"))
        n_other = len(text) - n_ascii
        n_bytes = len(text.encode("utf-8", "surrogatepass"))
        # Two bytes: accented letters, Greek, Cyrillic. Three and more: CJK, typographic marks, emoji.
        n_wide = min(n_other, n_bytes - n_ascii - 2 * n_other)
        n_accented = n_other - n_wide
        return int((n_ascii * _PER_ASCII + n_accented * _PER_ACCENTED + n_wide * _PER_WIDE) * self._factor) + 1


_PER_ASCII = 0.27
_PER_ACCENTED = 1.2
_PER_WIDE = 1.4
