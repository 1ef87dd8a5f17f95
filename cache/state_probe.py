"""Whether an engine's states can be saved, found again and restored, tried out with one that is thrown away."""

from __future__ import annotations

import itertools
import secrets
import time
from dataclasses import dataclass

from coa.cache.kv_cache import KvCache
from coa.errors import CacheError
from coa.reading import Prompt, render_sentence

__all__ = ["ProbedState", "probe_state"]

_SENTENCES = 60


@dataclass(frozen=True, slots=True)
class ProbedState:
    """What it took."""

    tokens: int
    n_bytes: int
    computed_s: float
    saved_s: float
    restored_s: float
    """Looking it up and checking it included."""


async def probe_state(cache: KvCache, deployment: str) -> ProbedState | None:
    """About a thousand tokens computed, saved and restored at one deployment; None for an engine that saves nothing.

    Raises: CacheError, saying what to configure where this process does not see the engine's folder.
    """
    engine, store = cache.engines.get(deployment), cache.stores.get(deployment)
    if engine is None or not await engine.ready() or not engine.adapter.saves:
        return None
    if store is None:
        raise CacheError(
            f"{deployment} saves states, but not where this process sees them.",
            hint="Name its --slot-save-path as slot_save_path in its model_info.",
        )
    nonce = secrets.token_hex(6)
    lines = (
        render_sentence(n, f"Entry {n} of the log {nonce}: a boat came in from the sea.") for n in range(_SENTENCES)
    )
    prefix = await engine.prefix_of(Prompt(prefix="".join(lines), tail="A"))
    if prefix is None or prefix.state.n_tokens == 0:
        raise CacheError(f"{deployment} does not tell the tokens of a prompt.")
    key = prefix.state
    request = f"probe-{nonce}"
    async with engine.seats:
        slot = await cache.index.seat(request, engine.replica)
        if slot is None:
            raise CacheError(f"{deployment}: other processes have all its slots.")
        try:
            times = [time.perf_counter()]
            await engine.adapter.prefill(prefix.aligned, slot=slot)
            times.append(time.perf_counter())
            file = await store.begin(key)
            await engine.save(slot, key, file)
            kept = await store.commit(key, file)
            times.append(time.perf_counter())
            found = await store.find(key)
            if kept is None or found is None:
                raise CacheError(f"{deployment}: a saved state was not kept.", hint="Look at the space on its disk.")
            if await engine.restore(slot, key, found.file) != key.n_tokens:
                raise CacheError(f"{deployment} does not restore what it saved.")
            times.append(time.perf_counter())
        finally:
            await cache.index.unseat(request, engine.replica, slot)
            await store.discard(key, "")
    computed_s, saved_s, restored_s = (b - a for a, b in itertools.pairwise(times))
    return ProbedState(key.n_tokens, kept.n_bytes, computed_s, saved_s, restored_s)
