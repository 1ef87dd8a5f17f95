"""A ledger in Redis: for any number of machines.

The ledger is no cache: losing it means that a batch has to be added again (its results stay, and are not paid
again). So calls wait for a server that restarts rather than going on without it, and a server that throws keys
away when its memory is full is refused.

An operation is one call of one Lua script (`redis_ledger_*.lua`) and takes the same time however many items there
are. All keys of a batch carry one hash tag, so that servers which are parts of a cluster run the script, too.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

from coa.batch.ledger import (
    MAX_LOST,
    STATES,
    Control,
    Entry,
    ItemState,
    Known,
    Lease,
    LedgerStatus,
    Outcome,
    Reservation,
    Row,
    Spending,
    SpendingLimits,
)
from coa.batch.redis_ledger_values import (
    lease_from,
    limits_from,
    limits_to,
    packed,
    row_from,
    spending_arguments,
    status_from,
    unpacked,
)
from coa.errors import CacheError, ConfigError, StorageError

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisLedger", "client_for", "open_redis_ledger"]

_KEYS = (
    "docs", "digests", "sources", "texts", "queue", "waiting", "leased", "holders", "faulty", "unreported", "slowest",
    "counts", "causes", "owners", "meta",
)  # fmt: skip
_ENTRIES_AT_ONCE = 200
_DOCUMENTS_AT_ONCE = 200
_LEASES_AT_ONCE = 200
_TIMEOUT_S = 10.0
_RETRIES = 8
"""With pauses that double up to `_LONGEST_PAUSE_S`: a server may be away for about half a minute."""
_LONGEST_PAUSE_S = 8.0
_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")

_Argument = bytes | str | int | float


async def open_redis_ledger(url: str, batch: str) -> RedisLedger:
    """The ledger of the batch of that id, there or not yet, at a server that has answered.

    Raises: CacheError where it does not, ConfigError for an address that is none or a server whose settings would
    lose the ledger.
    """
    ledger = RedisLedger(client_for(url), batch)
    try:
        await ledger.check_server()
    except BaseException:
        await ledger.close()
        raise
    return ledger


class RedisLedger:
    """A ledger in Redis; see `Ledger`. For the event loop in which it is used first."""

    def __init__(self, client: Redis, batch: str, *, clock: Callable[[], float] | None = None) -> None:
        """The client is the ledger's own from here on. `clock` None is the server's, the same for all machines."""
        if not _ID.fullmatch(batch):
            raise ConfigError(f"{batch!r} is no id of a batch.", hint="Letters, digits, dots, dashes and underscores.")
        self._client = client
        self._clock = clock
        self._keys = [f"coa:{{batch:{batch}}}:{name}" for name in _KEYS]
        self._script = client.register_script(_source())

    async def check_server(self) -> None:
        """Raises: CacheError where it does not answer, ConfigError where it evicts keys without a lifetime."""
        try:
            policy = str((await self._asking(lambda: self._client.info("memory"))).get("maxmemory_policy", ""))
        except StorageError:  # a managed server that does not tell
            await self._asking(self._client.ping)
            return
        if policy.startswith("allkeys-"):
            raise ConfigError(
                f"this Redis throws away any key when its memory is full ({policy}), and a batch's ledger with it.",
                hint="Set maxmemory-policy to noeviction or to one of volatile-*, or name another server.",
            )

    async def add(self, entries: Sequence[Entry]) -> int:
        """See `Ledger`."""
        n_new = 0
        for at in range(0, len(entries), _ENTRIES_AT_ONCE):
            n_new += int(await self._run("add", *_added(entries[at : at + _ENTRIES_AT_ONCE])))
        return n_new

    async def known(self, source: str) -> Known | None:
        """See `Ledger`."""
        found = await self._run("known", _digest(source))
        return None if found is None else Known(unpacked(found[0]), found[1].decode())

    async def lease(self, owner: str, *, seconds: float) -> Lease | None:
        """See `Ledger`."""
        found: Any = b"again"
        while found == b"again":
            found = await self._run("lease", owner, seconds)
        return None if found is None else lease_from(found, owner)

    async def heartbeat(self, lease: Lease, *, seconds: float, progress: bool = False) -> bool:
        """See `Ledger`."""
        return bool(await self._run("heartbeat", *_of(lease), seconds, int(progress)))

    async def reserve(self, lease: Lease, wanted: Spending) -> Reservation:
        """See `Ledger`."""
        said = await self._run("reserve", *_of(lease), *spending_arguments(wanted))
        return cast("Reservation", said.decode())

    async def record(self, lease: Lease, outcomes: Sequence[Outcome]) -> bool:
        """See `Ledger`."""
        told: list[_Argument] = []
        for outcome in outcomes:
            told += [packed(outcome.key), STATES.index(outcome.state), outcome.cause or "", outcome.kind or ""]
            told += [outcome.seconds, *spending_arguments(outcome.spent)]
        call_id = random.getrandbits(48)  # a call whose reply was lost is sent again, and counts once
        return bool(await self._run("record", *_of(lease), call_id, len(outcomes), *told))

    async def release(
        self, lease: Lease, *, cause: str | None = None, kind: str | None = None, wait_s: float = 0.0
    ) -> None:
        """See `Ledger`."""
        await self._run("release", *_of(lease), cause or "", kind or "", wait_s, int(cause is not None))

    async def expire(self, *, everyone: bool = False, owner: str | None = None) -> int:
        """See `Ledger`."""
        if owner is not None:
            return int(await self._run("expire_owner", owner))
        n_all = 0
        while True:
            n = int(await self._run("expire", _LEASES_AT_ONCE, int(everyone)))
            n_all += n
            if n < _LEASES_AT_ONCE:
                return n_all

    async def status(self) -> LedgerStatus:
        """See `Ledger`."""
        return status_from(await self._run("status"))

    async def rows(self, states: Collection[ItemState] | None = None) -> AsyncIterator[Row]:
        """See `Ledger`."""
        wanted = _states(STATES if states is None else states)
        after = 0
        while True:
            last, found = await self._run("rows", after, _DOCUMENTS_AT_ONCE, *wanted)
            for row in found:
                yield row_from(row)
            if last < 0:
                return
            after = last

    async def reopen(
        self,
        states: Collection[ItemState],
        *,
        kinds: Collection[str] | None = None,
        config: str | None = None,
        fresh: bool = False,
    ) -> int:
        """See `Ledger`; not all at once, but by so many documents at a time."""
        told: list[_Argument] = ["", ""] if config is None else [_digest(config), config]
        told += [*_states(states), *([-1] if kinds is None else [len(kinds), *kinds])]
        n_opened, after = 0, 0
        while True:
            last, n = await self._run("reopen", after, _DOCUMENTS_AT_ONCE, int(fresh), *told)
            n_opened += int(n)
            if last < 0:
                return n_opened
            after = last

    async def unreported(self, most: int = 1000) -> Sequence[Row]:
        """See `Ledger`."""
        rows: list[Row] = []
        while True:
            first, n = len(rows), min(_DOCUMENTS_AT_ONCE, most - len(rows))
            found = await self._run("unreported", first, first + n - 1) if n else []
            rows += map(row_from, found)
            if len(found) < _DOCUMENTS_AT_ONCE:
                return rows

    async def reported(self, keys: Sequence[str]) -> None:
        """See `Ledger`."""
        if keys:
            name = self._keys[_KEYS.index("unreported")]
            await self._asking(lambda: self._client.zrem(name, *map(packed, keys)))

    async def set_limits(self, limits: SpendingLimits) -> None:
        """See `Ledger`."""
        fields = [part for pair in limits_to(limits).items() for part in pair]
        await self._asking(lambda: self._client.hset(self._meta, items=list(fields)))

    async def limits(self) -> SpendingLimits:
        """See `Ledger`."""
        return limits_from(await self._asking(lambda: self._client.hmget(self._meta, list(SpendingLimits._fields))))

    async def set_control(self, control: Control) -> None:
        """See `Ledger`."""
        await self._asking(lambda: self._client.hset(self._meta, "control", control))

    async def control(self) -> Control:
        """See `Ledger`."""
        said = await self._asking(lambda: self._client.hget(self._meta, "control"))
        return "cancelled" if said == b"cancelled" else "run"

    async def remove(self) -> None:
        """Deletes the ledger from the server."""
        await self._asking(lambda: self._client.unlink(*self._keys))

    async def n_bytes(self) -> int:
        """What the ledger takes of the server's memory, estimated by the server from samples."""
        total = 0
        for key in self._keys:
            total += await self._asking(partial(self._client.memory_usage, key)) or 0
        return total

    async def close(self) -> None:
        """See `Ledger`."""
        await self._client.aclose()

    @property
    def _meta(self) -> str:
        return self._keys[_KEYS.index("meta")]

    async def _run(self, operation: str, *arguments: _Argument) -> Any:
        now: _Argument = "" if self._clock is None else self._clock()
        told = [operation, now, MAX_LOST, *arguments]
        return await self._asking(lambda: self._script(keys=self._keys, args=told))

    async def _asking(self, call: Callable[[], Any]) -> Any:
        from redis.exceptions import ConnectionError as NoConnection
        from redis.exceptions import RedisError
        from redis.exceptions import TimeoutError as NoReply

        try:
            return await call()
        except (NoConnection, NoReply, OSError) as error:
            raise CacheError(
                f"the batch's ledger in Redis does not answer ({type(error).__name__}).",
                hint="Check COA_REDIS_URL; the batch can be resumed, results are kept.",
            ) from error
        except RedisError as error:
            raise StorageError(
                f"the batch's ledger in Redis cannot be used ({error}).", hint="Results are kept."
            ) from error


