"""A discrete-event simulation of chains over engines, for speeds that no machine here has.

Replicas have slots and keep prefixes in memory, the ones not used for longest going first. One prompt is computed at a
time on a replica; replies are written side by side, and while a prompt is computed each goes on at a share of its
speed. Pure and seeded: the same arguments give the same figures. Speeds hold at every length of a prompt.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Chain", "Hop", "Policy", "Speeds", "Told", "simulate"]

LOOK_S = 0.05
"""Between two looks for room, as in `coa.cache.ahead`."""


class Speeds(NamedTuple):
    """Of one replica, in tokens a second."""

    prefill: float
    decode: float
    """Of one reply."""
    overhead_s: float = 0.0
    """Of a hop, outside the engine."""


class Hop(NamedTuple):
    """One call of a chain."""

    prefix: int
    """Tokens that a saved state or an engine's cache can give back."""
    tail: int
    """Tokens that every call has to compute."""
    reply: int


class Chain(NamedTuple):
    """A run: its document's name (chunks are shared by runs over the same one) and its calls."""

    document: str
    hops: Sequence[Hop]


class Policy(NamedTuple):
    """How the calls are made."""

    most_ahead: int = 0
    together: bool = False
    """Whether runs over the same document keep in step."""
    restores: bool = True
    """Whether a prefix that one replica computed can be restored by the others."""


@dataclass
class Told:
    """What came of it."""

    makespan_s: float = 0.0
    computed: int = 0
    """Prompt tokens, all replicas, work ahead included."""
    critical: list[float] = field(default_factory=list)
    """Of each hop: prompt tokens computed after its call had begun."""


