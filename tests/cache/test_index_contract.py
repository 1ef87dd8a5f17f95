"""What every prefix index does, over each Redis that there is."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest
import pytest_asyncio

from coa.cache.connection import connect
from coa.cache.index import Replica, Wanted
from coa.cache.redis_index import RedisIndex, open_index
from coa.cache.redis_links import RedisLink
from coa.testing.redis_process import RedisProcess, redis_servers

SERVERS = redis_servers()
KINDS = ["embedded", *(f"redis-{version}" for version in SERVERS)]
KINDS += ["fakeredis"] if importlib.util.find_spec("fakeredis") and importlib.util.find_spec("lupa") else []
Make = Callable[..., RedisIndex]

EVENTS = [Replica(f"e{i}", "1", "events", 4, 1000.0, 50.0, 1.0) for i in range(3)]
OWNED = [Replica(f"o{i}", "1", "owned", 2, 1000.0, 50.0, 0.9) for i in range(2)]


class Clock:
    """Seconds since some moment, as the test says."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, RedisProcess]]:
    started = {version: RedisProcess(program).start() for version, program in SERVERS.items()}
    yield started
    for process in started.values():
        process.__exit__(None, None, None)


@pytest_asyncio.fixture(params=KINDS)
async def make(request: pytest.FixtureRequest, running: dict[str, RedisProcess], clock: Clock) -> AsyncIterator[Make]:
    """Indexes that share what they are told; the embedded Redis of one process is one index."""
    made: list[RedisIndex] = []
    fake: list[Any] = []

    def index(**options: Any) -> RedisIndex:
        if request.param == "embedded":
            if not made or options:
                made.append(RedisIndex(None, clock=clock, **options))
            return made[-1]
        if request.param == "fakeredis":
            fakeredis: Any = importlib.import_module("fakeredis")
            fake.append(fake[0] if fake else fakeredis.FakeServer())
            client = fakeredis.FakeRedis(server=fake[0])
        else:
            client = connect(running[request.param.removeprefix("redis-")].url, timeout_s=5.0)
        if not made:
            client.flushall()
            client.set("coa:{index}:1:boot", "test")
        made.append(RedisIndex(RedisLink(client, budget_s=5.0), clock=clock, **options))
        return made[-1]

    yield index
    for each in made:
        await each.close()


def chain(name: str, n: int, after: Sequence[bytes] = ()) -> tuple[bytes, ...]:
    hashes = list(after)
    for i in range(n):
        hashes.append(blake2b((hashes[-1] if hashes else b"") + f"{name}{i}".encode(), digest_size=16).digest())
    return tuple(hashes)


def wanted(request: str, hashes: Sequence[bytes], **fields: Any) -> Wanted:
    tokens = tuple(64 * (i + 1) for i in range(len(hashes)))
    return Wanted(request, tuple(hashes), tokens, fields.pop("n_prompt", 64 * len(hashes) + 50), 20, **fields)


async def test_a_call_goes_where_its_prefix_is(make: Make) -> None:
    index, hashes = make(), chain("a", 20)
    await index.held(EVENTS[2], hashes[:15])
    await index.held(EVENTS[1], hashes[:3])
    choice = await index.reserve(wanted("q", hashes), EVENTS)
    assert choice is not None
    assert (choice.replica, choice.hit_tokens, choice.regret_tokens, choice.shared) == ("e2", 15 * 64, 0, True)
    assert choice.runner_up == "e1"


async def test_without_replicas_nobody_is_chosen_and_without_hashes_somebody_is(make: Make) -> None:
    index = make()
    assert await index.reserve(wanted("q", ()), []) is None
    choice = await index.reserve(wanted("q", (), n_prompt=10), EVENTS)
    assert choice is not None
    assert choice.hit_tokens == 0


async def test_another_epoch_is_never_read(make: Make) -> None:
    index, hashes = make(), chain("a", 20)
    await index.held(EVENTS[0], hashes)
    restarted = replace(EVENTS[0], epoch="2")
    choice = await index.reserve(wanted("q", hashes), [restarted, EVENTS[1]])
    assert choice is not None
    assert choice.hit_tokens == 0


