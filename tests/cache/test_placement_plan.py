"""Placement: homes of documents, bounded shares, and what is still to be read."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from coa.cache.placement import Pending, Work, affinity, place, rendezvous_order

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


def test_nowhere_to_place() -> None:
    assert place([Work("a", 1)], []) == {}
    assert place([], REPLICAS) == {}


def test_parts_of_one_affinity_stay_together() -> None:
    places = place([Work("book", 500), Work("book", 500), Work("other", 1000)], REPLICAS)
    assert set(places) == {"book", "other"}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers(0, 1000), max_size=40), st.integers(1, 4))
def test_no_share_exceeds_the_bound_by_more_than_one_piece(sizes: dict[str, int], n: int) -> None:
    replicas = REPLICAS[:n]
    places = place([Work(key, tokens) for key, tokens in sizes.items()], replicas)
    assert places.keys() == sizes.keys()
    loads = Counter(dict.fromkeys(replicas, 0))
    for key, name in places.items():
        loads[name] += sizes[key]
    limit = 1.25 * sum(sizes.values()) / n
    assert all(load <= limit + max(sizes.values(), default=0) for load in loads.values())
    assert places == place([Work(key, sizes[key]) for key in reversed(sizes)], replicas)


def test_what_is_still_to_be_read() -> None:
    pending = Pending()
    pending.add("book", range(3))
    pending.add("book", [1, 2])
    pending.read("book", [0, 1])
    pending.read("book", [0, 7])
    assert pending.left() == {("book", 1): 1, ("book", 2): 2}
    assert (pending.times("book", 2), pending.times("book", 0)) == (2, 0)
    assert pending.work({("book", 1): 300, ("book", 2): 200}) == [Work("book", 300), Work("book", 200)]
    assert [each.key for each in pending.work({}, range_chunks=2)] == ["book:0", "book:1"]
