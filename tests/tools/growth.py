"""How the processor time of a piece of work grows with its size, on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable

ROUNDS = 8


def growth(work: Callable[[int], object], small: int, large: int, *, enough: float) -> float:
    """The time of ``work(large)`` over that of ``work(small)``, each the least of several rounds.

    The two take turns, and the rounds end as soon as the ratio is below ``enough``: what else the machine does only
    ever adds to a time, and seldom to every round of one side, whereas work that grows too fast does so each time.
    Counted is the processor time of the calling thread.
    """
    least_small = least_large = float("inf")
    for _ in range(ROUNDS):
        least_small = min(least_small, _seconds(work, small))
        least_large = min(least_large, _seconds(work, large))
        if least_large < enough * least_small:
            break
    return least_large / max(least_small, 1e-9)


def _seconds(work: Callable[[int], object], size: int) -> float:
    started = time.thread_time()
    work(size)
    return time.thread_time() - started
