"""What an engine kept of its events, over real ZMQ sockets that lose some of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coa.cache import kv_replay
from coa.cache.kv_replay import replayed
from coa.errors import CacheError
from tests.cache.kv_engine import PoolEngine
from tests.cache.kv_publisher import Publisher


@pytest.fixture
async def publisher(tmp_path: Path) -> AsyncIterator[Publisher]:
    async with Publisher(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_replay, "_PAUSE_S", 0.05)


async def _kept(publisher: Publisher, n: int) -> None:
    engine = PoolEngine(block_size=2, n_blocks=1000)
    for number in range(n):
        engine.run([number, 1])
        await publisher.send([engine.step()], lost=True)


async def _numbers(publisher: Publisher, start: int = 0) -> list[int]:
    return [number for number, _ in await replayed(str(publisher.source.replay), start, timeout_s=2.0)]


async def test_one_request_is_enough_where_nothing_gets_lost(publisher: Publisher) -> None:
    assert await _numbers(publisher) == []
    await _kept(publisher, 10)
    assert await _numbers(publisher) == list(range(10))
    assert await _numbers(publisher, 7) == [7, 8, 9]
    assert await _numbers(publisher, 10) == []
    assert publisher.replays == [0, 0, 7, 10]


async def test_an_answer_that_was_cut_off_is_asked_for_on(publisher: Publisher) -> None:
    await _kept(publisher, 35)
    publisher.loses = lambda first, number: first + 10 <= (35 if number is None else number)
    assert await _numbers(publisher) == list(range(35))
    assert publisher.replays == [0, 10, 20, 30]


async def test_what_is_missing_in_between_is_asked_for_again(publisher: Publisher) -> None:
    await _kept(publisher, 20)
    publisher.loses = lambda first, number: (first == 0 and number in (4, 5, 11)) or (first == 4 and number == 12)
    assert await _numbers(publisher) == list(range(20))
    assert publisher.replays == [0, 4]
    publisher.loses = lambda first, number: first in (0, 4) and number in (11, None, 4)[: 3 if first == 0 else 1]
    assert await _numbers(publisher) == list(range(20))
    assert publisher.replays[2:] == [0, 4, 11]


async def test_what_was_before_a_gap_that_nobody_can_fill_is_no_use(publisher: Publisher) -> None:
    await _kept(publisher, 20)
    for number in (0, 1, 8):
        publisher.forget(number)
    assert await _numbers(publisher) == list(range(9, 20))
    assert await _numbers(publisher, 9) == list(range(9, 20))


async def test_an_engine_that_does_not_answer_is_an_error(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="does not send KV events again"):
        await replayed(f"ipc://{tmp_path}/nobody", 0, timeout_s=0.05)
    publisher.loses = lambda first, number: True
    with pytest.raises(CacheError, match="does not send KV events again"):
        await replayed(str(publisher.source.replay), 0, timeout_s=0.05)
