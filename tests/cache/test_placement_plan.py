"""Placement: homes of documents, and of ranges of one that no replica holds."""

from __future__ import annotations

from collections import Counter

from coa.cache.placement import affinity, rendezvous_order

REPLICAS = ["a", "b", "c", "d"]


def test_an_affinity_is_a_document_or_a_range_of_its_chunks() -> None:
    assert affinity("book", 7) == "book"
    assert [affinity("book", chunk, range_chunks=4) for chunk in (0, 3, 4)] == ["book:0", "book:0", "book:1"]


def test_when_a_replica_leaves_only_its_documents_move() -> None:
    keys = [f"book {i}" for i in range(200)]
    homes = {key: rendezvous_order(key, REPLICAS)[0] for key in keys}
    assert min(Counter(homes.values()).values()) > 30
    after = {key: rendezvous_order(key, REPLICAS[:3])[0] for key in keys}
    assert {key for key in keys if homes[key] != after[key]} == {key for key in keys if homes[key] == "d"}
