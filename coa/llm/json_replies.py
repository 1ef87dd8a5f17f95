"""JSON in a model's reply: found between prose and fences, closed where it breaks off, repaired where it is malformed.

Everything here reads text and gives values; nothing is ever made up: what a repair adds that the reply does not
say is refused, and a list that was cut off keeps only its complete items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Closed", "Region", "closed", "grounded", "regions", "repaired", "without_last_item"]

_OPENER = re.compile(r"\{|\[(?=\s*(?:[\"'“{\[\]\d-]|true|false|null|\Z))", re.IGNORECASE)
"""Of a list only with something of JSON's in it: prose has brackets of its own."""
_CLOSES = {"{": "}", "[": "]"}
_OPENS = {"}": "{", "]": "["}
_FENCE = re.compile(r"^\s*```", re.MULTILINE)
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_HALF = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"\s+")
_MAX_REGIONS = 16
_MAX_REPAIRED_CHARS = 400_000
"""Far above any reply; json_repair takes about 20 ms for 10,000 characters."""


class Region(NamedTuple):
    """A stretch of a reply that begins like JSON."""

    text: str
    whole: bool
    """True where it is well-formed; `value` is what it says."""
    value: Any = None
    open_ended: bool = False
    """True where its brackets are still open at the end of the reply."""
    inside: bool = False
    """True where it begins inside an open-ended one: a part of it, unless that one's bracket was prose."""


class Closed(NamedTuple):
    """Cut-off JSON, cut back to what is complete."""

    value: Any
    lost: int
    """Items that were begun and not finished: 0 or 1."""
    empty: bool
    """True where the list that it broke off in has no complete item."""


class _Frame:
    """An open bracket of the scan."""

    __slots__ = ("awaits_value", "done", "kind", "n_items", "scalar")

    def __init__(self, kind: str, start: int) -> None:
        self.kind = kind
        self.done = start + 1
        """The offset just after the last complete item or member."""
        self.n_items = 0
        self.awaits_value = kind == "["
        self.scalar = False
        """A number or a bare word has begun and no delimiter has ended it yet."""

    def complete(self, end: int) -> None:
        if self.awaits_value:
            self.done = end
            self.n_items += 1
            self.awaits_value = self.kind == "["
        self.scalar = False


class _Scan(NamedTuple):
    end: int
    """Just after the bracket that closes the first one; the text's length where none does."""
    stack: list[_Frame]
    """What is open at the end; empty when all is closed."""


def regions(reply: str) -> list[Region]:
    """The outermost stretches of `reply` that begin with a bracket, in order; at most 16 of them.

    A stretch that is not closed runs to the next code fence or the end, and is followed by what begins inside it.
    """
    found: list[Region] = []
    at, inside = 0, False
    while len(found) < _MAX_REGIONS and (opener := _OPENER.search(reply, at)) is not None:
        start = opener.start()
        value, end = _decoded(reply, start)
        if end is not None:
            found.append(Region(reply[start:end], whole=True, value=value, inside=inside))
            at = end
            continue
        scan = _scanned(reply[start:])
        if not scan.stack:
            found.append(Region(reply[start : start + scan.end], whole=False, inside=inside))
            at = start + scan.end
            continue
        fence = _FENCE.search(reply, start)
        stop = fence.start() if fence is not None else len(reply)
        found.append(Region(reply[start:stop], whole=False, open_ended=True, inside=inside))
        at, inside = start + 1, True
    return found


def closed(text: str, *, cut_off: bool) -> Closed | None:
    """What `text`, which begins with a bracket that nothing closes, says completely; None where it is not JSON.

    With `cut_off` the outermost list that is open keeps its complete items, and an item that was begun is lost even
    if parts of it are complete. Without it a text that ends after a complete value only lacks its last brackets.
    """
    scan = _scanned(text)
    if not scan.stack:
        return None
    deepest = scan.stack[-1]
    if not cut_off and not deepest.scalar and not _left(text[deepest.done :]):
        return _closed_at(text, scan.stack, lost=0)
    kept = next((n for n, frame in enumerate(scan.stack) if frame.kind == "["), len(scan.stack) - 1)
    frames = scan.stack[: kept + 1]
    lost = int(frames[-1].kind == "[" and (len(frames) < len(scan.stack) or _left(text[frames[-1].done :])))
    return _closed_at(text, frames, lost=lost)


