"""What readers tell people: counts and names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

__all__ = ["counted", "listed", "skipped_phrases"]

_SHOWN = 5
_AFTER_NOUN = re.compile(r" (?:of|for|with|beside|inside|outside|that)\b")


def counted(n: int, what: str) -> str:
    """ "1 page", "12 pages": `what` is in the singular, with its noun before the first preposition."""
    if n == 1:
        return f"1 {what}"
    match = _AFTER_NOUN.search(what)
    at = match.start() if match else len(what)
    return f"{n:,} {what[:at]}s{what[at:]}"


def listed(names: Iterable[str]) -> str:
    """The first names, and that there are more."""
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def skipped_phrases(skipped: Counter[str]) -> tuple[str, ...]:
    """ "12 pictures", "1 script": what was counted, by its name in the singular, and not kept."""
    return tuple(counted(n, what) for what, n in sorted(skipped.items()) if what)
