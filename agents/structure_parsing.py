"""What a model wrote about sentence ranges, read strictly where it keeps to the form, else as well as can be.

Two forms are read: numbered lines, which small models keep to most easily,

    Scope: the death of the clock keeper
    1. Finding him at the foot of the stair [1-14]
    1.1. What lies around him [9-14]
    2. The boy and the key [15-31, 40]

and JSON, which engines can be held to by a schema. Numbers count from 1, ranges are closed, as in the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import json_repair

from coa.agents.structure import Description, Draft

__all__ = ["Parsed", "parse_ranges"]

_N = r"\d{1,30}"
_RANGES = rf"{_N}(?:\s?[-–]\s?{_N})?(?:,\s?{_N}(?:\s?[-–]\s?{_N})?)*"
_SCOPE_LINE = re.compile(r"Scope: (\S.*)")
_ITEM_LINE = re.compile(rf"(\d{{1,3}})\.(?:(\d{{1,3}})\.)? (\S.*?) \[({_RANGES})\]")

_FENCE = re.compile(r"^\s*```.*$", re.MULTILINE)
_EMPHASIS = re.compile(r"\*\*|__|`")
_JOINED = re.compile(rf"[\])】）]\s*(-|–|—|~|to|bis|à|a|至|,|;|and|&|und|et|y)\s*[\[(【（](?=\s*{_N}\s*[\])】）])")
_BRACKETS = re.compile(r"[\[(【（][^\[\]()【】（）]{0,200}[\])】）]")
_TAG = re.compile(r"</?(?:ol|ul|li|p|br|div|table|tr|td|th|b|i|strong|em)\b[^>]*>", re.IGNORECASE)
_START_END = re.compile(rf"\b(?:start|first|from)\s*:\s*({_N})\s*,?\s*(?:end|last|to)\s*:\s*({_N})", re.IGNORECASE)
_RANGE_LABEL = re.compile(r"(?:sentence\s*(?:range|ids?|numbers?)?s?|range|lines?)", re.IGNORECASE)
_DOTTED = re.compile(rf"\b{_N}\.({_N})\b")
_LABEL = r"(?:sentences?|sent\.|lines?|ids?|nos?\.?|numbers?|range|sätze|satz|phrases?|frases?|oraciones|句)"
_LIST = (
    rf"{_N}(?:\s*(?:-|–|—|~|to|through|bis|à|a|至)\s*{_N})?"
    rf"(?:\s*(?:,|;|、|and|&|und|et|y|\s)\s*{_N}(?:\s*(?:-|–|—|~|to|through|bis|à|a|至)\s*{_N})?)*"
)
_BRACKETED = re.compile(rf"[\[(【（<]\s*(?:{_LABEL}\s*:?\s*)?({_LIST})\s*(?:[\])】）>]|$)", re.IGNORECASE)
_LABELLED = re.compile(rf"\b{_LABEL}\s*[:#]?\s*({_LIST})\b", re.IGNORECASE)
_AT_END = re.compile(rf"(?:^|[:–—-]|\s)\s*({_N}\s*(?:-|–|—|to)\s*{_N}(?:\s*,\s*{_N}(?:\s*[-–]\s*{_N})?)*)\s*\.?$")
_ONE_RANGE = re.compile(rf"({_N})(?:\s*(?:-|–|—|~|to|through|bis|à|a|至)\s*({_N}))?", re.IGNORECASE)
_MARKER = re.compile(r"^(\s*)(?:#{1,6}\s*)?(?:(\d{1,3}(?:\.\d{1,3}){0,4})[.):]?(?=\s|$)|([-*•–·]|[a-h][.)])(?=\s))\s*")
_SCOPE_WORD = re.compile(
    r"^[\s#>*\-\"'{\[]*(?:the\s+)?(?:statement['’]s\s+)?(?:scope|topic|umfang|thema|portée|sujet|ámbito|tema|范围|主题)"
    r"[\"'*]*\s*(?:[:：=—–-]|is\b)\s*(.*)$",
    re.IGNORECASE,
)
_TITLE_WORD = re.compile(r"^(?:aspect\s*name|aspect|title|topic|heading|name)\s*\d*\s*[:：=-]\s*", re.IGNORECASE)
_EDGES = " \t\"'“”„»«‘’*_#>|[](){}<>【】（）,;:：–—-=."

_TITLE_KEYS = ("title", "aspectname", "aspect", "name", "heading", "topic", "label")
_ASPECT_KEYS = ("aspects", "mainaspects", "outline", "sections", "items", "parts", "subaspects", "children", "nodes")
_SCOPE_KEYS = ("scope", "topic", "subject", "title", "summary")
_RANGE_KEYS = ("sentencerange", "range", "sentences", "sentenceids", "ids", "span", "descriptions")
_NOT_IN_FORM = "the reply is not in the form that was asked for"
_DEEPEST = 8
_DEEPEST_JSON = 32
_LONGEST_TITLE = 160
# No line of a reply that can be used is longer; patterns take longer than in proportion to a line's length.
_LONGEST_LINE = 2000
_SUB_INDENT = 2


class Parsed(NamedTuple):
    """What a reply says."""

    scope: str
    drafts: list[Draft]
    """Empty where nothing could be read."""
    fault: str | None
    """What is not as it was asked for, a sentence part that a model can be told; None when all is."""


def parse_ranges(reply: str, n_sentences: int) -> Parsed:
    """The aspects of a reply for a chunk of `n_sentences`; never raises, whatever the reply is.

    Ranges may lie outside of the chunk or overlap; `coa.agents.structure.completed` mends that.
    """
    strict = _strict_json(reply) or _strict_lines(reply)
    if strict is not None:
        return strict._replace(fault=_fault(strict.drafts, n_sentences))
    found = _loose(reply)
    if not any(_has_ranges(d) for d in found.drafts):
        return Parsed(found.scope, [], found.fault)
    return found


def _strict_lines(reply: str) -> Parsed | None:
    lines = [line.rstrip() for line in reply.splitlines() if line.strip()]
    scope = _SCOPE_LINE.fullmatch(lines[0]) if lines else None
    if scope is None or len(lines) < 2:
        return None
    drafts: list[Draft] = []
    for line in lines[1:]:
        item = _ITEM_LINE.fullmatch(line.strip())
        if item is None:
            return None
        number, part, title, ranges = item.groups()
        draft = Draft(title, _ranges(ranges))
        siblings = drafts if part is None else drafts[-1].parts if drafts else []
        in_order = int(part or number) == len(siblings) + 1 and int(number) == len(drafts) + (part is None)
        if not in_order:
            return None
        siblings.append(draft)
    return Parsed(scope.group(1), drafts, None)


def _strict_json(reply: str) -> Parsed | None:
    if not reply.lstrip().startswith("{"):
        return None
    try:
        raw = json.loads(reply)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or set(raw) != {"scope", "aspects"} or not isinstance(raw["aspects"], list):
        return None
    drafts = [_strict_aspect(a) for a in raw["aspects"]]
    if not isinstance(raw["scope"], str) or not drafts or None in drafts:
        return None
    return Parsed(raw["scope"], [d for d in drafts if d is not None], None)


def _strict_aspect(raw: Any, *, deep: bool = True) -> Draft | None:
    if not isinstance(raw, dict) or not {"title", "first", "last"} <= set(raw) <= {"title", "first", "last", "parts"}:
        return None
    first, last = raw["first"], raw["last"]
    if type(first) is not int or type(last) is not int or not isinstance(raw["title"], str):
        return None
    parts = raw.get("parts") or []
    if not isinstance(parts, list) or (parts and not deep):
        return None
    inner = [_strict_aspect(p, deep=False) for p in parts]
    if None in inner:
        return None
    return Draft(raw["title"], [_closed(first, last)], [p for p in inner if p is not None])


def _fault(drafts: Sequence[Draft], n_sentences: int) -> str | None:
    """What is wrong with the numbers of a reply in the right form."""
    seen: set[int] = set()
    for draft in drafts:
        for r in draft.ranges:
            if r.start < 0 or r.end > n_sentences or r.start >= r.end:
                return f"the range [{r.start + 1}-{r.end}] does not exist: sentences go from 1 to {n_sentences}"
            repeated = sorted(seen.intersection(range(r.start, r.end)))
            if repeated:
                return f"sentence {repeated[0] + 1} is in two aspects"
            seen.update(range(r.start, r.end))
        if not draft.title.strip():
            return "an aspect has no title"
    missing = sorted(set(range(n_sentences)) - seen)
    return f"sentence {missing[0] + 1} is in no aspect" if missing else None


def _loose(reply: str) -> Parsed:
    at = min((i for i in (reply.find("{"), reply.find("[")) if i >= 0), default=-1)
    if "{" in reply or (at >= 0 and reply[at:].lstrip("[ \n").startswith('"')):
        found = _loose_json(reply[at:])
        if any(_has_ranges(d) for d in found.drafts):
            return found
    text = _START_END.sub(r"\1-\2", _TAG.sub("\n", _FENCE.sub("", reply)))
    return _loose_lines(_EMPHASIS.sub("", text))


def _loose_lines(text: str) -> Parsed:
    scope, first_line = "", ""
    drafts: list[Draft] = []
    for line in text.splitlines():
        named = _SCOPE_WORD.match(line)
        if named is not None:
            scope = scope or _clean(named.group(1))
            continue
        in_table = line.lstrip().startswith("|")
        body = _JOINED.sub(r" \1 ", line.replace("|", " ") if in_table else line)[:_LONGEST_LINE]
        marker = _MARKER.match(body)
        rest = body[marker.end() :] if marker is not None else body
        title, ranges = _split(rest)
        if not title and ranges and drafts and not (marker is not None and marker.group(2)):
            _last(drafts).ranges.extend(ranges)  # the range stands on a line of its own
        elif marker is not None or ranges or _TITLE_WORD.match(rest.lstrip()):
            _siblings(drafts, marker).append(Draft(title, ranges))
        elif not drafts and not in_table:
            first_line = first_line or _clean(line)
    return Parsed((scope or first_line)[:_LONGEST_TITLE], drafts, _NOT_IN_FORM)


def _split(text: str) -> tuple[str, list[Description]]:
    """A line's title and ranges."""
    text = " ".join(text[:_LONGEST_LINE].split())
    text = _BRACKETS.sub(lambda m: _DOTTED.sub(r"\1", m.group()), text)
    for pattern in (_BRACKETED, _LABELLED, _AT_END):
        found = list(pattern.finditer(text))
        if found:
            ranges = [r for m in found for r in _ranges(m.group(1))]
            title = _clean(pattern.sub(" ", text))
            return ("" if _RANGE_LABEL.fullmatch(title) else title), ranges
    return _clean(text), []


