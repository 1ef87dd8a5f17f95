"""What a call tells the index of itself, and what waiting is worth to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from coa.cache.index import Replica, Wanted
from coa.cache.placement import affinity
from coa.cache.router import LEAST_SPEED, MAX_CROWD
from coa.cache.served_engines import Prefix, ServedEngine
from coa.llm.call_labels import call_labels
from coa.llm.chat import Decoding
from coa.reading import Prompt

__all__ = ["Freed", "affinity_of", "expected_reply", "patience_s", "wanted_of"]

_CHARS_PER_TOKEN = 3.5
_RESTORE_S_PER_TOKEN = 2e-5
"""Measured: 30 MB for 1,280 tokens of SmolLM2 in 5 ms; checking the file takes three times as long."""
_LOOK_AGAIN_S = 1.0
"""Slots of an engine may also be given back by other processes, which tell nobody."""


class Freed:
    """Tells those that wait for a seat at any engine of a group, the longest-waiting first, that one was given back."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def wait(self, group: str) -> None:
        """Until one is, or a moment has gone by."""
        told = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(group, [])
        waiting.append(told)
        try:
            await asyncio.wait([told], timeout=_LOOK_AGAIN_S)
        finally:
            told.cancel()
            if told in waiting:
                waiting.remove(told)

    def tell(self, group: str) -> None:
        """One was given back."""
        for told in self._waiting.pop(group, []):
            if not told.done():
                told.set_result(None)


def expected_reply(decoding: Decoding) -> int:
    """Tokens; few replies are as long as they may be."""
    return max(1, decoding.max_tokens // 2)


def wanted_of(
    request: str, engine: ServedEngine, prefix: Prefix | None, prompt: Prompt, decoding: Decoding, *, saved: bool
) -> Wanted:
    """The call as the index sees it; `saved`: the aligned prefix can be restored."""
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
    )


def affinity_of(engine: ServedEngine, prefix: Prefix | None, labels: Mapping[str, str]) -> str:
    """What is read at the same place: a document, or of one that no replica could hold ranges of its chunks."""
    document = labels.get("document", "")
    if prefix is None or not document:
        return document or ("" if prefix is None else prefix.state.hash.hex())
    per_replica = engine.replica.capacity_tokens // max(1, len(prefix.tokens))
    return affinity(document, int(labels.get("chunk", "0")), range_chunks=per_replica)


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
