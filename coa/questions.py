"""Several questions about one document at once: a run each, in step with each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from coa.errors import CoaError
from coa.llm.call_labels import labels
from coa.types import Answer

if TYPE_CHECKING:  # langgraph takes seconds to import
    from coa.graphs.together import Companion

__all__ = ["OnAnswer", "asked_together"]

OnAnswer = Callable[[int, Answer | CoaError], None]
"""Told what became of a question, by its number from 0, as soon as it is known."""

_AT_ONCE = 16
"""Runs that keep in step: each holds files open, and sharing a prefill with still more saves a run little."""


async def asked_together(
    ask: Callable[[int, Companion], Awaitable[Answer]], n_questions: int, on_answer: OnAnswer | None
) -> list[Answer | CoaError]:
    """What `ask` gave for each question, by number; a CoaError of one is its result, any other ends them all."""
    found: dict[int, Answer | CoaError] = {}
    for first in range(0, n_questions, _AT_ONCE):
        await _side_by_side(ask, range(first, min(first + _AT_ONCE, n_questions)), found, on_answer)
    return [found[number] for number in range(n_questions)]


async def _side_by_side(
    ask: Callable[[int, Companion], Awaitable[Answer]],
    numbers: range,
    found: dict[int, Answer | CoaError],
    on_answer: OnAnswer | None,
) -> None:
    from coa.graphs.together import Together

    together = Together()
    companions = {number: together.join() for number in numbers}

    async def one(number: int) -> None:
        companion = companions[number]
        try:
            outcome: Answer | CoaError = await ask(number, companion)
        except CoaError as error:
            outcome = error
        finally:
            companion.leave()
        found[number] = outcome
        if on_answer is not None:
            on_answer(number, outcome)

    try:
        # So that providers that charge for keeping a prompt are asked to, where it is read often enough to pay.
        with labels(reads=str(len(numbers))):
            async with asyncio.TaskGroup() as tasks:
                for number in numbers:
                    tasks.create_task(one(number))
    except BaseExceptionGroup as group:  # the first says what happened; the others were cancelled for it
        raise group.exceptions[0] from None
