"""The ledger of a batch: what is to be done, by whom it is being done, and what became of it.

What is leased is a document, with all its open items (a question, or a summary and the like), so that the questions
about one document can be asked together. Whoever leases gives a sign of life before the lease runs out; a document
whose lease ran out goes to somebody else, and what its first holder tells afterwards is refused. Results lie outside
(`coa.batch.results`), by content key; the ledger holds what is small.

    pending ──lease──> leased ──record──> done | partial | failed ──reopen──> pending
       ^                  │
       └──release, expire─┘

Every operation takes the same time however many items there are; `status` reads counters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

__all__ = [
    "ENDED",
    "MAX_LOST",
    "N_SLOWEST",
    "STATES",
    "Control",
    "Entry",
    "ItemState",
    "Known",
    "Lease",
    "LeasedItem",
    "Ledger",
    "LedgerStatus",
    "NewItem",
    "Outcome",
    "Reservation",
    "Row",
    "Slow",
    "Spending",
    "SpendingLimits",
]

ItemState = Literal["pending", "leased", "done", "partial", "failed"]
STATES: tuple[ItemState, ...] = ("pending", "leased", "done", "partial", "failed")
ENDED: tuple[ItemState, ...] = ("done", "partial", "failed")
Control = Literal["run", "cancelled"]
Reservation = Literal["granted", "later", "never"]
"""Of a share of the budget. "later": it would fit once others have given back what they do not use."""

MAX_LOST = 5
"""Times that a document's lease may be lost in a row without any progress, before its items fail for good."""
N_SLOWEST = 10


@dataclass(frozen=True, slots=True)
class Spending:
    """What was paid for, or is set aside."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    """Calls whose price is not known; `cost_usd` is without them."""
    reused: int = 0
    """Replies out of the response cache, free and in none of the other sums."""

    @property
    def tokens(self) -> int:
        """In and out together."""
        return self.prompt_tokens + self.completion_tokens


class SpendingLimits(NamedTuple):
    """Of a whole batch; None is no limit."""

    max_calls: int | None = None
    max_tokens: int | None = None
    """In and out together."""
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class NewItem:
    """Something to be done with a document."""

    key: str
    """Of document, configuration and question: a hexadecimal digest. Known keys are not added again."""
    payload: str
    """What is asked, as the batch writes it; opaque to the ledger."""
    config: str = ""
    """Which of the batch's configurations it is to be done with."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A document to add."""

    source: str
    """A path or URL."""
    digest: str
    """Of the source's bytes. Sources of one digest are one document."""
    stamp: str
    """Changes when the source may have changed: its size and time, an ETag."""
    n_bytes: int
    items: tuple[NewItem, ...]


class Known(NamedTuple):
    """What a source was when it was added."""

    digest: str
    stamp: str


