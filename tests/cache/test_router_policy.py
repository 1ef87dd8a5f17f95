"""The routing policy: what it prefers, and that the script in Redis computes the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coa.cache import index_scripts
from coa.cache.index import IndexKind, Replica, Wanted
from coa.cache.redis_index import RedisIndex
from coa.cache.router import EVICTED_SHARE, View, choose, prefill_seconds, ranks, seconds

REPLICA = Replica("r", "1", "events", 2, 1000.0, 50.0, 1.0)
KINDS: list[IndexKind] = ["events", "owned", "approx"]
BLOCK = 64


def wanted(n_prompt: int = 2000, **fields: Any) -> Wanted:
    return Wanted(fields.pop("request", "q"), (), (), n_prompt, 50, **fields)


def view(name: str, **fields: Any) -> View:
    known = {key: fields.pop(key) for key in list(fields) if key in Replica.__slots__}
    return View(replace(REPLICA, id=name, **known), **fields)


def best(views: Sequence[View], call: Wanted | None = None) -> str:
    picked = choose(call or wanted(), views)
    assert picked is not None
    return views[picked.place].replica.id


def test_nobody_is_chosen_of_none() -> None:
    assert choose(wanted(), []) is None


def test_a_prefix_is_worth_the_time_that_it_saves() -> None:
    assert best([view("a"), view("b", hit_tokens=1900)]) == "b"
    queued = view("b", hit_tokens=1900, in_flight=1, queued_tokens=9000, queued_out=50)
    assert best([view("a"), queued]) == "a", "nine seconds of waiting for two of computing"


def test_unsure_hits_are_worth_less() -> None:
    assert best([view("a", hit_tokens=1500), view("b", hit_tokens=1900, confidence=0.5)]) == "a"


def test_a_faster_replica_takes_what_none_holds() -> None:
    assert best([view("a"), view("b", prefill_tps=4000.0)]) == "b"


def test_waiting_for_a_slot_counts() -> None:
    full = view("a", slots=2, in_flight=2, queued_out=400)
    assert best([full, view("b", slots=2, in_flight=1, queued_out=400)]) == "b"


def test_work_that_should_be_through_is_nearly_forgotten() -> None:
    late = view("a", in_flight=1, queued_tokens=9000, busy_s=8.9, hit_tokens=1000)
    assert best([late, view("b", in_flight=1, queued_tokens=9000, hit_tokens=1000)]) == "a"
    overdue = view("a", in_flight=1, queued_tokens=9000, busy_s=1e6)
    assert seconds(wanted(), overdue, 0.0) > seconds(wanted(), view("b"), 0.0), "it is still not done"


def test_a_saved_state_makes_replicas_that_can_restore_it_cheap() -> None:
    call = wanted(state_tokens=1900, restore_s=0.05)
    assert best([view("a"), view("b", kind="owned", confidence=0.9)], call) == "b"
    assert prefill_seconds(call, view("b", kind="owned")) == pytest.approx(0.15)
    assert prefill_seconds(call, view("b", kind="events")) == pytest.approx(2.0)


def test_pinned_prefixes_are_spared() -> None:
    assert best([view("a", evict_tokens=3000), view("b")]) == "b"


def test_where_states_are_shared_the_one_that_has_worked_least_takes_what_is_equal() -> None:
    call = wanted(shared=True, state_tokens=1900, affinity="book")
    views = [view(name, kind="owned", work_tokens=5000.0) for name in "abc"]
    for least in range(3):
        rested = [replace(v, replica=replace(v.replica, work_tokens=100.0)) if i == least else v
                  for i, v in enumerate(views)]  # fmt: skip
        assert best(rested, call) == "abc"[least]
    holds = [view("a", kind="owned", hit_tokens=1900, work_tokens=1.0), view("b", kind="owned", evict_tokens=9000)]
    assert best(holds, call) == "b", "what is in a slot is overwritten by the state, so it is worth nothing"
    queued = view("b", kind="owned", in_flight=1, queued_tokens=4000, queued_out=50)
    assert best([holds[0], queued], call) == "a", "it is still the seconds that count first"


def test_when_many_calls_wait_computing_twice_is_dearer_than_waiting() -> None:
    quiet = [view("a", hit_tokens=1900, in_flight=1, queued_tokens=2900, queued_out=50), view("b")]
    busy = [view("a", slots=8, hit_tokens=1900, in_flight=3, queued_tokens=4900, queued_out=150)]
    busy += [view("b", slots=8, in_flight=3, queued_tokens=2000, queued_out=150)]
    assert (best(quiet), best(busy)) == ("b", "a"), "a second of computing is a second that others wait"


def test_quiet_replicas_share_documents_by_rendezvous_hashing() -> None:
    views = [view(name) for name in "abc"]
    homes = [best(views, wanted(affinity=f"book {i}")) for i in range(60)]
    assert min(homes.count(name) for name in "abc") > 8
    assert homes == [best(views[::-1], wanted(affinity=f"book {i}")) for i in range(60)], "in whatever order they come"
    left = [best(views[:2], wanted(affinity=f"book {i}")) for i in range(60)]
    assert all(now == before for now, before in zip(left, homes, strict=True) if before != "c")


VIEWS = st.lists(
    st.builds(
        View,
        st.builds(
            Replica,
            st.uuids().map(str),
            st.just("1"),
            st.sampled_from(KINDS),
            st.integers(0, 8),
            st.floats(0.0, 1e5),
            st.floats(0.0, 1e3),
            st.floats(0.0, 1.0),
        ),
        hit_tokens=st.integers(0, 4000),
        in_flight=st.integers(0, 20),
        queued_tokens=st.integers(0, 100_000),
        queued_out=st.integers(0, 5000),
        busy_s=st.floats(0.0, 1e4),
        evict_tokens=st.integers(0, 10_000),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(VIEWS, st.integers(0, 5000), st.integers(0, 4000))
def test_never_anything_outside_the_list_and_never_much_dearer_than_the_least(
    views: list[View], n_prompt: int, state_tokens: int
) -> None:
    call = wanted(n_prompt, state_tokens=state_tokens, restore_s=0.1)
    picked = choose(call, views)
    if not views:
        assert picked is None
        return
    assert picked is not None
    crowd = min(4.0, sum(each.in_flight for each in views) / len(views))
    costs = [seconds(call, each, crowd) for each in views]
    assert costs[picked.place] == picked.seconds
    assert picked.seconds <= min(costs) * 1.1 + 1e-9


# the same in Lua


def test_a_home_that_holds_much_more_than_the_others_is_passed_over() -> None:
    call = wanted()
    homes = [view("a"), view("b")]
    home = best(homes, call)
    other = "b" if home == "a" else "a"
    full = [view(name, occupied_tokens=50_000 if name == home else 10_000) for name in ("a", "b")]
    assert best(full, call) == other
    even = [view(name, occupied_tokens=50_000) for name in ("a", "b")]
    assert best(even, call) == home


def test_pushing_out_what_may_be_wanted_again_is_dearer_than_room() -> None:
    views = [view("a", evict_tokens=EVICTED_SHARE * 4_000), view("b")]
    assert best(views) == "b"


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Replica], list[tuple[Any, ...]], Wanted]:
    """Replicas, what is told of them, and a call."""
    replicas = [
        Replica(
            f"r{i}",
            "1",
            draw(st.sampled_from(KINDS)),
            draw(st.integers(1, 4)),
            draw(st.sampled_from([0.0, 133.7, 1000.0, 5000.0])),
            draw(st.sampled_from([0.0, 20.0, 51.3])),
            draw(st.sampled_from([0.0, 0.35, 0.9, 1.0])),
            draw(st.sampled_from([0, 640, 64 * 30])),
            draw(st.sampled_from([0.0, 0.3, 7.1])),
            draw(st.sampled_from([0.0, 10.5, 4000.0])),
        )
        for i in range(draw(st.integers(1, 4)))
    ]
    books, on = st.sampled_from("ab"), st.integers(0, len(replicas) - 1)
    told = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("held"), on, books, st.integers(1, 20)),
                st.tuples(st.just("dropped"), on, books, st.integers(1, 20)),
                st.tuples(st.just("call"), on, books, st.integers(0, 20)),
                st.tuples(st.just("seat"), on, books, st.integers(1, 20)),
                st.tuples(st.just("pin"), on, books, st.integers(1, 20)),
                st.tuples(st.just("later"), on, books, st.integers(1, 20)),
            ),
            max_size=25,
        )
    )
    hashes = chain(draw(books), draw(st.integers(0, 20)))
    tokens = [BLOCK * (i + 1) for i in range(len(hashes))]
    unaligned = draw(st.booleans())
    if tokens and unaligned:
        tokens[-1] -= 13
    call = Wanted(
        "wanted",
        hashes,
        tuple(tokens),
        (tokens[-1] if tokens else 0) + draw(st.integers(0, 300)),
        draw(st.integers(0, 100)),
        state_tokens=draw(st.sampled_from([0, 128, 512])),
        restore_s=draw(st.sampled_from([0.0, 0.03, 2.0])),
        affinity=draw(st.sampled_from(["", "book"])),
        shared=draw(st.booleans()),
    )
    return replicas, told, call


def chain(name: str, n: int) -> tuple[bytes, ...]:
    hashes: list[bytes] = []
    for i in range(n):
        before = hashes[-1] if hashes else b""
        hashes.append(blake2b(before + f"{name}{i}".encode(), digest_size=16).digest())
    return tuple(hashes)


class Told:
    """What the index was told, kept as a set for each replica: the linear scan that a hit has to equal."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.held: list[set[bytes]] = [set() for _ in replicas]
        self.flying: list[list[tuple[bytes, ...]]] = [[] for _ in replicas]
        self.exact = [replica.kind == "events" for replica in replicas]

    def hit(self, place: int, call: Wanted) -> int:
        held = 0
        while held < len(call.hashes) and call.hashes[held] in self.held[place]:
            held += 1
        for other in self.flying[place]:
            shared = 0
            while shared < min(len(other), len(call.hashes)) and other[shared] == call.hashes[shared]:
                shared += 1
            held = max(held, shared)
        return call.tokens[held - 1] if held else 0


