"""A simulation of replicas as vLLM's, behind our policy and behind the rules of sglang-router's `cache_aware`.

A replica computes in steps: all prompts that wait and fit, together, and one token of each reply that is under way. Its
memory is blocks; those that nobody uses stay until they are needed, the ones let go first going first, of a prompt
its end before its beginning. What changed it tells after the step, as KV events do. Pure and seeded. Our arm is the
index itself with its scripts, and the learned speeds; only the engines and the clock are made up.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import statistics
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol

from coa.cache.index import Choice, Replica, Wanted
from coa.cache.redis_index import RedisIndex
from coa.cache.speeds import Speeds
from coa.llm.prefixes import Measured

__all__ = ["BLOCK", "ByCache", "ByIndex", "Engine", "Load", "Outcome", "Router", "run"]

BLOCK = 32
_SEQUENCES = 8
"""Calls that an engine computes at once."""
_STEP_S, _REPLY_S = 0.03, 0.004
"""Of a step, and of each reply's token in it: SmolLM2 with vLLM on one core, as are the speeds of `Load`."""
_REPLY = 16
_TAIL = 45
_BETWEEN_S = 0.03
"""From a chain's one call to its next."""
_THRESHOLD, _ABSOLUTE, _RELATIVE = 0.3, 4, 1.5
"""As tests/live_vllm starts the router."""


@dataclass(frozen=True)
class Load:
    """Chains over documents, each for one question, at random moments."""

    documents: int = 4
    chunks: int = 3
    questions: int = 3
    chunk_tokens: int = 530
    share: float = 0.9
    """Of all chunks, what the caches hold together."""
    rate: float = 0.7
    """Chains a second."""
    speeds: tuple[float, ...] = (560.0, 560.0)
    """Prompt tokens a second, of each replica."""

    @property
    def blocks(self) -> int:
        """Of each replica."""
        return -(-round(self.share * self.documents * self.chunks * self.chunk_tokens / len(self.speeds)) // BLOCK)


class Outcome(NamedTuple):
    """Of one arm under one load."""

    computed: list[int]
    """Prompt tokens, by replica."""
    first_token_s: list[float]

    def tenth(self, n: int) -> float:
        """Seconds to the first token that n tenths of the calls did not exceed."""
        return statistics.quantiles(self.first_token_s, n=10)[n - 1]


@dataclass(eq=False)
class _Call:
    number: int
    document: int
    chunk: int
    blocks: tuple[bytes, ...]
    """Those that are full."""
    n_prefix: int
    """Of these, the chunk's."""
    n_prompt: int
    n_reply: int
    on_first: Callable[[], None]
    on_end: Callable[[], None]
    cached: int = 0
    written: int = 0
    used: list[bytes] = field(default_factory=list)


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._numbers), call))

    def run(self) -> None:
        while self._queue:
            self.now, _, call = heapq.heappop(self._queue)
            call()


