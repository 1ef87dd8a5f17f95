"""The order in which people number files: 2 before 10."""

from __future__ import annotations

import re

__all__ = ["natural_key"]

_DIGITS = re.compile(r"(\d+)")
_LONGEST_NUMBER = 18


def natural_key(name: str) -> list[tuple[tuple[int, int, str], ...]]:
    """What to sort paths by: folder by folder, numbers by their value, capitals as small letters."""
    return [tuple(_key(part) for part in _DIGITS.split(step.casefold()) if part) for step in name.split("/")]


def _key(part: str) -> tuple[int, int, str]:
    if part.isdecimal() and len(part) <= _LONGEST_NUMBER:
        return (0, int(part), part)
    return (1, 0, part)