async def _tell(index: RedisIndex, replicas: Sequence[Replica], told: Sequence[tuple[Any, ...]], clock: Any) -> Told:
    model = Told(replicas)
    for number, (what, place, book, n) in enumerate(told):
        replica, hashes = replicas[place], chain(book, n)
        if what == "held":
            await index.held(replica, hashes)
            model.held[place].update(hashes)
        elif what == "dropped":
            await index.dropped(replica, chain(book, 20)[n - 1 :])
            model.held[place].difference_update(chain(book, 20)[n - 1 :])
        elif what == "call":
            tokens = tuple(BLOCK * (i + 1) for i in range(n))
            await index.reserve(Wanted(f"x{number}", hashes, tokens, BLOCK * n + 20, 30), [replica])
            model.flying[place].append(hashes)
        elif what == "seat":
            slot = await index.seat(f"x{number}", replica, hashes[-1])
            if slot is not None and number % 2:
                await index.unseat(f"x{number}", replica, slot, hashes[-1])
        elif what == "pin":
            await index.pin({hashes[-1]: BLOCK * n}, until=clock() + 1000.0)
        else:
            clock.now += n / 4
    return model


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@settings(max_examples=60, deadline=None)
@given(situations())
def test_the_script_sees_what_a_linear_scan_sees_and_chooses_as_the_policy_does(
    situation: tuple[list[Replica], list[tuple[Any, ...]], Wanted],
) -> None:
    asyncio.run(_script_and_policy_agree(*situation))


