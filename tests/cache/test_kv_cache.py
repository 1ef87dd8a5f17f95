"""The prefix cache's part in a call, over an engine that keeps slots and states in memory."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coa.cache import kv_cache, waiting
from coa.cache.blocks import root_hash
from coa.cache.index import Replica
from coa.cache.states import Manifest, StateKey
from coa.llm.call_labels import labels
from coa.reading import Prompt
from coa.testing.memory_cache import InMemoryStates
from tests.cache.kv_world import DECODING, PROMPT, world


async def test_a_chunk_is_computed_once_and_restored_after(tmp_path: Path) -> None:
    w = world(tmp_path)
    (first, prefilled), (second, again) = await w.call(), await w.call()
    n = first.cached_tokens
    assert n % 64 == 0
    assert n > 0
    assert prefilled == n  # reported as cached, though it was computed for this call
    assert (second.cached_tokens, again) == (n, 0)
    assert w.engines["a"].computed == first.prompt_tokens + second.prompt_tokens - n


async def test_another_process_finds_what_the_first_one_saved(tmp_path: Path) -> None:
    w = world(tmp_path)
    await w.call()
    other = world(tmp_path)
    other.states.manifests = w.states.manifests
    measured, prefilled = await other.call()
    assert prefilled == 0
    assert measured.cached_tokens > 0
    assert other.engines["a"].computed == measured.prompt_tokens - measured.cached_tokens


async def test_the_slot_holds_exactly_the_aligned_prefix_before_each_call(tmp_path: Path) -> None:
    """What stands behind it, of another question, would move the borders of computed batches."""
    w = world(tmp_path)
    await w.call()
    reservation = w.cache.reserve("m", PROMPT, DECODING)
    assert reservation is not None
    await reservation.seat("a")
    await reservation.prepare("a")
    assert len(w.engines["a"].slots[0]) % 64 == 0
    await reservation.done(None)


async def test_a_prompt_without_a_prefix_takes_a_slot_and_reuses_nothing(tmp_path: Path) -> None:
    w = world(tmp_path)
    await w.call()
    measured, prefilled = await w.call(Prompt(tail="Write the answer."))
    assert (measured.cached_tokens, prefilled) == (0, 0)


async def test_calls_to_one_slot_take_turns(tmp_path: Path) -> None:
    w = world(tmp_path)
    inside = 0

    async def one() -> None:
        nonlocal inside
        reservation = w.cache.reserve("m", PROMPT, DECODING)
        assert reservation is not None
        await reservation.seat("a")
        inside += 1
        assert inside == 1
        await reservation.prepare("a")
        await asyncio.sleep(0.001)
        inside -= 1
        await reservation.done(None)

    await asyncio.gather(*(one() for _ in range(8)))
    assert not w.index.seats


async def test_a_call_that_is_cancelled_while_it_waits_leaves_no_seat_behind(tmp_path: Path) -> None:
    w = world(tmp_path)
    first, second = (w.cache.reserve("m", PROMPT, DECODING) for _ in range(2))
    assert first is not None
    assert second is not None
    await first.seat("a")
    waiting = asyncio.create_task(second.seat("a"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await second.done(None)
    await first.done(None)
    assert not w.index.seats
    await asyncio.wait_for(w.call(), 1)


@pytest.mark.parametrize("broken", ["open", "epoch", "prefix_tokens", "prefill", "save", "restore"])
async def test_whatever_an_engine_does_not_do_the_call_goes_on(tmp_path: Path, broken: str) -> None:
    w = world(tmp_path)
    await w.call()
    if broken == "prefill":
        w.states.manifests.clear()
    w.engines["a"].broken = {broken}
    measured, prefilled = await w.call(PROMPT if broken != "prefix_tokens" else Prompt(prefix="new " * 50, tail="Say."))
    assert measured.prompt_tokens > 0
    if broken == "restore":  # computed again; an engine in trouble says nothing of the state
        assert prefilled == measured.cached_tokens > 0
        assert not w.states.discarded
    if broken == "prefill":
        assert measured.cached_tokens == 0  # never on top of what the slot happens to hold
    assert not w.index.seats


async def test_a_state_that_the_engine_does_not_take_is_thrown_away_and_made_again(tmp_path: Path) -> None:
    w = world(tmp_path)
    await w.call()
    (manifest,) = w.states.manifests.values()
    (tmp_path / manifest.file).write_bytes(b"of another make")
    measured, prefilled = await w.call()
    assert prefilled == measured.cached_tokens > 0
    assert len(w.states.discarded) == 1
    assert (await w.call())[1] == 0


async def test_an_engine_that_cannot_be_asked_is_left_alone_and_asked_again_later(tmp_path: Path) -> None:
    w = world(tmp_path)
    w.engines["a"].broken = {"open"}
    now = 0.0
    engine = w.cache.engines["a"]
    engine._clock = lambda: now
    measured, _ = await w.call()
    assert measured.cached_tokens == 0
    w.engines["a"].broken = set()
    assert (await w.call())[1] == 0
    now = 100.0
    assert (await w.call())[1] > 0


async def test_an_index_that_fails_costs_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    w = world(tmp_path, "a", "b")

    async def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no index")

    w.index.reserve = w.index.held = fails  # type: ignore[method-assign]
    reservation = w.cache.reserve("m", PROMPT, DECODING)
    assert reservation is not None
    assert await reservation.choose(["a", "b"]) is None
    await reservation.done(None)
    assert (await w.call())[0].prompt_tokens > 0


async def test_of_two_replicas_the_one_that_has_the_prefix_is_chosen(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b", saves=False)
    await w.call(deployment="b")
    for _ in range(3):
        reservation = w.cache.reserve("m", PROMPT, DECODING)
        assert reservation is not None
        assert await reservation.choose(["a", "b"]) == "b"
        await reservation.done(None)
    assert not any(w.index.booked.values())


async def test_a_calls_booking_and_its_slot_are_renewed_until_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "_RENEW_S", 0.0)
    w = world(tmp_path, "a", "b")
    renewed: list[tuple[str, str, int | None]] = []

    async def renew(request: str, replica: Replica, slot: int | None = None) -> None:
        renewed.append((request, replica.id, slot))

    w.index.renew = renew  # type: ignore[method-assign]
    booking = w.cache.reserve("m", PROMPT, DECODING)
    assert booking is not None
    assert await booking.choose(["a", "b"]) == "a"
    await booking.seat("a")
    await asyncio.sleep(0.01)
    assert set(renewed) == {(booking.id, "a", 0)}
    await booking.done(None)
    await asyncio.sleep(0.01)
    renewed.clear()
    await asyncio.sleep(0.01)
    assert not renewed


async def test_a_fallback_moves_the_seat_to_the_other_deployment(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b")
    reservation = w.cache.reserve("m", PROMPT, DECODING)
    assert reservation is not None
    await reservation.choose(["a", "b"])
    await reservation.seat("a")
    await reservation.prepare("a")
    await reservation.seat("b")
    prepared = await reservation.prepare("b")
    assert {replica for replica, _ in w.index.seats} == {"b"}
    measured = w.engines["b"].call(PROMPT, dict(prepared.body))
    assert measured.cached_tokens > 0
    await reservation.done(measured)
    assert not w.index.seats
    assert not any(w.index.booked.values())


ENGINES = pytest.mark.parametrize(
    "engine",
    [{"saves": True}, {"saves": False}, {"kind": "events", "saves": False}, {"kind": "approx", "saves": False}],
    ids=["states", "slots", "events", "approx"],
)


@ENGINES
async def test_tokens_computed_ahead_are_borne_by_the_call_that_uses_them_and_by_no_other(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    w = world(tmp_path, **engine)
    computed = await w.cache.prefill("m", PROMPT)
    assert computed
    assert not engine["saves"] or await w.cache.prefill("m", PROMPT) == 0
    assert (await w.call())[1] == computed
    assert (await w.call())[1] == 0
    await w.stats.flush()
    total = w.stats.totals().total
    assert total.ahead_tokens == computed
    assert total.computed_tokens == w.engines["a"].computed


@ENGINES
async def test_what_was_computed_ahead_is_borne_by_the_retry_of_a_call_that_failed(
    tmp_path: Path, engine: dict[str, Any]
) -> None:
    w = world(tmp_path, **engine)
    computed = await w.cache.prefill("m", PROMPT)
    failing = w.cache.reserve("m", PROMPT, DECODING)
    assert failing is not None
    await failing.seat("a")
    assert (await failing.prepare("a")).prefilled_tokens == computed
    assert (await failing.prepare("a")).prefilled_tokens == computed, "sent to the same one again"
    await failing.done(None)
    assert (await w.call())[1] == computed
    assert (await w.call())[1] == 0


async def test_what_was_computed_ahead_moves_with_a_call_to_where_its_state_is_restored(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b")
    computed = await w.cache.prefill("m", PROMPT)
    booking = w.cache.reserve("m", PROMPT, DECODING)
    assert booking is not None
    for name in "ab":
        await booking.seat(name)
        assert (await booking.prepare(name)).prefilled_tokens == computed
    await booking.done(w.engines["b"].call(PROMPT, {"id_slot": 0, "cache_prompt": True}))
    assert (await w.call())[1] == 0


async def test_of_what_was_computed_ahead_a_call_bears_no_more_than_it_found(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b", kind="events", saves=False)
    computed = await w.cache.prefill("m", PROMPT)
    assert computed
    assert (await w.call(deployment="b"))[1] == 0, "it was computed elsewhere"
    held = w.engines["a"].slots.pop(0)
    for found in ([], held[:100], held):
        w.engines["a"].slots[0] = list(found)
        measured, prefilled = await w.call()
        assert measured.cached_tokens == len(found)
        assert prefilled == (computed if len(found) < computed else computed - 100)
    assert (await w.call())[1] == 0
    await w.stats.flush()
    assert w.stats.totals().total.computed_tokens == sum(engine.computed for engine in w.engines.values())


async def test_what_was_computed_ahead_and_is_never_asked_for_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "_CHARGES", 3)
    w = world(tmp_path, kind="events", saves=False)
    prompts = [Prompt(prefix=f"chunk {n} " * 20, tail="Write notes.") for n in range(6)]
    for prompt in prompts:
        assert await w.cache.prefill("m", prompt)
    assert len(w.cache._ahead) == 3
    assert (await w.call(prompts[0]))[1] == 0
    assert (await w.call(prompts[5]))[1] > 0


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
async def test_work_ahead_waits_for_prompts_and_not_for_replies(tmp_path: Path, names: tuple[str, ...]) -> None:
    w = world(tmp_path, *names, n_slots=2)
    await w.call()
    engine = w.cache.engines["a"]
    assert w.cache.has_rest("m")
    for prefill_tps, writes in ((1.0, False), (1e9, True)):
        engine.replica = replace(engine.replica, prefill_tps=prefill_tps)
        booking = w.cache.reserve("m", PROMPT, DECODING)
        assert booking is not None
        await booking.seat("a")
        assert not w.cache.has_rest("m"), "its prompt is still to come"
        await booking.prepare("a")
        assert w.cache.has_rest("m") is writes
        await booking.done(None)
        assert w.cache.has_rest("m")


async def test_two_that_want_the_same_chunk_at_once_compute_it_once(tmp_path: Path) -> None:
    w = world(tmp_path, n_slots=2)
    calls = await asyncio.gather(w.call(), w.call())
    assert sorted(prefilled > 0 for _, prefilled in calls) == [False, True]


async def test_what_another_finished_between_looking_and_taking_the_turn_is_not_computed_again(tmp_path: Path) -> None:
    w, other = world(tmp_path), world(tmp_path)
    other.states.manifests = w.states.manifests
    find = w.states.find

    async def find_too_early(key: StateKey) -> Manifest | None:
        found = await find(key)
        if not w.states.manifests:
            await other.call()  # has been through before the turn is asked for
        return found

    w.states.find = find_too_early  # type: ignore[method-assign]
    measured, prefilled = await w.call()
    assert prefilled == 0
    assert w.engines["a"].computed == measured.prompt_tokens - measured.cached_tokens


async def test_a_state_knows_its_chunk_and_ranges_of_a_long_document_have_homes_of_their_own(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b")
    engine = w.cache.engines["a"]
    with labels(document="sha", chunk="5"):
        await w.call()
        booking = w.cache.reserve("m", PROMPT, DECODING)
        assert booking is not None
        assert (await booking._described([engine])).affinity == "sha"
        engine.replica = replace(engine.replica, capacity_tokens=4 * len(PROMPT.prefix))
        assert (await booking._described([engine])).affinity == "sha:1"  # three chunks a replica
    (manifest,) = w.states.manifests.values()
    assert (manifest.origin.document, manifest.origin.chunk) == ("sha", 5)


async def test_a_state_that_another_call_computes_counts_as_saved_where_all_can_restore_it(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b")
    engines = list(w.cache.engines.values())
    first, second, third = (w.cache.reserve("m", PROMPT, DECODING) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert await first.choose(["a", "b"])
    assert (await first._described(engines)).state_tokens == 0
    told = await second._described(engines)
    assert told.shared
    assert told.state_tokens > 0
    await first.seat("a")
    await first.done(None)  # it failed
    assert (await third._described(engines)).state_tokens == 0
    await third.seat("a")
    await third.prepare("a")
    await third.done(None)
    assert (await second._described(engines)).state_tokens > 0
    assert not w.cache.coming


async def test_states_are_shared_only_by_engines_of_one_kind_and_folder(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b")
    a, b = w.cache.engines.values()
    assert await a.ready()
    assert await b.ready()
    assert w.cache.share([a, b])
    w.engines["b"].saves = False
    assert not w.cache.share([a, b])
    w.engines["b"].saves = True
    b._root = root_hash("other weights")
    assert not w.cache.share([a, b])
    b._root = a.identity
    w.cache.stores = {"a": w.states, "b": InMemoryStates(tmp_path)}
    assert not w.cache.share([a, b])
    assert w.cache.share([b])


async def test_a_restart_is_noticed_after_a_failed_call(tmp_path: Path) -> None:
    w = world(tmp_path, saves=False)
    await w.call()
    engine = w.cache.engines["a"]
    before = engine.replica.epoch
    w.engines["a"].started = "second"
    reservation = w.cache.reserve("m", PROMPT, DECODING)
    assert reservation is not None
    await reservation.seat("a")
    await reservation.done(None)
    await asyncio.gather(*w.cache._background)
    assert engine.replica.epoch != before
    assert ("a", before) not in w.index.held_by


async def test_why_a_call_missed_is_logged_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "coa.cache")
    w = world(tmp_path)
    await w.call()
    assert "it was never read before" in caplog.text
    await w.stats.flush()
    assert dict(w.stats.totals().top("missed"))
    caplog.clear()
    await w.call()
    assert not caplog.text
    await w.cache.close()


async def test_a_call_that_waits_takes_the_replica_that_is_free_first(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b", n_slots=1, saves=False)
    await w.call(deployment="a")
    first, second, third = (w.cache.reserve("m", PROMPT, DECODING) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    await first.seat("a")
    await second.seat("b")
    waiting = asyncio.create_task(third.choose(["a", "b"]))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "the one that has its prefix is taken, and so is the other"
    await w.index.dropped(w.cache.engines["a"].replica, None)
    prepared = await second.prepare("b")
    await second.done(w.engines["b"].call(PROMPT, dict(prepared.body)))
    assert await asyncio.wait_for(waiting, 0.5) == "b"
    await third.seat("b")
    await first.done(None)
    await third.done(None)
    assert not w.index.seats
    assert not any(w.index.booked.values())


async def test_a_call_that_is_cancelled_while_it_chooses_leaves_nothing_behind(tmp_path: Path) -> None:
    w = world(tmp_path, "a", "b", n_slots=1)
    first, second, third = (w.cache.reserve("m", PROMPT, DECODING) for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    await first.choose(["a", "b"])
    await second.choose(["a", "b"])
    waiting = asyncio.create_task(third.choose(["a", "b"]))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    for booking in (first, second, third):
        await booking.done(None)
    assert not any(w.index.booked.values())
    assert await asyncio.wait_for(w.call(deployment="a"), 1)
    assert await asyncio.wait_for(w.call(deployment="b"), 1)


@pytest.mark.parametrize("saves", [True, False])
async def test_work_ahead_at_a_host_that_is_gone_gives_its_seat_back_and_goes_elsewhere(
    tmp_path: Path, saves: bool
) -> None:
    w = world(tmp_path, "a", "b", saves=saves, timeout_s=0.05)
    w.engines["a"].hangs = True
    assert await asyncio.wait_for(w.cache.prefill("m", PROMPT), 2) is None
    assert not w.index.seats
    assert not any(w.index.booked.values())
    assert not w.cache._active
    assert await asyncio.wait_for(w.cache.prefill("m", PROMPT), 2) == w.engines["b"].computed > 0
    w.engines["b"].hangs = True
    other = Prompt(prefix="another chunk " * 20, tail="Write notes.")
    assert await asyncio.wait_for(w.cache.prefill("m", other), 2) is None
    assert not w.cache.has_rest("m"), "there is nobody to do it"


async def test_a_time_limit_of_work_ahead_is_that_of_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []
    timeout = asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        asked.append(seconds)
        return timeout(seconds)

    monkeypatch.setattr(asyncio, "timeout", noted)
    await world(tmp_path).cache.prefill("m", PROMPT)
    assert len(asked) == 1
    assert asked[0] is not None
    assert 60.0 < asked[0] < 120.0  # a minute, and the prompt at 20 tokens a second


@pytest.mark.parametrize("hold_s", [0.0, 1000.0])
async def test_a_call_waits_for_the_replica_with_its_prefix_unless_that_seems_to_be_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold_s: float
) -> None:
    monkeypatch.setattr(waiting, "_LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(kv_cache, "_STUCK_S", 0.3)
    w = world(tmp_path, "a", "b", saves=False)
    await w.call(deployment="b")
    engine = w.cache.engines["b"]
    engine.replica = replace(engine.replica, hold_s=hold_s)
    first, second = (w.cache.reserve("m", PROMPT, DECODING) for _ in range(2))
    assert first is not None
    assert second is not None
    assert await first.choose(["a", "b"]) == "b"
    choosing = asyncio.create_task(second.choose(["a", "b"]))
    await asyncio.sleep(0.1)
    assert not choosing.done(), "the other one gives its seat back soon"
    if hold_s:
        await asyncio.sleep(0.4)
        assert not choosing.done(), "calls take that long here"
        await first.done(None)
        assert await asyncio.wait_for(choosing, 2) == "b"
    else:
        assert await asyncio.wait_for(choosing, 2) == "a"
        await first.done(None)
    await second.done(None)
    assert not any(w.index.booked.values())