def repaired(text: str) -> Any:
    """What json_repair makes of malformed `text`, if `text` says all of it; else None."""
    import json_repair  # takes 30 ms, and most replies need none

    if len(text) > _MAX_REPAIRED_CHARS:
        return None
    try:
        value = json_repair.loads(text, skip_json_loads=True)
    except (ValueError, RecursionError, IndexError, KeyError, TypeError):
        return None
    return value if isinstance(value, dict | list) and grounded(value, text) else None


def grounded(value: object, text: str) -> bool:
    """Whether every string, number, null and truth value of `value` stands in `text`; keys count as well."""
    plain = _ESCAPE.sub(_unescaped, text)
    texts = (text, plain, _SPACE.sub(" ", plain))
    numbers = {float(n) for n in _NUMBER.findall(text) if len(n) <= 64}
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", text)}
    return all(_stands(leaf, texts, numbers, words) for leaf in _leaves(value))


def without_last_item(value: object) -> list[Any] | None:
    """Takes the last item out of the outermost list along the last members of `value`, in place; gives that list.

    Where a malformed text was cut off, that is the item that may be incomplete. None where there is no such item.
    """
    while isinstance(value, dict) and value:
        value = value[next(reversed(value))]
    if isinstance(value, list) and value:
        value.pop()
        return value
    return None


def _decoded(text: str, start: int) -> tuple[Any, int | None]:
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, None
    return (None, None) if _has_half_characters(value, text[start:end]) else (value, end)


def _has_half_characters(value: object, text: str) -> bool:
    """Whether a string of `value` has one half of a surrogate pair: no file and no prompt could hold it."""
    halves = any(mark in text for mark in ("\\ud", "\\uD"))
    return halves and any(isinstance(leaf, str) and _HALF.search(leaf) is not None for leaf in _leaves(value))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _scanned(text: str) -> _Scan:
    """The brackets of `text`, which begins with one, followed until the first is closed."""
    stack: list[_Frame] = []
    n_open = {"{": 0, "[": 0}
    at, n = 0, len(text)
    while at < n:
        char = text[at]
        if char == '"':
            end = _string_end(text, at)
            if end is None:
                return _Scan(n, stack)
            if stack[-1].kind == "[" or stack[-1].awaits_value:
                stack[-1].complete(end)
            at = end
            continue
        if char in "{[":
            stack.append(_Frame(char, at))
            n_open[char] += 1
        elif char in "}]":
            if n_open[_OPENS[char]]:  # else it closes nothing, and is passed over
                while (kind := stack.pop().kind) != _OPENS[char]:
                    n_open[kind] -= 1
                n_open[kind] -= 1
                if not stack:
                    return _Scan(at + 1, stack)
                stack[-1].complete(at + 1)
        elif char == ":":
            stack[-1].awaits_value = True
        elif char == ",":
            if stack[-1].scalar:
                stack[-1].complete(at)
            stack[-1].awaits_value = stack[-1].kind == "["
        elif not char.isspace():
            stack[-1].scalar = True
        at += 1
    return _Scan(n, stack)


def _string_end(text: str, start: int) -> int | None:
    at = start + 1
    while (end := text.find('"', at)) >= 0:
        backslashes = 0
        while text[end - 1 - backslashes] == "\\":
            backslashes += 1
        if backslashes % 2 == 0:
            return end + 1
        at = end + 1
    return None


def _left(rest: str) -> bool:
    """Whether something other than a comma and white space was begun after a complete item."""
    return bool(rest.strip().strip(",").strip())


def _closed_at(text: str, frames: list[_Frame], *, lost: int) -> Closed | None:
    brackets = "".join(_CLOSES[frame.kind] for frame in reversed(frames))
    done = frames[-1].done
    empty = frames[-1].kind == "[" and frames[-1].n_items == 0
    value, end = _decoded(text[:done] + brackets, 0)
    return None if end is None else Closed(value, lost, empty)


def _unescaped(match: re.Match[str]) -> str:
    code, letter = match.groups()
    return chr(int(code, 16)) if code else _ESCAPED.get(letter, letter)


def _leaves(value: object) -> Iterator[object]:
    """Keys and scalars, without recursion: repairs may nest deeply."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        else:
            yield item


def _stands(leaf: object, texts: tuple[str, ...], numbers: set[float], words: set[str]) -> bool:
    if isinstance(leaf, str):
        if _HALF.search(leaf) is not None:
            return False
        if not leaf:
            return any(quotes in texts[0] for quotes in ('""', "''", "“”"))
        return any(leaf in text for text in texts) or _SPACE.sub(" ", leaf) in texts[-1]
    if isinstance(leaf, bool):
        return str(leaf).lower() in words
    if leaf is None:
        return bool(words & {"null", "none"})
    return isinstance(leaf, int | float) and float(leaf) in numbers
