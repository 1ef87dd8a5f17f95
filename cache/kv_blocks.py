"""An engine's cache in the terms of our own chain of hashes.

Each engine hashes its blocks its own way (size, function, seed), so its hashes are only names here: what a block holds
is worked out from its tokens and from what is known of the block before it.

A hit runs from a prompt's first block to the first one that is missing, so a hash of ours is held when the engine's
block that it ends in is there, and all blocks before that one. Blocks go from the end of a prompt as a rule, but one in
the middle may go too, and come back while those behind it never left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coa.cache.blocks import DEFAULT_BLOCK_TOKENS, prefix_blocks
from coa.cache.kv_events import EngineHash, KvEvent, KvRemoved, KvStored
from coa.errors import CacheError

__all__ = ["EngineBlocks", "HeldChange"]

_Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HeldChange:
    """What became of our hashes; first `cleared`, then the rest."""

    held: tuple[bytes, ...] = ()
    dropped: tuple[bytes, ...] = ()
    cleared: bool = False
    """Nothing of before is held any more."""

    def __bool__(self) -> bool:
        return bool(self.held or self.dropped or self.cleared)


@dataclass(slots=True)
class _Chain:
    """Where our chain stands at the end of a block."""

    last: bytes
    rest: _Tokens
    """Tokens since `last` that do not fill a block of ours yet."""


@dataclass(slots=True)
class _Block:
    """One of the engine's; also one that is only known from its children, or that has gone and left children."""

    parent: EngineHash | None = None
    n_tokens: int = 0
    tokens: _Tokens = ()
    """Kept until the chain is known."""
    told: bool = False
    """Whether the engine said what it holds."""
    foreign: bool = False
    """Of another identity than ours: an adapter, a salt, an image."""
    copies: dict[str, int] = field(default_factory=dict)
    """How many of it there are, by medium."""
    children: set[EngineHash] = field(default_factory=set)
    chain: _Chain | None = None
    ours: tuple[bytes, ...] = ()
    """Our hashes that end in it."""
    reachable: bool = False
    """It is there, and so are all before it."""


