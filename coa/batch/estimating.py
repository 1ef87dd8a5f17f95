"""What a batch is expected to take, from a few of its documents."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from coa.batch.ledger import Entry, Lease, LeasedItem, Ledger, Spending
from coa.batch.processing import Desk
from coa.errors import CoaError, ConfigError

__all__ = ["Expected", "Sample", "expected_of"]

_N_SAMPLED = 4
_SEED = 8
_FIRST_ROWS = 200


@dataclass(frozen=True, slots=True)
class Expected:
    """Of the items that are open, at most; scaled up from `sampled` documents by their size."""

    items: int
    sampled: int
    """0: nothing could be read, and there are no figures."""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    """None where the price is unknown."""


class Sample:
    """A few documents drawn evenly from a stream of any length."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.n_bytes = 0
        self._n = 0
        self._random = random.Random(_SEED)  # the same documents each time: the same estimate

    def add(self, entry: Entry) -> None:
        """One more of the stream."""
        self._n += 1
        self.n_bytes += entry.n_bytes * len(entry.items)
        if len(self.entries) < _N_SAMPLED:
            self.entries.append(entry)
        elif (at := self._random.randrange(self._n)) < _N_SAMPLED:
            self.entries[at] = entry


async def expected_of(desk: Desk, ledger: Ledger, sample: Sample) -> Expected:
    """What the open items are expected to take. Documents that cannot be read are passed over.

    Raises: ConfigError and ModelError where the models cannot be opened, or a limit in dollars cannot be kept as the
    price is unknown.
    """
    status = await ledger.status()
    leases = [_as_lease(entry) for entry in sample.entries] or await _some_open(ledger)
    found: list[tuple[int, Spending, float | None]] = []
    for lease in leases:
        try:
            document = await desk.reader.read(lease, ledger)
            shares = [await desk.sessions.forecast(item, document) for item in lease.items]
        except ConfigError:
            raise
        except CoaError:
            continue
        wanted = Spending()
        costs: list[float | None] = []
        for plan in shares:
            wanted = replace(
                wanted,
                calls=wanted.calls + plan.calls,
                prompt_tokens=wanted.prompt_tokens + plan.prompt_tokens,
                completion_tokens=wanted.completion_tokens + plan.completion_tokens_max,
            )
            costs.append(plan.cost_usd)
        known = [cost for cost in costs if cost is not None]
        found.append((lease.n_bytes * len(lease.items), wanted, sum(known) if len(known) == len(costs) else None))
    return _scaled(status.open, found, sample.n_bytes if sample.entries else 0, [len(lease.items) for lease in leases])


def _scaled(
    n_open: int, found: Sequence[tuple[int, Spending, float | None]], n_bytes: int, n_items: Sequence[int]
) -> Expected:
    if not found or not n_open:
        return Expected(n_open, 0)
    seen = sum(size for size, _, _ in found)
    factor = n_bytes / seen if n_bytes and seen else n_open / max(1, sum(n_items))
    costs = [cost for _, _, cost in found]
    return Expected(
        items=n_open,
        sampled=len(found),
        calls=round(factor * sum(wanted.calls for _, wanted, _ in found)),
        prompt_tokens=round(factor * sum(wanted.prompt_tokens for _, wanted, _ in found)),
        completion_tokens=round(factor * sum(wanted.completion_tokens for _, wanted, _ in found)),
        cost_usd=None if None in costs else factor * sum(cost or 0.0 for cost in costs),
    )


def _as_lease(entry: Entry) -> Lease:
    items = tuple(LeasedItem(i.key, i.payload, i.config, 0, 0, Spending()) for i in entry.items)
    return Lease("", 0, entry.digest, (entry.source,), entry.n_bytes, items)


async def _some_open(ledger: Ledger) -> list[Lease]:
    """A few of the first open items, for a batch that goes on."""
    found: dict[str, Lease] = {}
    n = 0
    async for row in ledger.rows({"pending"}):
        n += 1
        item = LeasedItem(row.key, row.payload, row.config, row.tries, row.generation, row.spent)
        found.setdefault(row.digest, Lease("", 0, row.digest, row.sources, 0, (item,)))
        if n >= _FIRST_ROWS:
            break
    leases = list(found.values())
    step = max(1, len(leases) // _N_SAMPLED)
    return leases[::step][:_N_SAMPLED]
