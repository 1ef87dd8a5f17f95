"""Where blocking work is done."""

from __future__ import annotations

import asyncio
import threading

import pytest

from coa.blocking import off_loop, short_work_at_once


async def _thread_of(chars: int) -> int:
    return await off_loop(threading.get_ident, chars)


def test_work_is_done_in_a_thread() -> None:
    assert asyncio.run(_thread_of(0)) != threading.get_ident()


def test_short_work_is_done_at_once_where_that_is_allowed() -> None:
    async def here() -> list[int]:
        with short_work_at_once():
            begun_within = asyncio.create_task(_thread_of(64_000))
        long = asyncio.create_task(_thread_of(0))  # begun outside
        with short_work_at_once():
            return [await begun_within, await _thread_of(64_001), await long]

    within, long_text, outside = asyncio.run(here())
    assert within == threading.get_ident()
    assert threading.get_ident() not in (long_text, outside)


@pytest.mark.parametrize("at_once", [False, True])
def test_what_it_raises_comes_through(at_once: bool) -> None:
    async def failing() -> None:
        if not at_once:
            await off_loop(int, 0, "no number")
            return
        with short_work_at_once():
            await off_loop(int, 0, "no number")

    with pytest.raises(ValueError, match="no number"):
        asyncio.run(failing())
