"""Prefill-ahead: while a worker writes, the chunks that its chain reads next are computed where there is room.

A chain is sequential by its notes alone: which text comes next is known before the notes are. So the call that reads
it has only its tail to compute. Work ahead waits for everything else: it is begun while a reply of the same group is
written and some replica has nothing to do, a little at a time, and given up where it is not measured to help.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple, Protocol

from coa.cache.ahead_worth import AheadWorth
from coa.llm.prefixes import Measured
from coa.reading import Prompt

__all__ = ["AheadCounts", "PrefillAhead", "Prefilling"]

_log = logging.getLogger(__name__)

_LOOK_S = 0.05
"""Between two looks for room, and before the first: by then the call that reads now has its own place."""
_MOST_WAITING = 32
_MOST_KEPT = 256
_USED = 0.5
"""What an engine has to report as cached, of what was computed ahead, for that to count as of use."""


class Prefilling(Protocol):
    """What computes a prefix, and knows where: `coa.cache.kv_cache.KvCache`."""

    def has_rest(self, group: str) -> bool:
        """Whether a reply is being written, and a replica of the group has nothing to do, or, where there is but one,
        no prompt to compute."""
        ...

    async def prefill(self, group: str, prompt: Prompt, *, ahead: bool = True) -> int | None:
        """Has the reading prefix computed where it will be read; the tokens that took, 0 where it was there already,
        None where nothing could be done."""
        ...


@dataclass(frozen=True, slots=True)
class AheadCounts:
    """What came of it."""

    begun: int = 0
    useful: int = 0
    """Prefixes that a call found computed."""
    wasted: int = 0
    """Those that none asked for, or that were gone by then."""
    dropped: int = 0
    """Not begun: there was no room before they were read, or it did not help."""
    tokens: int = 0
    """Computed."""
    useful_tokens: int = 0


class _Key(NamedTuple):
    group: str
    prefix: bytes


@dataclass(slots=True)
class _Ahead:
    """A prefix that is to be computed, or was."""

    prompt: Prompt
    context: Context
    """The labels of the run that will read it."""
    began: float | None = None
    ended: float | None = None
    tokens: int = 0


@dataclass(slots=True)
class _Call:
    key: _Key
    began: float
    ahead: _Ahead | None = None
    """What was computed ahead for it."""


@dataclass(slots=True)
class _Group:
    """What is going on in a model group."""

    worth: AheadWorth
    calls: dict[str, _Call] = field(default_factory=dict)
    """Under way, by id."""
    waiting: OrderedDict[_Key, _Ahead] = field(default_factory=OrderedDict)
    """The ones named last come last."""
    running: dict[_Key, _Ahead] = field(default_factory=dict)
    done: OrderedDict[_Key, _Ahead] = field(default_factory=OrderedDict)
    """Computed and not read yet."""
    spans: deque[_Ahead] = field(default_factory=lambda: deque(maxlen=64))
    """Work of late, for what it did to calls beside it."""


class PrefillAhead:
    """See the module. On one event loop; nothing here raises, waits for an engine, or holds up a call."""

    def __init__(
        self,
        engines: Prefilling,
        *,
        most: int = 2,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        worth: Callable[[], AheadWorth] = AheadWorth,
    ) -> None:
        """`most` is how many chunks of a path may be computed before they are read."""
        self._engines = engines
        self._most = most
        self._clock = clock
        self._sleep = sleep
        self._worth = worth
        self._groups: dict[str, _Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._counts = dict.fromkeys(AheadCounts.__slots__, 0)

    @property
    def counts(self) -> AheadCounts:
        """So far, over all groups."""
        return AheadCounts(**self._counts)

    def upcoming(self, group: str, prompts: Iterable[Prompt]) -> None:
        """A chunk's reading begins, and these (their tails do not matter) follow on the same path, in order."""
        state = self._group(group)
        for prompt in reversed(list(islice(prompts, self._most))):
            key = _key(group, prompt)
            if key in state.running or key in state.done or any(call.key == key for call in state.calls.values()):
                continue
            state.waiting[key] = state.waiting.pop(key) if key in state.waiting else _Ahead(prompt, copy_context())
        while len(state.waiting) > _MOST_WAITING:
            state.waiting.popitem(last=False)
            self._counts["dropped"] += 1
        self._look_around(state)

    def began(self, call: str, group: str, prompt: Prompt) -> None:
        """A call goes to its engine; what was to be computed for it need not be any more."""
        state, key = self._group(group), _key(group, prompt)
        if state.waiting.pop(key, None) is not None:
            self._counts["dropped"] += 1
        ahead = state.running.get(key) or state.done.pop(key, None)
        state.calls[call] = _Call(key, self._clock(), ahead)
        self._look_around(state)

    def ended(self, call: str, group: str, measured: Measured | None) -> None:
        """It is over. `measured` is None where it failed; as cached counts what was not computed for this call."""
        state = self._group(group)
        found = state.calls.pop(call, None)
        if found is None or measured is None:
            return
        now = self._clock()
        helped_s = self._settled(found, measured)
        replied_s = measured.completion_s if measured.completion_s is not None else now - found.began
        state.worth.call(
            seconds=now - found.began,
            completion_s=measured.completion_s,
            completion_tokens=measured.completion_tokens,
            beside=_overlap(state.spans, now - replied_s, now),
            helped_s=helped_s,
            computed=measured.cached_tokens < _USED * measured.prompt_tokens,
        )

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = [*self._tasks, *([self._looking] if self._looking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for state in self._groups.values():
            self._counts["wasted"] += len(state.done)
            state.done.clear()
        if self._counts["begun"]:
            _log.info("prefill-ahead: %s", self.counts)

    def _settled(self, call: _Call, measured: Measured) -> float:
        """Counts what a call made of the work done for it; the seconds that it was spared."""
        ahead = call.ahead
        if ahead is None or ahead.began is None or ahead.tokens <= 0:
            return 0.0  # it was there before, or could not be computed
        if measured.cached_tokens < _USED * ahead.tokens:
            self._counts["wasted"] += 1
            return 0.0
        self._counts["useful"] += 1
        self._counts["useful_tokens"] += ahead.tokens
        done = call.began if ahead.ended is None else min(call.began, ahead.ended)
        return max(0.0, done - ahead.began)

    def _group(self, name: str) -> _Group:
        if name not in self._groups:
            self._groups[name] = _Group(self._worth())
        return self._groups[name]

    def _look_around(self, state: _Group) -> None:
        if state.calls and state.waiting and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Begins one prefix at a time while calls are under way and something is wanted."""
        while any(state.calls and state.waiting for state in self._groups.values()):
            await self._sleep(_LOOK_S)
            for name, state in self._groups.items():
                if not (state.calls and state.waiting) or len(state.running) >= self._most:
                    continue
                if not state.worth.helps:
                    self._counts["dropped"] += len(state.waiting)
                    state.waiting.clear()
                elif self._engines.has_rest(name):
                    key, ahead = next(reversed(state.waiting.items()))
                    del state.waiting[key]
                    self._begin(state, key, ahead)

    def _begin(self, state: _Group, key: _Key, ahead: _Ahead) -> None:
        ahead.began = self._clock()
        state.running[key] = ahead
        state.spans.append(ahead)
        task = ahead.context.run(asyncio.create_task, self._compute(state, key, ahead))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compute(self, state: _Group, key: _Key, ahead: _Ahead) -> None:
        self._counts["begun"] += 1
        try:
            ahead.tokens = await self._engines.prefill(key.group, ahead.prompt, ahead=True) or 0
        except Exception:  # whatever it is, the call that needs the prefix will meet it too, and can say so
            _log.debug("computing a prefix ahead failed", exc_info=True)
        finally:
            ahead.ended = self._clock()
            del state.running[key]
        self._counts["tokens"] += ahead.tokens
        if ahead.tokens and not any(call.ahead is ahead for call in state.calls.values()):
            state.done[key] = ahead
        while len(state.done) > _MOST_KEPT:
            state.done.popitem(last=False)
            self._counts["wasted"] += 1


def _key(group: str, prompt: Prompt) -> _Key:
    return _Key(group, blake2b(f"{prompt.system}\x00{prompt.prefix}".encode(), digest_size=16).digest())


def _overlap(spans: Sequence[_Ahead], start: float, end: float) -> float:
    """The share of the time from `start` to `end` in which something was computed ahead, 0..1."""
    if end <= start:
        return 0.0
    covered, reached = 0.0, start
    for span in spans:  # in the order in which they began
        began = span.began if span.began is not None else end
        stop = min(end, span.ended if span.ended is not None else end)
        if stop > reached and began < end:
            covered += stop - max(reached, began)
            reached = stop
    return covered / (end - start)
