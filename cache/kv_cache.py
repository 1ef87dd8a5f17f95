"""The prefix cache of one gateway: its engines, the index over them, their saved states, and what was learned."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Coroutine, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Protocol

from coa.cache.ahead import PrefillAhead
from coa.cache.bookings import Booking
from coa.cache.index import PrefixIndex, Replica
from coa.cache.kv_feed import IndexSink, KvFeed, TellsEvents
from coa.cache.kv_stats import KvStats
from coa.cache.served_engines import Prefix, ServedEngine
from coa.cache.speeds import Facts
from coa.cache.states import SingleFlight, StateKey, StateStore
from coa.cache.waiting import Line
from coa.errors import CacheError, ConfigError
from coa.llm.chat import Decoding
from coa.llm.litellm_requests import deadline_for
from coa.llm.prefixes import Measured
from coa.reading import Prompt

__all__ = ["KvCache", "Learning"]

_log = logging.getLogger(__name__)

_RENEW_S = 5.0
_PINNED = 4
"""Chunks that a run reads next, and is therefore told to keep."""
_PINNED_S = 300.0
_CHARGES = 4096
_STUCK_S = 60.0
_STUCK_HOLDS = 3.0
"""An engine all of whose seats are taken is not waited for once none was given back for this long, and for so many
times as long as calls have them, where another engine has one free."""
_SILENT_S = 300.0
"""How long no work ahead goes to an engine that did not finish the last one in time."""


class Learning(Protocol):
    """Knows how fast replicas are, and how often a predicted hit came true: `coa.cache.speeds.Speeds`."""

    def view(self, replica: Replica) -> Replica:
        """The replica with what has been learned of it."""
        ...

    def observe(
        self,
        replica: Replica,
        measured: Measured,
        *,
        predicted: int,
        wall_s: float | None = None,
        held_s: float | None = None,
    ) -> None:
        """One finished call; `wall_s` is its whole time, for engines that do not tell the parts, `held_s` the time
        that it had a slot."""
        ...

    async def load(self, facts: Facts, replica: str) -> None:
        """Takes over what earlier processes learned."""
        ...

    async def save(self, facts: Facts, replica: str) -> None:
        """Hands it on to later ones."""
        ...


class KvCache:
    """`coa.llm.prefixes.PrefixCache` over engines, an index, and a store of states for those that save."""

    def __init__(
        self,
        engines: Sequence[ServedEngine],
        *,
        index: PrefixIndex,
        stores: Mapping[str, StateStore],
        flight: SingleFlight,
        learned: Learning,
        stats: KvStats,
        most_ahead: int = 2,
        timeout_s: float | None = None,
    ) -> None:
        """`stores` by deployment id, for engines whose folder this process sees; `most_ahead` as in `PrefillAhead`;
        `timeout_s` as in `deadline_for`, for what is computed without a call."""
        self.engines = {engine.id: engine for engine in engines}
        self.index = index
        self.stores = stores
        self.flight = flight
        self.learned = learned
        self.stats = stats
        self._timeout_s = timeout_s
        self._groups = {engine.group for engine in engines}
        self._feeds: list[KvFeed] = []
        for engine in engines:
            engine.on_ready = self._opened
        self.ahead = PrefillAhead(self, most=most_ahead)
        self._ahead: OrderedDict[Hashable, int] = OrderedDict()
        self.lines = {group: Line(partial(self.has_room, group)) for group in self._groups}
        self.coming: dict[StateKey, str] = {}
        """States that are nowhere yet, and the booking that computes each."""
        self._active: dict[str, Booking] = {}
        self._seats_changed: dict[asyncio.Semaphore, float] = {}
        """When one was last taken or given back."""
        self._silent_until: dict[str, float] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    def reserve(self, group: str, prompt: Prompt, decoding: Decoding) -> Booking | None:
        """See `PrefixCache.reserve`."""
        return Booking(self, group, prompt, decoding) if group in self._groups else None

    def upcoming(self, group: str, prompts: Iterable[Prompt]) -> None:
        """See `PrefixCache.upcoming`."""
        if group in self._groups:
            soon = list(islice(prompts, _PINNED))
            self.ahead.upcoming(group, soon)
            self.spawn(self._pin(group, soon))

    def has_room(self, group: str) -> bool:
        """Whether a replica of the group has a slot that no call of this process uses or waits for."""
        return any(e.group == group and not e.seats.locked() for e in self.engines.values())

    def has_rest(self, group: str) -> bool:
        """Whether work that nobody waits for would slow no call down: a replica of the group has nothing to do, or,
        where there is but one, a slot and no prompt to compute; and of the calls under way one is written already,
        since replicas may share a machine."""
        calls = [booking for booking in self._active.values() if booking.group == group]
        if calls and not any(call.writes for call in calls):
            return False
        engines = self._for_work_ahead(group)
        alone = len(engines) == 1
        held = {call.engine.id for call in calls if call.engine is not None and not (alone and call.writes)}
        return any(not engine.seats.locked() and engine.id not in held for engine in engines)

    async def prefill(self, group: str, prompt: Prompt, *, ahead: bool = True) -> int | None:
        """Has the prefix of `prompt` computed where it will be read; the tokens that had to be, None where nothing
        could be done. `ahead` books them on the next call that uses them. Has the time limit of a call, which begins
        when it has its seat."""
        engines = [e for e in self._for_work_ahead(group) if await e.ready()]
        for engine in engines:
            prefix = await engine.prefix_of(prompt)
            store = self.stores.get(engine.id)
            if prefix is None or prefix.state.n_tokens == 0:
                return None
            if store is not None and engine.adapter.saves and await store.find(prefix.state) is not None:
                return 0
        if not engines:
            return None
        decoding = Decoding(max_tokens=1)
        booking = Booking(self, group, prompt, decoding, ahead=ahead)
        limit = deadline_for(prompt, decoding, timeout_s=self._timeout_s, idle_timeout_s=math.inf, stream=False)
        chosen = engines[0].id
        try:
            chosen = await booking.choose([e.id for e in engines]) or chosen
            await booking.seat(chosen)
            async with asyncio.timeout(limit.total_s):
                return await booking.compute(chosen)
        except TimeoutError:  # a host that is gone without a word; calls would wait for its seat
            self._silent_until[chosen] = time.monotonic() + _SILENT_S
            _log.warning("%s did not compute a prefix within %g s.", chosen, limit.total_s)
            return None
        finally:
            await booking.done(None)

    def _for_work_ahead(self, group: str) -> list[ServedEngine]:
        now = time.monotonic()
        return [e for e in self.engines.values() if e.group == group and self._silent_until.get(e.id, 0.0) <= now]

    def saves(self, engine: ServedEngine) -> bool:
        """Whether its states are saved, and restored from where this process sees them."""
        return engine.adapter.saves and engine.id in self.stores

    def share(self, engines: Sequence[ServedEngine]) -> bool:
        """Whether each of them restores what any one of them saved."""
        kept = {(id(self.stores[e.id]), e.identity) if self.saves(e) else None for e in engines}
        return len(kept) == 1 and None not in kept

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Keeps a task until it is done."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def began(self, booking: Booking) -> None:
        """Its lease is renewed until `ended`."""
        self._active[booking.id] = booking
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())

    def ended(self, booking: Booking) -> None:
        """See `began`."""
        self._active.pop(booking.id, None)

    async def take_seat(self, engine: ServedEngine) -> None:
        """Waits for one; whoever came first has it first."""
        await engine.seats.acquire()
        self._seats_changed[engine.seats] = time.monotonic()

    def give_seat_back(self, engine: ServedEngine) -> None:
        """Those who wait are told."""
        engine.seats.release()
        self._seats_changed[engine.seats] = time.monotonic()
        for group in {each.group for each in self.engines.values() if each.seats is engine.seats}:
            self.lines[group].tell()

    def worth_waiting_for(self, engines: Sequence[ServedEngine]) -> Sequence[ServedEngine]:
        """Without those that seem to be stuck, as long as one has room. The index cannot tell: to it an engine whose
        work should have been over long ago is one that has nothing to do."""
        if all(engine.seats.locked() for engine in engines):
            return engines
        return [engine for engine in engines if not self._stuck(engine)]

    def _stuck(self, engine: ServedEngine) -> bool:
        limit_s = max(_STUCK_S, _STUCK_HOLDS * self.learned.view(engine.replica).hold_s)
        return engine.seats.locked() and time.monotonic() - self._seats_changed.get(engine.seats, math.inf) > limit_s

    def active_at(self, engine: ServedEngine) -> int:
        """Calls of this process that have one of its slots."""
        return sum(booking.engine is engine for booking in self._active.values())

    def charge_ahead(self, engine: ServedEngine, prefix: Prefix, tokens: int) -> None:
        """Tokens that were computed before any call needed them: the next one that uses them bears them, where they
        were saved at any engine."""
        key = self._charged_to(engine, prefix)
        self._ahead[key] = self._ahead.pop(key, 0) + tokens
        while len(self._ahead) > _CHARGES:
            self._ahead.popitem(last=False)

    def take_charge(self, engine: ServedEngine, prefix: Prefix) -> int:
        """See `charge_ahead`."""
        return self._ahead.pop(self._charged_to(engine, prefix), 0)

    def _charged_to(self, engine: ServedEngine, prefix: Prefix) -> Hashable:
        return prefix.state if self.saves(engine) else (engine.id, prefix.last)

    async def look_for_restart(self, engine: ServedEngine) -> None:
        """What an engine held is gone when it was restarted."""
        before = engine.replica
        if await engine.look_for_restart():
            _log.info("%s was restarted: what it held is gone.", engine.id)
            await self.index.dropped(before, None)

    async def close(self) -> None:
        """See `PrefixCache.close`."""
        await self.ahead.close()
        tasks = [*self._background, *([self._renewing] if self._renewing is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for feed in self._feeds:
            with contextlib.suppress(Exception):
                await feed.close()
        for engine in self.engines.values():
            with contextlib.suppress(Exception):
                if isinstance(self.index, Facts):
                    await self.learned.save(self.index, engine.id)
                await engine.adapter.close()
        for closing in (self.index, *dict.fromkeys(self.stores.values()), self.flight, self.learned):
            close = getattr(closing, "close", None)
            if close is not None:
                with contextlib.suppress(Exception):
                    result = close()
                    if asyncio.iscoroutine(result):
                        await result
        await self.stats.flush()

    async def _opened(self, engine: ServedEngine) -> None:
        """Listens to what the engine says of its memory, and remembers what was learned of it before."""
        if isinstance(engine.adapter, TellsEvents):
            with contextlib.suppress(CacheError, ConfigError):
                sink = IndexSink(self.index, lambda: engine.replica, engine.look_for_restart)
                feed = engine.adapter.feed(engine.index_root, sink)
                if feed is not None:
                    self._feeds.append(feed)
                    await feed.start()
        if isinstance(self.index, Facts):
            await self.learned.load(self.index, engine.id)

    async def _pin(self, group: str, prompts: Sequence[Prompt]) -> None:
        """What is read next is given away last."""
        until, told = time.time() + _PINNED_S, False
        for engine in [e for e in self.engines.values() if e.group == group]:
            store = self.stores.get(engine.id)
            if told and not engine.slotted:
                continue  # the index knows a group's prompts by the same hashes, whichever engine was asked for them
            told |= not engine.slotted
            found = [prefix for prompt in prompts if (prefix := await engine.prefix_of(prompt)) is not None]
            if store is not None:
                await store.pin([prefix.state for prefix in found], until=until)
            else:
                await self.index.pin({p.last: len(p.tokens) for p in found if p.last is not None}, until=until)

    async def _renew(self) -> None:
        while self._active:
            await asyncio.sleep(_RENEW_S)
            for booking in list(self._active.values()):
                await booking.renew()
