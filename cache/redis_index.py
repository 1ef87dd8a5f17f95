"""The prefix index in Redis, with a mirror of it in this process.

All that this process tells goes to both, so that the mirror is warm when Redis is out of reach: the same scripts
then run on the mirror. Without a Redis the mirror is all there is.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from coa.cache import index_scripts as scripts
from coa.cache.blocks import DEFAULT_BLOCK_TOKENS
from coa.cache.embedded_redis import EmbeddedRedis
from coa.cache.index import Choice, Replica, Wanted
from coa.cache.redis_links import RedisLink, ScriptRunner
from coa.cache.router import LEAST_SPEED, ranks

__all__ = ["RedisIndex", "ReplicaContents", "open_index"]

_log = logging.getLogger(__name__)

# One hash tag: a cluster keeps all keys that a script needs in one place.
_PREFIX = "coa:{index}:1:"
_SLOT_LEASE_S = 20.0
"""Renewed four times in it; what a killed process had is free after it."""
_BOOKING_LEASE_S = 600.0
_LIFETIME_S = {"events": 86_400, "owned": 86_400, "approx": 1_800}
_KEYS_LIFETIME_S = 90_000
_ZERO_HITS = 3
_ROWS = 500
_NO_SLOT = -1

Mismatch = Callable[[str], None]


class ReplicaContents(NamedTuple):
    """What the index has of a replica."""

    replica: str
    epoch: str
    blocks: int
    in_flight: int
    queued_tokens: int


def open_index(redis_url: str | None, **options: Any) -> RedisIndex:
    """The index at `redis_url`; this process's own without one. `options` are `RedisIndex`'s.

    Connects when it is first asked. Raises: CacheError for an address that is none.
    """
    if redis_url is None:
        return RedisIndex(None, **options)
    from coa.cache.connection import connect

    return RedisIndex(RedisLink(connect(redis_url)), **options)


class RedisIndex:
    """`PrefixIndex`; may be used on several event loops, one after the other or at once."""

    def __init__(
        self,
        link: RedisLink | None,
        *,
        mirror: ScriptRunner | None = None,
        block_tokens: int = DEFAULT_BLOCK_TOKENS,
        booking_lease_s: float = _BOOKING_LEASE_S,
        slot_lease_s: float = _SLOT_LEASE_S,
        on_mismatch: Mismatch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The link and the mirror are the index's own from here on.

        `on_mismatch` is told the replica that gave nothing back of three predicted hits in a row.
        """
        self._link = link
        self._mirror: ScriptRunner = mirror or EmbeddedRedis()
        self._block_tokens = block_tokens
        self._booking_lease_s = booking_lease_s
        self._slot_lease_s = slot_lease_s
        self._on_mismatch = on_mismatch or _warn_of_mismatch
        self._clock = clock
        self._boot: str | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._publishing: asyncio.Task[None] | None = None
        self._known: dict[str, Replica] = {}
        self._zeros: dict[str, int] = {}

    async def reserve(self, wanted: Wanted, replicas: Sequence[Replica]) -> Choice | None:
        """See `PrefixIndex.reserve`."""
        if not replicas:
            return None
        try:
            return await self._reserve(wanted, replicas)
        except asyncio.CancelledError:  # whatever has been booked by now, nobody will release it
            self._afterwards(self._forget(wanted.request, replicas))
            raise

    async def release(self, request: str, replica: Replica) -> None:
        """See `PrefixIndex.release`."""
        await self._both(scripts.RELEASE, _keys(replica, "fw"), [request, _number(self._clock())])

    async def renew(self, request: str, replica: Replica, slot: int | None = None) -> None:
        """See `PrefixIndex.renew`."""
        now = self._clock()
        args = [request, _number(now + self._booking_lease_s), _number(now), _number(now + self._slot_lease_s)]
        args += ["-" if slot is None else str(slot), str(_KEYS_LIFETIME_S)]
        await self._both(scripts.RENEW, _keys(replica, "fw", "sl"), args)

    async def held(self, replica: Replica, hashes: Sequence[bytes]) -> None:
        """See `PrefixIndex.held`; of an engine that coa places states in, `hashes` is a whole chain.

        What then exceeds the replica's capacity is taken for evicted, what was not used for longest first, unless
        the engine itself tells what goes.
        """
        if not hashes:
            return
        now, lifetime = self._clock(), _LIFETIME_S[replica.kind]
        capacity = 0 if replica.kind == "events" else max(0, replica.capacity_tokens // self._block_tokens)
        args: list[str | bytes] = [_number(now), _number(now + lifetime), str(lifetime), str(capacity)]
        args += ["1" if replica.kind == "owned" else "0", b"".join(hashes), hashes[-1].hex(), _member(replica)]
        self._known[_member(replica)] = replica
        await self._both(scripts.HELD, [*_keys(replica, "ix", "ch"), _PREFIX + "reps"], args)

    async def dropped(self, replica: Replica, hashes: Sequence[bytes] | None) -> None:
        """See `PrefixIndex.dropped`."""
        packed: str | bytes = "*" if hashes is None else b"".join(hashes)
        await self._both(scripts.DROPPED, _keys(replica, "ix", "ch", "sl"), [packed])

    async def scored(self, wanted: Wanted, replica: Replica, *, predicted: int, actual: int) -> None:
        """What came of a prediction, in tokens: hashes beyond what the engine really had are dropped; a third hit in
        a row that was predicted and gave nothing is told to `on_mismatch`, and the replica counts as empty."""
        if predicted <= 0 or actual >= predicted - self._block_tokens:
            self._zeros.pop(replica.id, None)
            return
        self._zeros[replica.id] = self._zeros.get(replica.id, 0) + 1 if actual <= 0 else 0
        if self._zeros[replica.id] == _ZERO_HITS:
            self._on_mismatch(replica.id)
            await self.dropped(replica, None)
            return
        gone = [known for known, end in zip(wanted.hashes, wanted.tokens, strict=False) if end > actual]
        await self.dropped(replica, gone)

    async def seat(
        self, request: str, replica: Replica, prefer: bytes | None = None, *, patient: bool = False
    ) -> int | None:
        """See `PrefixIndex.seat`; `prefer` is the last hash of a chain as told to `held`. A `patient` request gets
        None also while the slot that holds `prefer` is taken. Slots with pinned prefixes are given away last, and
        what only the slot's last prefix held does not count as held any more."""
        try:
            return await self._seat(request, replica, prefer, patient=patient)
        except asyncio.CancelledError:  # whichever it was given by now, nobody will give it back
            self._afterwards(self.unseat(request, replica, _NO_SLOT))
            raise

    async def _seat(self, request: str, replica: Replica, prefer: bytes | None, *, patient: bool) -> int | None:
        now = self._clock()
        keys = [*_keys(replica, "sl", "ix", "ch"), _PREFIX + "pins"]
        args: list[str | bytes] = [_number(now), _number(now + self._slot_lease_s), request, str(replica.slots)]
        args += [prefer.hex() if prefer else "-", "1" if patient else "0"]
        slot = None
        if self._link is not None:
            slot = await self._link.ask(scripts.SEAT, keys, [*args, "-1", str(_KEYS_LIFETIME_S)], request)
            if slot is not None and slot >= 0:
                await self._on_mirror(scripts.SEAT, keys, [*args, str(slot), str(_KEYS_LIFETIME_S)])
        if slot is None:
            slot = await self._on_mirror(scripts.SEAT, keys, [*args, "-1", str(_KEYS_LIFETIME_S)])
            if slot is None:
                return 0  # nobody knows; an engine queues by itself
            self._tell(scripts.SEAT, keys, [*args, str(slot), str(_KEYS_LIFETIME_S)])
        return slot if slot >= 0 else None

    async def unseat(self, request: str, replica: Replica, slot: int, holds: bytes | None = None) -> None:
        """See `PrefixIndex.unseat`; ends all leases of the request there."""
        args = [str(slot), request, _number(self._clock()), holds.hex() if holds else "-"]
        await self._both(scripts.UNSEAT, _keys(replica, "sl"), args)

    async def pin(self, prefixes: Mapping[bytes, int], *, until: float) -> None:
        """Prefixes, by their last hash, with their tokens, are known to be read before Unix time `until`. Counted:
        each `pin` needs its `unpin`, or its time."""
        args = [_number(self._clock()), _number(until)]
        for held, tokens in prefixes.items():
            args += [held.hex(), str(tokens)]
        await self._both(scripts.PIN, [_PREFIX + "pins", _PREFIX + "pinned"], args)

    async def unpin(self, prefixes: Sequence[bytes]) -> None:
        """Ends a `pin` of each."""
        await self._both(scripts.UNPIN, [_PREFIX + "pins", _PREFIX + "pinned"], [held.hex() for held in prefixes])

    async def recall(self, replica: str) -> dict[str, str]:
        """What was last remembered of a replica, by this process or another one."""
        flat = await self._either(_FACTS, [f"{_PREFIX}rep:{replica}"], [])
        told = [each.decode() for each in flat or ()]
        return dict(zip(told[::2], told[1::2], strict=True))

    async def remember(self, replica: str, facts: Mapping[str, str]) -> None:
        """Keeps facts of a replica (its speeds) over its restarts, for a day."""
        args = [str(_KEYS_LIFETIME_S), *(part for pair in facts.items() for part in pair)]
        await self._both(_LEARNED, [f"{_PREFIX}rep:{replica}"], args)

    async def contents(self, replica: Replica) -> ReplicaContents:
        """How much the index has of a replica now."""
        told = await self._either(scripts.STATS, _keys(replica, "ix", "fw"), [_number(self._clock())])
        blocks, in_flight, queued, _ = told or (0, 0, 0, 0)
        return ReplicaContents(replica.id, replica.epoch, blocks, in_flight, queued)

    async def flushed(self) -> None:
        """Waits until what was told before has reached Redis, or has not; for tests and for a process that ends."""
        if tasks := self._tasks():
            await asyncio.wait(tasks)
        if self._link is not None:
            await self._link.flushed()

    async def close(self) -> None:
        """See `PrefixIndex.close`."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._link is not None:
            self._link.close()
        await self._mirror.close()

    async def _reserve(self, wanted: Wanted, replicas: Sequence[Replica]) -> Choice | None:
        now = self._clock()
        keys = [_PREFIX + "boot", _PREFIX + "pins", _PREFIX + "pinned"]
        for replica in replicas:
            keys += _keys(replica, "ix", "fw", "sl", "ch")
        args, answer = self._asked_for(wanted, replicas, now), None
        if self._link is not None:
            answer = await self._link.ask(scripts.RESERVE, keys, args, wanted.request)
            self._look_at_boot(answer)
        shared = answer is not None and len(answer) > 1
        if not shared:
            answer = await self._on_mirror(scripts.RESERVE, keys, args)
            if answer is not None and len(answer) == 1:
                await self._on_mirror(_BOOTED, keys[:1], [secrets.token_hex(8)])
                answer = await self._on_mirror(scripts.RESERVE, keys, args)
        if answer is None:
            return None
        chosen = replicas[int(answer[1]) - 1]
        booked: list[str | bytes] = [wanted.request, _number(now + self._booking_lease_s), _number(now)]
        booked += [str(answer[4]), str(wanted.n_out), b"".join(wanted.hashes), str(_KEYS_LIFETIME_S)]
        if shared:
            await self._on_mirror(scripts.BOOK, _keys(chosen, "fw"), booked)
        elif self._link is not None:  # a script that was too late may have booked another one
            for replica in replicas:
                self._tell(scripts.RELEASE, _keys(replica, "fw"), [wanted.request, _number(now)])
            self._tell(scripts.BOOK, _keys(chosen, "fw"), booked)
        return _choice(answer, replicas, shared=shared or self._link is None)

    def _afterwards(self, work: Coroutine[object, object, None]) -> None:
        """Keeps what clears up until it is done; it reaches Redis after all that was asked and told before."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _forget(self, request: str, replicas: Sequence[Replica]) -> None:
        for replica in replicas:
            await self.release(request, replica)

    def _asked_for(self, wanted: Wanted, replicas: Sequence[Replica], now: float) -> list[str | bytes]:
        last = wanted.hashes[-1].hex() if wanted.hashes else "-"
        sizes = "".join(f"{tokens:08d}" for tokens in wanted.tokens)
        args: list[str | bytes] = [_number(now), _number(now + self._booking_lease_s), wanted.request]
        args += [str(_KEYS_LIFETIME_S), str(wanted.n_prompt), str(wanted.n_out), str(wanted.state_tokens)]
        args += [repr(float(wanted.restore_s)), str(self._block_tokens), last, b"".join(wanted.hashes), sizes]
        args += ["1" if wanted.shared else "0"]
        for replica, rank in zip(replicas, ranks(wanted, replicas), strict=True):
            args += [repr(max(LEAST_SPEED, float(replica.prefill_tps)))]
            args += [repr(max(LEAST_SPEED, float(replica.decode_tps))), repr(float(replica.confidence))]
            args += [str(max(1, replica.slots)), str(replica.capacity_tokens), replica.kind, str(rank)]
            args += [repr(float(replica.hold_s)), repr(float(replica.work_tokens))]
        return args

    def _look_at_boot(self, answer: Any) -> None:
        """A Redis that is new to this process, or was emptied, is told what this process knows."""
        if answer is None:
            if self._link is not None and self._link.out:
                self._boot = None  # whatever it was, it may have missed something
            return
        boot = answer[0].decode()
        if boot and boot == self._boot:
            return
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.get_running_loop().create_task(self._publish(boot))

    async def _publish(self, boot: str) -> None:
        assert self._link is not None  # noqa: S101 - only a link has a boot
        told = await self._link.ask(_BOOTED, [_PREFIX + "boot"], [boot or secrets.token_hex(8)])
        if told is None:
            return
        for replica in list(self._known.values()):
            keys = _keys(replica, "ix", "fw", "sl", "ch")
            tables = await self._on_mirror(scripts.DUMP, keys, [])
            for key, rows in zip(keys, tables or (), strict=False):
                kind = "zset" if key == keys[0] else "hash"
                for start in range(0, len(rows), _ROWS):
                    self._tell(scripts.LOAD, [key], [kind, str(_KEYS_LIFETIME_S), *rows[start : start + _ROWS]])
                    await asyncio.sleep(0)
        self._boot = told.decode()

    def _tasks(self) -> list[asyncio.Task[None]]:
        """What runs in the background of this loop."""
        loop = asyncio.get_running_loop()
        tasks = [*self._background, *([] if self._publishing is None else [self._publishing])]
        return [task for task in tasks if task.get_loop() is loop]

    async def _both(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> None:
        self._tell(script, keys, args)
        await self._on_mirror(script, keys, args)

    async def _either(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:
        answer = None if self._link is None else await self._link.ask(script, keys, args)
        return answer if answer is not None else await self._on_mirror(script, keys, args)

    def _tell(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> None:
        if self._link is not None:
            self._link.tell(script, keys, args)

    async def _on_mirror(self, script: str, keys: Sequence[str], args: Sequence[str | bytes]) -> Any:
        try:
            return await self._mirror.run(script, keys, args)
        except Exception:  # advice that fails must not fail an answer
            _log.warning("the prefix index failed; calls go on without it.", exc_info=True)
            return None


_BOOTED = """
local boot = redis.call('GET', KEYS[1])
if not boot then
  boot = ARGV[1]
  redis.call('SET', KEYS[1], boot)
end
return boot
"""
_FACTS = "return redis.call('HGETALL', KEYS[1])"
_LEARNED = """
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""


def _keys(replica: Replica, *kinds: str) -> list[str]:
    return [f"{_PREFIX}{kind}:{replica.server or replica.id}:{replica.epoch}" for kind in kinds]


def _member(replica: Replica) -> str:
    return f"{replica.id} {replica.epoch}"


def _number(value: float) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _choice(answer: Sequence[Any], replicas: Sequence[Replica], *, shared: bool) -> Choice:
    place, hit = int(answer[1]) - 1, int(answer[2])
    costs, hits = zip(*((float(view.split()[0]), int(view.split()[1])) for view in answer[6:]), strict=True)
    others = [i for i in range(len(replicas)) if i != place]
    second = min(others, key=lambda i: costs[i]) if others else None
    return Choice(
        replicas[place].id,
        hit,
        float(answer[3]),
        runner_up=None if second is None else replicas[second].id,
        regret_tokens=max(hits) - hit,
        held_tokens=int(answer[5]),
        shared=shared,
    )


def _warn_of_mismatch(replica: str) -> None:
    _log.warning(
        "%s gave nothing back of three predicted hits in a row: its chat template or tokens differ from what coa "
        "computes with, or its prefix caching is off.",
        replica,
    )