class Engine:
    """One replica."""

    def __init__(self, clock: _Clock, n_blocks: int, prefill_tps: float) -> None:
        self.computed = 0
        self.on_events: Callable[[list[bytes], list[bytes]], None] = lambda stored, removed: None
        self._clock, self._prefill_tps = clock, prefill_tps
        self._unnamed = itertools.count()
        self._free = OrderedDict.fromkeys(self._name() for _ in range(n_blocks))
        self._held: set[bytes] = set()
        self._users: dict[bytes, int] = {}
        self._waiting: deque[_Call] = deque()
        self._running: list[_Call] = []
        self._stored: list[bytes] = []
        self._removed: list[bytes] = []
        self._at_work = False

    def add(self, call: _Call) -> None:
        """Takes a call."""
        self._waiting.append(call)
        if not self._at_work:
            self._at_work = True
            self._clock.after(0.0, self._step)

    def _name(self) -> bytes:
        return f"unnamed {next(self._unnamed)}".encode()

    def _take(self, name: bytes, *, kept: bool) -> bytes:
        """A block, from what was let go longest ago."""
        old, _ = self._free.popitem(last=False)
        if old in self._held:
            self._held.discard(old)
            self._removed.append(old)
        if kept:
            self._held.add(name)
            self._stored.append(name)
        self._users[name] = 1
        return name

    def _admit(self, call: _Call) -> bool:
        most = (call.n_prompt - 1) // BLOCK  # the last token is always computed
        hit = list(itertools.takewhile(self._held.__contains__, call.blocks[:most]))
        n_new = -(-call.n_prompt // BLOCK) - len(hit)
        if len(self._free) - sum(block in self._free for block in hit) < n_new:
            return False
        for block in hit:
            self._free.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1
        call.used = list(hit)
        for at in range(len(hit), len(hit) + n_new):
            named = at < len(call.blocks) and call.blocks[at] not in self._held
            call.used.append(self._take(call.blocks[at] if named else self._name(), kept=named))
        call.cached = len(hit) * BLOCK
        self.computed += call.n_prompt - call.cached
        return True

    def _let_go(self, call: _Call) -> None:
        for block in reversed(call.used):
            self._users[block] -= 1
            if not self._users[block]:
                del self._users[block]
                self._free[block] = None
        call.used = []

    def _step(self) -> None:
        begun: list[_Call] = []
        for call in list(self._running):
            if (call.n_prompt + call.written) % BLOCK == 0 and call in self._running:
                while not self._free:  # as vLLM does, the call that came last begins anew
                    last = self._running.pop()
                    self._let_go(last)
                    last.written = 0
                    self._waiting.appendleft(last)
                if call in self._running:
                    call.used.append(self._take(self._name(), kept=False))
        replies = list(self._running)
        while self._waiting and len(self._running) < _SEQUENCES and self._admit(self._waiting[0]):
            begun.append(self._waiting.popleft())
            self._running.append(begun[-1])
        if not self._running:
            self._at_work = False
            return
        n_computed = sum(call.n_prompt - call.cached for call in begun)
        took = _STEP_S + n_computed / self._prefill_tps + len(replies) * _REPLY_S
        self._clock.after(took, lambda: self._stepped(replies, begun))

    def _stepped(self, replies: Sequence[_Call], begun: Sequence[_Call]) -> None:
        stored, removed, self._stored, self._removed = self._stored, self._removed, [], []
        self.on_events(stored, removed)
        for call in begun:
            call.on_first()
        for call in (*replies, *begun):
            call.written += 1
            if call.written >= call.n_reply:
                self._running.remove(call)
                self._let_go(call)
                call.on_end()
        self._step()


class Router(Protocol):
    """An arm."""

    def choose(self, call: _Call) -> int:
        """The replica for a call."""
        ...

    def ended(self, call: _Call, replica: int) -> None:
        """It is over."""
        ...


class ByCache:
    """sglang-router's `cache_aware` as its source has it: where a text was sent before, unless calls in flight are out
    of balance; what is new goes where least is in flight. Whole chunks are what texts share here."""

    def __init__(self, clock: _Clock, engines: Sequence[Engine], load: Load) -> None:
        self._in_flight = [0] * len(engines)
        self._sent: dict[tuple[int, int], int] = {}

    def choose(self, call: _Call) -> int:
        least, most = min(self._in_flight), max(self._in_flight)
        idlest, key = self._in_flight.index(least), (call.document, call.chunk)
        balanced = most - least <= _ABSOLUTE or most <= _RELATIVE * least
        known = call.n_prefix * BLOCK > _THRESHOLD * call.n_prompt
        chosen = self._sent.get(key, idlest) if balanced and known else idlest
        self._sent.setdefault(key, chosen)
        self._in_flight[chosen] += 1
        return chosen

    def ended(self, call: _Call, replica: int) -> None:
        self._in_flight[replica] -= 1


class ByIndex:
    """Ours."""

    def __init__(self, clock: _Clock, engines: Sequence[Engine], load: Load) -> None:
        self._clock, self._speeds, self._runner = clock, Speeds(), asyncio.Runner()
        self._index = RedisIndex(None, block_tokens=BLOCK, clock=lambda: 1e6 + clock.now)
        n = len(engines)
        self._replicas = [Replica(f"r{i}", "1", "events", 256, 200.0, 30.0, 1.0, load.blocks * BLOCK) for i in range(n)]
        self._sent: dict[int, tuple[float, Choice]] = {}
        for replica, engine in zip(self._replicas, engines, strict=True):
            engine.on_events = lambda stored, removed, replica=replica: self._told(replica, stored, removed)  # type: ignore[misc]

    def choose(self, call: _Call) -> int:
        hashes = call.blocks[: call.n_prefix]
        ends = tuple(BLOCK * (i + 1) for i in range(call.n_prefix))
        name = f"document {call.document}"
        wanted = Wanted(str(call.number), hashes, ends, call.n_prompt, call.n_reply // 2, affinity=name)
        views = [self._speeds.view(replica) for replica in self._replicas]
        choice = self._runner.run(self._index.reserve(wanted, views))
        assert choice is not None
        self._sent[call.number] = self._clock.now, choice
        return int(choice.replica[1:])

    def ended(self, call: _Call, replica: int) -> None:
        began, choice = self._sent.pop(call.number)
        measured = Measured(call.n_prompt, call.cached, call.n_reply)
        wall_s = self._clock.now - began
        self._speeds.observe(self._replicas[replica], measured, predicted=choice.held_tokens, wall_s=wall_s)
        self._runner.run(self._index.release(str(call.number), self._replicas[replica]))

    def close(self) -> None:
        """Ends the index."""
        self._runner.run(self._index.close())
        self._runner.close()

    def _told(self, replica: Replica, stored: list[bytes], removed: list[bytes]) -> None:
        async def tell() -> None:
            if removed:
                await self._index.dropped(replica, removed)
            if stored:
                await self._index.held(replica, stored)

        self._runner.run(tell())


def run(load: Load, seed: int, arm: Callable[[_Clock, Sequence[Engine], Load], Router]) -> Outcome:
    """All chains of a load, through to their ends."""
    clock, chance, numbers = _Clock(), random.Random(seed), itertools.count()
    engines = [Engine(clock, load.blocks, speed) for speed in load.speeds]
    router, outcome = arm(clock, engines, load), Outcome([], [])

    def call(document: int, chunk: int) -> None:
        number, began = next(numbers), clock.now
        n_prefix = load.chunk_tokens // BLOCK
        n_prompt = load.chunk_tokens + _TAIL + chance.randrange(-12, 13)
        blocks = [_hash("system"), *(_hash(f"{document} {chunk} {i}") for i in range(1, n_prefix))]
        blocks += [_hash(f"tail {number} {i}") for i in range(n_prompt // BLOCK - n_prefix)]

        def ended() -> None:
            router.ended(made, replica)
            if chunk + 1 < load.chunks:
                clock.after(_BETWEEN_S, lambda: call(document, chunk + 1))

        def first() -> None:
            outcome.first_token_s.append(clock.now - began)

        reply = _REPLY if chance.random() < 0.8 else _REPLY // 2
        made = _Call(number, document, chunk, tuple(blocks), n_prefix, n_prompt, reply, first, ended)
        replica = router.choose(made)
        engines[replica].add(made)

    chains = [document for document in range(load.documents) for _ in range(load.questions)]
    chance.shuffle(chains)
    at = 0.0
    for document in chains:
        clock.after(at, lambda document=document: call(document, 0))  # type: ignore[misc]
        at += chance.expovariate(load.rate)
    clock.run()
    if isinstance(router, ByIndex):
        router.close()
    outcome.computed.extend(engine.computed for engine in engines)
    return outcome


def _hash(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()