async def test_an_unaligned_last_hash_says_that_all_is_there(make: Make) -> None:
    index, hashes = make(), chain("a", 9)
    await index.held(OWNED[0], hashes)
    tokens = (*(64 * (i + 1) for i in range(8)), 64 * 8 + 17)
    choice = await index.reserve(Wanted("q", hashes, tokens, 600, 20), OWNED)
    assert choice is not None
    assert choice.hit_tokens == 64 * 8 + 17
    await index.release("q", OWNED[0])
    await index.dropped(OWNED[0], hashes[-1:])
    choice = await index.reserve(Wanted("q", hashes, tokens, 600, 20), OWNED)
    assert choice is not None
    assert choice.hit_tokens == 64 * 8


async def test_a_hole_near_the_found_depth_is_seen(make: Make) -> None:
    index, hashes = make(), chain("a", 16)
    await index.held(EVENTS[0], hashes)
    await index.dropped(EVENTS[0], [hashes[9]])
    await index.held(EVENTS[0], [hashes[10]])
    await index.dropped(EVENTS[0], hashes[11:])
    choice = await index.reserve(wanted("q", hashes), EVENTS[:1])
    assert choice is not None
    assert choice.hit_tokens == 9 * 64


async def test_what_a_call_in_flight_computes_counts_as_there_until_it_ends(make: Make) -> None:
    index, hashes = make(), chain("a", 40)
    first = await index.reserve(wanted("one", hashes), EVENTS)
    assert first is not None
    assert first.hit_tokens == 0
    chosen = next(each for each in EVENTS if each.id == first.replica)
    sibling = chain("b", 20, after=hashes[:30])
    second = await index.reserve(wanted("two", sibling), [chosen])
    assert second is not None
    assert (second.hit_tokens, second.held_tokens) == (30 * 64, 0)
    await index.release("two", chosen)
    await index.release("one", chosen)
    third = await index.reserve(wanted("three", hashes), [chosen])
    assert third is not None
    assert third.hit_tokens == 0, "it failed, or said nothing of what it holds"


async def test_load_spreads_calls_and_leases_run_out(make: Make, clock: Clock) -> None:
    index = make(booking_lease_s=100.0)
    chosen = [await index.reserve(wanted(str(i), chain(str(i), 20)), EVENTS) for i in range(6)]
    assert sorted(c.replica for c in chosen if c is not None) == ["e0", "e0", "e1", "e1", "e2", "e2"]
    assert [(await index.contents(each)).in_flight for each in EVENTS] == [2, 2, 2]
    clock.now += 101.0
    assert [(await index.contents(each)).in_flight for each in EVENTS] == [0, 0, 0]
    again = await index.reserve(wanted("later", chain("later", 20)), EVENTS)
    assert again is not None
    assert again.seconds == pytest.approx((20 * 64 + 50) / 1000.0), "nothing is before it"


async def test_load_weighs_tokens_not_calls(make: Make) -> None:
    index = make()
    await index.reserve(wanted("long", chain("long", 100)), EVENTS[:1])
    for i in range(3):
        await index.reserve(wanted(f"short{i}", chain(f"short{i}", 2)), EVENTS[1:2])
    choice = await index.reserve(wanted("q", chain("q", 20)), EVENTS[:2])
    assert choice is not None
    assert choice.replica == "e1"


async def test_a_long_queue_outweighs_a_prefix(make: Make) -> None:
    index, hashes = make(), chain("a", 10)
    await index.held(EVENTS[0], hashes)
    for i in range(8):
        await index.reserve(wanted(f"x{i}", chain(f"x{i}", 100)), EVENTS[:1])
    choice = await index.reserve(wanted("q", hashes), EVENTS)
    assert choice is not None
    assert choice.replica != "e0"
    assert choice.regret_tokens == 640


async def test_entries_expire(make: Make, clock: Clock) -> None:
    approx = replace(EVENTS[0], kind="approx")
    index, hashes = make(), chain("a", 10)
    await index.held(approx, hashes)
    clock.now += 1_801.0
    choice = await index.reserve(wanted("q", hashes), [approx])
    assert choice is not None
    assert choice.hit_tokens == 0


