"""A call and the prefix cache: which replica takes it, how its prefix gets there, and what came of it.

The order for one attempt (see `coa.llm.prefixes.Reservation`): choose a replica by the index, take a seat in one of its
slots, put the prefix there (restore a saved state, or compute it on its own and save it), call, book the result.

Why the prefix is computed by a request of its own: only what ends on a border of computed batches can be used again
without a bit of the answer changing, and one request would compute prefix and tail across that border.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from coa.cache.call_counts import Placed, count_ahead, count_call
from coa.cache.index import Choice, Replica, Wanted
from coa.cache.served_engines import Prefix, ServedEngine
from coa.cache.states import StateKey, StateOrigin, StateStore
from coa.cache.waiting import expected_reply, patience_s, prompt_s, wanted_of
from coa.errors import CacheError
from coa.llm.call_labels import call_labels
from coa.llm.chat import Decoding
from coa.llm.prefixes import Measured, Prepared
from coa.reading import Prompt

if TYPE_CHECKING:
    from coa.cache.kv_cache import KvCache

__all__ = ["Booking"]

_log = logging.getLogger(__name__)

_POLL_S = 0.05


@dataclass(eq=False)
class Booking:
    """One attempt of a call; see `coa.llm.prefixes.Reservation`."""

    cache: KvCache
    group: str
    prompt: Prompt
    decoding: Decoding
    ahead: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    _wanted: Wanted | None = None
    _choice: Choice | None = None
    _engine: ServedEngine | None = None
    _replica: Replica | None = None
    _slot: int | None = None
    _seated: bool = False
    _prefix: Prefix | None = None
    _prefilled: int = 0
    _charged: int = 0
    """Of the prefilled ones, those that were computed ahead; until it is over, at most so many."""
    _restored: int = 0
    _predicted: int = 0
    _patient: bool = False
    """Whether the slot was had before the wait for the one that holds the prefix was over."""
    _slot_since: float = 0.0
    _sent_at: float = 0.0
    _writes_from: float = math.inf
    """When its prompt should be through: an estimate."""
    _in_place: bool = False
    """Whether the slot holds the aligned prefix and nothing else."""
    _cause: str = ""
    _done: bool = False

    @property
    def engine(self) -> ServedEngine | None:
        """Where it has a seat, or is about to have one."""
        return self._engine

    @property
    def writes(self) -> bool:
        """Whether its prompt is through, as far as can be told before the reply is."""
        return time.monotonic() >= self._writes_from

    async def choose(self, deployments: Sequence[str], fit: Callable[[str], bool] | None = None) -> str | None:
        """See `Reservation.choose`."""
        with self._forgiven("choosing a replica"):
            engines = [e for d in deployments if (e := self.cache.engines.get(d)) is not None and await e.ready()]
            if len(engines) < len(deployments) or not engines:
                return None  # an engine that cannot be asked has a right to calls too: the Router's turn
            await self._leave_seat()
            if not any(e.slotted for e in engines):
                chosen = await self._reserved(engines)
                return None if chosen is None else chosen.id
            await engines[0].prefix_of(self.prompt)  # nobody else waits while an engine is asked for it
            with self.cache.lines[engines[0].group].joined() as place:
                while True:
                    await place.turn()
                    engines = [e for e in engines if fit is None or fit(e.id)]
                    if not engines:
                        return None
                    chosen = await self._reserved(self.cache.worth_waiting_for(engines))
                    if chosen is None or not chosen.slotted:
                        return None if chosen is None else chosen.id
                    if not chosen.seats.locked():
                        await self._take_seat(chosen)
                        return chosen.id
                    # Worth waiting for, as things are now; when a seat is given back, another may be the better one.
        return None

    async def _reserved(self, engines: Sequence[ServedEngine]) -> ServedEngine | None:
        """The index's choice, booked instead of what was booked before."""
        await self._let_go()
        self._wanted = await self._described(engines)
        views = [self.cache.learned.view(e.replica) for e in engines]
        self._choice = await self.cache.index.reserve(self._wanted, views)
        if self._choice is None:
            return None
        chosen = self.cache.engines[self._choice.replica]
        self._replica = chosen.replica
        return chosen

    async def seat(self, deployment: str) -> None:
        """See `Reservation.seat`."""
        if self._engine is not None and self._engine.id != deployment:
            await self._leave_seat()
        engine = self.cache.engines.get(deployment)
        if engine is None or not await engine.ready() or self._slot is not None:
            return
        self._engine = engine
        if self._choice is None or self._choice.replica != deployment:
            await self._let_go()
            self._replica = engine.replica
        if not engine.slotted:
            self.cache.began(self)
            return
        self._prefix = await engine.prefix_of(self.prompt)
        if not self._seated:
            await self._take_seat(engine)
        prefer = None if self._prefix is None else self._prefix.last
        try:
            patient_until = time.monotonic() + self._patience_s(engine)
            while True:
                self._patient = time.monotonic() < patient_until
                slot = await self.cache.index.seat(self.id, engine.replica, prefer, patient=self._patient)
                if slot is not None:
                    break
                await asyncio.sleep(_POLL_S)
        except BaseException:
            await self._leave_seat()
            raise
        self._slot = slot
        self._slot_since = time.monotonic()
        self.cache.began(self)

    async def prepare(self, deployment: str) -> Prepared:
        """See `Reservation.prepare`."""
        engine = self._engine
        if engine is None or engine.id != deployment:
            return Prepared({})
        self._bear(0)
        self.cache.ahead.began(self.id, self.group, self.prompt)
        if not engine.slotted:
            with self._forgiven("looking at a prefix"):
                self._prefix = self._prefix or await engine.prefix_of(self.prompt)
            self._charge(engine)
            self._predicted = self._choice.held_tokens if self._choice is not None else 0
            self._sent_at = time.monotonic()
            self._writes_from = self._sent_at + (self._choice.seconds if self._choice is not None else 0.0)
            return Prepared({}, self._prefilled)
        if self._slot is None:
            return Prepared({})
        body: dict[str, object] = {"id_slot": self._slot, "cache_prompt": False}
        if self._prefix is None or self._prefix.state.n_tokens == 0:
            return Prepared(body)
        with self._forgiven("placing a prefix"):
            if self.cache.saves(engine):
                await self._place(engine)
                body["cache_prompt"] = self._in_place
            else:
                body["cache_prompt"] = True
                self._charge(engine)
                # In another slot than the one that holds it, which is taken, nothing of it is there.
                self._predicted = self._choice.held_tokens if self._choice is not None and self._patient else 0
        self._sent_at = time.monotonic()
        there = self._prefix.state.n_tokens if self._in_place else self._predicted
        seen = self.cache.learned.view(engine.replica)
        self._writes_from = self._sent_at + prompt_s(seen, self._prefix, self.prompt, there=there)
        return Prepared(body, self._prefilled)

    async def compute(self, deployment: str) -> int | None:
        """The prefix computed there (and saved, where the engine saves), without a call; the tokens it took."""
        engine = self._engine
        if engine is None or engine.id != deployment:
            return None
        with self._forgiven("computing a prefix ahead"):
            self._prefix = self._prefix or await engine.prefix_of(self.prompt)
            if self._prefix is None or self._prefix.state.n_tokens == 0:
                return None
            if self.cache.saves(engine):
                await self._place(engine)
            else:
                self._prefilled = await self._prefill(engine, self._prefix)
            self._bear(0)
            if self.ahead and self._prefilled:
                self.cache.charge_ahead(engine, self._prefix, self._prefilled)
            if engine.adapter.kind != "events":
                await self.cache.index.held(engine.replica, self._prefix.hashes)
            count_ahead(self.cache.stats, engine.id, self._prefilled)
            return self._prefilled
        return None

    async def renew(self) -> None:
        """Keeps its leases."""
        if self._engine is not None:
            with self._forgiven("renewing a lease"):
                await self.cache.index.renew(self.id, self._replica or self._engine.replica, self._slot)

    async def done(self, measured: Measured | None) -> None:
        """See `Reservation.done`."""
        if self._done:
            return
        self._done = True
        engine = self._engine
        self._bear(0 if measured is None else min(self._charged, measured.cached_tokens))
        own = self._prefilled - self._charged  # computed for this call, though the engine reports it as cached
        told = measured and replace(measured, cached_tokens=max(0, measured.cached_tokens - own))
        self.cache.ahead.ended(self.id, self.group, told)
        try:
            with self._forgiven("booking a call"):
                if engine is not None and measured is not None:
                    await self._book(engine, measured)
                elif engine is not None and not self.ahead and engine.slotted:
                    self.cache.spawn(self.cache.look_for_restart(engine))
        finally:
            if self._prefix is not None and self.cache.coming.get(self._prefix.state) == self.id:
                del self.cache.coming[self._prefix.state]
            await self._leave_seat()
            await self._let_go()

    async def _book(self, engine: ServedEngine, measured: Measured) -> None:
        """What the call showed."""
        wall_s = time.monotonic() - self._sent_at if self._sent_at else None
        prefix, index = self._prefix, self.cache.index
        replica = self._replica or engine.replica
        # Where replies do not tell what was cached, a prediction is neither right nor wrong.
        predicted = self._predicted if getattr(engine.adapter, "tells_cached", True) else 0
        held_s = time.monotonic() - self._slot_since if self._slot is not None else None
        self.cache.learned.observe(replica, measured, predicted=predicted, wall_s=wall_s, held_s=held_s)
        if prefix is None:
            return
        if self._predicted > measured.cached_tokens and not self._cause:
            self._cause = "the engine did not have it any more"
        # An engine that tells what it holds is right, also where a prefix that is being computed was counted as a hit.
        told = engine.adapter.kind == "events"
        if self._wanted is not None and not self.cache.saves(engine) and not told:
            await index.scored(self._wanted, replica, predicted=predicted, actual=measured.cached_tokens)
        if not told:
            await index.held(replica, prefix.hashes)
        placed = Placed(self._prefilled, self._charged, self._predicted, self._restored)
        count_call(self.cache.stats, engine.id, prefix, measured, placed, cause=self._cause)

    def _charge(self, engine: ServedEngine) -> None:
        """What was computed ahead for this run somebody has to bear: the call that first has the use of it."""
        if self._prefix is not None:
            self._prefilled = self._charged = self.cache.take_charge(engine, self._prefix)

    def _bear(self, tokens: int) -> None:
        """Of what was charged; the rest is the next one's."""
        rest, self._charged = self._charged - tokens, tokens
        self._prefilled -= rest
        if rest and self._engine is not None and self._prefix is not None:
            self.cache.charge_ahead(self._engine, self._prefix, rest)

    async def _place(self, engine: ServedEngine) -> None:
        """Leaves the aligned prefix in the slot: restored, or computed and saved."""
        assert self._prefix is not None and self._slot is not None  # noqa: S101, PT018 - the callers looked
        key = self._prefix.state
        store = self.cache.stores[engine.id]
        if await self._restore(engine, store, key):
            return
        async with self.cache.flight.alone(key):
            # Looked for again even without a wait: another may have begun and ended since the look above.
            if await self._restore(engine, store, key):
                return
            self._prefilled = await self._prefill(engine, self._prefix)
            self._in_place = True
            self._cause = self._cause or "it was never read before, or its state is gone"
            await self._save(engine, store, key)

    async def _prefill(self, engine: ServedEngine, prefix: Prefix) -> int:
        started = time.monotonic()
        computed = await engine.adapter.prefill(prefix.aligned, slot=self._slot)
        took = Measured(computed, 0, 0, prompt_s=time.monotonic() - started)
        self.cache.learned.observe(engine.replica, took, predicted=0)
        return computed

    async def _restore(self, engine: ServedEngine, store: StateStore, key: StateKey) -> bool:
        """Whether the slot holds the state now."""
        manifest = await store.find(key)
        if manifest is None or self._slot is None:
            return False
        try:
            n = await engine.restore(self._slot, key, manifest.file)
        except CacheError as error:  # the engine is in trouble, which says nothing of the state
            _log.info("%s", error)
            self._cause = "the engine failed while it was put in place"
            return False
        if n != key.n_tokens:
            await store.discard(key, "the engine does not take it")
            self._cause = "the engine did not take the saved state"
            return False
        self._charge(engine)
        self._restored = n
        self._predicted = n
        self._in_place = True
        return True

    async def _save(self, engine: ServedEngine, store: StateStore, key: StateKey) -> None:
        """Keeps the state; a failure costs the next call its time, not this one's answer."""
        assert self._slot is not None  # noqa: S101 - the caller looked
        file = await store.begin(key)
        try:
            n = await engine.save(self._slot, key, file)
        except CacheError as error:
            _log.warning("a state could not be saved: %s", error)
            n = 0
        if n != key.n_tokens:  # a file cut off by a full disk must not be taken in: restoring one ends the engine
            await store.discard(key, "it could not be saved")
            self._cause = "its state could not be saved"
            return
        labels = call_labels()
        chunk = int(labels["chunk"]) if "chunk" in labels else None
        await store.commit(key, file, StateOrigin(engine.group, labels.get("document", ""), chunk))

    async def _described(self, engines: Sequence[ServedEngine]) -> Wanted:
        engine = engines[0]
        prefix, saved = await engine.prefix_of(self.prompt), False
        if not engine.slotted:
            self._prefix = prefix  # the index knows the group's prompts by these tokens, whichever engine is chosen
        shared = self.cache.share(engines)
        if prefix is not None and self.cache.saves(engine):
            saved = await self.cache.stores[engine.id].find(prefix.state) is not None
            # A call that comes while another one computes the state waits for that one, wherever it is sent.
            saved = saved or (shared and self.cache.coming.setdefault(prefix.state, self.id) != self.id)
        return wanted_of(self.id, engine, prefix, self.prompt, self.decoding, saved=saved, shared=shared)

    def _patience_s(self, engine: ServedEngine) -> float:
        """A state that was saved can be restored into any slot; else see `patience_s`."""
        if self._prefix is None or self.cache.saves(engine):
            return 0.0
        seen, n_active = self.cache.learned.view(engine.replica), self.cache.active_at(engine)
        queue_s = 0.0 if self._choice is None else self._choice.seconds
        return patience_s(seen, self._prefix, n_out=expected_reply(self.decoding), n_active=n_active, queue_s=queue_s)

    async def _take_seat(self, engine: ServedEngine) -> None:
        await self.cache.take_seat(engine)
        self._engine, self._seated = engine, True

    async def _leave_seat(self) -> None:
        if not self._done:
            self._bear(0)
        engine, slot = self._engine, self._slot
        self._slot, self._engine, self._in_place = None, None, False
        self.cache.ended(self)
        if not self._seated or engine is None:
            return
        self._seated = False
        try:
            if slot is not None:
                holds = None if self._prefix is None else self._prefix.last
                await asyncio.shield(self.cache.index.unseat(self.id, engine.replica, slot, holds))
        finally:
            self.cache.give_seat_back(engine)

    async def _let_go(self) -> None:
        choice, replica, self._choice = self._choice, self._replica, None
        if choice is not None and replica is not None:
            await self.cache.index.release(self.id, replica)

    @contextlib.contextmanager
    def _forgiven(self, what: str) -> Iterator[None]:
        """A cache that fails must not fail an answer."""
        try:
            yield
        except CacheError as error:
            self._cause = "the engine failed while it was put in place"
            _log.info("%s failed: %s", what, error)
        except Exception:
            self._cause = "the cache failed"
            _log.warning("%s failed; the call goes on without the prefix cache.", what, exc_info=True)
