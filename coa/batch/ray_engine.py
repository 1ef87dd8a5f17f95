"""A batch worked on by a few actors of a Ray cluster, which lease documents from the shared ledger.

The driver only watches, see `coa.batch.watching`. When it dies, or the cluster's head, its actors end with it, and any
worker of the batch (`coa batch resume`, `coa batch worker`) goes on, with Ray or without.
"""

from __future__ import annotations

from collections.abc import Callable

from coa.api import StopSignal
from coa.batch.driving import Driven, Patience
from coa.batch.ledger import Ledger
from coa.batch.opening import is_shared
from coa.batch.ray_cluster import joined_cluster
from coa.batch.record import BatchRecord
from coa.batch.watching import watch_workers
from coa.config import Settings
from coa.errors import ConfigError

__all__ = ["DEFAULT_ACTORS", "drive_on_ray"]

DEFAULT_ACTORS = 2


async def drive_on_ray(
    record: BatchRecord,
    present: Settings,
    ledger: Ledger,
    *,
    stop: StopSignal,
    on_stage: Callable[[str], None] = lambda _: None,
    patience: Patience | None = None,
) -> Driven:
    """As `drive`, with actors of a cluster in place of this process.

    `record.extra` may have "actors" (their number) and "ray_address" (as in `joined_cluster`). Documents and calls
    at once are those of the batch, shared out. Raises: ConfigError for a ledger that is a file, RayFailed,
    WorkersFailed.
    """
    if not is_shared(record):
        raise ConfigError(
            "--engine ray needs a ledger in Redis, which its actors share.", hint="Set COA_REDIS_URL and start again."
        )
    address = record.extra.get("ray_address")
    on_stage("joining the Ray cluster")
    with joined_cluster(str(address) if address else None) as cluster:
        on_stage("")
        n_actors = int(record.extra.get("actors") or DEFAULT_ACTORS)
        return await watch_workers(cluster, record, present, ledger, n_workers=n_actors, stop=stop, patience=patience)
