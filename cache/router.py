"""The routing policy: seconds that a call would take, and cost others, on each replica; the least is taken.

Pure. `coa.cache.index_scripts` computes the same in Lua, where choosing and booking have to be one step; the
constants are written into the script from here, and a property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coa.cache.index import Replica, Wanted
from coa.cache.placement import rendezvous_order

__all__ = [
    "BOUND",
    "EVICTED_SHARE",
    "LATE_SHARE",
    "LEAST_SPEED",
    "MAX_CROWD",
    "TIE_SHARE",
    "Picked",
    "View",
    "choose",
    "prefill_seconds",
    "ranks",
    "seconds",
]

TIE_SHARE = 0.1
"""Costs this close are equal: speeds are not known any better."""
LATE_SHARE = 0.1
"""What of the booked work counts as still to come, however long ago it should have been through."""
MAX_CROWD = 4.0
"""Calls in flight per replica beyond which a second of computing is not counted any dearer."""
BOUND = 1.25
"""How much more than the mean a replica may hold before it is passed over as a home (consistent hashing with bounded
loads, Mirrokni, Thorup and Zadimoghaddam 2018, over rendezvous order)."""
EVICTED_SHARE = 0.25
"""What a token that is pushed out costs, of computing it again, where nothing is known of its next use."""
LEAST_SPEED = 1e-3
"""Tokens a second below which no replica is taken to be, so that a wrong figure divides nothing by zero."""


@dataclass(frozen=True, slots=True)
class View:
    """What the index knows of a replica at the moment of choosing."""

    replica: Replica
    hit_tokens: int = 0
    """Of the wanted prefix: held, or about to be by a call in flight."""
    in_flight: int = 0
    queued_tokens: int = 0
    """Prompt tokens to be computed, booked by calls in flight."""
    queued_out: int = 0
    """Reply tokens, likewise."""
    busy_s: float = 0.0
    """Seconds that it has had for the booked work: since the later of the first booking and the last call's end."""
    evict_tokens: float = 0.0
    """Tokens that the call would push out; those that are not pinned count `EVICTED_SHARE`."""
    occupied_tokens: int = 0
    """What it holds, of all prefixes."""


class Picked(NamedTuple):
    """A place in the list of views, and what the call costs there."""

    place: int
    seconds: float


def prefill_seconds(wanted: Wanted, view: View) -> float:
    """To compute the prompt there, or to restore what was saved of it and compute the rest."""
    replica, prefill_tps = view.replica, max(LEAST_SPEED, view.replica.prefill_tps)
    hit = 0.0 if wanted.shared else replica.confidence * view.hit_tokens
    computed = (wanted.n_prompt - hit) / prefill_tps
    if replica.kind == "owned" and wanted.state_tokens > 0:
        restored = wanted.restore_s + (wanted.n_prompt - wanted.state_tokens) / prefill_tps
        computed = min(computed, restored)
    return max(0.0, computed)


def seconds(wanted: Wanted, view: View, crowd: float) -> float:
    """What the call costs there: work booked before it, waiting for a slot, its own prefill, and what others lose.

    Others lose twice: while this prompt is computed nothing else is, which counts once for each call in flight per
    replica (`crowd`); and pinned prefixes that are pushed out have to be computed or restored again.
    """
    replica, slots = view.replica, max(1, view.replica.slots)
    prefill_tps, decode_tps = max(LEAST_SPEED, replica.prefill_tps), max(LEAST_SPEED, replica.decode_tps)
    work = view.queued_tokens / prefill_tps + view.queued_out / (decode_tps * slots)
    queue = max(work * LATE_SHARE, work - view.busy_s)
    wait = 0.0
    if view.in_flight >= slots:
        hold = replica.hold_s or view.queued_out / decode_tps / view.in_flight
        wait = (view.in_flight - slots + 1) / slots * hold
    again = 0.0 if wanted.shared else 1.0 / prefill_tps
    if replica.kind == "owned" and wanted.state_tokens > 0:
        again = min(again, wanted.restore_s / wanted.state_tokens)
    return queue + wait + (1.0 + crowd) * prefill_seconds(wanted, view) + view.evict_tokens * again


def choose(wanted: Wanted, views: Sequence[View]) -> Picked | None:
    """The view with the least seconds; among equals the one that computes least; of these the one that has worked
    least where states are shared, else the affinity's home by rendezvous hashing, as long as it does not hold much
    more than its share. None without views."""
    if not views:
        return None
    crowd = min(MAX_CROWD, sum(view.in_flight for view in views) / len(views))
    costs = [seconds(wanted, view, crowd) for view in views]
    own = [prefill_seconds(wanted, view) for view in views]
    order = ranks(wanted, [view.replica for view in views])
    limit = min(costs) * (1.0 + TIE_SHARE)
    least = min(own[i] for i in range(len(views)) if costs[i] <= limit)
    held = sum(view.occupied_tokens for view in views)
    bound = BOUND * (held + wanted.n_prompt) / len(views)
    place, best = -1, (2.0, 0.0, 0)
    for i, view in enumerate(views):
        slack = TIE_SHARE * wanted.n_prompt / max(LEAST_SPEED, view.replica.prefill_tps)
        if costs[i] <= limit and own[i] <= least + slack:
            over = view.occupied_tokens > bound
            rank = (1.0, view.occupied_tokens, order[i]) if over else (0.0, 0.0, order[i])
            if wanted.shared:
                rank = (0.0, view.replica.work_tokens + view.queued_tokens, order[i])
            if rank < best:
                place, best = i, rank
    return Picked(place, costs[place])


def ranks(wanted: Wanted, replicas: Sequence[Replica]) -> list[int]:
    """Each replica's place in the rendezvous order of the call's affinity; 0 is its home."""
    key = wanted.affinity or (wanted.hashes[-1].hex() if wanted.hashes else wanted.request)
    order = {name: rank for rank, name in enumerate(rendezvous_order(key, [each.id for each in replicas]))}
    return [order[each.id] for each in replicas]