async def test_what_exceeds_the_capacity_is_taken_for_evicted_tails_first(make: Make, clock: Clock) -> None:
    small = replace(EVENTS[0], kind="approx", capacity_tokens=25 * 64)
    index, first, second = make(), chain("a", 20), chain("b", 20)
    await index.held(small, first)
    clock.now += 1.0
    await index.held(small, second)
    assert (await index.contents(small)).blocks == 25
    hits = [await index.reserve(wanted("q", each), [small]) for each in (second, first)]
    assert [hit.hit_tokens for hit in hits if hit is not None] == [20 * 64, 5 * 64]


async def test_an_engine_that_tells_is_believed_beyond_its_capacity(make: Make) -> None:
    telling = replace(EVENTS[0], capacity_tokens=64)
    index = make()
    await index.held(telling, chain("a", 20))
    assert (await index.contents(telling)).blocks == 20


async def test_dropping_everything_leaves_leases_of_slots(make: Make) -> None:
    index, hashes = make(), chain("a", 4)
    slot = await index.seat("q", OWNED[0], hashes[-1])
    assert slot == 0
    await index.held(OWNED[0], hashes)
    await index.dropped(OWNED[0], None)
    assert (await index.contents(OWNED[0])).blocks == 0
    assert await index.seat("other", OWNED[0], hashes[-1]) == 1, "slot 0 is still in use"


# slots


async def test_slots_are_leased_to_one_request_each(make: Make, clock: Clock) -> None:
    index = make()
    assert [await index.seat(name, OWNED[0]) for name in ("a", "b", "c")] == [0, 1, None]
    assert await index.seat("b", OWNED[0]) == 1, "renewed"
    await index.unseat("a", OWNED[0], 0)
    assert await index.seat("c", OWNED[0]) == 0
    await index.unseat("a", OWNED[0], 0)
    assert await index.seat("d", OWNED[0]) is None, "what is somebody else's by now is not given back"
    clock.now += 15.0
    assert await index.seat("b", OWNED[0]) == 1
    clock.now += 8.0
    assert await index.seat("d", OWNED[0]) == 0, "the lease of c ran out, b's was renewed"
    assert await index.seat("e", OWNED[0]) is None


async def test_the_slot_that_holds_the_prefix_is_preferred_and_may_be_waited_for(make: Make, clock: Clock) -> None:
    index, a, b, c = make(), chain("a", 4), chain("b", 4), chain("c", 4)
    for name, held in (("a", a), ("b", b)):
        slot = await index.seat(name, OWNED[0], held[-1])
        await index.held(OWNED[0], held)
        assert slot is not None
        clock.now += 1.0
        await index.unseat(name, OWNED[0], slot, held[-1])
    assert await index.seat("q", OWNED[0], b[-1]) == 1
    assert await index.seat("r", OWNED[0], b[-1], patient=True) is None, "slot 0 is free, but does not hold it"
    assert await index.seat("s", OWNED[0], c[-1]) == 0
    found = await index.reserve(wanted("t", a), OWNED[:1])
    assert found is not None
    assert found.hit_tokens == 0, "slot 0 holds something else by now"
    found = await index.reserve(wanted("u", b), OWNED[:1])
    assert found is not None
    assert found.hit_tokens == 4 * 64


async def test_a_slot_that_is_given_away_keeps_what_other_slots_share_with_it(make: Make) -> None:
    index, system = make(), chain("system", 2)
    a, b = chain("a", 4, after=system), chain("b", 4, after=system)
    for name, held in (("a", a), ("b", b)):
        slot = await index.seat(name, OWNED[0], held[-1])
        await index.held(OWNED[0], held)
        assert slot is not None
        await index.unseat(name, OWNED[0], slot, held[-1])
    await index.seat("q", OWNED[0], chain("c", 1)[-1])
    found = await index.reserve(wanted("q", a), OWNED[:1])
    assert found is not None
    assert found.hit_tokens == 2 * 64


