"""The open models of a batch: a session for each of its configurations, opened when it is needed."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple, TypeVar

from coa.api import OnEvent, Plan, Session, StopSignal
from coa.batch.asking import question_of, strategy_of
from coa.batch.ledger import LeasedItem, Spending, SpendingLimits
from coa.batch.parts import WHOLE, Part, settings_of_part
from coa.batch.record import BatchRecord, BatchStore
from coa.config import Settings
from coa.errors import RunNotFound, StorageError
from coa.runs import RunStore
from coa.types import Document

__all__ = ["Sessions", "Share"]

_Number = TypeVar("_Number", int, float)

_MARGIN_RATIO = 1.5
_MORE_CALLS = 6
"""What is set aside for an item is more than it is expected to take: replies may have to be asked for again, and a
run begins no step that it might not be able to pay for. What is left over is given back."""


class Share(NamedTuple):
    """What an item may take."""

    limits: SpendingLimits
    wanted: Spending
    """What is set aside for it in the batch's budget."""


class Sessions:
    """The sessions of a batch. Runs are kept in the batch's own folder; limits on spending are given item by item."""

    def __init__(self, record: BatchRecord, present: Settings, runs: RunStore, *, part: Part = WHOLE) -> None:
        """`present` are the settings of this process: what is secret is taken from them. `part` is its share of the
        calls at once."""
        self.record = record
        self.runs = runs
        self._present = present
        self._part = part
        self._open: dict[str, Session] = {}
        self._opening = asyncio.Lock()
        self._texts: dict[str, int] = {}

    async def session(self, config: str) -> Session:
        """The session of a configuration, its models open. Raises: ConfigError, ModelError."""
        async with self._opening:
            if config not in self._open:
                settings = await self._settings_of(config)
                unlimited = {"max_calls": None, "max_tokens_total": None, "max_cost_usd": None, "review": False}
                settings = settings.model_copy(update=unlimited)
                session = Session(settings_of_part(settings, self._part), runs=self.runs)
                try:
                    await session.open()
                except BaseException:
                    await session.close()
                    raise
                session.settings = settings  # runs are alike whoever begins them and whoever goes on with them
                self._open[config] = session
            return self._open[config]

    async def _settings_of(self, config: str) -> Settings:
        """Looks at the batch's record again for a configuration that was added since it was begun."""
        if config not in self.record.configs:
            with suppress(RunNotFound, StorageError):
                kept = await asyncio.to_thread(BatchStore(self._present.home).get, self.record.batch_id)
                self.record = replace(self.record, configs=kept.configs)
        return self.record.settings_of(config, self._present)

    async def view(self, config: str, share: SpendingLimits, *, on_event: OnEvent, stop: StopSignal) -> Session:
        """The session for runs that may each take `share`. Raises: as `session`."""
        session = await self.session(config)
        return session.view(
            on_event=on_event,
            stop=stop,
            max_calls=share.max_calls,
            max_tokens_total=share.max_tokens,
            max_cost_usd=share.max_cost_usd,
        )

    async def forecast(self, item: LeasedItem, document: Document) -> Plan:
        """What reading the document for the item takes at most.

        Raises: as `session` and `Session.plan`; ConfigError also where dollars are limited and the price is unknown.
        """
        session = await self.session(item.config)
        asked: Mapping[str, object] = json.loads(item.payload)
        dollars = self.record.options.limits.max_cost_usd
        view = session.view(strategy=strategy_of(item.payload, session.settings), max_cost_usd=dollars)
        words = asked.get("words")
        return await view.plan(
            document,
            question_of(item.payload),
            per=str(asked.get("per", "book")),
            words=words if isinstance(words, int) else None,
        )

    async def share(
        self, item: LeasedItem, document: Document, *, given: SpendingLimits, whole: SpendingLimits
    ) -> Share:
        """What the item is to be given of the batch's budget `whole`, `given` at most. Raises: as `forecast`."""
        plan = await self.forecast(item, document)
        n = max(1, plan.calls)
        factor = _MARGIN_RATIO + _MORE_CALLS / n
        calls, prompt, completion = (
            math.ceil(factor * amount) for amount in (n, plan.prompt_tokens, plan.completion_tokens_max)
        )
        cost = (plan.cost_usd or 0.0) * factor
        limits = SpendingLimits(
            given.max_calls if whole.max_calls is None else _less(given.max_calls, calls),
            given.max_tokens if whole.max_tokens is None else _less(given.max_tokens, prompt + completion),
            given.max_cost_usd if whole.max_cost_usd is None else _less(given.max_cost_usd, cost),
        )
        tokens = _less(given.max_tokens, prompt + completion)
        prompt = min(prompt, tokens)
        wanted = Spending(
            _less(given.max_calls, calls), prompt, tokens - prompt, cost_usd=_less(given.max_cost_usd, cost)
        )
        return Share(limits, wanted)

    @contextmanager
    def reading(self, document: Document) -> Iterator[None]:
        """While entered the document is there for runs that are gone on with; several sources may have the same."""
        digest = document.sha256
        self._texts[digest] = self._texts.get(digest, 0) + 1
        try:
            yield
        finally:
            self._texts[digest] -= 1
            if not self._texts[digest]:
                del self._texts[digest]
                self.runs.forget_document(digest)

    async def close(self) -> None:
        """Ends what was opened."""
        opened, self._open = list(self._open.values()), {}
        for session in opened:
            await session.close()


def _less(given: _Number | None, expected: _Number) -> _Number:
    return expected if given is None else min(given, expected)
