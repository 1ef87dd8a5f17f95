"""What a batch may do at once, shared out among several processes: never more in all than it may do in one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from coa.config import Settings

__all__ = ["WHOLE", "Part", "most_parts", "settings_of_part", "share"]

_AT_ONCE = "max_parallel_requests"
"""Calls at once to one deployment, in its entry of the model_list."""
_PLACES = ("litellm_params", "model_info")


class Part(NamedTuple):
    """One of several processes."""

    number: int
    """From 0 on."""
    of: int


WHOLE = Part(0, 1)


def share(total: int, part: Part) -> int:
    """The part's share of `total`, in whole numbers that add up to it exactly, the first parts having one more."""
    each, left = divmod(total, part.of)
    return each + (part.number < left)


def most_parts(settings: Settings, jobs: int) -> int:
    """The most processes among which `jobs` documents and the calls of `settings` can be shared out: each has to have
    one of either."""
    return min([jobs, settings.max_parallel_calls, *_limits(settings.model_list)])


def settings_of_part(settings: Settings, part: Part) -> Settings:
    """The settings that the part opens its models with. Rates are not shared out: see `coa.llm.rates`."""
    if part.of == 1:
        return settings
    calls = share(settings.max_parallel_calls, part)
    entries = [_part_of(entry, part) for entry in settings.model_list]
    return settings.model_copy(update={"max_parallel_calls": calls, "model_list": entries})


def _limits(entries: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    for entry in entries:
        for name in _PLACES:
            limit = (entry.get(name) or {}).get(_AT_ONCE)
            if isinstance(limit, int) and limit > 0:
                yield limit


def _part_of(entry: dict[str, Any], part: Part) -> dict[str, Any]:
    """An entry of the model_list with the part's share of its calls at once."""
    shared = dict(entry)
    for name in _PLACES:
        for limit in _limits([{name: entry.get(name)}]):
            shared[name] = {**entry[name], _AT_ONCE: share(limit, part)}
    return shared
