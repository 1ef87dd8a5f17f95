"""The engines behind a gateway's deployments, as far as the prefix cache works with them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import blake2b

from coa.cache.blocks import DEFAULT_BLOCK_TOKENS, aligned_tokens, prefix_blocks, root_hash, segment_hash
from coa.cache.engines.adapter import EngineAdapter, TellsWeights
from coa.cache.index import PrefixIndex, Replica
from coa.cache.states import StateKey
from coa.errors import CacheError
from coa.llm.deployments import Deployment
from coa.reading import Prompt

__all__ = ["Prefix", "Seats", "ServedEngine"]

_log = logging.getLogger(__name__)

_RETRY_S = 15.0
"""How long an engine that could not be asked is left alone."""
_SLOT_WAIT_S, _SLOT_POLL_S = 20.0, 0.05
"""For a slot to ask an engine for its weights in; other processes may have them all."""
_KEPT_PREFIXES = 512
_FIRST_SPEEDS = (200.0, 30.0)
"""Tokens a second, prompt and reply, until the first call tells: a small model on few cores. Taken too low, a replica
is believed busy for a while; taken too high, all the first calls would go to one."""


class Prefix:
    """A prompt's reading prefix as one engine sees it."""

    def __init__(self, tokens: list[int], *, identity: bytes, index_root: bytes, granularity: int) -> None:
        self.tokens = tokens
        n = aligned_tokens(len(tokens), block_tokens=granularity)
        self.state = StateKey(identity, segment_hash(tokens[:n], identity), n)
        """What of it can be saved and used again bit for bit."""
        blocks = prefix_blocks(tokens, index_root)
        self.hashes = tuple(b.hash for b in blocks)
        self.ends = tuple(DEFAULT_BLOCK_TOKENS * (i + 1) for i in range(len(blocks)))
        if len(tokens) % DEFAULT_BLOCK_TOKENS:
            self.hashes = (*self.hashes, segment_hash(tokens, index_root))
            self.ends = (*self.ends, len(tokens))

    @property
    def last(self) -> bytes | None:
        """The hash that stands for all of it in the index; None for one without a token."""
        return self.hashes[-1] if self.hashes else None

    @property
    def aligned(self) -> list[int]:
        """The tokens of `state`."""
        return self.tokens[: self.state.n_tokens]


class Seats(asyncio.Semaphore):
    """Calls of this process that a server computes at once, whichever of its names they go to."""

    def __init__(self) -> None:
        super().__init__(1)
        self._n_seats = 1

    def at_least(self, n: int) -> None:
        """The server turned out to have `n` slots. One that was restarted with fewer has calls wait for a slot."""
        while self._n_seats < n:
            self._n_seats += 1
            self.release()


