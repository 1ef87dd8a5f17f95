"""What the Lua of a Redis ledger takes and gives, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any, cast

from coa.batch.ledger import (
    STATES,
    Lease,
    LeasedItem,
    LedgerStatus,
    Row,
    Slow,
    Spending,
    SpendingLimits,
)

__all__ = [
    "lease_from",
    "limits_from",
    "limits_to",
    "packed",
    "row_from",
    "spending_arguments",
    "status_from",
    "unpacked",
]

_HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2})+")
_AS_BYTES, _AS_TEXT = b"\0", b"\1"


def packed(digest: str) -> bytes:
    """A digest in half the bytes; anything else as it is."""
    if _HEXADECIMAL.fullmatch(digest):
        return _AS_BYTES + bytes.fromhex(digest)
    return _AS_TEXT + digest.encode()


def unpacked(value: bytes) -> str:
    """What `packed` was given."""
    return value[1:].hex() if value[:1] == _AS_BYTES else value[1:].decode()


def spending_arguments(spending: Spending) -> tuple[int | float, ...]:
    """In the order of its fields."""
    return cast("tuple[int | float, ...]", astuple(spending))


def lease_from(value: Sequence[Any], owner: str) -> Lease:
    """A lease as `lease` gives it."""
    token, digest, n_bytes, lost, sources, items = value
    return Lease(
        owner=owner,
        token=token,
        digest=unpacked(digest),
        sources=tuple(source.decode() for source in sources),
        n_bytes=n_bytes,
        items=tuple(
            LeasedItem(unpacked(key), payload.decode(), config.decode(), tries, generation, _spending(spent))
            for key, payload, config, tries, generation, spent in items
        ),
        lost=lost,
    )


def row_from(value: Sequence[Any]) -> Row:
    """An item as `rows` and `unreported` give it."""
    key, digest, sources, payload, config, state, tries, generation, spent, cause, kind, seconds, owner = value
    return Row(
        key=unpacked(key),
        digest=unpacked(digest),
        sources=tuple(source.decode() for source in sources),
        payload=payload.decode(),
        config=config.decode(),
        state=STATES[state],
        tries=tries,
        generation=generation,
        spent=_spending(spent),
        cause=cause.decode() or None,
        kind=kind.decode() or None,
        seconds=float(seconds),
        owner=owner.decode() or None,
    )


def status_from(value: Sequence[Any]) -> LedgerStatus:
    """The counters as `status` gives them."""
    counts, causes, owners, slowest, control = value
    numbers = _mapping(counts)
    by_kind = sorted(((kind, int(n)) for kind, n in _mapping(causes).items()), key=lambda pair: (-pair[1], pair[0]))
    return LedgerStatus(
        counts={state: int(numbers.get(state, 0)) for state in STATES},
        documents=int(numbers.get("documents", 0)),
        spent=_sums(numbers, "spent:"),
        reserved=_sums(numbers, "reserved:"),
        causes=dict(by_kind),
        slowest=[
            Slow(float(seconds), unpacked(key), source.decode())
            for (key, source), seconds in zip(slowest[::2], slowest[1::2], strict=True)
        ],
        owners={owner: int(n) for owner, n in _mapping(owners).items()},
        control="cancelled" if control == b"cancelled" else "run",
    )


def limits_to(limits: SpendingLimits) -> dict[str, str]:
    """As fields; an empty one is no limit."""
    return {name: "" if limit is None else repr(limit) for name, limit in limits._asdict().items()}


def limits_from(values: Sequence[bytes | None]) -> SpendingLimits:
    """From fields in the order of `SpendingLimits`."""
    calls, tokens, cost = (value.decode() if value else None for value in values)
    return SpendingLimits(int(calls) if calls else None, int(tokens) if tokens else None, float(cost) if cost else None)


def _mapping(flat: Sequence[bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in zip(flat[::2], flat[1::2], strict=True)}


def _sums(numbers: Mapping[str, str], prefix: str) -> Spending:
    return _spending([numbers.get(prefix + field.name, "0") for field in fields(Spending)])


def _spending(values: Sequence[bytes | str]) -> Spending:
    calls, prompt, completion, cached, cost, unpriced, reused = map(float, values)
    return Spending(int(calls), int(prompt), int(completion), int(cached), cost, int(unpriced), int(reused))