def client_for(url: str) -> Redis:
    """A client that waits for a server that is away for a while. Raises: ConfigError for an address that is none."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError

    pauses = ExponentialWithJitterBackoff(base=0.1, cap=_LONGEST_PAUSE_S)
    try:
        return Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(pauses, _RETRIES),
            retry_on_error=[BusyLoadingError, ConnectionError, TimeoutError],
            health_check_interval=30,
        )
    except ValueError as error:
        raise ConfigError("COA_REDIS_URL is not an address.", hint="It looks like redis://host:6379/0.") from error


@cache
def _source() -> str:
    folder = files("coa.batch")
    return "\n".join(
        (folder / f"redis_ledger_{part}.lua").read_text(encoding="utf-8") for part in ("records", "operations")
    )


def _added(entries: Sequence[Entry]) -> Iterable[_Argument]:
    """The entries as arguments; what many items have alike (what is asked, configurations) is sent once."""
    texts: dict[str, int] = {}
    told: list[_Argument] = []
    for entry in entries:
        told += [packed(entry.digest), entry.source, _digest(entry.source), entry.stamp, entry.n_bytes]
        told.append(len(entry.items))
        for item in entry.items:
            payload, config = (texts.setdefault(text, len(texts) + 1) for text in (item.payload, item.config))
            told += [packed(item.key), payload, config]
    sent: list[_Argument] = [part for text in texts for part in (_digest(text), text)]
    return [len(texts), *sent, len(entries), *told]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _of(lease: Lease) -> tuple[_Argument, ...]:
    """What names a lease: its document and its token."""
    return packed(lease.digest), lease.token


def _states(states: Collection[ItemState]) -> list[int]:
    return [len(states), *(STATES.index(state) for state in states)]
