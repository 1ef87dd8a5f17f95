"""What a call tells the index of itself, and what waiting is worth to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping

from coa.cache.index import Replica, Wanted
from coa.cache.placement import affinity
from coa.cache.router import LEAST_SPEED, MAX_CROWD
from coa.cache.served_engines import Prefix, ServedEngine
from coa.llm.call_labels import call_labels
from coa.llm.chat import Decoding
from coa.reading import Prompt

__all__ = ["Line", "Place", "affinity_of", "expected_reply", "patience_s", "prompt_s", "wanted_of"]

_CHARS_PER_TOKEN = 3.5
_RESTORE_S_PER_TOKEN = 2e-5
"""Measured: 30 MB for 1,280 tokens of SmolLM2 in 5 ms; checking the file takes three times as long."""
_LOOK_AGAIN_S = 1.0
"""Slots of an engine may also be given back by other processes, which tell nobody."""


class Line:
    """Calls that look for a seat at any engine of a group: one at a time, and whoever came first looks first.

    A seat that was given back goes to the call that has waited longest and for which it is good enough. Without an
    order, calls that come just then take it, and under load the same few wait for all the others.
    """

    def __init__(self, has_room: Callable[[], bool]) -> None:
        """`has_room`: whether any seat is free; as long as none is, only those look that never did."""
        self._has_room = has_room
        self._places: list[Place] = []
        self._looking: Place | None = None

    @contextlib.contextmanager
    def joined(self) -> Iterator[Place]:
        """A place at its end, until it is left."""
        place = Place(self)
        self._places.append(place)
        try:
            yield place
        finally:
            self._places.remove(place)
            self.looked(place)

    def tell(self) -> None:
        """A seat was given back: everyone may look again."""
        for place in self._places:
            place.news = True
        self.call_next()

    def looked(self, place: Place) -> None:
        """Ends its turn, where it has one."""
        if self._looking is place:
            self._looking = None
        self.call_next()

    def call_next(self) -> None:
        """Gives the turn to the first one that has something to look at, where nobody has it."""
        if self._looking is not None:
            return
        room = self._has_room()
        self._looking = next((p for p in self._places if p.news and (room or not p.has_looked)), None)
        if self._looking is not None:
            self._looking.news, self._looking.has_looked = False, True
            self._looking.called.set()


class Place:
    """Of one call in a `Line`."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.called = asyncio.Event()
        self.news = True
        """Whether there is something to look at that it has not seen."""
        self.has_looked = False

    async def turn(self) -> None:
        """Ends the turn that it had; comes back when it has the next one: at first when those before have looked,
        later when there is news, or a moment has gone by."""
        self.called.clear()
        self._line.looked(self)
        if not self.news:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.called.wait(), _LOOK_AGAIN_S)
            if not self.called.is_set():
                self.news = True
                self._line.call_next()
        await self.called.wait()


def expected_reply(decoding: Decoding) -> int:
    """Tokens; few replies are as long as they may be."""
    return max(1, decoding.max_tokens // 2)


def wanted_of(
    request: str,
    engine: ServedEngine,
    prefix: Prefix | None,
    prompt: Prompt,
    decoding: Decoding,
    *,
    saved: bool,
    shared: bool = False,
) -> Wanted:
    """The call as the index sees it; `saved`: the aligned prefix can be restored; `shared`: by any replica."""
    n_tail = (len(prompt.tail) + (0 if prefix else len(prompt.system))) / _CHARS_PER_TOKEN
    n_prefix = 0 if prefix is None else len(prefix.tokens)
    n_saved = prefix.state.n_tokens if saved and prefix is not None else 0
    return Wanted(
        request=request,
        hashes=() if prefix is None else prefix.hashes,
        tokens=() if prefix is None else prefix.ends,
        n_prompt=n_prefix + round(n_tail),
        n_out=expected_reply(decoding),
        state_tokens=n_saved,
        restore_s=n_saved * _RESTORE_S_PER_TOKEN,
        affinity=affinity_of(engine, prefix, call_labels()),
        shared=shared,
    )


def affinity_of(engine: ServedEngine, prefix: Prefix | None, labels: Mapping[str, str]) -> str:
    """What is read at the same place: a document, or of one that no replica could hold ranges of its chunks."""
    document = labels.get("document", "")
    if prefix is None or not document:
        return document or ("" if prefix is None else prefix.state.hash.hex())
    per_replica = engine.replica.capacity_tokens // max(1, len(prefix.tokens))
    return affinity(document, int(labels.get("chunk", "0")), range_chunks=per_replica)


def prompt_s(replica: Replica, prefix: Prefix, prompt: Prompt, *, there: int) -> float:
    """Seconds that a prompt takes, `there` tokens of which need not be computed."""
    n_tokens = len(prefix.tokens) + len(prompt.tail) / _CHARS_PER_TOKEN
    return max(0.0, n_tokens - there) / max(LEAST_SPEED, replica.prefill_tps)


def patience_s(replica: Replica, prefix: Prefix, *, n_out: int, n_active: int, queue_s: float) -> float:
    """How long a slot that is taken and has the prefix, or will have it, is worth waiting for while others are free.

    Computing it once more takes its time, and takes it from the `n_active` calls that the engine is at as well (the
    policy's `crowd`); the one in the slot may have just begun, behind `queue_s` of other work. Where replies (`n_out`
    tokens) take longer than prefixes, most of what is left of it is its reply: then computing is soon the faster way.
    """
    alone_s = len(prefix.tokens) / max(LEAST_SPEED, replica.prefill_tps)
    if n_out / max(LEAST_SPEED, replica.decode_tps) > 2.0 * alone_s:
        return alone_s
    return (1.0 + min(MAX_CROWD, n_active)) * alone_s + queue_s
