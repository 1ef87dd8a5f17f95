"""What `coa cache` shows and does of saved states: attention KV of chunks that were read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from coa.cache.kv_stats import Counts, KvStats, Reason, Totals, kv_stats_file
from coa.cache.slot_files import SlotFiles
from coa.errors import CacheError

if TYPE_CHECKING:
    from coa.cache.redis_states import RedisStates, SharedStates
    from coa.cache.states import Manifest
    from coa.config import Settings

__all__ = ["KeptStates", "kept_states", "remove_states", "states_object", "states_rows", "states_text"]

_T = TypeVar("_T")
_REASONS: tuple[Reason, ...] = ("missed", "discarded", "refused")
_TOP = 5
_FLIGHT_S = 3600.0


@dataclass(frozen=True, slots=True)
class KeptStates:
    """States by folder, and what was counted of their use."""

    limit_bytes: int
    """Of each folder."""
    folders: dict[Path, list[Manifest]]
    totals: Totals
    names: dict[str, str] = field(default_factory=dict)
    """Of documents, as runs know them, by sha256."""
    redis_limit_bytes: int = 0
    redis: SharedStates | None = None

    @property
    def manifests(self) -> list[Manifest]:
        """Of all folders."""
        return [manifest for manifests in self.folders.values() for manifest in manifests]

    def name_of(self, document: str) -> str:
        """Of a book, else the beginning of its digest."""
        return self.names.get(document) or (document[:12] if document else "(unknown)")

    def books(self) -> list[tuple[str, int, int, Counts]]:
        """By sha256: states, their bytes, and what was counted; the largest first."""
        held: dict[str, tuple[int, int]] = {}
        for manifest in self.manifests:
            states, size = held.get(manifest.origin.document, (0, 0))
            held[manifest.origin.document] = (states + 1, size + manifest.n_bytes)
        known = held.keys() | self.totals.documents.keys()
        rows = [(sha, *held.get(sha, (0, 0)), self.totals.documents.get(sha, Counts())) for sha in known]
        return sorted(rows, key=lambda row: (-row[2], -row[3].calls, row[0]))


def kept_states(settings: Settings) -> KeptStates:
    """What there is now. Raises: CacheError where states are in Redis, too, and it does not answer."""

    async def look() -> KeptStates:
        folders = {}
        for store in _stores(settings):
            folders[store.folder] = await store.manifests()
        return KeptStates(
            settings.kv_cache_bytes,
            folders,
            KvStats(kv_stats_file(settings.home)).totals(),
            _document_names(settings),
            settings.kv_redis_bytes,
            await _in_redis(settings, lambda redis: redis.shared()),
        )

    return asyncio.run(look())


def remove_states(
    settings: Settings, max_bytes: int | None, *, unused_s: float | None = None, everything: bool = False
) -> tuple[int, int]:
    """Removes what was not used for `unused_s` seconds, then the longest unused until `max_bytes` (what is configured
    where None) are held in each folder, and in Redis; and what killed processes left. `everything`: all states, and
    the counts. States of folders and their bytes that went. Raises: as `kept_states`."""
    from coa.cache.single_flight import remove_old_flights

    async def removed() -> tuple[int, int]:
        states = size = 0
        for store in _stores(settings):
            went = await store.prune(0 if everything else max_bytes, unused_s=unused_s)
            states, size = states + went.states, size + went.bytes
            remove_old_flights(store.folder, older_than_s=_FLIGHT_S)
        if everything:
            KvStats(kv_stats_file(settings.home)).clear()
        limit = 0 if everything else max_bytes
        await _in_redis(settings, lambda redis: redis.prune_shared(limit, unused_s=unused_s))
        return states, size

    return asyncio.run(removed())


def states_object(kept: KeptStates) -> dict[str, object]:
    """For --json."""
    total = kept.totals.total
    return {
        "folders": [
            {"path": str(path), "states": len(manifests), "bytes": sum(m.n_bytes for m in manifests)}
            for path, manifests in kept.folders.items()
        ],
        "limit_bytes": kept.limit_bytes,
        "redis": None if kept.redis is None else {**asdict(kept.redis), "limit_bytes": kept.redis_limit_bytes},
        "since": kept.totals.since or None,
        **asdict(total),
        **_ratios(total),
        "books": [
            {"sha256": sha, "name": kept.names.get(sha), "states": states, "bytes": size, **asdict(counts)}
            for sha, states, size, counts in kept.books()
        ],
        "replicas": {name: {**asdict(c), **_ratios(c)} for name, c in kept.totals.replicas.items()},
        **{what: [{"reason": why, "times": n} for why, n in kept.totals.top(what)] for what in _REASONS},
    }


def states_rows(kept: KeptStates) -> list[tuple[str, ...]]:
    """For scripts: kind, name, then numbers."""
    rows: list[tuple[str, ...]] = [
        ("states", kept.name_of(sha), str(states), str(size), str(counts.prompt_tokens), str(counts.cached_tokens))
        for sha, states, size, counts in kept.books()
    ]
    for name, c in sorted(kept.totals.replicas.items()):
        told = (c.calls, c.prompt_tokens, c.predicted_tokens, c.cached_tokens)
        rows.append(("replica", name, *map(str, told)))
    for what in _REASONS:
        rows += [(what, why, str(times)) for why, times in kept.totals.top(what)]
    return rows


def states_text(kept: KeptStates, size_text: Callable[[int], str]) -> str:
    """For people; empty where nothing was kept or counted."""
    from coa.cli.render import table_text

    if not kept.manifests and not kept.totals:
        return ""
    size = sum(m.n_bytes for m in kept.manifests)
    total = kept.totals.total
    text = f"states: {len(kept.manifests):,} kept, {size_text(size)} of {size_text(kept.limit_bytes)}"
    text += f"; written {total.saved:,}, read {total.restored:,}, evicted {total.evicted:,} times\n"
    rows = [
        (kept.name_of(sha), f"{states:,}", size_text(held), f"{c.prompt_tokens:,}", _share(c))
        for sha, states, held, c in kept.books()
    ]
    text += table_text(rows, header=("BOOK", "STATES", "SIZE", "PROMPT TOKENS", "IN PLACE")) if rows else ""
    for path in kept.folders:
        text += f"{path}\n"
    if kept.redis is not None:
        held, limit = size_text(kept.redis.bytes), size_text(kept.redis_limit_bytes)
        text += f"Redis: {kept.redis.states:,} states, {held} of {limit}\n"
    if total.calls:
        text += f"prompts: {total.prompt_tokens:,} tokens in {total.calls:,} calls"
        text += f"; {_percent(total.predicted_tokens, total)} were expected to be in place, {_share(total)} were"
        text += f"; {total.ahead_tokens:,} were computed ahead\n"
    replicas = [
        (name, f"{c.calls:,}", f"{c.prompt_tokens:,}", _percent(c.predicted_tokens, c), _share(c))
        for name, c in sorted(kept.totals.replicas.items())
    ]
    text += (
        table_text(replicas, header=("REPLICA", "CALLS", "PROMPT TOKENS", "EXPECTED", "IN PLACE")) if replicas else ""
    )
    heads = {"missed": "computed because", "discarded": "states discarded", "refused": "states not kept"}
    for what in _REASONS:
        if top := kept.totals.top(what)[:_TOP]:
            text += f"{heads[what]}: " + ", ".join(f"{why} ({times:,})" for why, times in top) + "\n"
    return text


def _stores(settings: Settings) -> list[SlotFiles]:
    """Of coa's own folder, and of those that configured engines save to as far as they can be seen from here."""
    folders = {settings.kv_dir: None}
    for entry in settings.model_list:
        given = (entry.get("model_info") or {}).get("slot_save_path")
        if isinstance(given, str) and given and Path(given).expanduser().is_dir():
            folders[Path(given).expanduser()] = None
    return [SlotFiles(folder, settings.kv_cache_bytes) for folder in folders]