@dataclass(frozen=True, slots=True)
class LeasedItem:
    """An open item of a leased document."""

    key: str
    payload: str
    config: str
    tries: int
    """Times that it was given back with a cause."""
    generation: int
    """Raised by `reopen(fresh=True)`: the run of an earlier one is not gone on with."""
    spent: Spending
    """By this generation so far, as recorded."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A document that somebody works on, with its open items."""

    owner: str
    token: int
    """Grows with every lease of the ledger; what a lease of an older token tells is refused."""
    digest: str
    sources: tuple[str, ...]
    """In the order that they were added in; never empty."""
    n_bytes: int
    items: tuple[LeasedItem, ...]
    """In the order that they were added in; never empty."""
    lost: int = 0
    """Times in a row that the document's lease was lost without progress."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item."""

    key: str
    state: Literal["done", "partial", "failed"]
    spent: Spending = field(default_factory=Spending)
    """More than the item's `spent` had; added to it and to the batch's."""
    cause: str | None = None
    """One line; None for done."""
    kind: str | None = None
    """The cause's class, counted by `status`: an error's class name, "budget" and the like."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """An item as it stands."""

    key: str
    digest: str
    sources: tuple[str, ...]
    payload: str
    config: str
    state: ItemState
    tries: int
    generation: int
    spent: Spending
    cause: str | None
    kind: str | None
    seconds: float
    owner: str | None
    """Who holds its lease; None where nobody does."""


class Slow(NamedTuple):
    """One of the slowest items."""

    seconds: float
    key: str
    source: str


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """The counters."""

    counts: Mapping[ItemState, int]
    """Of items; every state is there."""
    documents: int
    spent: Spending
    reserved: Spending
    causes: Mapping[str, int]
    """Items that are failed or partial now, by `Outcome.kind`."""
    slowest: Sequence[Slow]
    """At most `N_SLOWEST`, the slowest first; items that were opened again may be among them."""
    owners: Mapping[str, int]
    """Documents under a lease, by its owner."""
    control: Control

    @property
    def open(self) -> int:
        """Items that are not ended."""
        return self.counts["pending"] + self.counts["leased"]


class Ledger(Protocol):
    """See the module. Every method raises StorageError where the ledger cannot be read or written; the distributed
    one raises CacheError where its server cannot be reached."""

    async def add(self, entries: Sequence[Entry]) -> int:
        """The number of items that are new; known ones are left as they are, whatever became of them.

        A source that was added before with another digest is moved to the new one; a document that no source is left
        of goes with its items, those of a lease in hand included. Items for a document under a lease wait for its end.
        """
        ...

    async def known(self, source: str) -> Known | None:
        """What `source` was when it was added last."""
        ...

    async def lease(self, owner: str, *, seconds: float) -> Lease | None:
        """The next document with pending items, held by `owner` for `seconds`; None where there is none to be had.

        In the order of adding; documents that were given back with a wait come when it is over, and documents whose
        lease was lost without progress come after all others. Leases that ran out are taken back first; a
        document that has lost `MAX_LOST` of them in a row fails (kind "lost"). None while the batch is cancelled.
        """
        ...

    async def heartbeat(self, lease: Lease, *, seconds: float, progress: bool = False) -> bool:
        """Holds the document for `seconds` from now; False where the lease is lost. `progress`: something was done."""
        ...

    async def reserve(self, lease: Lease, wanted: Spending) -> Reservation:
        """Sets aside a share of the batch's budget, in place of what the lease had; given back when it ends.

        "granted" always where there is no limit, and "never" where it does not fit beside what is spent already.
        Also "never" for a lease that is lost. With "later" the leases that ran out are taken back, so that what the
        dead have set aside is there when it is asked for again: nobody may be leasing meanwhile.
        """
        ...

    async def record(self, lease: Lease, outcomes: Sequence[Outcome]) -> bool:
        """Ends items of the lease, at once or one after the other; False, and nothing done, where the lease is lost.

        The lease ends with its last item. Items that ended are unreported.
        """
        ...

    async def release(
        self, lease: Lease, *, cause: str | None = None, kind: str | None = None, wait_s: float = 0.0
    ) -> None:
        """Gives the items back that have not ended; does nothing where the lease is lost.

        With a `cause` it counts as a try of each, and is kept with it; the document is not leased for `wait_s`.
        Without one it is as if it had not been leased, progress kept.
        """
        ...

    async def expire(self, *, everyone: bool = False, owner: str | None = None) -> int:
        """The number of documents whose leases ran out and are taken back. For a caller who knows who is dead:
        instead of those all leases of that `owner`, or of `everyone`."""
        ...

    async def status(self) -> LedgerStatus:
        """The counters."""
        ...

    def rows(self, states: Collection[ItemState] | None = None) -> AsyncIterator[Row]:
        """The items in those states (None: all), in the order that their documents were added in; read in pages, so
        an item that changes meanwhile may come in either state, once."""
        ...

    async def reopen(
        self,
        states: Collection[ItemState],
        *,
        kinds: Collection[str] | None = None,
        config: str | None = None,
        fresh: bool = False,
    ) -> int:
        """The number of ended items in `states` (of those `kinds` of cause) that are pending again, their tries
        forgotten. `config` is what they are to be done with now (None: as before); `fresh` begins a new generation,
        whose `spent` starts at nothing; what was spent stays in the batch's sum."""
        ...

    async def unreported(self, most: int = 1000) -> Sequence[Row]:
        """Items that ended and were not `reported` since, the first of them. Few, as each is reported at once; all,
        where a ledger was lost and the results are found again."""
        ...

    async def reported(self, keys: Sequence[str]) -> None:
        """Those items stand in the batch's list of results."""
        ...

    async def set_limits(self, limits: SpendingLimits) -> None:
        """The batch's budget from now on."""
        ...

    async def limits(self) -> SpendingLimits:
        """The batch's budget; no limits where none were set."""
        ...

    async def set_control(self, control: Control) -> None:
        """Whether documents are leased; holders learn of a cancellation by `control`."""
        ...

    async def control(self) -> Control:
        """As it was set last; "run" at the beginning."""
        ...

    async def close(self) -> None:
        """Frees what the object holds; the ledger stays."""
        ...