class ServedEngine:
    """One deployment with its adapter; asked when it is needed first, and left alone for a while when it fails."""

    def __init__(
        self,
        deployment: Deployment,
        group: str,
        adapter: EngineAdapter,
        *,
        identity: Callable[[], bytes | None],
        index: PrefixIndex | None = None,
        seats: Seats | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`identity` is what its states depend on; asked after the adapter is open, in a thread. None says that its
        weights are not known: then the engine is asked for them, in a slot that `index` leases, and `identity` again.
        `seats` are those of its server, where other deployments name it as well."""
        self.deployment = deployment
        self.group = group
        self.adapter = adapter
        self.replica = Replica(deployment.id, "", adapter.kind, 1, *_FIRST_SPEEDS, 1.0)
        self.seats = seats or Seats()
        self._identity = identity
        self._index = index
        self._clock = clock
        self._opening = asyncio.Lock()
        self._root: bytes | None = None
        self.index_root = root_hash("index", group)
        """Where the chains of its group begin in the index."""
        self.on_ready: Callable[[ServedEngine], Awaitable[None]] | None = None
        """Called once, when it is known what it can do; must not raise."""
        self._was_ready = False
        self._retry_at = 0.0
        self._prefixes: OrderedDict[bytes, Prefix] = OrderedDict()

    @property
    def id(self) -> str:
        """Of the deployment."""
        return self.deployment.id

    @property
    def identity(self) -> bytes | None:
        """What its states depend on; None until it has been asked."""
        return self._root

    @property
    def slotted(self) -> bool:
        """Whether calls name the slot that they want."""
        return self.adapter.kind == "owned"

    async def ready(self) -> bool:
        """Whether it can be worked with; asks it the first time, after a restart, and a while after a failure."""
        if self._is_open():
            return True
        async with self._opening:
            if self._is_open():
                return True
            self._forget()
            if self._clock() < self._retry_at:
                return False
            try:
                await self.adapter.open()
                self.replica = replace(
                    self.replica,
                    epoch=await self.adapter.epoch(),
                    kind=self.adapter.kind,
                    slots=max(1, self.adapter.n_slots),
                    capacity_tokens=getattr(self.adapter, "capacity_tokens", 0),
                    server=getattr(self.adapter, "server", ""),
                )
                root = await self._identified()
            except (CacheError, OSError) as error:
                self._retry_at = self._clock() + _RETRY_S
                _log.info("%s goes without the prefix cache for now: %s", self.id, error)
                return False
            self.seats.at_least(self.replica.slots)
            self._root = root
            first, self._was_ready = not self._was_ready, True
        if first and self.on_ready is not None:
            await self.on_ready(self)
        return True

    async def prefix_of(self, prompt: Prompt) -> Prefix | None:
        """None for a prompt without a reading prefix, and when the engine does not tell its tokens."""
        if not prompt.prefix or not await self.ready():
            return None
        root = self._root
        assert root is not None  # noqa: S101 - ready
        key = blake2b(f"{prompt.system}\x00{prompt.prefix}".encode(), digest_size=16).digest()
        found = self._prefixes.get(key)
        if found is None:
            try:
                tokens = await self.adapter.prefix_tokens(prompt)
            except CacheError as error:
                _log.info("%s does not tell the tokens of a prefix: %s", self.id, error)
                return None
            found = Prefix(tokens, identity=root, index_root=self.index_root, granularity=self.adapter.granularity)
            if root != self._root:
                return found  # nothing is known by it any more
            self._prefixes[key] = found
            if len(self._prefixes) > _KEPT_PREFIXES:
                self._prefixes.popitem(last=False)
        else:
            self._prefixes.move_to_end(key)
        return found

    async def save(self, slot: int, key: StateKey, file: str) -> int:
        """See `EngineAdapter.save`. Raises, too, for a key of other weights than it is known to have."""
        self._check(key)
        return await self.adapter.save(slot, file)

    async def restore(self, slot: int, key: StateKey, file: str) -> int:
        """See `EngineAdapter.restore`; raises as `save`."""
        self._check(key)
        return await self.adapter.restore(slot, file)

    async def look_for_restart(self) -> bool:
        """Whether it was restarted since it was asked last; True at most once for each restart. It may be another
        model now: `ready` asks for everything anew."""
        try:
            epoch = await self.adapter.epoch()
        except CacheError:
            return False  # it may come back as another one: the next look tells
        if epoch == self.replica.epoch:
            return False
        self.replica = replace(self.replica, epoch=epoch)
        self._forget()
        return True

    def _is_open(self) -> bool:
        return self._root is not None and not getattr(self.adapter, "restarted", False)

    def _forget(self) -> None:
        self._root = None
        self._prefixes.clear()

    def _check(self, key: StateKey) -> None:
        if key.identity != self._root:
            raise CacheError(f"{self.id} was restarted since its states were looked for.")

    async def _identified(self) -> bytes:
        """What its states depend on. Raises: CacheError."""
        root = await asyncio.to_thread(self._identity)
        if root is None and isinstance(self.adapter, TellsWeights):
            async with self._slot() as slot:
                await self.adapter.recognise(slot)
            root = await asyncio.to_thread(self._identity)
        if root is None:
            raise CacheError(f"{self.id} does not tell its weights.")
        return root

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[int]:
        """A slot that no call of any process has. Raises: CacheError where all are taken."""
        if self._index is None:
            yield 0
            return
        request, until = secrets.token_hex(8), self._clock() + _SLOT_WAIT_S
        while (slot := await self._index.seat(request, self.replica)) is None:
            if self._clock() > until:
                raise CacheError(f"all slots of {self.id} are taken.")
            await asyncio.sleep(_SLOT_POLL_S)
        try:
            yield slot
        finally:
            await asyncio.shield(self._index.unseat(request, self.replica, slot))