async def test_what_is_renewed_does_not_run_out_and_what_was_given_back_is_not_taken_again(
    make: Make, clock: Clock
) -> None:
    index, replica, one = make(booking_lease_s=100.0), OWNED[0], chain("one", 3)
    assert await index.reserve(wanted("one", one), [replica])
    assert await index.seat("one", replica, one[-1]) == 0
    assert await index.reserve(wanted("two", chain("two", 3)), [replica])
    assert await index.seat("two", replica) == 1
    for _ in range(4):
        clock.now += 40.0
        await index.renew("one", replica, 0)
    contents = await index.contents(replica)
    assert (contents.in_flight, contents.queued_tokens) == (1, 3 * 64 + 50), "of the other one the time has run out"
    assert await index.seat("x", replica) == 1
    found = await index.reserve(wanted("same", one), [replica])
    assert found is not None
    assert found.hit_tokens == 3 * 64, "it is known still what the first one computes"
    await index.release("same", replica)
    assert await index.seat("z", replica) is None
    for request, slot in (("one", 0), ("x", 1)):
        await index.release(request, replica)
        await index.unseat(request, replica, slot)
        await index.renew(request, replica, slot)
    assert (await index.contents(replica)).in_flight == 0
    assert {await index.seat(request, replica) for request in "yz"} == {0, 1}


async def test_pinned_prefixes_stay_and_of_them_the_older(make: Make, clock: Clock) -> None:
    index = make()
    three = replace(OWNED[0], slots=3)
    held = [chain(name, 3) for name in "abc"]
    for i, hashes in enumerate(held):
        assert await index.seat(str(i), three, hashes[-1]) == i
        await index.held(three, hashes)
        clock.now += 1.0
        await index.unseat(str(i), three, i, hashes[-1])
    await index.pin({held[0][-1]: 192, held[1][-1]: 192}, until=clock.now + 100.0)
    assert await index.seat("x", three, chain("x", 1)[-1]) == 2, "the last used one, but nobody needs it"
    await index.unseat("x", three, 2, chain("x", 1)[-1])
    await index.pin({chain("x", 1)[-1]: 64}, until=clock.now + 100.0)
    assert await index.seat("y", three, chain("y", 1)[-1]) == 2, "of prefixes read in turns the last is needed last"
    await index.unseat("y", three, 2, None)
    await index.unpin([held[0][-1]])
    assert await index.seat("z", three, chain("z", 1)[-1]) == 2, "nothing is known of it"
    assert await index.seat("zz", three, chain("zz", 1)[-1]) == 0


async def test_pins_are_counted_and_run_out(make: Make, clock: Clock) -> None:
    index, a, b = make(), chain("a", 3), chain("b", 3)
    for i, hashes in enumerate((a, b)):
        assert await index.seat(str(i), OWNED[0], hashes[-1]) == i
        await index.held(OWNED[0], hashes)
        clock.now += 1.0
        await index.unseat(str(i), OWNED[0], i, hashes[-1])
    await index.pin({a[-1]: 192}, until=clock.now + 100.0)
    await index.pin({a[-1]: 192}, until=clock.now + 50.0)
    await index.unpin([a[-1]])
    assert await index.seat("x", OWNED[0], chain("x", 1)[-1]) == 1, "one of two still needs it"
    await index.unseat("x", OWNED[0], 1, chain("x", 1)[-1])
    clock.now += 101.0
    assert await index.seat("y", OWNED[0], chain("y", 1)[-1]) == 0


async def test_what_a_call_would_push_out_counts(make: Make, clock: Clock) -> None:
    index, kept = make(), chain("kept", 20)
    full, other = (replace(EVENTS[i], kind="approx", capacity_tokens=25 * 64) for i in range(2))
    await index.held(full, kept)
    await index.held(other, chain("z", 20))
    free = await index.reserve(wanted("q", chain("new", 20)), [full])
    await index.release("q", full)
    await index.pin({kept[-1]: 20 * 64}, until=clock.now + 100.0)
    dear = await index.reserve(wanted("q", chain("new", 20)), [full])
    await index.release("q", full)
    assert free is not None
    assert dear is not None
    assert dear.seconds > free.seconds + 0.7, "about 17 blocks would surely have to be computed again"
    choice = await index.reserve(wanted("q", chain("new", 20), affinity="x"), [full, other])
    assert choice is not None
    assert choice.replica == other.id


