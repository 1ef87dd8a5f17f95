"""LongBench's scores of tasks that are no questions: classes, numbers, code. Source: LongBench metrics.py."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz import fuzz

__all__ = ["classification", "code_similarity", "numbers"]

_NUMBER = re.compile(r"\d+")
_COMMENT = ("`", "#", "//")


def classification(reply: str, right: str, classes: Sequence[str]) -> float:
    """1 over the number of classes that the reply names, where the right one is among them.

    A class that is part of the right one's name ("location" in "other location") does not count.
    """
    named = [label for label in classes if label in reply]
    named = [label for label in named if label not in right or label == right]
    return 1 / len(named) if right in named else 0.0


def numbers(reply: str, right: str) -> float:
    """The share of the numbers in the reply that are the right one's (counting, passage retrieval)."""
    said = _NUMBER.findall(reply)
    wanted = _NUMBER.findall(right)
    return sum(number == wanted[0] for number in said) / len(said) if said and wanted else 0.0


def code_similarity(reply: str, right: str) -> float:
    """Edit similarity of the reply's first line that is code rather than a fence or a comment."""
    lines = (line for line in reply.lstrip("\n").split("\n") if not any(mark in line for mark in _COMMENT))
    return float(fuzz.ratio(next(lines, ""), right)) / 100