def _siblings(drafts: list[Draft], marker: re.Match[str] | None) -> list[Draft]:
    """The list that a line with that marker belongs to."""
    if marker is None or not drafts:
        return drafts
    indent, number, _ = marker.groups()
    deep = "." in number if number is not None else len(indent.expandtabs(4)) >= _SUB_INDENT
    return drafts[-1].parts if deep else drafts


def _last(drafts: Sequence[Draft]) -> Draft:
    return drafts[-1].parts[-1] if drafts[-1].parts else drafts[-1]


def _loose_json(text: str) -> Parsed:
    try:
        # Its time grows with the square of the depth, and no structure is that deep.
        raw = json_repair.loads(text) if _depth(text) <= _DEEPEST_JSON else None
    except (ValueError, RecursionError, TypeError, IndexError):
        raw = None
    scope = ""
    if isinstance(raw, list) and len(raw) == 1 and isinstance(raw[0], dict) and _value(raw[0], _ASPECT_KEYS):
        raw = raw[0]
    if isinstance(raw, dict):
        raw = _folded(raw)
        scope = _text(_value(raw, _SCOPE_KEYS))
        raw = _value(raw, _ASPECT_KEYS)
        if isinstance(raw, dict):  # {"title": "1-9", …}
            raw = [{"title": k, "range": v} for k, v in raw.items()]
    drafts = [_loose_aspect(a) for a in raw] if isinstance(raw, list) else []
    return Parsed(_clean(scope)[:_LONGEST_TITLE], drafts, _NOT_IN_FORM)


