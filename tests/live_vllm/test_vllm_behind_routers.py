"""Two real vLLM replicas behind coa's router and behind the real sglang-router: tests/tools/vllm_routing.py, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.vllm_routing import Load, compared, table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def test_chains_find_their_chunks_no_less_often_than_behind_the_sglang_router(home: Path) -> None:
    load = Load(documents=4, chunks=3, questions=3, chunk_tokens=500, share=0.9, rate=0.7)
    ours, theirs, shuffled = results = compared(home, load, [1], ["coa", "sglang-router", "simple-shuffle"])
    print(f"\n{table(results)}")
    calls = load.documents * load.chunks * load.questions
    assert [len(result.first_token_s) for result in results] == [calls] * 3
    assert set(ours.calls) == {"r0", "r1"}
    # Two runs of the same load differ by a chunk or two: replies move the moments of the calls.
    assert ours.computed_tokens <= theirs.computed_tokens + 3 * load.chunk_tokens
    assert ours.computed_tokens < shuffled.computed_tokens
