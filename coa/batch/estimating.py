"""What a batch is expected to take, from a few of its documents."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coa.api import Plan
from coa.batch.ledger import Entry, Lease, LeasedItem, Ledger, Spending
from coa.batch.processing import Desk
from coa.errors import CoaError, ConfigError

__all__ = ["Expected", "Sample", "expected_of"]

_N_SAMPLED = 4
_SEED = 8
_FIRST_ROWS = 200
_MOSTLY = 0.9
_log = logging.getLogger(__name__)


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
        self.n_items = 0
        self.n_new = 0
        """Of the items those that the ledger did not have."""
        self._n = 0
        self._random = random.Random(_SEED)  # the same documents each time: the same estimate

    def add(self, entry: Entry) -> None:
        """One more of the stream."""
        self._n += 1
        self.n_bytes += entry.n_bytes * len(entry.items)
        self.n_items += len(entry.items)
        if len(self.entries) < _N_SAMPLED:
            self.entries.append(entry)
        elif (at := self._random.randrange(self._n)) < _N_SAMPLED:
            self.entries[at] = entry


async def expected_of(desk: Desk, ledger: Ledger, sample: Sample) -> Expected:
    """What the open items are expected to take. Documents that cannot be read, or not so as it is asked, are passed
    over.

    Raises: ConfigError where no document can be forecast for such an error: the models cannot be opened, or a limit
    in dollars cannot be kept as the price is unknown.
    """
    n_open = (await ledger.status()).open
    # Of a batch that goes on the scan has seen much that is done, or not all that is open.
    fresh = sample.n_new == n_open and sample.n_new >= _MOSTLY * sample.n_items
    leases = [_as_lease(entry) for entry in sample.entries] if fresh else await _some_open(ledger)
    found: list[_Forecast] = []
    refused: ConfigError | None = None
    for lease in leases:
        try:
            document = await desk.reader.read(lease, ledger)
            plans = [await desk.sessions.forecast(item, document) for item in lease.items]
        except ConfigError as error:
            refused = refused or error
        except CoaError:
            continue
        except Exception:  # a bug that one document brings out: it fails when its turn comes, and nothing else does
            _log.warning("%s: no forecast.", lease.sources[0], exc_info=True)
        else:
            found.append(_Forecast(lease.n_bytes * len(lease.items), plans))
    if refused is not None and not found:
        raise refused
    return _scaled(n_open, found, n_bytes=sample.n_bytes * n_open / max(1, sample.n_items) if fresh else 0.0)


class _Forecast(NamedTuple):
    """Of the items of one document."""

    n_bytes: int
    """Of the document, for each of its items."""
    plans: Sequence[Plan]


def _scaled(n_open: int, found: Sequence[_Forecast], *, n_bytes: float) -> Expected:
    """`n_bytes` are those of the open items' documents, 0 where they are not known."""
    plans = [plan for forecast in found for plan in forecast.plans]
    if not plans or not n_open:
        return Expected(n_open, 0)
    seen = sum(forecast.n_bytes for forecast in found)
    factor = n_bytes / seen if n_bytes and seen else n_open / len(plans)
    costs = [plan.cost_usd for plan in plans]
    return Expected(
        items=n_open,
        sampled=len(found),
        calls=round(factor * sum(plan.calls for plan in plans)),
        prompt_tokens=round(factor * sum(plan.prompt_tokens for plan in plans)),
        completion_tokens=round(factor * sum(plan.completion_tokens_max for plan in plans)),
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
