"""Prefill-ahead over two real engines; `tests/bench/prefill_ahead.py` measures it at length."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from coa.documents import read_document
from coa.llm.engine_process import EngineProcess
from coa.testing.models import test_model_path
from tests.bench.prefill_ahead import read_once

SENTENCE = "On day {n} the ferry crossed the sound with {m} barrels of herring, and its master wrote of the weather. "


@pytest.mark.slow
async def test_the_second_engine_has_the_next_chunk_ready_while_the_first_one_writes(tmp_path: Path) -> None:
    slots = tmp_path / "slots"
    slots.mkdir()
    text = "".join(SENTENCE.format(n=n, m=n + 3) for n in range(20))
    document = read_document(text.encode(), name="ferry.txt")
    with (
        EngineProcess(test_model_path(), alias="one", n_ctx=1024, n_threads=1, slot_save_path=slots) as one,
        EngineProcess(test_model_path(), alias="two", n_ctx=1024, n_threads=1, slot_save_path=slots) as two,
    ):
        arm = await read_once(document, (one, two), tmp_path, most=2, chunk_tokens=190, reply_tokens=40)
    assert len(arm.hops) >= 4
    assert arm.useful >= 1
    assert arm.wasted == 0
    first = arm.hops[:2]  # the second is left alone as well: one call has to show what they take without
    assert all(hop.critical_tokens == hop.prompt_tokens for hop in first)
    assert statistics.median(hop.prefix_tokens for hop in arm.hops[2:]) >= 128
    assert len(arm.notes) == len(arm.hops)
