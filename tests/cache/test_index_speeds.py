"""Learned speeds: what engines report, weighed; what is remembered over processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from coa.cache.index import Replica
from coa.cache.redis_index import RedisIndex
from coa.cache.speeds import Speeds
from coa.llm.prefixes import Measured

REPLICA = Replica("a", "1", "owned", 2, 1000.0, 50.0, 1.0)
OTHER = replace(REPLICA, id="b")


def test_speeds_are_tokens_computed_by_time() -> None:
    speeds = Speeds()
    speeds.observe(REPLICA, Measured(1000, 600, 20, prompt_s=2.0, completion_s=0.5), predicted=0)
    seen = speeds.view(REPLICA)
    assert (seen.prefill_tps, seen.decode_tps) == (200.0, 40.0)


def test_a_replica_that_was_not_measured_is_like_the_others() -> None:
    speeds = Speeds()
    assert speeds.view(OTHER).prefill_tps == 1000.0, "its own figure where nothing is known of any"
    speeds.observe(REPLICA, Measured(400, 0, 20, prompt_s=2.0, completion_s=0.5), predicted=0)
    assert (speeds.view(OTHER).prefill_tps, speeds.view(OTHER).decode_tps) == (200.0, 40.0)


def test_a_slow_call_counts_little_and_a_fast_one_more() -> None:
    speeds = Speeds()
    speeds.observe(REPLICA, Measured(1000, 0, 0, prompt_s=10.0), predicted=0)
    speeds.observe(REPLICA, Measured(1000, 0, 0, prompt_s=40.0), predicted=0)
    assert 90.0 < speeds.view(REPLICA).prefill_tps < 100.0, "something else was computed at the same time"
    before = speeds.view(REPLICA).prefill_tps
    speeds.observe(REPLICA, Measured(1000, 0, 0, prompt_s=2.0), predicted=0)
    assert 200.0 < speeds.view(REPLICA).prefill_tps < 250.0, "which may have been measured wrongly"
    for _ in range(10):
        speeds.observe(REPLICA, Measured(1000, 0, 0, prompt_s=2.0), predicted=0)
    assert speeds.view(REPLICA).prefill_tps == pytest.approx(500.0, rel=0.05)
    assert before < 100.0
    for _ in range(60):
        speeds.observe(REPLICA, Measured(1000, 0, 0, prompt_s=10.0), predicted=0)
    assert speeds.view(REPLICA).prefill_tps == pytest.approx(100.0, rel=0.02), "it has become slower"


def test_a_bad_first_call_does_not_set_a_replica_apart_but_many_do() -> None:
    speeds = Speeds()
    for _ in range(20):
        speeds.observe(REPLICA, Measured(1000, 0, 0, prompt_s=1.0), predicted=0)
    speeds.observe(OTHER, Measured(1000, 0, 0, prompt_s=5.0), predicted=0)
    assert speeds.view(OTHER).prefill_tps > 0.55 * speeds.view(REPLICA).prefill_tps
    for _ in range(60):
        speeds.observe(OTHER, Measured(1000, 0, 0, prompt_s=5.0), predicted=0)
    assert speeds.view(OTHER).prefill_tps < 0.35 * speeds.view(REPLICA).prefill_tps


def test_short_prompts_count_less() -> None:
    speeds = Speeds()
    speeds.observe(REPLICA, Measured(1000, 0, 0, prompt_s=10.0), predicted=0)
    speeds.observe(REPLICA, Measured(32, 0, 0, prompt_s=0.1), predicted=0)
    assert 102.0 < speeds.view(REPLICA).prefill_tps < 140.0


def test_how_long_slots_are_held_is_an_average_of_late_and_that_of_others_at_first() -> None:
    speeds = Speeds()
    for _ in range(30):
        speeds.observe(REPLICA, Measured(0, 0, 0), predicted=0, held_s=4.0)
    assert speeds.view(REPLICA).hold_s == pytest.approx(4.0)
    speeds.observe(REPLICA, Measured(0, 0, 0), predicted=0, held_s=9.0)
    assert speeds.view(REPLICA).hold_s == pytest.approx(5.0)
    assert speeds.view(OTHER).hold_s == pytest.approx(5.0)


@pytest.mark.parametrize("measured", [Measured(1000, 1000, 0), Measured(1000, 990, 0, prompt_s=0.5, completion_s=0.0)])
def test_a_report_without_times_or_computed_tokens_teaches_nothing(measured: Measured) -> None:
    speeds = Speeds()
    speeds.observe(REPLICA, measured, predicted=0)
    assert (speeds.view(REPLICA).prefill_tps, speeds.view(REPLICA).decode_tps) == (1000.0, 50.0)


def test_work_is_what_a_replica_computed_lately() -> None:
    speeds = Speeds()
    for replica, computed in ((REPLICA, 300), (OTHER, 100), (OTHER, 250)):
        speeds.observe(replica, Measured(1000, 1000 - computed, 20, prompt_s=1.0), predicted=0)
    assert 340.0 < speeds.view(OTHER).work_tokens < 350.0
    assert 290.0 < speeds.view(REPLICA).work_tokens < 300.0
    assert speeds.view(replace(REPLICA, id="new")).work_tokens == 0.0
    for _ in range(600):
        speeds.observe(OTHER, Measured(100, 0, 20, prompt_s=1.0), predicted=0)
    assert speeds.view(REPLICA).work_tokens < 1.0, "nobody has to catch up on days"


def test_confidence_follows_what_became_of_predictions() -> None:
    speeds = Speeds()
    assert speeds.view(REPLICA).confidence == 0.9
    assert speeds.view(replace(REPLICA, kind="approx")).confidence < speeds.view(REPLICA).confidence
    speeds.observe(REPLICA, Measured(1000, 500, 5), predicted=0)
    assert speeds.view(REPLICA).confidence == 0.9, "nothing was predicted"
    for _ in range(20):
        speeds.observe(REPLICA, Measured(1000, 0, 5), predicted=900)
    assert speeds.view(REPLICA).confidence < 0.05
    for _ in range(20):
        speeds.observe(REPLICA, Measured(2000, 1900, 5), predicted=900)
    assert 0.95 < speeds.view(REPLICA).confidence <= 1.0


async def test_what_was_learned_outlives_the_process() -> None:
    facts, before, after = RedisIndex(None), Speeds(), Speeds()
    before.observe(REPLICA, Measured(1000, 600, 20, prompt_s=2.0, completion_s=0.5), predicted=1000)
    await before.save(facts, "a")
    await before.save(facts, "unknown")
    for name in ("a", "unknown"):
        await after.load(facts, name)
    assert after.view(REPLICA) == replace(before.view(REPLICA), work_tokens=0.0)
    after.observe(OTHER, Measured(900, 0, 0, prompt_s=1.0), predicted=0)
    assert 200.0 < after.view(OTHER).prefill_tps < 900.0, "its own, and that of the one that was remembered"
    await facts.close()


class Memory:
    """Facts as somebody else has left them."""

    def __init__(self, told: dict[str, str]) -> None:
        self.told = told

    async def recall(self, replica: str) -> dict[str, str]:
        return self.told

    async def remember(self, replica: str, facts: Mapping[str, str]) -> None:
        raise AssertionError("nothing is to be kept")


@pytest.mark.parametrize("text", ["", "fast", "nan", "-3", "inf", "1e300"])
async def test_figures_that_make_no_sense_count_as_nothing(text: str) -> None:
    speeds = Speeds()
    told = ("prefill_tps", "decode_tps", "confidence", "more")
    await speeds.load(Memory(dict.fromkeys(told, text)), "a")
    seen = speeds.view(REPLICA)
    assert (seen.prefill_tps, seen.decode_tps, seen.confidence) == (1000.0, 50.0, 0.9)


def test_an_engine_that_tells_no_times_is_known_by_whole_calls() -> None:
    speeds = Speeds()
    for computed, reply in [(2000, 10), (100, 60), (1500, 20), (50, 80)] * 10:
        wall_s = computed / 400.0 + reply / 20.0
        speeds.observe(REPLICA, Measured(computed, 0, reply), predicted=0, wall_s=wall_s)
    assert speeds.view(REPLICA).prefill_tps == pytest.approx(400.0, rel=0.25)
    assert speeds.view(REPLICA).decode_tps == pytest.approx(20.0, rel=0.25)
    speeds.observe(OTHER, Measured(0, 0, 0), predicted=0, wall_s=1.0)
    assert speeds.view(OTHER).decode_tps == speeds.view(REPLICA).decode_tps, "nothing was computed or written"