# several processes, and what came of it all


async def test_processes_see_each_others_prefixes_and_load(make: Make) -> None:
    one, other, hashes = make(), make(), chain("a", 20)
    if one is other:
        pytest.skip("an embedded Redis is one process's own")
    await one.held(EVENTS[1], hashes)
    assert (await one.reserve(wanted("w", chain("w", 90)), EVENTS[:1])) is not None
    assert await one.seat("w", OWNED[0]) == 0
    await one.flushed()
    choice = await other.reserve(wanted("q", hashes), EVENTS)
    assert choice is not None
    assert (choice.replica, choice.hit_tokens) == ("e1", 20 * 64)
    assert (await other.contents(EVENTS[0])).in_flight == 1
    assert await other.seat("x", OWNED[0]) == 1
    await one.remember("e0", {"prompt_s": "1.5"})
    await one.flushed()
    assert await other.recall("e0") == {"prompt_s": "1.5"}


async def test_what_was_predicted_and_was_not_there_is_dropped(make: Make) -> None:
    told: list[str] = []
    index, hashes = make(on_mismatch=told.append), chain("a", 10)
    await index.held(EVENTS[0], hashes)
    await index.scored(wanted("q", hashes), EVENTS[0], predicted=640, actual=256)
    choice = await index.reserve(wanted("q", hashes), EVENTS[:1])
    assert choice is not None
    assert choice.hit_tokens == 256
    for _ in range(2):
        await index.held(EVENTS[0], hashes)
        await index.scored(wanted("q", hashes), EVENTS[0], predicted=640, actual=0)
    assert told == []
    await index.held(EVENTS[0], chain("b", 5))
    await index.scored(wanted("q", hashes), EVENTS[0], predicted=640, actual=0)
    assert told == ["e0"]
    assert (await index.contents(EVENTS[0])).blocks == 0, "none of its predictions is worth anything"


async def test_a_hit_in_between_is_no_mismatch(make: Make) -> None:
    told: list[str] = []
    index, hashes = make(on_mismatch=told.append), chain("a", 10)
    for actual in (0, 0, 640, 0, 0, 300, 0, 0):
        await index.scored(wanted("q", hashes), EVENTS[0], predicted=640, actual=actual)
    assert told == []


@pytest.mark.parametrize("seed", range(4))
async def test_bookings_never_leak(make: Make, seed: int) -> None:
    """Calls of many kinds, at once, some given up in the middle: at the end nothing is in flight."""
    chosen, index = random.Random(seed), make()
    replicas = [*EVENTS, *OWNED]

    async def call(name: str) -> None:
        hashes = chain(chosen.choice("abc"), chosen.randrange(12))
        choice = await index.reserve(wanted(name, hashes), replicas)
        assert choice is not None
        replica = next(each for each in replicas if each.id == choice.replica)
        try:
            slot = await index.seat(name, replica, hashes[-1] if hashes else None)
            await asyncio.sleep(0)
            if slot is not None:
                await index.unseat(name, replica, slot, hashes[-1] if hashes else None)
        finally:
            await index.release(name, replica)

    tasks = [asyncio.create_task(call(f"q{i}")) for i in range(25)]
    await asyncio.sleep(0.001)
    for task in chosen.sample(tasks, 5):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await index.flushed()
    assert [(await index.contents(each)).in_flight for each in replicas] == [0] * 5


def test_an_index_serves_one_loop_after_another() -> None:
    index, hashes = RedisIndex(None), chain("a", 10)
    asyncio.run(index.held(EVENTS[0], hashes))
    choice = asyncio.run(index.reserve(wanted("q", hashes), EVENTS))
    assert choice is not None
    assert choice.hit_tokens == 640
    asyncio.run(index.close())


async def test_an_index_without_an_address_is_this_process_s_own() -> None:
    index = open_index(None)
    started = time.perf_counter()
    assert await index.reserve(wanted("q", chain("a", 10)), EVENTS) is not None
    assert time.perf_counter() - started < 3
    await index.close()