class EngineBlocks:
    """Takes in an engine's events in their order, and says what they mean for the index.

    Events about blocks that were never told of are taken as they are: a removed one is none of ours, and a stored one
    whose parent is unknown counts from the moment when that is known.
    """

    def __init__(self, root: bytes, *, block_tokens: int = DEFAULT_BLOCK_TOKENS, adapter: str | None = None) -> None:
        """`root` and `block_tokens` are those of the chains that prompts are looked up by; `adapter` is the LoRA
        adapter that they are computed with, None for none."""
        self._start = _Chain(root, ())
        self._block_tokens = block_tokens
        self._adapter = adapter
        self._blocks: dict[EngineHash, _Block] = {}
        self._group: int | None = None
        self._holders: dict[bytes, int] = {}
        self._changes: dict[bytes, bool] = {}
        self._cleared = False

    def __len__(self) -> int:
        return len(self._holders)

    @property
    def held(self) -> frozenset[bytes]:
        """All our hashes that the engine holds."""
        return frozenset(self._holders)

    def apply(self, events: Iterable[KvEvent]) -> None:
        """Takes in what changed; see `take`. Raises: CacheError for hashes that do not tell prefixes apart."""
        for event in events:
            if isinstance(event, KvStored):
                self._store(event)
            elif isinstance(event, KvRemoved):
                self._remove(event)
            else:
                self.clear()

    def take(self) -> HeldChange:
        """What changed since it was last called."""
        changes, cleared = self._changes, self._cleared
        self._changes, self._cleared = {}, False
        held = tuple(h for h, there in changes.items() if there)
        # After a clear all that is not held has gone with it.
        return HeldChange(held, () if cleared else tuple(h for h, there in changes.items() if not there), cleared)

    def clear(self) -> None:
        """Forgets everything."""
        self._blocks.clear()
        self._holders.clear()
        self._changes.clear()
        self._cleared = True

    def _store(self, event: KvStored) -> None:
        if event.partial:
            return
        if self._group is None:
            self._group = event.group
        if event.group != self._group:
            return  # layers of a kind have the same tokens; the first group stands for all
        parent, size = event.parent, event.block_size
        for at, key in enumerate(event.hashes):
            block = self._linked(key, parent, event.tokens[at * size : (at + 1) * size])
            medium = event.medium or ""
            block.copies[medium] = block.copies.get(medium, 0) + 1
            block.foreign |= event.adapter != self._adapter or (bool(event.keyed) and event.keyed[at])
            self._settle(key)
            parent = key

    def _linked(self, key: EngineHash, parent: EngineHash | None, tokens: _Tokens) -> _Block:
        block = self._blocks.setdefault(key, _Block())
        if block.told:
            # A part of a block may be told of by itself first, with the part before it as its parent.
            if block.parent != parent and block.n_tokens == len(tokens):
                raise CacheError(
                    "the engine's block hashes do not tell prefixes apart.", hint="A newer release of it chains them."
                )
            return block
        block.told, block.parent, block.tokens, block.n_tokens = True, parent, tokens, len(tokens)
        if parent is not None:
            self._blocks.setdefault(parent, _Block()).children.add(key)
        return block

    def _settle(self, key: EngineHash) -> None:
        """Works out the chain of a block and what follows from it, on to the blocks behind it."""
        waiting = [key]
        while waiting:
            block = self._blocks[waiting.pop()]
            before = self._blocks[block.parent] if block.parent is not None else None
            block.foreign |= before is not None and before.foreign
            if not block.foreign and block.chain is None and block.told:
                self._chain(block, self._start if before is None else before.chain)
            there = bool(block.copies) and block.chain is not None and (before is None or before.reachable)
            if there and not block.reachable:
                block.reachable = True
                self._count(block, 1)
                waiting += block.children
            elif block.foreign:
                block.tokens = ()
                waiting += [c for c in block.children if not self._blocks[c].foreign]

    def _chain(self, block: _Block, before: _Chain | None) -> None:
        if before is None:
            return
        tokens = before.rest + block.tokens
        try:
            blocks = prefix_blocks(tokens, before.last, block_tokens=self._block_tokens)
        except ValueError:  # what stands for an image need not be a token's number
            block.foreign = True
            return
        last = blocks[-1].hash if blocks else before.last
        block.chain = _Chain(last, tokens[len(blocks) * self._block_tokens :])
        block.ours = tuple(b.hash for b in blocks)
        block.tokens = ()

    def _remove(self, event: KvRemoved) -> None:
        if event.group != (self._group or 0):
            return
        for key in event.hashes:
            block = self._blocks.get(key)
            if block is None or not block.copies:
                continue
            medium = event.medium if event.medium is not None else next(iter(block.copies))
            left = block.copies.get(medium, 0) - 1
            if left > 0:
                block.copies[medium] = left
            else:
                block.copies.pop(medium, None)
            if not block.copies:
                self._lose(key)
                self._prune(key)

    def _lose(self, key: EngineHash) -> None:
        waiting = [key]
        while waiting:
            block = self._blocks[waiting.pop()]
            if block.reachable:
                block.reachable = False
                self._count(block, -1)
                waiting += block.children

    def _prune(self, key: EngineHash) -> None:
        """Forgets a block that is gone and that nothing stands on, and so on towards the start."""
        at: EngineHash | None = key
        while at is not None:
            block = self._blocks[at]
            if block.copies or block.children:
                return
            del self._blocks[at]
            if block.parent is not None:
                self._blocks[block.parent].children.discard(at)
            at = block.parent

    def _count(self, block: _Block, change: int) -> None:
        for ours in block.ours:
            n_holders = self._holders.get(ours, 0) + change
            if n_holders > 0:
                self._holders[ours] = n_holders
            else:
                del self._holders[ours]
            if (n_holders > 0) != (n_holders - change > 0):
                self._changes[ours] = n_holders > 0
