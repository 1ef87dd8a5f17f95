"""Texts as the official scores compare them.

English and other languages with spaces: lower case, ASCII punctuation dropped, "a", "an" and "the" dropped, white space
squeezed (the SQuAD v1.1 script, which XQuAD, HotpotQA and LongBench's `qa_f1_score` use alike, the articles being the
English ones for all of them). Chinese: lower case, ASCII and Chinese punctuation and all white space dropped
(LongBench's `qa_f1_zh_score`).
"""

from __future__ import annotations

import re
import string
from functools import cache
from importlib import import_module
from typing import Any

from coa.errors import ConfigError

__all__ = [
    "WIDE_LANGUAGES",
    "normalised",
    "normalised_wide",
    "plain_tokens",
    "squad_tokens",
    "wide_characters",
    "wide_words",
]

WIDE_LANGUAGES = frozenset({"zh", "ja"})
"""Written without spaces."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# CJK symbols, vertical and fullwidth forms, and the general punctuation that Chinese texts use.
_WIDE_RANGES = (
    (0x2013, 0x2014), (0x2018, 0x201F), (0x2026, 0x2027), (0x3001, 0x3003), (0x3008, 0x3011), (0x3014, 0x301F),
    (0x3030, 0x3030), (0x303E, 0x303F), (0xFE4F, 0xFE4F), (0xFF01, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF65),
)  # fmt: skip
_WIDE_PUNCTUATION = {c: None for first, last in _WIDE_RANGES for c in range(first, last + 1)} | _ASCII_PUNCTUATION
_WORD = re.compile(r"\w+")
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def normalised(text: str) -> str:
    """`text` as the SQuAD v1.1 script compares it."""
    bare = text.lower().translate(_ASCII_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def squad_tokens(text: str) -> list[str]:
    """The words of the normalised text."""
    return normalised(text).split()


def normalised_wide(text: str) -> str:
    """`text` as LongBench compares Chinese."""
    return "".join(text.lower().translate(_WIDE_PUNCTUATION).split())


def wide_characters(text: str) -> list[str]:
    """Chinese characters one by one, runs of other letters and digits as words; punctuation dropped."""
    bare = text.lower().translate(_WIDE_PUNCTUATION)
    return [part for word in bare.split() for part in _split_wide(word)]


def wide_words(text: str) -> list[str]:
    """Chinese words as jieba cuts them (its default mode, no HMM switched off), each normalised; empty ones dropped.

    Raises: ConfigError where jieba is not installed.
    """
    words = (normalised_wide(word) for word in _jieba().cut(text, cut_all=False))
    return [word for word in words if word]


def plain_tokens(text: str) -> list[str]:
    """Lower-cased words of any script, ideographs one by one: for ROUGE outside of English."""
    return [part for word in _WORD.findall(text.lower()) for part in _split_wide(word)]


def _split_wide(word: str) -> list[str]:
    parts: list[str] = []
    run = ""
    for character in word:
        if _IDEOGRAPH.match(character):
            parts += [run] if run else []
            parts.append(character)
            run = ""
        else:
            run += character
    return [*parts, run] if run else parts


@cache
def _jieba() -> Any:
    try:
        # It logs to stderr while it builds its dictionary, and its own code has escapes that Python warns of.
        import logging
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            jieba = import_module("jieba")
        jieba.setLogLevel(logging.WARNING)
    except ImportError as error:
        raise ConfigError(
            "Chinese words need jieba, which is not installed.", hint="pip install 'coa-orchestrator[eval]'"
        ) from error
    return jieba
