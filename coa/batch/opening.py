"""The ledger of a batch: a file of this machine, or Redis, which machines share."""

from __future__ import annotations

from coa.batch.ledger import Ledger
from coa.batch.record import BatchRecord, BatchStore
from coa.batch.sqlite_ledger import SQLiteLedger
from coa.config import Settings, resolve_environment
from coa.errors import ConfigError

__all__ = ["is_shared", "open_ledger"]


def is_shared(record: BatchRecord) -> bool:
    """Whether processes of several machines may work on the ledger at the same time."""
    return record.redis


async def open_ledger(record: BatchRecord, present: Settings, store: BatchStore) -> Ledger:
    """The ledger of the batch; to be closed.

    Raises: ConfigError where it is in Redis and no Redis is configured, CacheError where Redis does not answer.
    """
    if not record.redis:
        return SQLiteLedger(store.ledger_path(record.batch_id))
    url = resolve_environment(present.redis_url)
    if url is None:
        raise ConfigError(f"the ledger of batch {record.batch_id} is in Redis.", hint="Set COA_REDIS_URL.")
    from coa.batch.redis_ledger import open_redis_ledger

    return await open_redis_ledger(url, record.batch_id)
