"""The simulation of chains over engines, where the figures can be worked out by hand."""

from __future__ import annotations

import pytest

from tests.bench.prefill_predictions import check, predicted
from tests.bench.simulation import LOOK_S, Chain, Hop, Policy, Speeds, simulate

SPEEDS = Speeds(prefill=1000.0, decode=50.0, overhead_s=0.1)
HOP = Hop(prefix=2000, tail=200, reply=150)  # 2 s, 0.2 s, 3 s
BOOK = Chain("book", [HOP] * 5)


def test_a_chain_takes_the_sum_of_its_parts() -> None:
    told = simulate([BOOK], replicas=1, speeds=SPEEDS, policy=Policy())
    assert told.makespan_s == pytest.approx(5 * (0.1 + 2.2 + 3.0))
    assert told.computed == 5 * 2200
    assert told.critical == [2200] * 5


def test_ahead_of_a_call_only_its_tail_is_left() -> None:
    told = simulate([BOOK], replicas=2, speeds=SPEEDS, policy=Policy(most_ahead=2))
    assert told.critical == [2200, 200, 200, 200, 200]
    assert told.makespan_s == pytest.approx(5 * (0.1 + 0.2 + 3.0) + 2.0)
    assert told.computed == 5 * 2200, "the work is done elsewhere, not spared"


def test_a_prefill_that_is_not_done_in_time_is_on_the_critical_path_with_what_is_left_of_it() -> None:
    slow = Chain("book", [Hop(1000, 200, 50), Hop(8000, 200, 50)])  # 8 s to compute; a reply and 0.1 s to hide it in
    told = simulate([slow], replicas=2, speeds=SPEEDS, policy=Policy(most_ahead=1))
    assert told.critical[1] == pytest.approx(200 + 8000 - 1100, abs=1000 * LOOK_S)


def test_one_engine_with_one_slot_has_nothing_to_gain() -> None:
    arms = [simulate([BOOK], replicas=1, speeds=SPEEDS, policy=Policy(most_ahead=n)) for n in (0, 2)]
    assert arms[0].makespan_s == pytest.approx(arms[1].makespan_s)


def test_a_cache_of_two_chunks_serves_questions_in_step_and_none_one_after_the_other() -> None:
    def computed(n: int, *, together: bool, capacity: int) -> int:
        policy = Policy(together=together, restores=False)
        return simulate(
            [BOOK] * n, replicas=1, speeds=SPEEDS, policy=policy, slots=4, capacity=capacity, spread=0.8, seed=3
        ).computed

    assert computed(8, together=True, capacity=4000) == 5 * 2000 + 8 * 5 * 200
    assert computed(8, together=False, capacity=2000) > computed(8, together=True, capacity=2000)


def test_the_same_seed_gives_the_same_figures() -> None:
    def told(seed: int) -> float:
        policy = Policy(most_ahead=2)
        return simulate([BOOK] * 3, replicas=2, speeds=SPEEDS, policy=policy, spread=0.5, seed=seed).makespan_s

    assert told(1) == told(1) != told(2)


def test_replies_that_are_written_side_by_side_slow_down_while_a_prompt_is_computed() -> None:
    two = [Chain("one", [Hop(0, 0, 50)]), Chain("other", [Hop(0, 1000, 50)])]
    speeds = Speeds(1000.0, 50.0)
    told = simulate(two, replicas=1, speeds=speeds, policy=Policy(), slots=2, decode_share=0.5)
    assert told.makespan_s == pytest.approx(2.0)
    alone = simulate(two[:1], replicas=1, speeds=speeds, policy=Policy(), slots=2, decode_share=0.5)
    assert alone.makespan_s == pytest.approx(1.0)


def test_the_check_states_the_error_against_measured_runs() -> None:
    hop = {
        "prompt_tokens": 2200,
        "prefix_tokens": 0,
        "critical_tokens": 2200,
        "seconds": 5.2,
        "prefill_s": 2.2,
        "completion_tokens": 150,
        "completion_s": 3.0,
    }
    ahead = {**hop, "prefix_tokens": 2000, "critical_tokens": 200, "seconds": 3.2, "prefill_s": 0.2}
    arms = [
        {"ahead": False, "wall_s": 5 * 5.3, "hops": [hop] * 5},
        {"ahead": True, "wall_s": 2 * (5 * 3.3 + 2.0), "hops": [hop, *[ahead] * 4]},
    ]
    lines = check(arms).splitlines()
    assert lines[0] == "prefill 1000 and decode 50.0 tokens a second, 0.10 s a hop outside the engine"
    assert lines[-2] == "| without | 26.5 | 26.5 | +0.0% |"
    assert lines[-1] == "| with | 37.0 | 18.5 | -50.0% |", "a run twice as slow as it should be is told as such"


def test_at_published_speeds_four_fifths_of_the_critical_path_are_spared() -> None:
    rows = [line.split(" | ") for line in predicted(chunks=8).splitlines()[2:]]
    assert len(rows) == 3
    for row in rows:
        assert float(row[3]) < 0.85
        assert int(row[-1].rpartition("(")[2].partition("%")[0]) <= -80
