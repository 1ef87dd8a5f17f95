"""Batches of KV events as engines send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coa.cache.kv_events import EventBatch, KvRemoved, KvReset, KvStored, decode_batch
from coa.errors import CacheError

HIGH = 2**63 + 12345

RECORDING = json.loads((Path(__file__).parent / "recordings" / "vllm-0.32.json").read_text())
STORED = KvStored((HIGH, 7), None, (1, 2, 3, 4), 2, medium="GPU")


def _packed(*events: Any, rank: int | None = 0) -> bytes:
    return msgspec.msgpack.encode([12.5, list(events), rank])


def _map(**more: Any) -> dict[str, Any]:
    known = {"type": "BlockStored", "block_hashes": [HIGH, 7], "parent_block_hash": None, "token_ids": [1, 2, 3, 4]}
    return {**known, "block_size": 2, "lora_id": None, "medium": "GPU", "lora_name": None, **more}


def test_what_vllm_sent_is_read() -> None:
    batches = [decode_batch(bytes.fromhex(frames[2])) for frames in RECORDING["live"]]
    first, second, reset = (batch.events for batch in batches)
    stored = (5112245858541826925, 2169733828878548103)
    assert first == (KvStored(stored, None, tuple(range(100, 164)), 32, medium="GPU"),)
    assert second == (
        KvStored((8031111690960997908, 631589470557825225), None, tuple(range(300, 364)), 32, medium="GPU"),
    )
    assert reset == (KvReset(),)
    assert [batch.rank for batch in batches] == [0, 0, 0]
    assert sorted(batch.at for batch in batches) == [batch.at for batch in batches]


@pytest.mark.parametrize(
    "payload",
    [
        _packed(_map(extra_keys=[None, None], group_idx=0, kv_cache_spec_kind="full_attention")),
        _packed(["BlockStored", [HIGH, 7], None, [1, 2, 3, 4], 2, None, "GPU"]),
        _packed(
            ["BlockStored", [HIGH, 7], None, [1, 2, 3, 4], 2, None, "GPU", None, [None, None], 0, "full_attention"]
        ),
        msgspec.msgpack.encode({"ts": 12.5, "events": [_map()], "data_parallel_rank": 0}),
        msgspec.msgpack.encode({"ts": 12.5, "data_parallel_rank": 0, "events": [list(_map().values())]}),
    ],
    ids=["array of maps", "array of arrays", "array of longer arrays", "map of maps", "map of arrays"],
)
def test_arrays_and_maps_mean_the_same(payload: bytes) -> None:
    assert decode_batch(payload) == EventBatch(12.5, (STORED,), 0)


def test_sglang_leaves_out_what_it_does_not_have() -> None:
    stored = ["BlockStored", [-5], -9, [1, 2], 2, None]
    batch = decode_batch(msgspec.msgpack.encode([1.0, [stored, ["BlockRemoved", [-5]], ["AllBlocksCleared"]]]))
    assert batch == EventBatch(1.0, (KvStored((-5,), -9, (1, 2), 2), KvRemoved((-5,)), KvReset()))


def test_removals_name_their_medium_and_group() -> None:
    event = {"type": "BlockRemoved", "block_hashes": [b"\xff" * 32], "medium": "CPU", "group_idx": 1}
    assert decode_batch(_packed(event, {"type": "AllBlocksCleared"})).events == (
        KvRemoved((b"\xff" * 32,), "CPU", 1),
        KvReset(),
    )


@pytest.mark.parametrize(
    ("more", "adapter", "keyed", "partial"),
    [
        ({"lora_name": "poet", "extra_keys": [["poet"], ["poet"]]}, "poet", (), False),
        ({"lora_id": 3}, "#3", (), False),
        ({"extra_keys": [["salt"], None]}, None, (True, False), False),
        ({"extra_keys": [None, [["image", 4]]]}, None, (False, True), False),
        ({"kv_cache_spec_kind": "sliding_window"}, None, (), True),
        ({"kv_cache_spec_sliding_window": 1024}, None, (), True),
        ({"block_hashes": [7], "extra_keys": [None]}, None, (), True),
    ],
    ids=["adapter", "adapter of older releases", "salt", "image", "window", "window's size", "blocks left out"],
)
def test_what_else_went_into_a_block_is_told(
    more: dict[str, Any], adapter: str | None, keyed: tuple[bool, ...], *, partial: bool
) -> None:
    (event,) = decode_batch(_packed(_map(**more))).events
    assert isinstance(event, KvStored)
    assert (event.adapter, event.keyed, event.partial) == (adapter, keyed, partial)


def test_events_of_later_releases_are_left_out() -> None:
    assert decode_batch(_packed({"type": "BlockPinned", "block_hashes": [1]}, ["Renamed", 1])).events == ()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(7),
        msgspec.msgpack.encode([1.0]),
        msgspec.msgpack.encode(["now", []]),
        msgspec.msgpack.encode([1.0, 3]),
        _packed(7),
        _packed(["BlockStored", [1]]),
        _packed(_map(block_hashes=[None])),
        _packed(_map(token_ids=["one"])),
        _packed(_map(block_size=None)),
    ],
)
def test_what_is_no_batch_is_refused_in_one_way(payload: bytes) -> None:
    with pytest.raises(CacheError, match="KV event"):
        decode_batch(payload)
