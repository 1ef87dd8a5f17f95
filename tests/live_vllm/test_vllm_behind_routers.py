"""Two real vLLM replicas behind coa's router and behind the real sglang-router: tests/tools/vllm_routing.py, small."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.tools.vllm_routing import ARMS, ROUTED, SHUFFLED, THEIRS, TOLD, Load, compared, table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def test_chains_find_their_chunks_no_less_often_than_behind_the_sglang_router(home: Path) -> None:
    """Over several loads: of one, what is evicted when hangs on moments, and either arm may be a quarter ahead."""
    load = Load(documents=4, chunks=3, questions=3, chunk_tokens=500, share=0.9, rate=0.7)
    results = compared(home, load, range(1, 7), ARMS)
    print(f"\n{table(results)}")
    calls = load.documents * load.chunks * load.questions
    assert [len(result.first_token_s) for result in results] == [calls] * len(results)
    assert all(min(result.computed) > 0 for result in results), "each replica has its share of the work"
    computed = {arm: statistics.mean(r.computed_tokens for r in results if r.arm == arm) for arm in ARMS}
    assert computed[ROUTED] <= computed[THEIRS] + load.chunk_tokens
    assert computed[TOLD] <= computed[THEIRS] + load.chunk_tokens
    assert max(computed[ROUTED], computed[TOLD]) < computed[SHUFFLED]
