"""Garbage collection while a batch runs: less of it, and as before afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from coa.batch.collecting import fewer_collections


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_inside_what_lives_is_frozen_and_thresholds_are_higher_and_after_it_all_is_as_before() -> None:
    with fewer_collections():
        assert gc.get_freeze_count() > 1000
        assert all(now > before for now, before in zip(gc.get_threshold(), (7000, 10, 10), strict=True))
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, (700, 10, 10))


def test_the_last_of_several_puts_it_back() -> None:
    first, second = fewer_collections(), fewer_collections()
    first.__enter__()
    second.__enter__()
    inside = gc.get_threshold()
    first.__exit__(None, None, None)
    assert gc.get_threshold() == inside
    assert gc.get_freeze_count() > 0
    second.__exit__(None, None, None)
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, (700, 10, 10))


@pytest.mark.parametrize("thresholds", [(0, 10, 10), (100_000, 50, 100)])
def test_a_host_that_collects_even_less_is_left_to_it(thresholds: tuple[int, int, int]) -> None:
    gc.set_threshold(*thresholds)
    gc.freeze()
    with fewer_collections():
        assert gc.get_threshold() == thresholds
    assert gc.get_threshold() == thresholds
    assert gc.get_freeze_count() > 0
