"""The index behind simulated engines that keep blocks, against the rules of sglang-router, over many loads."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import pytest

from tests.bench.block_replicas import BLOCK, ByCache, ByIndex, Load, Outcome, run

SEEDS = range(1, 13)
LOADS = (Load(), Load(rate=0.35), Load(share=1.5), Load(documents=8, speeds=(560.0,) * 4, rate=1.4))


def _computed(outcomes: Sequence[Outcome]) -> float:
    return mean(sum(each.computed) for each in outcomes)


def test_a_chunk_that_fits_is_computed_once_and_a_tail_each_time() -> None:
    load = Load(documents=2, chunks=2, questions=3, share=4.0, speeds=(560.0,), rate=0.1)
    (computed,) = run(load, 1, ByCache).computed
    prefix = load.chunk_tokens // BLOCK * BLOCK
    tails = load.documents * load.chunks * load.questions * (load.chunk_tokens - prefix + 45)
    assert computed == pytest.approx(load.documents * load.chunks * prefix + tails, rel=0.03)


def test_an_engine_takes_as_long_as_its_prompt_has_tokens() -> None:
    load = Load(documents=1, chunks=1, questions=1, share=9.0, speeds=(500.0,))
    (first,) = run(load, 1, ByCache).first_token_s
    assert first == pytest.approx((load.chunk_tokens + 45) / 500.0, rel=0.06)


def test_ours_computes_less_and_lets_nobody_wait_as_long_over_many_loads() -> None:
    ours = {load: [run(load, seed, ByIndex) for seed in SEEDS] for load in LOADS}
    theirs = {load: [run(load, seed, ByCache) for seed in SEEDS] for load in LOADS}
    for tenths, at_most in ((5, 1.0), (9, 0.95)):
        ratios = [mean(o.tenth(tenths) for o in ours[x]) / mean(o.tenth(tenths) for o in theirs[x]) for x in LOADS]
        assert mean(ratios) < at_most, ratios
    ratios = [_computed(ours[load]) / _computed(theirs[load]) for load in LOADS]
    assert mean(ratios) < 0.98, ratios
    assert max(ratios) < 1.05, ratios
