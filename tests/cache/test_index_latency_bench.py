"""The bench of the index measures what it says, at a small scale."""

from __future__ import annotations

from tests.bench.index_latency import PROMPT_BLOCKS, dead, deaf, in_use, out_of_reach


async def test_reservations_are_checked_against_what_was_loaded() -> None:
    row = await in_use(None, 2 * PROMPT_BLOCKS, 10)
    assert (len(row.reserved), len(row.told), row.elsewhere) == (10, 10, 0)
    assert row.blocks_per_s > 0


async def test_an_outage_costs_a_call_at_most_fifty_milliseconds() -> None:
    for address in (dead, deaf):
        with address() as url:
            first, after = await out_of_reach(url, 5)
        assert max(first) < 0.05 + 0.1, "and what a busy machine adds"
        assert (len(first), len(after)) == (5, 5)