async def _script_and_policy_agree(replicas: list[Replica], told: list[tuple[Any, ...]], call: Wanted) -> None:
    clock = Clock()
    index = RedisIndex(None, clock=clock)
    model = await _tell(index, replicas, told, clock)
    await index.reserve(replace(call, request="first"), replicas)
    for replica in replicas:
        await index.release("first", replica)
    keys = ["coa:{index}:1:boot", "coa:{index}:1:pins", "coa:{index}:1:pinned"]
    for replica in replicas:
        keys += [f"coa:{{index}}:1:{kind}:{replica.id}:1" for kind in ("ix", "fw", "sl", "ch")]
    answer = await index._mirror.run(index_scripts.RESERVE, keys, index._asked_for(call, replicas, clock.now))
    await index.close()
    views, costs = [], []
    for replica, row in zip(replicas, answer[6:], strict=True):
        cost, hit, calls, queued, out, busy, evict, occupied = row.split()
        costs.append(float(cost))
        views.append(
            View(replica, int(hit), int(calls), int(queued), int(out), float(busy), float(evict), int(occupied))
        )
    assert [each.hit_tokens for i, each in enumerate(views) if model.exact[i]] == [
        model.hit(i, call) for i in range(len(replicas)) if model.exact[i]
    ]
    crowd = min(4.0, sum(each.in_flight for each in views) / len(views))
    assert costs == [seconds(call, each, crowd) for each in views]
    picked = choose(call, views)
    assert picked is not None
    assert (int(answer[1]) - 1, float(answer[3])) == picked
    assert sorted(ranks(call, replicas)) == list(range(len(replicas)))