def _depth(text: str) -> int:
    """How deep the brackets of `text` are nested, those in strings counted too."""
    steps = (1 if c in "[{" else -1 for c in text if c in "[]{}")
    return max(accumulate(steps), default=0)


def _loose_aspect(raw: Any, depth: int = 0) -> Draft:
    if isinstance(raw, str):
        return Draft(*_split(_JOINED.sub(r" \1 ", raw)))
    if not isinstance(raw, dict) or depth > _DEEPEST:
        return Draft("")
    raw = _folded(raw)
    title = _text(_value(raw, _TITLE_KEYS))
    title, in_title = _split(title)
    ranges = _loose_range(_value(raw, _RANGE_KEYS)) or in_title
    first, last = (_number(_value(raw, keys)) for keys in (("first", "start", "from"), ("last", "end", "to")))
    if first is not None:
        ranges = [_closed(first, last if last is not None else first)]
    inner = _value(raw, _ASPECT_KEYS)
    parts = [_loose_aspect(p, depth + 1) for p in inner] if isinstance(inner, list) else []
    return Draft(title, ranges, [p for p in parts if _has_ranges(p)])


def _loose_range(raw: Any) -> list[Description]:
    if isinstance(raw, Mapping):
        folded = _folded(raw)
        first, last = (_number(_value(folded, keys)) for keys in (("start", "first", "from"), ("end", "last", "to")))
        return [_closed(first, last if last is not None else first)] if first is not None else []
    if isinstance(raw, list):
        numbers = [_number(n) for n in raw]
        if len(numbers) == 2 and None not in numbers:
            return [_closed(numbers[0] or 0, numbers[1] or 0)]
        return [r for item in raw for r in _loose_range(item)]
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        return []
    return _ranges(_DOTTED.sub(r"\1", str(raw)))


def _ranges(text: str) -> list[Description]:
    return [_closed(int(m.group(1)), int(m.group(2) or m.group(1))) for m in _ONE_RANGE.finditer(text)]


def _closed(first: int, last: int) -> Description:
    """The sentences that a prompt calls first..last, turned the right way round."""
    first, last = min(first, last), max(first, last)
    return Description(first - 1, last)


def _folded(raw: Mapping[Any, Any]) -> dict[str, Any]:
    return {re.sub(r"[\s_'’-]", "", str(key)).casefold(): value for key, value in raw.items()}


def _value(raw: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((raw[k] for k in keys if raw.get(k) not in (None, "")), None)


def _text(raw: Any) -> str:
    return raw if isinstance(raw, str) else ""


def _number(raw: Any) -> int | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    found = re.search(_N, str(raw))
    return int(found.group()) if found is not None else None


def _clean(text: str) -> str:
    text = " ".join(text.split()).strip(_EDGES)
    return _TITLE_WORD.sub("", text).strip(_EDGES)[:_LONGEST_TITLE].strip()


def _has_ranges(draft: Draft) -> bool:
    return bool(draft.ranges) or any(_has_ranges(p) for p in draft.parts)
