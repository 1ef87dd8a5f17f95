"""Reading ahead of any question: a document's chunks are computed once and kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coa.config import Settings
from coa.errors import ConfigError
from coa.llm.call_labels import labels
from coa.planning import plan_run
from coa.reading import reading_prompt
from coa.types import Document
from coa.wiring import allowed_for, profile_of

if TYPE_CHECKING:
    from coa.llm.gateway import Gateway

__all__ = ["OnWarmed", "Warmed", "warm_document"]

OnWarmed = Callable[[int, int], None]
"""Told how many chunks are done, of how many."""


@dataclass(frozen=True, slots=True)
class Warmed:
    """What it took to have every chunk of a document computed."""

    chunks: int
    ready: int
    """Of these, the ones that questions will find; the rest could not be computed or kept."""
    computed_tokens: int
    found: int
    """Chunks that were there already."""
    seconds: float


async def warm_document(
    gateway: Gateway, settings: Settings, document: Document, *, on_progress: OnWarmed | None = None
) -> Warmed:
    """Has each chunk's reading prefix computed and kept, in order; what is there already costs nothing.

    The prefix is the same for every question, role and strategy (see `coa.reading`). Raises: ConfigError where code
    picks the sentences and no chunk is shown to the model; LimitsError, DocumentEmpty, ChunkTooLarge.
    """
    if profile_of(gateway, settings).quotes:
        raise ConfigError(
            f"{gateway.group.name} reads no chunk: for so small a model code picks sentences (notes: quotes).",
            hint="Where it is to read them all the same: --notes paper, here and with the questions.",
        )
    started = time.perf_counter()
    limits, _ = await allowed_for(gateway, settings, None)
    plan = await asyncio.to_thread(plan_run, document, None, gateway=gateway, limits=limits)
    cache, group = gateway.prefix_cache, gateway.role("worker").group.name
    chunks = [chunk for part in plan.parts for chunk in part.chunks]
    computed = found = ready = 0
    with labels(document=document.sha256):
        for done, chunk in enumerate(chunks, 1):
            took = None if cache is None else await cache.prefill(group, reading_prompt(chunk, "A"), ahead=False)
            ready += took is not None
            found += took == 0
            computed += took or 0
            if on_progress is not None:
                on_progress(done, len(chunks))
            await asyncio.sleep(0)
    return Warmed(len(chunks), ready, computed, found, time.perf_counter() - started)