class _Clock:
    """Callbacks in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, time: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time, next(self._numbers), call))

    def run(self) -> None:
        while self._queue:
            self.now, _, call = heapq.heappop(self._queue)
            call()


class _Signal:
    """Something that processes wait for."""

    def __init__(self) -> None:
        self.fired = False
        self._waiting: list[Callable[[], None]] = []

    def fire(self) -> None:
        self.fired = True
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()

    def then(self, resume: Callable[[], None]) -> None:
        if self.fired:
            resume()
        else:
            self._waiting.append(resume)


Process = Generator[_Signal, None, None]


def _start(process: Process) -> _Signal:
    """Runs a process; the signal fires at its end."""
    ended = _Signal()

    def step() -> None:
        try:
            signal = next(process)
        except StopIteration:
            ended.fire()
        else:
            signal.then(step)

    step()
    return ended


@dataclass
class _Job:
    kind: str
    left: float
    done: _Signal = field(default_factory=_Signal)


class _Replica:
    """One engine: work at rates that change with what else goes on."""

    def __init__(self, clock: _Clock, speeds: Speeds, *, slots: int, capacity: int, decode_share: float) -> None:
        self.clock, self._speeds, self._decode_share = clock, speeds, decode_share
        self.slots, self.capacity = slots, capacity
        self.busy = 0
        self.prompts = 0
        """Calls, and prefixes ahead, whose prompt is not through."""
        self.queue: list[_Signal] = []
        self.held: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._jobs: list[_Job] = []
        self._since = 0.0
        self._version = 0

    @property
    def idle(self) -> bool:
        return self.busy < self.slots and not self.queue

    def seat(self) -> _Signal:
        """A free slot, or a place in the queue for one."""
        free = _Signal()
        if self.busy < self.slots:
            self.busy += 1
            free.fire()
        else:
            self.queue.append(free)
        return free

    def leave(self) -> None:
        if self.queue:
            self.queue.pop(0).fire()
        else:
            self.busy -= 1

    def work(self, kind: str, tokens: float) -> _Signal:
        """Fires when `tokens` are computed ("prefill") or written ("decode")."""
        self._advance()
        job = _Job(kind, max(tokens, 0.0))
        self._jobs.append(job)
        self._plan()
        return job.done

    def hold(self, key: tuple[str, int], tokens: int) -> None:
        self.held[key] = tokens
        self.held.move_to_end(key)
        while sum(self.held.values()) > self.capacity and len(self.held) > 1:
            self.held.popitem(last=False)

    def _rates(self) -> list[float]:
        prefilling = next((job for job in self._jobs if job.kind == "prefill"), None)
        decode = self._speeds.decode * (1.0 if prefilling is None else self._decode_share)
        return [
            decode if job.kind == "decode" else self._speeds.prefill if job is prefilling else 0.0 for job in self._jobs
        ]

    def _advance(self) -> None:
        passed, self._since = self.clock.now - self._since, self.clock.now
        for job, rate in zip(self._jobs, self._rates(), strict=True):
            job.left -= rate * passed

    def _plan(self) -> None:
        self._version += 1
        version = self._version
        times = [job.left / rate for job, rate in zip(self._jobs, self._rates(), strict=True) if rate > 0]
        if times:
            self.clock.at(self.clock.now + max(0.0, min(times)), lambda: self._due(version))

    def _due(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        over = [job for job in self._jobs if job.left <= 1e-6]
        self._jobs = [job for job in self._jobs if job.left > 1e-6]
        self._plan()
        for job in over:
            job.done.fire()


class _World:
    """Everything that goes on in one simulation."""

    def __init__(
        self, chains: Sequence[Chain], replicas: Sequence[_Replica], policy: Policy, overhead_s: float
    ) -> None:
        self.clock, self.policy, self.told = replicas[0].clock, policy, Told()
        self.replicas, self.overhead_s = replicas, overhead_s
        self.chains = chains
        self.flights: dict[tuple[str, int], tuple[_Signal, float, float]] = {}
        """What is being computed: its end's signal, when it began, and its tokens."""
        self.saved: set[tuple[str, int]] = set()
        self.reading: dict[int, int] = {}
        """The hop that each chain is at."""
        self.moved = _Signal()
        self.writing = 0
        """Calls whose prompt is through."""
        self.ahead = 0
        """Prefixes that are being computed ahead."""

    def run(self) -> Told:
        ends = [_start(self._chain(number)) for number in range(len(self.chains))]
        if self.policy.most_ahead:
            self.clock.at(LOOK_S, self._look)
        self.clock.run()
        assert all(end.fired for end in ends), "a chain was left waiting"
        return self.told

    def _chain(self, number: int) -> Process:
        chain = self.chains[number]
        self.reading[number] = 0
        for at, hop in enumerate(chain.hops):
            self.reading[number] = at
            while self.policy.together and self._before(chain.document, at):
                yield self.moved
            yield from self._call((chain.document, at), hop)
            self.told.makespan_s = self.clock.now
            self.reading[number] = at + 1
            self._move()
        del self.reading[number]
        self._move()

    def _before(self, document: str, at: int) -> bool:
        return any(there < at for n, there in self.reading.items() if self.chains[n].document == document)

    def _move(self) -> None:
        moved, self.moved = self.moved, _Signal()
        moved.fire()

    def _call(self, key: tuple[str, int], hop: Hop) -> Process:
        yield self._pause(self.overhead_s)
        replica = self._choose(key)
        yield replica.seat()
        replica.prompts += 1
        late = 0.0
        if key in self.flights and self._can_use(replica, key):
            ended, began, tokens = self.flights[key]
            waits_from = self.clock.now
            yield ended
            late = tokens * (self.clock.now - waits_from) / max(1e-9, self.clock.now - began)
        prefix = hop.prefix if not self._there(replica, key) else 0
        if prefix:
            yield from self._compute(replica, key, prefix)
        replica.hold(key, hop.prefix)
        yield replica.work("prefill", hop.tail)
        self.told.computed += hop.tail
        self.told.critical.append(prefix + hop.tail + late)
        replica.prompts -= 1
        self.writing += 1
        yield replica.work("decode", hop.reply)
        self.writing -= 1
        replica.leave()

    def _compute(self, replica: _Replica, key: tuple[str, int], tokens: int) -> Process:
        ended = _Signal()
        self.flights[key] = (ended, self.clock.now, tokens)
        yield replica.work("prefill", tokens)
        self.told.computed += tokens
        replica.hold(key, tokens)
        if self.policy.restores:
            self.saved.add(key)
        if self.flights.get(key, (None,))[0] is ended:
            del self.flights[key]
        ended.fire()

    def _there(self, replica: _Replica, key: tuple[str, int]) -> bool:
        return key in replica.held or key in self.saved

    def _can_use(self, replica: _Replica, key: tuple[str, int]) -> bool:
        return self.policy.restores or not self._there(replica, key)

    def _choose(self, key: tuple[str, int]) -> _Replica:
        """The one that holds the prefix, if it is free; else the one with least to do."""
        return min(
            self.replicas, key=lambda r: (r.busy + len(r.queue) >= r.slots, key not in r.held, r.busy + len(r.queue))
        )

    def _look(self) -> None:
        """As `coa.cache.ahead`: the nearest prefix that nobody has begun, while a reply is written, where a replica has
        nothing to do (or, where there is but one, no prompt to compute)."""
        if not self.reading:
            return
        alone = len(self.replicas) == 1
        free = [r for r in self.replicas if self.writing and r.idle and not (r.prompts if alone else r.busy)]
        if free and self.ahead < self.policy.most_ahead:
            wanted = self._wanted()
            if wanted is not None:
                key, tokens = wanted
                replica = min(free, key=lambda r: r.busy)
                self.ahead += 1
                _start(self._work_ahead(replica, key, tokens))
        self.clock.at(self.clock.now + LOOK_S, self._look)

    def _wanted(self) -> tuple[tuple[str, int], int] | None:
        for step in range(1, self.policy.most_ahead + 1):
            for number, at in self.reading.items():
                chain = self.chains[number]
                key = (chain.document, at + step)
                known = key in self.flights or key in self.saved or any(key in r.held for r in self.replicas)
                if at + step < len(chain.hops) and not known:
                    return key, chain.hops[at + step].prefix
        return None

    def _work_ahead(self, replica: _Replica, key: tuple[str, int], tokens: int) -> Process:
        yield replica.seat()
        replica.prompts += 1
        yield from self._compute(replica, key, tokens)
        replica.prompts -= 1
        replica.leave()
        self.ahead -= 1

    def _pause(self, seconds: float) -> _Signal:
        over = _Signal()
        self.clock.at(self.clock.now + seconds, over.fire)
        return over


def simulate(
    chains: Sequence[Chain],
    *,
    replicas: int,
    speeds: Speeds,
    policy: Policy,
    slots: int = 1,
    capacity: int = 1_000_000,
    decode_share: float = 0.5,
    spread: float = 0.0,
    seed: int = 0,
) -> Told:
    """Runs the chains, all begun at once. `capacity` is in tokens, per replica; `spread` is by what share, at most,
    replies are longer or shorter than said."""
    clock, chance = _Clock(), random.Random(seed)
    made = [_Replica(clock, speeds, slots=slots, capacity=capacity, decode_share=decode_share) for _ in range(replicas)]

    def varied(hop: Hop) -> Hop:
        return hop._replace(reply=round(hop.reply * (1 + chance.uniform(-spread, spread))))

    chains = [Chain(chain.document, [varied(hop) for hop in chain.hops]) for chain in chains]
    return _World(chains, made, policy, speeds.overhead_s).run()
