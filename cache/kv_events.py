"""KV events of vLLM and SGLang: what an engine's prefix cache holds, as the engine itself tells it.

A batch is msgpack: an array [time, events, rank] or a map with those names. An event is an array with its name first
(vLLM before 0.24, SGLang) or a map whose "type" is the name (vLLM since). Fields were only ever added at the end.

    BlockStored       block_hashes parent_block_hash token_ids block_size lora_id medium lora_name extra_keys group_idx
                      kv_cache_spec_kind kv_cache_spec_sliding_window …
    BlockRemoved      block_hashes medium group_idx …
    AllBlocksCleared

Hashes are the engine's own: 64-bit numbers of either sign or range, or bytes; they are only ever compared. Sources:
vllm/distributed/kv_events.py 0.16 and 0.32, sglang/srt/disaggregation/kv_events.py.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coa.errors import CacheError

if TYPE_CHECKING:
    import msgspec

__all__ = ["EngineHash", "EventBatch", "KvEvent", "KvRemoved", "KvReset", "KvStored", "decode_batch"]

EngineHash = int | bytes | str
"""A block's hash in the engine's own terms."""

_STORED = (
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
)
_REMOVED = ("block_hashes", "medium", "group_idx")
_BATCH = ("ts", "events", "data_parallel_rank")
# A hit in a cache of these needs a window's last blocks alone, and others of a prefix are not kept.
_PARTIAL_KINDS = ("sliding", "mamba", "chunked", "cross", "encoder")


@dataclass(frozen=True, slots=True)
class KvStored:
    """Blocks that follow each other and are in the cache now."""

    hashes: tuple[EngineHash, ...]
    parent: EngineHash | None
    """The block before the first; None where the first begins a prompt."""
    tokens: tuple[int, ...]
    block_size: int
    adapter: str | None = None
    """The LoRA adapter that they were computed with."""
    keyed: tuple[bool, ...] = ()
    """Of each block, whether something besides tokens and adapter went into it (an image, a salt); empty: none."""
    medium: str | None = None
    """Where they lie, in the engine's words ("GPU", "CPU"); None where it does not tell."""
    group: int = 0
    """Of the layers that share them, in models with several kinds of attention."""
    partial: bool = False
    """True for layers that keep a part of a prefix only."""


@dataclass(frozen=True, slots=True)
class KvRemoved:
    """Blocks that are not in the cache any more: one copy of each."""

    hashes: tuple[EngineHash, ...]
    medium: str | None = None
    group: int = 0


@dataclass(frozen=True, slots=True)
class KvReset:
    """Nothing is in the cache any more."""


KvEvent = KvStored | KvRemoved | KvReset


@dataclass(frozen=True, slots=True)
class EventBatch:
    """What one step of the engine changed."""

    at: float
    """Unix time of the engine's host."""
    events: tuple[KvEvent, ...]
    rank: int | None = None
    """Of data parallelism; each rank has a cache of its own."""


def decode_batch(payload: bytes) -> EventBatch:
    """The batch; events of an unknown name are left out. Raises: CacheError for anything else that is none."""
    import msgspec

    try:
        found = _fields(_decoder().decode(payload), _BATCH)
        at, events, rank = float(found["ts"]), found["events"], found.get("data_parallel_rank")
        read = [_event(event) for event in events]
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CacheError(f"a KV event cannot be read ({type(error).__name__}).") from error
    return EventBatch(at, tuple(event for event in read if event is not None), rank if isinstance(rank, int) else None)


@functools.cache
def _decoder() -> msgspec.msgpack.Decoder[Any]:
    import msgspec

    return msgspec.msgpack.Decoder()


def _fields(value: object, names: Sequence[str]) -> Mapping[str, Any]:
    """The fields by name, whichever way they came. Raises: TypeError."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list):
        return dict(zip(names, value, strict=False))
    raise TypeError("neither an array nor a map")


def _event(value: object) -> KvEvent | None:
    if isinstance(value, list):
        name, value = value[0] if value else None, value[1:]
    else:
        name = _fields(value, ()).get("type")
    if name == "BlockStored":
        return _stored(_fields(value, _STORED))
    if name == "BlockRemoved":
        found = _fields(value, _REMOVED)
        return KvRemoved(_hashes(found["block_hashes"]), _text(found.get("medium")), int(found.get("group_idx") or 0))
    return KvReset() if name == "AllBlocksCleared" else None


def _stored(found: Mapping[str, Any]) -> KvStored:
    hashes = _hashes(found["block_hashes"])
    parent = found.get("parent_block_hash")
    lora, lora_id = _text(found.get("lora_name")), found.get("lora_id")
    adapter = lora if lora is not None or lora_id is None else f"#{lora_id}"
    extra = found.get("extra_keys")
    keyed = tuple(any(key != lora for key in keys or ()) for keys in extra) if extra else ()
    kind = str(found.get("kv_cache_spec_kind") or "")
    tokens, size = tuple(int(token) for token in found["token_ids"]), int(found["block_size"])
    partial = found.get("kv_cache_spec_sliding_window") is not None or any(word in kind for word in _PARTIAL_KINDS)
    return KvStored(
        hashes=hashes,
        parent=None if parent is None else _hashes([parent])[0],
        tokens=tokens,
        block_size=size,
        adapter=adapter,
        keyed=keyed if any(keyed) else (),
        medium=_text(found.get("medium")),
        group=int(found.get("group_idx") or 0),
        # Blocks are left out where a window has passed them: nobody knows which tokens the others are.
        partial=partial or len(tokens) != len(hashes) * size or (bool(keyed) and len(keyed) != len(hashes)),
    )


def _hashes(values: Sequence[object]) -> tuple[EngineHash, ...]:
    for value in values:
        if not isinstance(value, int | bytes | str):
            raise TypeError("no hash")
    return tuple(values)  # type: ignore[arg-type] # all of them were looked at


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