async def _in_redis(settings: Settings, ask: Callable[[RedisStates], Awaitable[_T | None]]) -> _T | None:
    """What `ask` gives for the states in Redis; None where none are kept there. Raises: CacheError."""
    from coa.cache.redis_states import RedisScripts, RedisStates
    from coa.config import resolve_environment

    url = resolve_environment(settings.redis_url)
    if url is None or not settings.kv_redis_bytes:
        return None
    files = SlotFiles(settings.kv_dir, settings.kv_cache_bytes)
    redis = RedisStates(files, RedisScripts(url), settings.kv_redis_bytes)
    try:
        found = await ask(redis)
    finally:
        await redis.close()
    if found is None:
        raise CacheError("Redis does not answer.", hint="Check COA_REDIS_URL; coa goes on without it.")
    return found


def _document_names(settings: Settings) -> dict[str, str]:
    from coa.cli.terminal import printable
    from coa.runs import RunStore

    newest_last = reversed(RunStore(settings.home).list())
    return {run.document_sha256: printable(" ".join(run.document.split())) for run in newest_last}


def _ratios(counts: Counts) -> dict[str, float | None]:
    whole = counts.prompt_tokens
    return {
        "predicted_ratio": counts.predicted_tokens / whole if whole else None,
        "cached_ratio": counts.cached_tokens / whole if whole else None,
    }


def _share(counts: Counts) -> str:
    return _percent(counts.cached_tokens, counts)


def _percent(tokens: int, counts: Counts) -> str:
    return f"{100 * tokens / counts.prompt_tokens:.0f} %" if counts.prompt_tokens else "-"
